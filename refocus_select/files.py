"""Files and folders that are complete or not there: written under a temporary name, then moved into place.

They get the permissions that the process gives to every file it makes (its umask). What a killed process leaves is
named `.refocus-…` and removed by `remove_leftovers`, which whoever works in a folder calls when it starts.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from .plain_text import json_text

_TEMPORARY = re.compile(r"\.refocus-(?P<machine>[0-9a-f]{8})-(?P<process>\d+)-[0-9a-f]{8}(\..*)?", re.DOTALL)
_ABANDONED = 24 * 3600.0  # seconds after which nobody is taken to be still writing, wherever the writer runs


@contextmanager
def replacing(target: Path, *, sync: bool = False) -> Iterator[Path]:
    """A temporary file beside the target, for whatever writes by name; moved onto the target if the block ends well.

    Args:
        target: its folder is made if it is missing.
        sync: put the content on the disk first, so that it outlives a crash of the machine.

    Raises:
        OSError: if it cannot be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = _name_beside(target)
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    mode = stat.S_IMODE(temporary.stat().st_mode)  # as the umask leaves it: asking for the umask would change it
    try:
        yield temporary
        if stat.S_IMODE(temporary.stat().st_mode) != mode:  # safetensors makes a private file of its own
            temporary.chmod(mode)
        if sync:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def replacing_folder(target: Path) -> Iterator[Path]:
    """A temporary folder beside the target; its files are put on the disk and it takes the target's place.

    Raises:
        OSError: if it cannot be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary, old = _name_beside(target), _name_beside(target)
    temporary.mkdir()
    try:
        yield temporary
        plain = 0o666 & stat.S_IMODE(temporary.stat().st_mode)
        for path in temporary.iterdir():
            path.chmod(plain)
            with path.open("rb+") as file:
                os.fsync(file.fileno())
        if target.exists():
            os.replace(target, old)
        try:
            os.replace(temporary, target)
        except OSError:
            if old.exists():
                os.replace(old, target)
            raise
    finally:
        for leftover in (temporary, old):
            shutil.rmtree(leftover, ignore_errors=True)


def write_file(target: Path, write: Callable[[BinaryIO], object], *, sync: bool = False) -> Path:
    """Write a file through a function that fills an open one; see `replacing`."""
    with replacing(target, sync=sync) as temporary, temporary.open("wb") as file:
        write(file)
    return target


def write_bytes(target: Path, content: bytes, *, sync: bool = False) -> Path:
    """Write a file; see `replacing`."""
    return write_file(target, lambda file: file.write(content), sync=sync)


def write_text(target: Path, text: str, *, sync: bool = False) -> Path:
    """Write a text file in UTF-8, with the same line ends on every system; see `replacing`."""
    return write_bytes(target, text.encode(), sync=sync)


def write_json(target: Path, content: Any) -> Path:
    """Write JSON; see `replacing`.

    Raises:
        ValueError: for numbers that JSON does not have (nan, infinity).
    """
    return write_text(target, json_text(content, indent=2) + "\n")


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files and folders of processes that are dead; what cannot be removed stays.

    A process of another machine, or of another container, counts as dead when its file is a day old.
    """
    try:
        found = [entry for entry in os.scandir(folder) if _is_abandoned(entry)]
    except OSError:  # not there yet, or not readable: nothing to do
        return
    for entry in found:
        with suppress(OSError):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                os.unlink(entry.path)


def _is_abandoned(entry: os.DirEntry[str]) -> bool:
    match = _TEMPORARY.fullmatch(entry.name)
    if match is None:
        return False
    if match["machine"] == _machine() and os.name == "posix":
        return not _is_alive(int(match["process"]))
    try:
        return time.time() - entry.stat(follow_symlinks=False).st_mtime > _ABANDONED
    except OSError:  # removed meanwhile
        return False


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)  # asks only; on Windows it would end the process
    except ProcessLookupError:
        return False
    except OSError:  # of another user
        return True
    return True


def _name_beside(target: Path) -> Path:
    return target.with_name(f".refocus-{_machine()}-{os.getpid()}-{secrets.token_hex(4)}{target.suffix}")


@cache
def _machine() -> str:
    """What process numbers are unique within: one start of one machine, and on Linux one container."""
    facts = [platform.node()]
    with suppress(OSError):
        facts += [Path("/proc/sys/kernel/random/boot_id").read_text("ascii"), os.readlink("/proc/self/ns/pid")]
    return hashlib.sha256("\n".join(facts).encode("utf-8", "surrogateescape")).hexdigest()[:8]
