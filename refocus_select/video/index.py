"""The frame index of a file: presentation times, decoding order and keyframes, without decoding where possible."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING

import av
import numpy as np
from numpy.typing import NDArray

from refocus_select.errors import VideoDecodeError, VideoOpenError
from refocus_select.video.container import open_container

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

DEFAULT_FPS = Fraction(25)  # for streams that carry no times at all; FFmpeg assumes the same
_CACHE_SIZE = 32
_TABLE_MINIMUM = 512  # packets: reading fewer takes no time
_PROBE_PACKETS = 300
_SEQUENTIAL_CONTAINERS = {"gif", "apng"}  # pictures build on the canvas before them whatever their flags say


@dataclass(frozen=True)
class FrameIndex:
    """Where the frames of a stream are. N presented frames, K keyframes.

    Attributes:
        pts: int64 `[N]`, strictly increasing, the key of each frame; in units of `time_base`, or the packet's place
            in the file where packets carry no usable times (`counted`).
        positions: int64 `[N]`, place of each frame's packet in decoding order.
        key_positions, key_pts: int64 `[K]`, the keyframes in decoding order; the first may be assumed.
        times: float64 `[N]`, seconds from the first presented frame.
        start_time, duration: seconds.
        counted: packets are recognised by counting from the start of the file, so it is never sought in.
        guessed: made from the table of an mp4 without reading packets; decoding checks every packet against it.
        trimmed: an edit list cuts frames away.
        step: units between frames of a guessed index, else 0.
        average_fps: frames per second, as the container states it if the times bear it out.
        notes: what was unusual.
    """

    pts: NDArray[np.int64]
    positions: NDArray[np.int64]
    key_positions: NDArray[np.int64]
    key_pts: NDArray[np.int64]
    times: NDArray[np.float64]
    start_time: float
    duration: float
    average_fps: float
    counted: bool = False
    guessed: bool = False
    trimmed: bool = False
    step: int = 0
    notes: tuple[str, ...] = ()

    @property
    def keys(self) -> NDArray[np.int64]:
        """`[N]`, the number by which a decoded picture is recognised: its pts, or its packet's position."""
        return self.positions if self.counted else self.pts

    @cached_property
    def ranks(self) -> dict[int, int]:
        """Frame number by key, for counted packets."""
        return {int(key): rank for rank, key in enumerate(self.keys)}

    @property
    def has_open_gops(self) -> bool:
        """Whether frames follow a keyframe in the file but are shown before it."""
        last_key = np.searchsorted(self.key_positions, self.positions, side="right") - 1
        return bool((self.pts < self.key_pts[np.maximum(last_key, 0)]).any())

    @cached_property
    def keyframes(self) -> NDArray[np.int64]:
        """Frame numbers of the keyframes that are presented, sorted."""
        ranks = np.searchsorted(self.pts, self.key_pts) if not self.counted else None
        if ranks is None:
            order = np.argsort(self.positions)
            found = np.searchsorted(self.positions[order], self.key_positions)
            inside = found < len(order)
            ranks = order[found[inside]]
            keep = self.positions[ranks] == self.key_positions[inside]
        else:
            keep = ranks < len(self.pts)
            keep[keep] = self.pts[ranks[keep]] == self.key_pts[keep]
        return np.unique(ranks[keep]).astype(np.int64)

    @property
    def is_vfr(self) -> bool:
        """True if frames are not equally spaced, beyond the rounding of the container's clock."""
        if len(self.times) < 3:
            return False
        steps = np.diff(self.times)
        typical = float(np.median(steps))
        return bool(np.abs(steps - typical).max() > max(0.0021, 0.02 * typical))


_cache: OrderedDict[tuple[str, int, int], FrameIndex] = OrderedDict()
_mistrusted: set[str] = set()
_cache_lock = threading.Lock()


def frame_index(
    path: str, name: str, container: InputContainer, stream: VideoStream, *, full: bool = False
) -> FrameIndex:
    """The index of an opened file, kept in memory for the process under (path, size, time of change).

    Args:
        path, name: the file, and how to call it in messages.
        container, stream: as opened by `open_container`; their read position is changed.
        full: read all packets even if the table at hand looks good enough.

    Raises:
        VideoOpenError: there is not one frame.
    """
    status = os.stat(path)
    key = (path, status.st_size, status.st_mtime_ns)
    with _cache_lock:
        index = _cache.get(key)
        if index is not None and not (full and index.guessed):
            _cache.move_to_end(key)
            return index
    index = None if full or path in _mistrusted else _from_table(container, stream, status.st_size)
    if index is None:
        container, stream = open_container(path, name)  # the one given may have been read from
        with container:
            index = _from_packets(path, name, container, stream)
    with _cache_lock:
        _cache[key] = index
        while len(_cache) > _CACHE_SIZE:
            _cache.popitem(last=False)
    return index


def forget(path: str) -> None:
    """Drops a guessed index that proved wrong, and never guesses for this file again in this process."""
    with _cache_lock:
        _mistrusted.add(path)
        for key in [key for key in _cache if key[0] == path]:
            del _cache[key]


# -- from the packets ----------------------------------------------------------------------------------------------


def _from_packets(path: str, name: str, container: InputContainer, stream: VideoStream) -> FrameIndex:
    """Reads every packet once, without decoding."""
    pts: list[int | None] = []
    dts: list[int | None] = []
    key: list[bool] = []
    discard: list[bool] = []
    last_duration = 0
    notes: list[str] = []
    try:
        for packet in container.demux(stream):
            if packet.size == 0:
                continue
            pts.append(packet.pts)
            dts.append(packet.dts)
            key.append(packet.is_keyframe)
            discard.append(packet.is_discard)
            last_duration = packet.duration or last_duration
    except av.error.FFmpegError as error:
        notes.append(f"{name}: reading stopped early ({error.strerror}); only the part before is used")
    if not pts:
        raise VideoOpenError(f"{name}: its video stream holds no pictures; the file is damaged or cut short")
    promised = stream.frames
    if promised > len(pts):
        notes.append(f"{name}: cut short: the header promises {promised} pictures, {len(pts)} can be read")
    keys = np.array(key)
    if container.format.name in _SEQUENTIAL_CONTAINERS or not keys.any():
        keys[:] = False
        keys[0] = True
    kept = ~np.array(discard)
    known = [p for p, k in zip(pts, kept, strict=True) if p is not None and k]
    reordered = container.format.name == "avi" and stream.codec_context.has_b_frames  # avi has no presentation times
    if len(known) != kept.sum() or len(set(known)) != len(known) or reordered:
        return _by_decoding(path, name, stream, dts, keys, notes)
    time_base = stream.time_base or Fraction(1, 1000)
    times = np.array([0 if p is None else p for p in pts], dtype=np.int64)
    return _sorted_index(name, stream, times, keys, kept, time_base, last_duration, notes)


def _sorted_index(
    name: str,
    stream: VideoStream,
    pts: NDArray[np.int64],
    keys: NDArray[np.bool_],
    kept: NDArray[np.bool_],
    time_base: Fraction,
    last_duration: int,
    notes: list[str],
) -> FrameIndex:
    positions = np.arange(len(pts))
    first_key = int(np.argmax(keys))
    cut = ~kept
    # Players show nothing before the first picture that decodes alone, nor what precedes it in time.
    kept = kept & (positions >= first_key) & ((pts >= pts[first_key]) | (positions < first_key))
    if not kept.any():
        raise VideoOpenError(f"{name}: no picture can be presented; the file is damaged")
    order = np.argsort(pts[kept], kind="stable")
    shown = pts[kept][order]
    seconds = (shown - shown[0]) * float(time_base)
    step = float(np.median(np.diff(seconds))) if len(seconds) > 1 else 0.0
    last = last_duration * float(time_base)
    if not 0 < last < max(10 * step, 3600.0 if step == 0 else 0.0):
        last = step or float(1 / (stream.average_rate or DEFAULT_FPS))
    duration = float(seconds[-1]) + last
    return FrameIndex(
        pts=shown,
        positions=positions[kept][order],
        key_positions=positions[keys],
        key_pts=pts[keys],
        times=seconds,
        start_time=float(shown[0] * time_base),
        duration=duration,
        average_fps=_rate(stream, len(shown), duration),
        trimmed=bool(cut.any()),
        notes=tuple(notes),
    )


def _by_decoding(
    path: str,
    name: str,
    stream: VideoStream,
    dts: list[int | None],
    keys: NDArray[np.bool_],
    notes: list[str],
) -> FrameIndex:
    """For packets that carry no or ambiguous times: decodes once and notes which packet each picture is from."""
    shown: list[int] = []
    # Not the caller's container, which stands at its end. The caller's stream stays valid for what is read below.
    container, again = open_container(path, name)
    with container:
        context = again.codec_context
        context.thread_type = av.codec.context.ThreadType.AUTO
        context.thread_count = 0
        position = 0
        for packet in container.demux(again):
            if packet.size:
                packet.pts = packet.dts = position
                position += 1
            try:
                pictures = context.decode(packet if packet.size else None)
            except (av.error.FFmpegError, EOFError):
                continue
            shown += [picture.pts for picture in pictures if picture.pts is not None]
    seen: set[int] = set()
    order = np.array([p for p in shown if not (p in seen or seen.add(p))], dtype=np.int64)  # type: ignore[func-returns-value]
    if len(order) == 0:
        raise VideoDecodeError(f"{name}: not one picture can be decoded; the file is damaged")
    known = sorted({d for d in dts if d is not None})
    rate = next((r for r in (stream.guessed_rate, stream.average_rate) if r and 0 < r <= 1000), DEFAULT_FPS)
    if len(known) == len(dts) and len(known) >= len(order) and stream.time_base:
        ticks = np.array(known[: len(order)], dtype=np.int64)
        seconds = (ticks - ticks[0]) * float(stream.time_base)
        start = 0.0
    else:
        seconds = np.arange(len(order)) / float(rate)
        start = 0.0
        notes.append(f"{name}: the stream carries no times; {float(rate):g} frames per second are assumed")
    step = float(np.median(np.diff(seconds))) if len(seconds) > 1 else float(1 / rate)
    duration = float(seconds[-1]) + step
    key_positions = np.flatnonzero(keys)
    return FrameIndex(
        pts=np.arange(len(order), dtype=np.int64),
        positions=order,
        key_positions=key_positions,
        key_pts=_ranks_of(key_positions, order),
        times=seconds,
        start_time=start,
        duration=duration,
        average_fps=_rate(stream, len(order), duration),
        counted=True,
        notes=tuple(notes),
    )


def _ranks_of(positions: NDArray[np.int64], order: NDArray[np.int64]) -> NDArray[np.int64]:
    """Presentation rank of the packets at `positions`; one that is never shown takes the rank of the next shown."""
    ranks = np.full(int(max(order.max(), positions.max(initial=0))) + 2, len(order), dtype=np.int64)
    ranks[order] = np.arange(len(order))
    following = np.minimum.accumulate(ranks[::-1])[::-1]
    return np.where(ranks[positions] < len(order), ranks[positions], following[positions])


def _rate(stream: VideoStream, count: int, duration: float) -> float:
    """Frames per second: the container's figure where the times bear it out, else the count over the duration."""
    measured = count / duration if duration > 0 else float(DEFAULT_FPS)
    stated = float(stream.average_rate or 0)
    return stated if abs(stated - measured) <= 0.01 * measured else measured


# -- from the table of an mp4 ----------------------------------------------------------------------------------------


def _from_table(container: InputContainer, stream: VideoStream, file_size: int) -> FrameIndex | None:
    """Uses an mp4's table of packets, if it certainly describes equally spaced frames; else returns None.

    The table holds decoding times only. If those are equally spaced, n distinct presentation times on the same grid
    between the first and the (n-1)th step are the whole grid. The ends are checked here, the rest while decoding.
    """
    if not hasattr(stream, "index_entries"):  # before PyAV 17
        return None
    entries = stream.index_entries
    count = stream.frames
    if "mp4" not in container.format.name or count < _TABLE_MINIMUM or len(entries) != count:
        return None
    if stream.start_time is None or stream.time_base is None:
        return None
    dts = np.empty(count, dtype=np.int64)
    keys = np.zeros(count, dtype=bool)
    end = 0
    for i, entry in enumerate(entries):
        if entry.is_discard:
            return None
        dts[i] = entry.timestamp
        keys[i] = entry.is_keyframe
        end = max(end, entry.pos + entry.size)
    steps = np.diff(dts)
    if not (steps == steps[0]).all() or steps[0] <= 0 or end > file_size or not keys[0]:
        return None
    step = int(steps[0])
    pts = stream.start_time + step * np.arange(count, dtype=np.int64)
    positions = np.arange(count, dtype=np.int64)
    key_positions = np.flatnonzero(keys)
    if not _ends_agree(container, stream, pts, key_positions, step):
        return None
    seconds = (pts - pts[0]) * float(stream.time_base)
    duration = count * step * float(stream.time_base)
    return FrameIndex(
        pts=pts,
        positions=positions,
        key_positions=key_positions,
        key_pts=pts[key_positions],
        times=seconds,
        start_time=float(pts[0] * stream.time_base),
        duration=duration,
        average_fps=_rate(stream, count, duration),
        guessed=True,
        step=step,
    )


def _ends_agree(
    container: InputContainer,
    stream: VideoStream,
    pts: NDArray[np.int64],
    key_positions: NDArray[np.int64],
    step: int,
) -> bool:
    """Reads the packets at both ends: are keyframes where a closed GOP puts them, and is the last time the last one?"""
    try:
        container.seek(int(pts[0]), stream=stream)
        for position, packet in enumerate(_pictures(container, stream, _PROBE_PACKETS)):
            if packet.pts is None or (packet.pts - int(pts[0])) % step or packet.pts < pts[0]:
                return False
            if packet.is_keyframe and packet.pts != pts[position]:
                return False  # an open GOP, or more than one segment: better to know the true order
        container.seek(int(pts[key_positions[-1]]), stream=stream)
        tail = {packet.pts for packet in _pictures(container, stream, len(pts))}
    except av.error.FFmpegError:
        return False
    return {int(pts[-1]), int(pts[key_positions[-1]])} <= tail and all(p is not None and p <= pts[-1] for p in tail)


def _pictures(container: InputContainer, stream: VideoStream, limit: int) -> Iterator[Packet]:
    """At most `limit` packets from where the container stands."""
    for packet in islice(container.demux(stream), limit):
        if packet.size:
            yield packet
