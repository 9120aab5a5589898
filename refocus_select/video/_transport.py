"""Where recordings were joined in an MPEG transport stream (ISO/IEC 13818-1): not every break is damage."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_PACKET, _SYNC = 188, 0x47
_NEAR = 3  # packets between one that is marked and the keyframe that follows: the demuxer marks early


def find_joins(
    path: str, pid: int, marked: Sequence[int], offsets: Sequence[int], key_positions: NDArray[np.int64]
) -> frozenset[int]:
    """Those of the marked packets that are whole: the counter breaks only where a keyframe's first bytes follow.

    Args:
        path: of the file.
        pid: number of the video stream.
        marked: places in decoding order of packets that the demuxer calls corrupt.
        offsets: where each packet begins, in bytes.
        key_positions: places in decoding order of the keyframes.
    """
    joins = set()
    with open(path, "rb") as file:
        for position in marked:
            following = int(key_positions.searchsorted(position, side="right"))
            if following == len(key_positions):
                continue
            key = int(key_positions[following])
            if key - position > _NEAR or not 0 <= offsets[position] < offsets[key]:
                continue
            file.seek(offsets[position])
            if _breaks_at_the_end(file.read(offsets[key] + _PACKET - offsets[position]), pid):
                joins.add(position)
    return frozenset(joins)


def _breaks_at_the_end(data: bytes, pid: int) -> bool:
    """Whether the counter of a stream goes on without a break until its last packet, which begins a picture."""
    counter: int | None = None
    last = len(data) - _PACKET
    for place in range(0, last + 1, _PACKET):
        packet = data[place : place + 4]
        if packet[0] != _SYNC or packet[1] & 0x80:
            return False
        if (packet[1] & 0x1F) << 8 | packet[2] != pid:
            continue
        begins, has_payload = bool(packet[1] & 0x40), bool(packet[3] & 0x10)
        if place == last:
            return begins
        if counter is not None and has_payload and packet[3] & 15 != (counter + 1) & 15:
            return False
        if has_payload:
            counter = packet[3] & 15
    return False
