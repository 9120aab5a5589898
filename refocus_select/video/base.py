"""What every opened video offers, whatever it was opened from: metadata, times, and frames by number."""

from __future__ import annotations

import logging
import operator
import os
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, fields
from functools import partial
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from refocus_select.errors import InputError, VideoDecodeError
from refocus_select.video.engine import Picture, SpanReader, fill, stream
from refocus_select.video.plan import Plan

logger = logging.getLogger(__name__)

MAX_PIXELS = 2**27  # pixels per picture, 16384 x 8192: anything larger is a mistake or a decompression bomb
MAX_OUTPUT_SIDE = 16384  # pixels

_alive: weakref.WeakSet[Video] = weakref.WeakSet()


@dataclass(frozen=True)
class VideoMetadata:
    """Facts about a video. Times in seconds; width and height in pixels of the pictures returned.

    Attributes:
        source: what was opened, for messages (a path, a URL, `"bytes"`, `"array"`).
        num_frames: presented frames; frames cut away by an edit list are not counted.
        duration: until the end of the last frame, on the clock of `Video.timestamps`: that of a file is zero at its
            first presented frame, and pictures keep the times that the caller gave them.
        start_time: the container's time at which `Video.timestamps` are zero.
        average_fps: frames per second.
        is_vfr: True if the frame rate varies.
        rotation: degrees counter-clockwise by which stored pictures are turned before they are returned.
        mirrored: True if stored pictures are mirrored left to right, before they are turned.
        pixel_aspect_ratio: width of a stored pixel over its height; pictures are returned with square pixels.
        codec: short FFmpeg name, such as `h264`; `image` or `array` where there is no codec.
        container: short FFmpeg name of the container, `images` or `array`.
        keyframe_interval: median seconds between pictures that decode alone; None if there is only one.
        backend: the decoder in use.
    """

    source: str
    num_frames: int
    duration: float
    start_time: float = 0.0
    average_fps: float = 0.0
    is_vfr: bool = False
    width: int = 0
    height: int = 0
    rotation: int = 0
    codec: str = ""
    container: str = ""
    keyframe_interval: float | None = None
    backend: str = ""
    mirrored: bool = False
    pixel_aspect_ratio: float = 1.0

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain Python values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> VideoMetadata:
        """From what `to_dict` gave, here or in another version: unknown fields are left out.

        Raises:
            TypeError: if `source`, `num_frames` or `duration` is missing.
        """
        return cls(**{field.name: facts[field.name] for field in fields(cls) if field.name in facts})


@dataclass(frozen=True)
class Frames:
    """Decoded pictures and where they come from.

    Attributes:
        data: uint8 `[N, H, W, 3]`, RGB.
        indices: int64 `[N]`, the frame numbers of the pictures in `data`.
        timestamps: float64 `[N]`, seconds, on the clock of `Video.timestamps`.
        valid: bool `[N]`; False where the frame asked for is damaged. `data`, `indices` and `timestamps` then
            hold the nearest earlier picture that could be decoded (the nearest later one if there is none).
        positions: int64 `[N]`, which entries of the requested indices these are.
    """

    data: NDArray[np.uint8]
    indices: NDArray[np.int64]
    timestamps: NDArray[np.float64]
    valid: NDArray[np.bool_]
    positions: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.indices)


class Video(ABC):
    """An opened video. Frames are asked for by number; every method may be called from several threads.

    Use it as a context manager, or call `close()` when done. A video that is open when the process forks can be read
    on both sides, and it can be pickled for another process on the same machine.
    """

    path: str | None = None
    """The file that is read, also of a URL or of bytes, while the video is open; None for pictures and arrays."""

    has_subtitles: bool = False
    """Whether that file holds a subtitle track."""

    _not_pickled: tuple[str, ...] = ("_warnings_lock", "_removals")

    def __init__(
        self,
        metadata: VideoMetadata,
        timestamps: NDArray[np.float64],
        fingerprint: str,
        warnings: Sequence[str] = (),
    ) -> None:
        self.metadata = metadata
        self.timestamps = np.ascontiguousarray(timestamps, dtype=np.float64)
        self.timestamps.setflags(write=False)
        self.fingerprint = fingerprint
        self._warnings: list[str] = []
        self._damaged: dict[int, int] = {}
        self._warnings_lock = threading.Lock()
        self._closed = False
        self._removals: list[weakref.finalize] = []
        for warning in warnings:
            self._warn(warning)
        _alive.add(self)

    # -- across processes ----------------------------------------------------------------------------------------

    def _start_afresh(self) -> None:
        """Makes the video usable in a process that did not open it: after a fork, or out of a pickle.

        Threads of the other process do not exist here, and a lock that one of them held would never be released.
        """
        self._warnings_lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        for name in self._not_pickled:
            state.pop(name, None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._removals = []  # temporary files belong to the process that wrote them
        self._start_afresh()
        _alive.add(self)

    # -- what a backend provides ---------------------------------------------------------------------------------

    @abstractmethod
    def _plan(self, targets: NDArray[np.int64], workers: int) -> Plan:
        """Cuts sorted unique frame numbers into spans for at most `workers` threads, in order of time."""

    @abstractmethod
    def _reader(self, targets: NDArray[np.int64], size: tuple[int, int], plan: Plan) -> SpanReader:
        """A reader of the plan's spans for one thread; `size` is (height, width) of the pictures to return."""

    def _snap(self, targets: NDArray[np.int64]) -> NDArray[np.int64]:
        """Moves sorted unique frame numbers to cheaper neighbours (keyframes) where there are any."""
        return targets

    def keep_stored_pixels(self) -> None:  # noqa: B027  # nothing to do for pictures and arrays
        """Returns pictures in their stored size even if their pixels are not square (see `open_video`)."""

    def _max_workers(self) -> int:
        """How many readers may run at once without using too much memory."""
        return 16

    # -- frames --------------------------------------------------------------------------------------------------

    def get_frames(
        self,
        indices: ArrayLike,
        *,
        size: tuple[int, int] | None = None,
        exact: bool = True,
        workers: int | None = None,
    ) -> Frames:
        """Decodes frames by number.

        Args:
            indices: frame numbers in any order, repetitions allowed; negative numbers are refused.
            size: (height, width) of the returned pictures; None keeps the video's own size.
            exact: True returns exactly these frames. False lets each move to the nearest keyframe within half the
                distance to its neighbours, which costs far less where frames are asked for farther apart than
                keyframes lie; the numbers and times of the pictures returned are in the result.
            workers: decoding threads; None takes the processors that are available.

        Returns:
            `Frames` in the order asked.

        Raises:
            InputError: an index is outside the video, or `size` is not usable.
            VideoDecodeError: not one of the pictures asked for could be decoded.
        """
        wanted = self._check_indices(indices)
        height, width = self._check_size(size)
        unique, rows = self._resolve(wanted, exact)
        plan = self._plan(unique, self._check_workers(workers))
        data = np.empty((len(unique), height, width, 3), dtype=np.uint8)
        got = unique.copy()
        valid = np.zeros(len(unique), dtype=bool)

        def put(position: int, picture: NDArray[np.uint8], index: int, good: bool) -> None:
            data[position] = picture
            got[position], valid[position] = index, good

        fill(plan.spans, lambda: self._reader(unique, (height, width), plan), plan.workers, put)
        self._report_damage(unique[~valid], got[~valid])
        # Already in the order asked is the common case; indexing would copy the pictures.
        if not np.array_equal(rows, np.arange(len(unique))):
            data, got, valid = data[rows], got[rows], valid[rows]
        return Frames(data, got, self.timestamps[got], valid, np.arange(len(wanted), dtype=np.int64))

    def iter_frames(
        self,
        indices: ArrayLike,
        *,
        size: tuple[int, int] | None = None,
        exact: bool = True,
        workers: int | None = None,
        chunk: int = 32,
        ordered: bool = True,
    ) -> Iterator[Frames]:
        """Decodes frames by number and hands them over in chunks while decoding goes on in the background.

        Args:
            indices, size, exact, workers: as in `get_frames`.
            chunk: frames per chunk (the last one may hold fewer).
            ordered: True gives the frames in the order asked. False gives each as soon as it is there;
                `Frames.positions` then says which entries of `indices` they are.

        Yields:
            `Frames`. Memory does not depend on how many are asked for. With `ordered=True` every ascending run of
            `indices` is decoded by itself, so ask in ascending order, or with `ordered=False`, where it matters.

        Raises:
            InputError, VideoDecodeError: as in `get_frames`.
        """
        wanted = self._check_indices(indices)
        height, width = self._check_size(size)
        if isinstance(chunk, bool) or not isinstance(chunk, int | np.integer) or chunk < 1:
            raise InputError(f"chunk must be a whole number of at least 1, not {chunk!r}")
        self._check_workers(workers)
        return self._iterate(wanted, (height, width), exact, workers, int(chunk), ordered)

    def _iterate(
        self,
        wanted: NDArray[np.int64],
        size: tuple[int, int],
        exact: bool,
        workers: int | None,
        chunk: int,
        ordered: bool,
    ) -> Iterator[Frames]:
        batch: list[tuple[Picture, int]] = []
        for run in _ascending_runs(wanted) if ordered else [slice(0, len(wanted))]:
            unique, inverse = self._resolve(wanted[run], exact)
            places = np.argsort(inverse, kind="stable")  # entries of the run, grouped by picture
            first = np.searchsorted(inverse[places], np.arange(len(unique) + 1))
            plan = self._plan(unique, self._check_workers(workers))
            pictures = stream(
                plan.spans,
                partial(self._reader, unique, size, plan),
                plan.workers,
                total=len(unique),
                frame_bytes=size[0] * size[1] * 3,
                chunk=chunk,
                ordered=ordered,
            )
            with closing(pictures):
                for picture in pictures:
                    if not picture.valid:
                        self._report_damage(unique[[picture.position]], np.array([picture.index]))
                    for place in places[first[picture.position] : first[picture.position + 1]]:
                        batch.append((picture, run.start + int(place)))
                        if len(batch) == chunk:
                            frames, batch = self._pack(batch), []  # the copies must not live on while consumed
                            yield frames
                            del frames
        if batch:
            yield self._pack(batch)

    def _pack(self, batch: list[tuple[Picture, int]]) -> Frames:
        got = np.array([picture.index for picture, _ in batch], dtype=np.int64)
        return Frames(
            data=np.stack([picture.data for picture, _ in batch]),
            indices=got,
            timestamps=self.timestamps[got],
            valid=np.array([picture.valid for picture, _ in batch], dtype=bool),
            positions=np.array([place for _, place in batch], dtype=np.int64),
        )

    # -- bookkeeping ---------------------------------------------------------------------------------------------

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was unusual about this video so far: damage, assumed times, substituted frames."""
        with self._warnings_lock:
            damaged = sorted(self._damaged.items())
            found = list(self._warnings)
        if damaged:
            shown = ", ".join(f"{asked} (by {got})" for asked, got in damaged[:5])
            more = f" and {len(damaged) - 5} more" if len(damaged) > 5 else ""
            found.append(f"{self.metadata.source}: damaged frames were replaced by neighbours: {shown}{more}")
        return tuple(found)

    def _warn(self, message: str) -> None:
        with self._warnings_lock:
            if message in self._warnings:
                return
            self._warnings.append(message)
        logger.warning("%s", message)

    def close(self) -> None:
        """Releases decoders and temporary files. Closing twice does no harm."""
        self._closed = True
        for remove in self._removals:
            remove()

    def _own_file(self, path: str) -> None:
        """Removes a temporary file with the video: when it is closed, forgotten, or the program ends."""
        self._removals.append(weakref.finalize(self, _remove_file, path, os.getpid()))

    def __enter__(self) -> Video:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return self.metadata.num_frames

    def __repr__(self) -> str:
        m = self.metadata
        return f"<Video {m.source!r}: {m.num_frames} frames, {m.duration:.2f} s, {m.width}x{m.height}, {m.backend}>"

    def _report_damage(self, asked: NDArray[np.int64], got: NDArray[np.int64]) -> None:
        if len(asked) == 0:
            return
        with self._warnings_lock:
            level = logging.DEBUG if self._damaged else logging.WARNING  # one warning per video
            self._damaged.update(zip(asked.tolist(), got.tolist(), strict=True))
        source, first = self.metadata.source, (int(asked[0]), int(got[0]))
        logger.log(level, "%s: damaged frames are replaced by neighbours, such as %d by %d", source, *first)

    def _nothing_decoded(self) -> VideoDecodeError:
        return VideoDecodeError(
            f"{self.metadata.source}: none of the frames asked for can be decoded, nor any near them; the file is "
            "damaged. Re-encode it (ffmpeg -i IN OUT.mp4), or use another copy"
        )

    # -- arguments -----------------------------------------------------------------------------------------------

    def _resolve(self, wanted: NDArray[np.int64], exact: bool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The sorted unique frames to decode for `wanted`, and for each entry of `wanted` which of them it gets."""
        unique, inverse = np.unique(wanted, return_inverse=True)
        if exact or len(unique) == 0:
            return unique, inverse
        snapped, again = np.unique(self._snap(unique), return_inverse=True)
        return snapped, again[inverse]

    def _check_indices(self, indices: ArrayLike) -> NDArray[np.int64]:
        if self._closed:
            raise InputError(f"{self.metadata.source}: the video has been closed; open it again")
        array = np.asarray(indices)
        if array.size == 0:
            return np.zeros(0, dtype=np.int64)
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise InputError(
                f"frame indices must be a flat list of whole numbers, not {array.dtype} of shape {array.shape}"
            )
        last = self.metadata.num_frames - 1
        if array.min() < 0 or array.max() > last:
            bad = array[(array < 0) | (array > last)][0]
            raise InputError(f"{self.metadata.source}: frame {bad} does not exist; the frames are 0 to {last}")
        return array.astype(np.int64)

    def _check_size(self, size: tuple[int, int] | None) -> tuple[int, int]:
        if size is None:
            return self.metadata.height, self.metadata.width
        try:
            height, width = (operator.index(side) for side in size)
        except (TypeError, ValueError):
            raise InputError(f"size must be (height, width) in pixels or None, not {size!r}") from None
        if not (1 <= height <= MAX_OUTPUT_SIDE and 1 <= width <= MAX_OUTPUT_SIDE):
            raise InputError(f"size must lie between 1 and {MAX_OUTPUT_SIDE} pixels, not {size!r}")
        return height, width

    def _check_workers(self, workers: int | None) -> int:
        if workers is None:
            return max(1, min(available_cpus(), self._max_workers()))
        if isinstance(workers, bool) or not isinstance(workers, int | np.integer) or workers < 1:
            raise InputError(f"workers must be a whole number of at least 1 or None, not {workers!r}")
        return int(workers)


def _remove_file(path: str, owner: int) -> None:
    if os.getpid() == owner:  # a forked child inherits the duty, but not the file
        with suppress(OSError):
            os.unlink(path)


def _after_fork() -> None:
    for video in list(_alive):
        video._start_afresh()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def available_cpus() -> int:
    """Processors that this process may use (its affinity where the system tells it)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _ascending_runs(indices: NDArray[np.int64]) -> list[slice]:
    """Cuts a list of indices where it descends: each piece can be decoded front to back."""
    cuts = (np.flatnonzero(np.diff(indices) < 0) + 1).tolist()
    return [slice(a, b) for a, b in zip([0, *cuts], [*cuts, len(indices)], strict=True)] if len(indices) else []
