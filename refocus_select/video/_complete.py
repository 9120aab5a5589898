"""Whether a file ends where its own structure says that it ends."""

from __future__ import annotations

import os
from typing import BinaryIO

from refocus_select.video._boxes import boxes

_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_MP4_BOXES = {b"mdat", b"moov", b"moof"}  # others may be what somebody appended to the file
_TAIL = 4096  # bytes behind the last picture in which an end mark is looked for


def is_cut_short(path: str, container: str) -> bool:
    """Whether a file is shorter than its structure promises: a download that broke off, a full disk.

    Args:
        path: of the file.
        container: FFmpeg's name of its format. Formats without a length of their own (MPEG streams, raw streams)
            are never called cut short.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if "mp4" in container:
            return any(end > size for kind, _, end in boxes(file, 0, size) if kind in _MP4_BOXES)
        if "matroska" in container:
            return _matroska_end(file) > size
        if container == "avi":
            return _riff_end(file, size) > size
        if container in ("gif", "apng"):
            file.seek(max(size - _TAIL, 0))
            tail = file.read()
            return not tail.rstrip(b"\0").endswith(b";") if container == "gif" else b"IEND" not in tail
    return False


def _matroska_end(file: BinaryIO) -> int:
    """Where the segment of a Matroska file ends; 0 if that is not written (live recordings)."""
    head = file.read(256)
    if not head.startswith(_EBML):
        return 0
    length = _number(head, 4)
    if length is None:
        return 0
    place = 4 + length[1] + length[0]
    file.seek(place)
    head = file.read(16)
    length = _number(head, 4) if head.startswith(_SEGMENT) else None
    return 0 if length is None else place + 4 + length[1] + length[0]


def _number(data: bytes, place: int) -> tuple[int, int] | None:
    """A number of variable length and how many bytes it takes; None if it stands for "unknown"."""
    if place >= len(data) or data[place] == 0:
        return None
    width = 9 - data[place].bit_length()
    value = int.from_bytes(data[place : place + width], "big") & ((1 << 7 * width) - 1)
    return None if value == (1 << 7 * width) - 1 else (value, width)


def _riff_end(file: BinaryIO, size: int) -> int:
    """Where the last RIFF chunk of an AVI file ends; large files have several."""
    place = end = 0
    while place + 8 <= size:
        file.seek(place)
        head = file.read(8)
        length = int.from_bytes(head[4:], "little")
        if head[:4] != b"RIFF" or length == 0:  # not closed: a recording that was broken off is read to its end
            break
        end = place + 8 + length
        place = end + length % 2
    return end
