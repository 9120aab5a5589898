"""The elements of a Matroska or WebM file (RFC 8794, RFC 9559), for what FFmpeg does not pass on."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import numpy as np

_HEADER, _SEGMENT, _CLUSTER, _GROUP, _BLOCK, _SIMPLE_BLOCK = 0x1A45DFA3, 0x18538067, 0x1F43B675, 0xA0, 0xA1, 0xA3
_TRACKS, _TRACK, _VIDEO = 0x1654AE6B, 0xAE, 0xE0
_SIZES = (0xB0, 0xBA)  # width, height
_CROPS = (0x54CC, 0x54BB, 0x54DD, 0x54AA)  # left, top, right, bottom
_ENTERED = {_SEGMENT, _CLUSTER, _GROUP}
_TOP_LEVEL = {_HEADER, 0x114D9B74, 0x1549A966, _TRACKS, 0x1C53BB6B, 0x1941A469, 0x1043A770, 0x1254C367}
_INSIDE = {_BLOCK, _SIMPLE_BLOCK, 0xE7, 0xAB, 0xA7, 0x5854, 0x9B, 0xFB, 0xFA, 0xFD, 0xA4, 0xA2, 0x8E, 0x75A1, 0x75A2}
_KNOWN = _ENTERED | _TOP_LEVEL | _INSIDE | {0xEC, 0xBF}
_HEAD = 12  # bytes of an identifier and a length
_MOST_ELEMENTS = 4096  # that are looked at behind one picture, such as the sound behind the last one


def number(data: bytes, place: int) -> tuple[int, int] | None:
    """A number of variable length and how many bytes it takes; None if it stands for "unknown"."""
    if place >= len(data) or data[place] == 0:
        return None
    width = 9 - data[place].bit_length()
    value = int.from_bytes(data[place : place + width], "big") & ((1 << 7 * width) - 1)
    return None if value == (1 << 7 * width) - 1 else (value, width)


def segment_end(file: BinaryIO) -> int:
    """Where the segment of a file ends; 0 if that is not written (live recordings)."""
    for kind, _, end in _elements(file, 0, os.fstat(file.fileno()).st_size):
        if kind != _HEADER:
            return end if kind == _SEGMENT and end is not None else 0
    return 0


def crop(path: str, track: int, width: int, height: int) -> tuple[int, int, int, int] | None:
    """(left, top, width, height) of the part of the pictures that is to be shown; None for all of it.

    Args:
        path: of the file.
        track: which of the tracks, in the order of the file.
        width, height: of its pictures.
    """
    with open(path, "rb") as file:
        video = _video_of(file, track)
        if video is None:
            return None
        found = {
            kind: _value(file, begin, end) for kind, begin, end in _elements(file, *video) if kind in _CROPS + _SIZES
        }
    if tuple(map(found.get, _SIZES)) != (width, height):
        return None
    left, top, right, bottom = (found.get(kind, 0) for kind in _CROPS)
    shown = (left, top, width - left - right, height - top - bottom)
    if shown[2] < 1 or shown[3] < 1 or shown == (0, 0, width, height):
        return None
    return shown


def breaks(path: str, offsets: Sequence[int], sizes: Sequence[int]) -> list[int]:
    """Places of packets behind which the file cannot be followed: damage, into which the packets themselves may reach.

    Only unusual distances between packets are looked at, and what follows the last one.

    Args:
        path: of the file.
        offsets: `[P]`, where each packet begins, in bytes, as FFmpeg tells it: behind the head of its block.
        sizes: `[P]`, bytes of each packet.
    """
    begins = np.asarray(offsets)
    gaps = np.diff(begins) - np.asarray(sizes)[:-1]
    unusual = np.flatnonzero(gaps > 64 + 8 * np.median(gaps)) if len(gaps) else np.zeros(0, dtype=int)
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        end = min(segment_end(file) or size, size)
        broken = [p for p in unusual.tolist() if not _leads_to(file, int(begins[p]), int(begins[p + 1]), size)]
        last = len(begins) - 1
        return [*broken, last] if begins[last] < end and not _leads_to(file, int(begins[last]), None, end) else broken


def _leads_to(file: BinaryIO, block: int, target: int | None, end: int) -> bool:
    """Whether elements follow each other from a block to the block at `target`, or up to `end` if there is none."""
    place = _end_of_block(file, block)
    if place is None:
        return True  # written in a way that is not known here
    for _ in range(_MOST_ELEMENTS):
        if place >= (end if target is None else target):
            return target is None
        head = _head(file, place)
        if head is None or head[0] not in _KNOWN:
            return target is None and end - place < _HEAD  # a file may end in the middle of a head
        kind, begin, following = head
        if begin == target:
            return True
        place = begin if kind in _ENTERED or following is None else following
    return True


def _end_of_block(file: BinaryIO, begin: int) -> int | None:
    """Where the block ends whose content begins there."""
    file.seek(max(0, begin - 9))
    before = file.read(min(9, begin))
    for width in range(1, 9):
        if len(before) > width and before[-width - 1] in (_BLOCK, _SIMPLE_BLOCK):
            found = number(before, len(before) - width)
            if found is not None and found[1] == width:
                return begin + found[0]
    return None


def _elements(file: BinaryIO, start: int, end: int) -> Iterator[tuple[int, int, int | None]]:
    """Identifier, start and end of the content of each element between two places; the last may end beyond `end`.

    The end is None where a length is not written.
    """
    while start < end:
        head = _head(file, start)
        if head is None:
            return
        yield head
        if head[2] is None:
            return
        start = head[2]


def _video_of(file: BinaryIO, track: int) -> tuple[int, int] | None:
    """Where the settings of the pictures of a track are."""
    segment = _inside(file, (0, os.fstat(file.fileno()).st_size), _SEGMENT)
    tracks = None if segment is None else _inside(file, segment, _TRACKS)
    entries = [] if tracks is None else [e for kind, *e in _elements(file, *tracks) if kind == _TRACK]
    if track >= len(entries):
        return None
    begin, end = entries[track]
    return None if end is None or begin is None else _inside(file, (begin, end), _VIDEO)


def _inside(file: BinaryIO, place: tuple[int, int], wanted: int) -> tuple[int, int] | None:
    """Start and end of the content of the first element of a kind between two places."""
    for kind, begin, end in _elements(file, *place):
        if kind == wanted:
            return begin, place[1] if end is None else min(end, place[1])
    return None


def _value(file: BinaryIO, begin: int, end: int | None) -> int:
    """A whole number."""
    file.seek(begin)
    return int.from_bytes(file.read(min(8, (end or begin) - begin)), "big")


def _head(file: BinaryIO, place: int) -> tuple[int, int, int | None] | None:
    file.seek(place)
    data = file.read(_HEAD)
    if len(data) < 2 or data[0] < 0x10:
        return None
    width = 9 - data[0].bit_length()
    kind = int.from_bytes(data[:width], "big")
    if width >= len(data) or data[width] == 0:
        return None
    begin = place + width + 9 - data[width].bit_length()
    length = number(data, width)
    return kind, begin, None if length is None else begin + length[0]
