"""The frame index of a file: presentation times, decoding order and keyframes, without decoding where possible."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING

import av
import numpy as np
from numpy.typing import NDArray

from refocus_select.errors import VideoDecodeError, VideoOpenError
from refocus_select.video._complete import is_cut_short
from refocus_select.video._keyframes import are_doubtful, keyframes_by_decoding
from refocus_select.video._matroska import breaks
from refocus_select.video._order import CODECS, Numbered, numbered, slots
from refocus_select.video._packets import Packets, beginning_of, first_bytes, has_gaps, read_packets, same_after_seeks
from refocus_select.video._table import read_table
from refocus_select.video._times import join_clocks, repaired
from refocus_select.video._transport import find_joins
from refocus_select.video.container import demuxed, open_container

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

DEFAULT_FPS = Fraction(25)  # for streams that carry no times at all; FFmpeg assumes the same
_CACHE_SIZE = 32
# Containers that store the time of every packet: it is the same after a seek. Elsewhere it is checked.
_OWN_TIMES = ("mp4", "matroska", "flv", "nut", "avi", "gif", "apng", "ivf")
_RAW = {"mpegvideo", "m4v"}  # streams without a container, whose times FFmpeg makes up
_CLOCKED = {"mpegts", "mpeg"}  # streams with a clock that may wrap, or start anew where recordings are joined
_FEW = 0.02  # of the packets of a stream without B pictures may step back in time; more, and it has some after all
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
        trimmed: an edit list cuts frames away.
        lost: places in decoding order from which on pictures may refer to some that are missing from the file.
        joins: places of whole packets that the demuxer marks only because another recording begins behind them.
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
    trimmed: bool = False
    lost: tuple[int, ...] = ()
    joins: frozenset[int] = frozenset()
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
_cache_lock = threading.Lock()


def frame_index(path: str, name: str, container: InputContainer, stream: VideoStream) -> FrameIndex:
    """The index of an opened file, kept in memory for the process under (path, size, time of change).

    Args:
        path, name: the file, and how to call it in messages.
        container, stream: as opened by `open_container`; their read position is changed.

    Raises:
        VideoOpenError: there is not one frame.
    """
    status = os.stat(path)
    key = (path, status.st_size, status.st_mtime_ns)
    with _cache_lock:
        index = _cache.get(key)
        if index is not None:
            _cache.move_to_end(key)
            return index
    table = read_table(path, container, stream, status.st_size)
    if table is not None:
        kept = np.ones(len(table.pts), dtype=bool)
        index = _sorted_index(name, stream, table.pts, table.keys, kept, table.last_duration, [])
    else:
        container, stream = open_container(path, name)  # the one given may have been read from
        with container:
            index = _from_packets(path, name, container, stream)
    with _cache_lock:
        _cache[key] = index
        while len(_cache) > _CACHE_SIZE:
            _cache.popitem(last=False)
    return index


def _renew_lock() -> None:
    global _cache_lock
    _cache_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)  # another thread may have held it


# -- from the packets ----------------------------------------------------------------------------------------------


def _from_packets(path: str, name: str, container: InputContainer, stream: VideoStream) -> FrameIndex:
    packets = read_packets(container, stream)
    if not packets.pts:
        raise VideoOpenError(f"{name}: its video stream holds no pictures; the file is damaged or cut short")
    index = _arranged(path, name, container, stream, packets)
    broken = breaks(path, packets.place, packets.size) if "matroska" in container.format.name else []
    if not broken:
        return index
    note = f"{name}: damaged behind packet {broken[0]} of the video; what cannot be read there is missing"
    return replace(index, lost=tuple(sorted({*index.lost, *broken})), notes=(*index.notes, note))


def _arranged(path: str, name: str, container: InputContainer, stream: VideoStream, packets: Packets) -> FrameIndex:
    kind, count = container.format.name, len(packets.pts)
    notes = _missing_end(path, name, kind, stream, packets)
    keys, kept = np.array(packets.key), ~np.array(packets.discard)
    is_misled = are_doubtful(path, stream, keys)  # a seek of FFmpeg is, too
    if is_misled:
        keys = keyframes_by_decoding(path, count)
    if kind in _SEQUENTIAL_CONTAINERS or not keys.any():
        keys[:] = False
        keys[0] = True
    has_times = kind not in _RAW and not any(p is None for p, k in zip(packets.pts, kept, strict=True) if k)
    # An AVI has no presentation times.
    if not has_times or (kind == "avi" and stream.codec_context.has_b_frames):
        return _by_decoding(path, name, stream, packets, keys, None, notes)
    pts = np.array([0 if p is None else p for p in packets.pts], dtype=np.int64)
    pts, is_counted, found = _continuous(name, kind, stream, packets, pts, keys)
    is_counted |= is_misled
    notes += found
    shown = pts[kept]
    steps = np.diff(shown)
    if len(np.unique(shown)) != len(shown) or (not stream.codec_context.has_b_frames and (steps < 0).any()):
        if not stream.codec_context.has_b_frames and (steps <= 0).mean() <= _FEW:
            return _in_order(name, stream, np.flatnonzero(kept), pts, keys, notes)
        return _by_decoding(path, name, stream, packets, keys, pts, notes)
    index = _sorted_index(name, stream, pts, keys, kept, packets.last_duration, notes)
    if packets.corrupt and kind == "mpegts":
        index = replace(index, joins=find_joins(path, stream.id, packets.corrupt, packets.place, np.flatnonzero(keys)))
    codec = stream.codec_context.codec.canonical_name
    if codec in CODECS and has_gaps(packets.dts):
        numbers = numbered(codec, stream.codec_context.extradata, first_bytes(path, name))
        if kind == "mpeg" and numbers is not None:  # stamps only some of its pictures with a time
            index = _timed_by_numbers(index, numbers)
        index = replace(index, lost=_lost(numbers, None, index.positions))
    if is_counted or not (any(own in kind for own in _OWN_TIMES) or same_after_seeks(container, stream, pts, keys)):
        return _counted(index)
    return index


def _missing_end(path: str, name: str, kind: str, stream: VideoStream, packets: Packets) -> list[str]:
    """A note on a file that ends too early."""
    count = len(packets.pts)
    if is_cut_short(path, kind):
        promise = f"the header promises {stream.frames} pictures, " if stream.frames > count else ""
        return [f"{name}: cut short: {promise}{count} can be read"]
    if packets.error is not None:
        return [f"{name}: reading stopped early ({packets.error}); only the part before is used"]
    return []


def _continuous(
    name: str, kind: str, stream: VideoStream, packets: Packets, pts: NDArray[np.int64], keys: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], bool, list[str]]:
    """Times on one clock, whether packets must be counted because the file's own clock is not, and notes."""
    if kind not in _CLOCKED:
        return pts, False, []
    dts = np.array([p if d is None else d for d, p in zip(packets.dts, pts.tolist(), strict=True)], dtype=np.int64)
    joined = join_clocks(pts, dts, keys, float(stream.time_base or Fraction(1, 90000)))
    if joined is None:
        # Times within a packet of a programme stream are worked out from those before: other ones after a seek.
        return pts, kind == "mpeg" or bool(pts.min() < 0), []
    notes = []
    if joined.starts:
        places = ", ".join(map(str, joined.starts[:5])) + (", ..." if len(joined.starts) > 5 else "")
        notes.append(
            f"{name}: {len(joined.starts) + 1} recordings in one file: its clock jumps at picture {places}; times "
            "go on there without a gap, in the order of the file"
        )
    return joined.pts, True, notes


def _sorted_index(
    name: str,
    stream: VideoStream,
    pts: NDArray[np.int64],
    keys: NDArray[np.bool_],
    kept: NDArray[np.bool_],
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
    time_base = stream.time_base or Fraction(1, 1000)
    seconds = (shown - shown[0]) * float(time_base)
    step = _usual_step(seconds)
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


# -- packets that are counted ----------------------------------------------------------------------------------------


def _counted(index: FrameIndex) -> FrameIndex:
    """The same frames and times, with packets recognised by their places."""
    return replace(
        index,
        pts=np.arange(len(index.pts), dtype=np.int64),
        key_pts=_ranks_of(index.key_positions, index.positions),
        counted=True,
    )


def _in_order(
    name: str,
    stream: VideoStream,
    order: NDArray[np.int64],
    pts: NDArray[np.int64],
    keys: NDArray[np.bool_],
    notes: list[str],
) -> FrameIndex:
    """Frames in a known order (`order` holds the places of their packets), whose times may repeat or step back."""
    order = order[order >= int(np.argmax(keys))]
    ticks = pts[order]
    time_base = float(stream.time_base or Fraction(1, 1000))
    stated = (ticks - ticks.min()) * time_base
    increasing = np.unique(stated)
    seconds, changed = repaired(stated, _usual_step(increasing) or float(1 / DEFAULT_FPS))
    if changed:
        notes.append(
            f"{name}: {changed} of {len(order)} times repeat or step back; those pictures were placed between their "
            "neighbours in time"
        )
    duration = float(seconds[-1] - seconds[0]) + (_usual_step(seconds) or float(1 / DEFAULT_FPS))
    key_positions = np.flatnonzero(keys)
    return FrameIndex(
        pts=np.arange(len(order), dtype=np.int64),
        positions=order,
        key_positions=key_positions,
        key_pts=_ranks_of(key_positions, order),
        times=seconds - seconds[0],
        start_time=float(ticks.min()) * time_base + float(seconds[0]),
        duration=duration,
        average_fps=_rate(stream, len(order), duration),
        counted=True,
        notes=tuple(notes),
    )


def _by_decoding(
    path: str,
    name: str,
    stream: VideoStream,
    packets: Packets,
    keys: NDArray[np.bool_],
    pts: NDArray[np.int64] | None,
    notes: list[str],
) -> FrameIndex:
    """For packets that carry no or ambiguous times: decodes once and notes which packet each picture is from."""
    order, heads, extradata = _decoded_order(path, name)
    if len(order) == 0:
        raise VideoDecodeError(f"{name}: not one picture can be decoded; the file is damaged")
    numbers = numbered(stream.codec_context.codec.canonical_name, extradata, heads)
    places = None if numbers is None else slots(numbers.order, order)
    if numbers is not None and places is None:  # where a reference is missing, decoders hand out pictures in disorder
        by_number = order[np.argsort(numbers.order[order], kind="stable")]
        places = slots(numbers.order, by_number)
        order = order if places is None else by_number
    if pts is not None:
        index = _in_order(name, stream, order, pts, keys, notes)
        return replace(index, lost=_lost(numbers, places, index.positions))
    rate = next((r for r in (stream.guessed_rate, stream.average_rate) if r and 0 < r <= 1000), DEFAULT_FPS)
    ticks = np.unique([d for d in packets.dts if d is not None])
    if len(ticks) == len(packets.dts) and len(ticks) >= len(order) and stream.time_base:
        seconds = (ticks[: len(order)] - ticks[0]) * float(stream.time_base)
        if places is not None and places[-1] > round(seconds[-1] / (_usual_step(seconds) or 1)):
            seconds = places * _usual_step(seconds)
    else:
        seconds = (np.arange(len(order)) if places is None else places) / float(rate)
        notes.append(f"{name}: the stream carries no times; {float(rate):g} frames per second are assumed")
    lost = _lost(numbers, places, order)
    if places is not None and places[-1] > len(order) - 1 and seconds[-1] > (len(order) - 0.5) * _usual_step(seconds):
        first = int(np.argmax(np.diff(places) > 1)) + 1
        notes.append(
            f"{name}: {int(places[-1]) - len(order) + 1} pictures are missing, the first before frame {first}; times "
            "leave room for them"
        )
    duration = float(seconds[-1]) + (_usual_step(seconds) or float(1 / rate))
    key_positions = np.flatnonzero(keys)
    return FrameIndex(
        pts=np.arange(len(order), dtype=np.int64),
        positions=order,
        key_positions=key_positions,
        key_pts=_ranks_of(key_positions, order),
        times=seconds,
        start_time=0.0,
        duration=duration,
        average_fps=_rate(stream, len(order), duration),
        counted=True,
        lost=lost,
        notes=tuple(notes),
    )


def _decoded_order(path: str, name: str) -> tuple[NDArray[np.int64], list[bytes], bytes | None]:
    """Places of the packets of all pictures, in the order in which the decoder shows them; first bytes of packets."""
    shown: dict[int, None] = {}  # an ordered set
    heads: list[bytes] = []
    # Not the caller's container, which stands at its end. The caller's stream stays valid for what is read below.
    container, again = open_container(path, name)
    with container:
        context = again.codec_context
        context.thread_type = av.codec.context.ThreadType.AUTO
        context.thread_count = 0
        extradata = context.extradata
        is_numbered = context.codec.canonical_name in CODECS
        for packet in demuxed(container, again, end=True):
            if packet.size:
                packet.pts = packet.dts = len(heads)
                heads.append(beginning_of(packet) if is_numbered else b"")
            try:
                pictures = context.decode(packet if packet.size else None)
            except (av.error.FFmpegError, EOFError):
                continue
            shown.update((picture.pts, None) for picture in pictures if picture.pts is not None)
    return np.array(list(shown), dtype=np.int64), heads, extradata


def _timed_by_numbers(index: FrameIndex, numbers: Numbered) -> FrameIndex:
    """Frames in the order of their numbers, by which those get their times that were worked out across a gap."""
    positions = index.positions[np.argsort(numbers.order[index.positions], kind="stable")]
    places, step = slots(numbers.order, positions), _usual_step(index.times)
    if places is None or step <= 0:
        return index
    first = float(np.median(index.times - places * step))
    by_number = first + places * step
    wrong = np.abs(index.times - by_number) > step / 2
    if wrong.mean() > 0.5:  # not of a constant rate after all
        return index
    times = np.where(wrong, by_number, index.times)
    end = index.duration - float(index.times[-1])
    return replace(index, positions=positions, times=times - times[0], duration=float(times[-1] - times[0]) + end)


def _lost(numbers: Numbered | None, places: NDArray[np.int64] | None, order: NDArray[np.int64]) -> tuple[int, ...]:
    """Places in decoding order from which on pictures may refer to some that are missing."""
    lost = set((numbers.lost or ()) if numbers is not None else ())
    if numbers is not None and places is not None and numbers.lost is None:
        for gap in np.flatnonzero(np.diff(places) > 1).tolist():
            before = order[: gap + 1]
            references = before[numbers.references[before]]
            lost.add(int(references.max()) + 1 if len(references) else 0)
    return tuple(sorted(lost))


def _usual_step(seconds: NDArray[np.float64]) -> float:
    return float(np.median(np.diff(seconds))) if len(seconds) > 1 else 0.0


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
