"""torchcodec on request: its exact mode, one decoder per thread, every returned time checked against the index."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refocus_select.errors import MissingDependencyError, UnsupportedVideoError, VideoDecodeError
from refocus_select.video._pyav import PyAVVideo
from refocus_select.video.arrays import Pixels
from refocus_select.video.base import SpanReader, Video
from refocus_select.video.engine import Put, Span
from refocus_select.video.images import PictureVideo, resized
from refocus_select.video.plan import Plan

_BATCH = 8  # pictures at full size held at once per thread


class TorchCodecVideo(PyAVVideo):
    """A video file read with torchcodec; its index, times and metadata are PyAV's."""

    backend = "torchcodec"

    def __init__(self, path: str, name: str, fingerprint: str) -> None:
        self._decoder_class = _import_decoder()
        super().__init__(path, name, fingerprint)
        try:
            if self.index.counted:
                raise UnsupportedVideoError(
                    f"{name}: torchcodec needs presentation times, which this stream lacks; use backend='pyav'"
                )
            if self.metadata.mirrored or self.crop is not None:
                raise UnsupportedVideoError(f"{name}: torchcodec neither mirrors nor crops; use backend='pyav'")
            count = len(self._open())
            if count != len(self.index.pts):
                raise UnsupportedVideoError(
                    f"{name}: torchcodec counts {count} frames, not {len(self.index.pts)}; use backend='pyav'"
                )
        except BaseException:
            self.close()
            raise

    def _open(self) -> Any:
        try:
            return self._decoder_class(self.path, seek_mode="exact", num_ffmpeg_threads=1, dimension_order="NHWC")
        except (RuntimeError, ValueError, OSError) as error:
            if "libtorchcodec" in str(error):
                raise _does_not_load(error) from error
            raise UnsupportedVideoError(
                f"{self.metadata.source}: torchcodec cannot open it ({_first_line(error)}); use backend='pyav'"
            ) from error

    def _reader(self, targets: NDArray[np.int64], size: tuple[int, int], plan: Plan) -> SpanReader:
        return _TorchCodecReader(self, targets, size)


class _TorchCodecReader:
    def __init__(self, video: TorchCodecVideo, targets: NDArray[np.int64], size: tuple[int, int]) -> None:
        self.video, self.targets, self.size = video, targets, size
        self.decoder = video._open()

    def read(self, span: Span, put: Put, check: Callable[[], None]) -> None:
        for start in range(span.start, span.stop, _BATCH):
            check()
            wanted = self.targets[start : min(start + _BATCH, span.stop)]
            try:
                batch = self.decoder.get_frames_at(indices=wanted.tolist())
            except (RuntimeError, IndexError, ValueError) as error:
                raise VideoDecodeError(
                    f"{self.video.metadata.source}: torchcodec cannot decode frames {wanted[0]} to {wanted[-1]} "
                    f"({_first_line(error)}); use backend='pyav', which returns what is left of a damaged file"
                ) from error
            self._check_times(wanted, batch.pts_seconds.numpy())
            for offset, picture in enumerate(self._scaled(batch.data)):
                put(start + offset, picture, int(wanted[offset]), True)

    def _check_times(self, wanted: NDArray[np.int64], seconds: NDArray[np.float64]) -> None:
        expected = self.video.timestamps[wanted] + self.video.metadata.start_time
        wrong = np.abs(seconds - expected) > 1e-4
        if wrong.any():
            raise UnsupportedVideoError(
                f"{self.video.metadata.source}: torchcodec returned another picture for frame {wanted[wrong][0]} "
                f"(at {seconds[wrong][0]:.3f} s, not {expected[wrong][0]:.3f} s); use backend='pyav'"
            )

    def _scaled(self, pictures: Any) -> NDArray[np.uint8]:
        if tuple(pictures.shape[1:3]) == self.size:
            return pictures.numpy()
        import torch.nn.functional as F

        scaled = F.interpolate(pictures.permute(0, 3, 1, 2), self.size, mode="bilinear", antialias=True)
        return scaled.permute(0, 2, 3, 1).numpy()

    def close(self) -> None:
        del self.decoder


def open_decoder(decoder: Any) -> Video:
    """A `VideoDecoder` that the caller has opened. It does not tell its times: everything is decoded once for them.

    Raises:
        VideoDecodeError: it cannot be decoded to the end.
    """
    lock = threading.Lock()  # a decoder is not made for several threads
    count, times, last = len(decoder), [], 0.0
    digest = hashlib.sha256()
    try:
        for start in range(0, count, _BATCH):
            batch = decoder.get_frames_in_range(start, min(start + _BATCH, count))
            times += batch.pts_seconds.tolist()
            last = float(batch.duration_seconds[-1])
            digest.update(Pixels(batch.data[:1])[0].tobytes())
    except (RuntimeError, IndexError, ValueError) as error:
        raise VideoDecodeError(
            f"VideoDecoder: frame {len(times)} of {count} or one behind it cannot be decoded ({_first_line(error)}); "
            "pass the path of the video instead"
        ) from error

    def load(index: int, size: tuple[int, int] | None) -> NDArray[np.uint8]:
        with lock:
            picture = Pixels(decoder.get_frame_at(index).data[None])[0]
        return picture if size is None else resized(picture, size)

    name = getattr(decoder.metadata, "path", None)  # set by `datasets.Video`
    name = name if isinstance(name, str) else "VideoDecoder"
    seconds = np.array(times) - times[0]
    return PictureVideo(
        load, count, name, "torchcodec", digest.hexdigest()[:32], timestamps=seconds, fps=None, last=last or None
    )


def _import_decoder() -> Any:
    try:
        from torchcodec.decoders import VideoDecoder
    except ImportError as error:
        raise MissingDependencyError("backend='torchcodec' needs torchcodec: pip install torchcodec") from error
    except (RuntimeError, OSError) as error:
        raise _does_not_load(error) from error
    return VideoDecoder


def _does_not_load(error: Exception) -> MissingDependencyError:
    return MissingDependencyError(
        f"torchcodec is installed but does not load ({_first_line(error)}); it needs the libraries of FFmpeg 4 to 8 "
        "on the system and the torch release that it was built for. backend='pyav' needs neither"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
