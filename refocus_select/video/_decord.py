"""decord on request: for parity with results published with it, on the files that it reads right.

decord 0.6.0 returns wrong frames without an error on open GOPs, intra refresh, MPEG-TS and edit lists, and fails on
AV1, GIF and raw streams. Such files are recognised with PyAV's index and refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refocus_select.errors import MissingDependencyError, UnsupportedVideoError, VideoDecodeError
from refocus_select.video._damage import decodes_alone
from refocus_select.video._pyav import PyAVVideo
from refocus_select.video.base import SpanReader
from refocus_select.video.engine import Put, Span
from refocus_select.video.images import resized
from refocus_select.video.plan import Plan

_BATCH = 32  # frames per call: decord returns them all at once
_TIME_TOLERANCE = 0.002  # seconds: decord keeps times in single precision
_CODECS = {"h264", "hevc", "vp8", "vp9", "mpeg4", "mpeg2video", "mpeg1video", "mjpeg"}
_CONTAINERS = ("mp4", "matroska", "avi")


class DecordVideo(PyAVVideo):
    """A video file read with decord; its index, times and metadata are PyAV's."""

    backend = "decord"

    def __init__(self, path: str, name: str, fingerprint: str) -> None:
        decord = _import_decord()
        super().__init__(path, name, fingerprint)
        self._decord = decord
        try:
            reason = self._why_not()
            if reason is not None:
                raise UnsupportedVideoError(
                    f"{name}: decord would return wrong frames: {reason}. Use backend='pyav', which reads it exactly"
                )
        except BaseException:
            self.close()
            raise

    def _why_not(self) -> str | None:
        """The reason why decord is known to be wrong on this file; None if it is not."""
        index, meta = self.index, self.metadata
        if index.counted:
            return "the stream has no usable presentation times"
        if meta.codec not in _CODECS:
            return f"its FFmpeg is too old for {meta.codec}"
        if not any(kind in meta.container for kind in _CONTAINERS):
            return f"its seeking is off in {meta.container}"
        if index.trimmed:
            return "the file has an edit list, which it ignores"
        if meta.mirrored or self.crop is not None:
            return "its pictures are to be mirrored or cropped, which it does not do"
        if index.has_open_gops:
            return "the file has open GOPs, after which its frame numbers are off"
        if index.notes:
            return "the file is damaged, and it hides damage"
        if not all(decodes_alone(self.path, self.name, index)):
            return "pictures are refreshed bit by bit (intra refresh), so its seeks land on later frames"
        reader = self._open(0, 0)
        if len(reader) != len(index.pts):
            return f"it counts {len(reader)} frames where there are {len(index.pts)}"
        times = reader.get_frame_timestamp(range(len(reader)))[:, 0]
        if np.abs(times - times[0] - index.times).max() > _TIME_TOLERANCE + 1e-6 * index.times[-1]:
            return "its frame times differ from the file's"
        return None

    def _open(self, height: int, width: int) -> Any:
        # More than two threads make it fail on VP9.
        try:
            return self._decord.VideoReader(
                self.path, width=width or -1, height=height or -1, num_threads=2 if self.metadata.codec != "vp9" else 1
            )
        except (RuntimeError, ValueError, self._decord.DECORDError) as error:  # ValueError: a name not in UTF-8
            raise UnsupportedVideoError(
                f"{self.metadata.source}: decord cannot open it ({_first_line(error)}); use backend='pyav'"
            ) from error

    def _plan(self, targets: NDArray[np.int64], workers: int) -> Plan:
        count = len(targets)
        return Plan([Span(a, min(a + _BATCH, count), None) for a in range(0, count, _BATCH)], 1)

    def _reader(self, targets: NDArray[np.int64], size: tuple[int, int], plan: Plan) -> SpanReader:
        return _DecordReader(self, targets, size)


class _DecordReader:
    def __init__(self, video: DecordVideo, targets: NDArray[np.int64], size: tuple[int, int]) -> None:
        self.video, self.targets = video, targets
        own = video.stored_size
        # It cannot turn and scale at once: turned videos are scaled afterwards.
        self.reader = video._open(*((0, 0) if size == own or video.metadata.rotation else size))
        self.size = size

    def read(self, span: Span, put: Put, check: Callable[[], None]) -> None:
        check()
        wanted = self.targets[span.start : span.stop].tolist()
        try:
            pictures = self.reader.get_batch(wanted).asnumpy()
        except (RuntimeError, self.video._decord.DECORDError) as error:
            raise VideoDecodeError(
                f"{self.video.metadata.source}: decord cannot decode frames {wanted[0]} to {wanted[-1]} "
                f"({_first_line(error)}); use backend='pyav', which returns what is left of a damaged file"
            ) from error
        if self.video.metadata.rotation:
            pictures = np.stack([resized(picture, self.size) for picture in pictures])
        if pictures.shape[1:3] != self.size:
            raise UnsupportedVideoError(
                f"{self.video.metadata.source}: decord returns pictures of {pictures.shape[1:3]} where {self.size} "
                "were asked for; use backend='pyav'"
            )
        for offset, picture in enumerate(pictures):
            put(span.start + offset, picture, wanted[offset], True)

    def close(self) -> None:
        # It decodes on into an unbounded queue until told to go elsewhere (decord issues 157, 208).
        self.reader.seek(0)
        del self.reader


def _import_decord() -> Any:
    try:
        import decord
    except ImportError as error:
        raise MissingDependencyError(
            "backend='decord' needs decord: pip install decord (Linux x86-64 and Windows only; decord2 elsewhere)"
        ) from error
    decord.logging.set_level(decord.logging.QUIET)
    return decord


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
