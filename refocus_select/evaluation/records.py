"""Results as lines of JSON that survive a process that is killed."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import MISSING, fields
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from .. import files
from ..errors import InputError
from ..plain_text import is_utf8, json_text, parse_json, printable, shown

T = TypeVar("T")


class RecordWriter:
    """Appends lines to a file; each is on the disk before the next is begun.

    Opening cuts off a last line that a killed process left half written. One process per file: shards have files of
    their own.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab+", buffering=0)
            self._end = self._file.seek(0, os.SEEK_END)
            whole = _end_of_last_line(self._file, self._end)
            if whole < self._end:
                self._file.truncate(whole)
                self._end = whole

    def write(self, row: dict[str, Any]) -> None:
        """Append one object; no half line stays if there is no room for it.

        Raises:
            InputError: if it cannot be written.
        """
        line = (json_text(row) + "\n").encode()
        with writing(self.path):
            try:
                if self._file.write(line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(self._file.fileno())
            except OSError:
                with suppress(OSError):
                    self._file.truncate(self._end)
                raise
        self._end += len(line)

    def __enter__(self) -> RecordWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._file.close()


def _end_of_last_line(file: Any, size: int) -> int:
    """Where the last line break ends, 0 if there is none."""
    end = size
    while end:
        start = max(0, end - 65_536)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return int(start + found + 1)
        end = start
    return 0


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """The complete lines of a file that may still be written to; nothing if it is not there.

    Raises:
        InputError: if a complete line is not a JSON object.
    """
    if not path.is_file():
        return
    try:
        opened = path.open("rb")
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check its permissions") from error
    with opened as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):  # being written, or left by a killed process
                return
            try:
                row = parse_json(line)
            except ValueError as error:
                raise InputError(
                    f"{path}, line {number}: not JSON ({error}); the file was changed or damaged"
                ) from error
            if not isinstance(row, dict):
                raise InputError(f"{path}, line {number}: not an object; the file is not of this evaluation")
            yield row


def from_row(kind: Callable[..., T], row: Any) -> T:
    """A dataclass of plain fields from what JSON kept of it; further fields are left out.

    Raises:
        ValueError: if a field is missing or of another type.
    """
    if not isinstance(row, dict):
        raise ValueError(f"{shown(row)} is not an object with fields")
    values = {}
    for item in fields(kind):  # type: ignore[arg-type]
        if item.name not in row:
            if item.default is MISSING:
                raise ValueError(f"{item.name} is missing")
            continue
        value = _tuples(row[item.name])
        if not _fits(value, str(item.type)):
            raise ValueError(f"{item.name} is {shown(row[item.name])}")
        values[item.name] = value
    return kind(**values)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _fits(value: Any, kind: str) -> bool:
    """Whether a value is of the type that an annotation names."""
    if kind.endswith(" | None"):
        return value is None or _fits(value, kind.removesuffix(" | None"))
    if kind.startswith("tuple[") and kind.endswith(", ...]"):
        return isinstance(value, tuple) and all(_fits(item, kind[6:-6]) for item in value)
    if kind == "tuple[float, float]":
        return isinstance(value, tuple) and len(value) == 2 and all(_fits(item, "float") for item in value)
    if kind == "float":
        return _fits(value, "int") or (isinstance(value, float) and math.isfinite(value))
    if kind == "int":
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    return kind == "str" and isinstance(value, str) and is_utf8(value)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Errors of the system while a file of an evaluation is written, as ours.

    Raises:
        InputError: naming the file and the remedy.
    """
    try:
        yield
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror or error}; what is finished is kept: make room or change the "
            "folder's permissions and run again, or choose another folder with --out"
        ) from error


def write_bytes(path: Path, content: bytes) -> Path:
    """Write a file under a temporary name and move it into place.

    Raises:
        InputError: if it cannot be written.
    """
    with writing(path):
        return files.write_bytes(path, content)


def write_text(path: Path, text: str) -> Path:
    """`write_bytes` of text as UTF-8."""
    return write_bytes(path, printable(text).encode())


def read_json(path: Path) -> Any:
    """A JSON file of an evaluation.

    Raises:
        InputError: if it cannot be read.
    """
    try:
        return parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); it was changed or damaged") from error


def write_json(path: Path, content: Any) -> Path:
    """`write_text` of JSON."""
    return write_text(path, json_text(content, indent=2) + "\n")
