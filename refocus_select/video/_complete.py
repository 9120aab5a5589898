"""Whether a file ends where its own structure says that it ends."""

from __future__ import annotations

import os
from typing import BinaryIO

from refocus_select.video._boxes import boxes
from refocus_select.video._matroska import segment_end

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
            return segment_end(file) > size
        if container == "avi":
            return _riff_end(file, size) > size
        if container in ("gif", "apng"):
            file.seek(max(size - _TAIL, 0))
            tail = file.read()
            return not tail.rstrip(b"\0").endswith(b";") if container == "gif" else b"IEND" not in tail
    return False


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
