"""The packets of a file, read once without decoding, and what they tell of gaps in it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

import av
import numpy as np
from numpy.typing import NDArray

from refocus_select.video._order import HEAD
from refocus_select.video.container import demuxed, open_container

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

_PROBES, _PROBE_PACKETS = 3, 32


@dataclass
class Packets:
    """P packets in the order of the file; `place` is where each begins, `size` its bytes, `corrupt` the marked ones."""

    pts: list[int | None] = field(default_factory=list)
    dts: list[int | None] = field(default_factory=list)
    key: list[bool] = field(default_factory=list)
    corrupt: list[int] = field(default_factory=list)
    place: list[int] = field(default_factory=list)
    size: list[int] = field(default_factory=list)
    discard: list[bool] = field(default_factory=list)
    last_duration: int = 0
    error: str | None = None


def read_packets(container: InputContainer, stream: VideoStream) -> Packets:
    """Reads every packet once, without decoding."""
    found = Packets()
    try:
        for packet in demuxed(container, stream):
            found.pts.append(packet.pts)
            found.dts.append(packet.dts)
            found.key.append(packet.is_keyframe)
            found.discard.append(packet.is_discard)
            found.place.append(-1 if packet.pos is None else packet.pos)
            found.size.append(packet.size)
            if packet.is_corrupt:
                found.corrupt.append(len(found.pts) - 1)
            found.last_duration = packet.duration or found.last_duration
    except av.error.FFmpegError as error:
        found.error = error.strerror
    return found


def has_gaps(dts: list[int | None]) -> bool:
    """Whether packets of a constant rate lack some, or are not in order: pictures may refer to missing ones then."""
    steps = np.diff(np.array([d for d in dts if d is not None], dtype=np.float64))
    if len(steps) == 0:
        return False
    usual = float(np.median(steps))
    return bool(
        (steps < 0).any() or ((steps > 1.5 * usual).any() and (np.abs(steps - usual) < 0.1 * usual).mean() > 0.8)
    )


def first_bytes(path: str, name: str) -> list[bytes]:
    """The first bytes of every packet."""
    container, stream = open_container(path, name)
    with container, suppress(av.error.FFmpegError):
        return [beginning_of(packet) for packet in demuxed(container, stream)]
    return []


def beginning_of(packet: Packet) -> bytes:
    return bytes(memoryview(cast(Any, packet))[:HEAD])


def same_after_seeks(
    container: InputContainer, stream: VideoStream, pts: NDArray[np.int64], keys: NDArray[np.bool_]
) -> bool:
    """Whether packets carry the same times after a seek as when all are read in order."""
    places = np.flatnonzero(keys)
    try:
        for place in np.unique(places[np.linspace(0, len(places) - 1, _PROBES).astype(int)]).tolist():
            container.seek(int(pts[place]), stream=stream)
            expected: list[int] | None = None
            for packet in islice(container.demux(stream), 4 * _PROBE_PACKETS):
                if packet.size == 0:
                    break
                if expected is None and packet.pts == pts[place]:
                    expected = pts[place : place + _PROBE_PACKETS].tolist()[::-1]
                if expected and expected.pop() != packet.pts:
                    return False
    except av.error.FFmpegError:
        return False
    return True
