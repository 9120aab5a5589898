"""The table of an mp4: every packet's times without reading one packet."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, BinaryIO

import av
import numpy as np
from numpy.typing import NDArray

from refocus_select.video._boxes import inside, sample_tables
from refocus_select.video._keyframes import are_doubtful

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

MINIMUM = 512  # packets: reading fewer takes no time
_PROBES = 4  # places at which the table is compared with packets
_PROBE_PACKETS = 24
_MAX_BOX = 2**28  # bytes of a table that are read: 30 million packets


@dataclass(frozen=True)
class Table:
    """P packets in decoding order, in units of the stream's time base."""

    pts: NDArray[np.int64]
    keys: NDArray[np.bool_]
    last_duration: int


def read_table(path: str, container: InputContainer, stream: VideoStream, file_size: int) -> Table | None:
    """The table of an mp4, or None where it is short, cut by an edit list, or does not agree with the packets.

    FFmpeg shows decoding times, keyframes and places; the differences to presentation times are read from the file
    (ISO/IEC 14496-12, `ctts`). Both are compared with packets at several places.
    """
    if not hasattr(stream, "index_entries"):  # before PyAV 17
        return None
    entries = stream.index_entries
    count = stream.frames
    if "mp4" not in container.format.name or count < MINIMUM or len(entries) != count:
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
    if not (np.diff(dts) > 0).all() or end > file_size or not keys[0]:
        return None
    if are_doubtful(path, stream, keys):
        return None
    sizes = _differences(path, stream.id, count)
    if sizes is None:
        return None
    pts = dts + sizes[0]
    shift = _shift(container, stream, dts, pts, np.flatnonzero(keys))
    return None if shift is None else Table(pts + shift, keys, sizes[1])


def _shift(
    container: InputContainer,
    stream: VideoStream,
    dts: NDArray[np.int64],
    pts: NDArray[np.int64],
    key_positions: NDArray[np.int64],
) -> int | None:
    """What to add to the table's presentation times; None if packets at several places do not agree on it."""
    shifts: set[int] = set()
    chosen = np.linspace(0, len(key_positions) - 1, _PROBES).astype(int)
    try:
        for position in np.unique(key_positions[chosen]).tolist():
            container.seek(int(dts[position]), stream=stream)
            for packet in islice(container.demux(stream), _PROBE_PACKETS):
                if packet.size == 0:
                    continue
                if packet.pts is None or packet.dts is None:
                    return None
                place = int(dts.searchsorted(packet.dts))
                if place == len(dts) or dts[place] != packet.dts:
                    return None
                shifts.add(packet.pts - int(pts[place]))
                if len(shifts) > 1:
                    return None
    except av.error.FFmpegError:
        return None
    return shifts.pop() if shifts else None


def _differences(path: str, track: int, count: int) -> tuple[NDArray[np.int64], int] | None:
    """Presentation minus decoding time of each packet of a track, and the duration of the last packet."""
    with open(path, "rb") as file:
        tables = sample_tables(file, track)
        return None if tables is None else _read_differences(file, tables, count)


def _read_differences(file: BinaryIO, tables: tuple[int, int], count: int) -> tuple[NDArray[np.int64], int] | None:
    durations = _runs(file, inside(file, tables, b"stts"))
    if durations is None or len(durations) == 0:
        return None
    last = int(durations[-1, 1])
    where = inside(file, tables, b"ctts")
    if where is None:
        return np.zeros(count, dtype=np.int64), last
    runs = _runs(file, where)
    if runs is None or runs[:, 0].min(initial=0) < 0 or runs[:, 0].sum() != count:
        return None
    return np.repeat(runs[:, 1], runs[:, 0]), last


def _runs(file: BinaryIO, place: tuple[int, int] | None) -> NDArray[np.int64] | None:
    """`[R, 2]`: (how many packets, value) as `stts` and `ctts` hold them."""
    if place is None or not 8 <= place[1] - place[0] <= _MAX_BOX:
        return None
    file.seek(place[0])
    data = file.read(place[1] - place[0])
    if len(data) < 8:
        return None
    number = struct.unpack_from(">I", data, 4)[0]
    if len(data) < 8 + 8 * number:
        return None
    return np.frombuffer(data, dtype=">i4", count=2 * number, offset=8).reshape(-1, 2).astype(np.int64)
