"""The boxes of an mp4 (ISO/IEC 14496-12), for what FFmpeg does not pass on."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import BinaryIO

_ENTRY = 8 + 78  # bytes of a video's sample description before its own boxes


def boxes(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of the content of each box between two places; the last may end beyond `end`."""
    while start + 8 <= end:
        file.seek(start)
        head = file.read(16)
        if len(head) < 8:
            return
        size, kind = struct.unpack(">I4s", head[:8])
        begin = start + 8
        if size == 1 and len(head) == 16:
            size, begin = struct.unpack(">Q", head[8:])[0], start + 16
        if size == 0:  # to the end of the file
            size = end - start
        if size < begin - start:
            return
        yield kind, begin, start + size
        start += size


def inside(file: BinaryIO, place: tuple[int, int], *kinds: bytes) -> tuple[int, int] | None:
    """Start and end of the content of a box that lies in others, from the outside in; None if it is not there."""
    for kind in kinds:
        found = next(((begin, end) for name, begin, end in boxes(file, *place) if name == kind), None)
        if found is None:
            return None
        place = found
    return place


def sample_tables(file: BinaryIO, track: int) -> tuple[int, int] | None:
    """Where the tables (`stbl`) of a track are."""
    movie = inside(file, (0, os.fstat(file.fileno()).st_size), b"moov")
    for kind, begin, end in boxes(file, *movie) if movie is not None else ():
        if kind == b"trak" and _track_id(file, (begin, end)) == track:
            return inside(file, (begin, end), b"mdia", b"minf", b"stbl")
    return None


def clean_aperture(path: str, track: int, width: int, height: int) -> tuple[int, int, int, int] | None:
    """(left, top, width, height) of the part of the pictures that is to be shown; None for all of it.

    Args:
        path: of an mp4 or mov file.
        track: number of the track.
        width, height: of its pictures.
    """
    with open(path, "rb") as file:
        tables = sample_tables(file, track)
        place = None if tables is None else inside(file, tables, b"stsd")
        if place is None:
            return None
        start = place[0] + 8 + _ENTRY
        file.seek(place[0] + 8)
        entry = file.read(4)
        end = place[0] + 8 + (struct.unpack(">I", entry)[0] if len(entry) == 4 else 0)
        found = inside(file, (start, min(end, place[1])), b"clap")
        if found is None:
            return None
        file.seek(found[0])
        data = file.read(32)
    if len(data) < 32:
        return None
    numbers = struct.unpack(">IIIIiIiI", data)
    if 0 in numbers[1::2]:
        return None
    wide, high, right, down = (top / bottom for top, bottom in zip(numbers[::2], numbers[1::2], strict=True))
    left, top = round((width - wide) / 2 + right), round((height - high) / 2 + down)
    shown = (left, top, round(wide), round(high))
    if left < 0 or top < 0 or shown[2] < 1 or shown[3] < 1 or left + shown[2] > width or top + shown[3] > height:
        return None  # no part of the pictures
    return None if shown == (0, 0, width, height) else shown


def _track_id(file: BinaryIO, track: tuple[int, int]) -> int | None:
    head = inside(file, track, b"tkhd")
    if head is None:
        return None
    file.seek(head[0])
    data = file.read(24)
    if len(data) < 24:
        return None
    return int(struct.unpack_from(">I", data, 20 if data[0] == 1 else 12)[0])
