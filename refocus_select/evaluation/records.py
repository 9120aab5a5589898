"""Results as lines of JSON that survive a process that is killed."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from ..errors import InputError


class RecordWriter:
    """Appends lines to a file; each is on the disk before the next is begun.

    Opening cuts off a last line that a killed process left half written. One process per file: shards have files of
    their own.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab+")
        size = self._file.seek(0, os.SEEK_END)
        whole = _end_of_last_line(self._file, size)
        if whole < size:
            self._file.truncate(whole)

    def write(self, row: dict[str, Any]) -> None:
        """Append one object."""
        line = json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"
        self._file.write(line.encode())
        self._file.flush()
        os.fsync(self._file.fileno())

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
        InputError: if a complete line is no JSON object.
    """
    if not path.is_file():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):  # being written, or left by a killed process
                return
            try:
                row = json.loads(line)
            except ValueError as error:
                raise InputError(
                    f"{path}, line {number}: not JSON ({error}); the file was changed or damaged"
                ) from error
            if not isinstance(row, dict):
                raise InputError(f"{path}, line {number}: not an object; the file is not of this evaluation")
            yield row


def write_text(path: Path, text: str) -> Path:
    """Write a file under a temporary name and move it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes private files; these are ordinary outputs
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def write_json(path: Path, content: Any) -> Path:
    """`write_text` of JSON."""
    return write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
