"""`open_video`: from whatever holds a video to a `Video`."""

from __future__ import annotations

import hashlib
import os
from typing import Any

from refocus_select.errors import InputError
from refocus_select.video.base import Video
from refocus_select.video.container import check_regular_file


def open_video(source: Any, *, backend: str | None = None, timestamps: Any = None, fps: float | None = None) -> Video:
    """Opens a video file."""
    from refocus_select.video._pyav import PyAVVideo

    if not isinstance(source, str | os.PathLike):
        raise InputError(f"cannot open a video from {type(source).__name__}")
    path = os.path.abspath(os.fspath(source))
    check_regular_file(path, str(source))
    return PyAVVideo(path, os.fspath(source), fingerprint_of(path))


def fingerprint_of(path: str) -> str:
    """A cheap identity of a file's content: path, size, time of change, and a hash of its head and tail."""
    status = os.stat(path)
    digest = hashlib.sha256(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\0".encode(errors="surrogateescape"))
    with open(path, "rb") as file:
        digest.update(file.read(65536))
        file.seek(max(status.st_size - 65536, 0))
        digest.update(file.read(65536))
    return digest.hexdigest()[:32]
