"""Results of a batch while it runs: lines that survive a process that is killed, and the merge in order.

Beside RESULTS lies the folder RESULTS.parts until the last row is done. Every process appends to a part of its own; a
video's rows are written and put on the disk together. A line counts when it is complete, and a video when all its rows
are there.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from filelock import FileLock, Timeout

from ..errors import InputError
from ..files import remove_leftovers
from ..plain_text import json_text, parse_json, shown
from .output import cannot_write, write_output
from .results import write_rows

_OPEN_FILES = 32  # parts open at once while merging


class Workspace:
    """The folder of an unfinished batch, held by one process per shard.

    Attributes:
        target: the file that the batch writes.
        folder: what is kept until then.
        shard: (i, n).
    """

    def __init__(self, target: Path, shard: tuple[int, int]) -> None:
        self.target = target
        self.folder = target.with_name(target.name + ".parts")
        self.record = target.with_name(target.name + ".job.json")
        self.shard = shard
        self._lock = FileLock(self.folder / f"shard-{_label(shard)}.lock")

    def __enter__(self) -> Workspace:
        """Take the folder.

        Raises:
            OutputError: if it cannot be made.
            InputError: if another process works on the same output.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            remove_leftovers(self.folder)
            remove_leftovers(self.folder.parent)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise self._taken() from None
        except OSError as error:
            raise cannot_write(self.folder, error) from error
        for path in self.folder.glob("shard-*.lock"):  # somebody who divides the same work in another way
            if path.stem.split("-of-")[-1] != _label(self.shard).split("-of-")[-1] and _is_locked(path):
                self._lock.release()
                raise self._taken()
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        with suppress(OSError):  # others still work there
            others = [path for path in self.folder.glob("shard-*.lock") if _is_locked(path)]
            if self.is_empty() and not others:
                shutil.rmtree(self.folder)

    def _taken(self) -> InputError:
        return InputError(f"another run writes {self.target}; wait for it, or choose another --out")

    # -- parts --------------------------------------------------------------------------------

    def parts(self) -> list[Path]:
        """The files with results."""
        return sorted(self.folder.glob("part-*.jsonl"))

    def own_part(self) -> Path:
        """Where this process writes."""
        return self.folder / f"part-{_label(self.shard)}.jsonl"

    def is_empty(self) -> bool:
        """Whether nothing has been done yet."""
        return not self.parts() and not (self.folder / "job.json").exists()

    def clear(self) -> None:
        """Forget what was done, and the finished file."""
        try:
            for path in (*self.parts(), self.folder / "job.json", self.target, self.record):
                path.unlink(missing_ok=True)
        except OSError as error:
            raise cannot_write(self.target, error) from error

    def check_job(self, facts: dict[str, Any]) -> None:
        """Refuse to continue with other questions or settings; remember them at the first run.

        Raises:
            InputError: naming what is different.
        """
        path = self.folder / "job.json"
        if path.exists():
            check_facts(path, facts, self.target)
        else:
            write_output(path, lambda file: file.write(_as_json(facts)))

    def finished(self, facts: dict[str, Any]) -> bool:
        """Whether the file is there and holds the results of this job.

        Raises:
            InputError: if it holds something else.
        """
        if not self.target.exists():
            return False
        if not self.record.exists():
            raise InputError(f"{self.target} was not written by this command; choose another --out, or --overwrite")
        check_facts(self.record, facts, self.target)
        return True

    def finish(self, rows: Iterator[dict[str, Any]], facts: dict[str, Any], summary: dict[str, Any]) -> None:
        """Merge into the target, and remove the parts."""
        with FileLock(self.folder / "merge.lock"):
            if not self.target.exists():
                write_output(self.record, lambda file: file.write(_as_json({**facts, "result": summary})))
                write_output(self.target, lambda file: write_rows(rows, file, self.target))
        self.clean()

    def clean(self) -> None:
        """Remove the parts of a finished file."""
        for path in (*self.parts(), self.folder / "job.json"):
            with suppress(OSError):
                path.unlink(missing_ok=True)


class PartWriter:
    """Appends the rows of whole videos; each group is on the disk before the next begins."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = path.open("ab+", buffering=0)
            self._end = _end_of_last_line(self._file)
            self._file.truncate(self._end)  # cut off what a killed process left half written
        except OSError as error:
            raise cannot_write(path, error) from error

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        """Append rows.

        Raises:
            OutputError: if the disk is full or gone; no half row stays.
        """
        data = memoryview("".join(json_text(row) + "\n" for row in rows).encode())
        size = len(data)
        try:
            while data:
                data = data[self._file.write(data) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(self._end)
            raise cannot_write(self.path, error) from error
        self._end += size

    def __enter__(self) -> PartWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


class Progress:
    """Which rows are done, and where in the parts they lie."""

    def __init__(self, rows: int) -> None:
        self._part = np.full(rows, -1, dtype=np.int32)
        self._offset = np.zeros(rows, dtype=np.int64)
        self._failed = np.zeros(rows, dtype=bool)
        self._paths: list[Path] = []

    @property
    def done(self) -> np.ndarray:
        """Bool, one per row."""
        return self._part >= 0

    @property
    def failed(self) -> np.ndarray:
        """Bool, one per row: done, with an error."""
        return self._failed & self.done

    def read(self, paths: Sequence[Path]) -> None:
        """Look through the parts; of several lines for a row the last counts.

        Raises:
            InputError: if a complete line is none of ours.
        """
        self._paths, self._part = list(paths), np.full_like(self._part, -1)
        for number, path in enumerate(self._paths):
            offset = 0
            with path.open("rb") as file:
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    try:
                        row = parse_json(line)
                        position = row["position"]
                        if not isinstance(position, int) or not 0 <= position < len(self._part):
                            raise ValueError(f"there is no row {shown(position)}")
                        self._failed[position] = row["error"] is not None
                    except (ValueError, KeyError, TypeError) as error:
                        raise InputError(
                            f"{path} is damaged at byte {offset} ({error}); remove it and continue with --resume"
                        ) from error
                    self._part[position], self._offset[position] = number, offset
                    offset += len(line)

    def rows(self) -> Iterator[dict[str, Any]]:
        """The results of all rows in order; every row must be done."""
        files: dict[int, BinaryIO] = {}
        try:
            for part, offset in zip(self._part.tolist(), self._offset.tolist(), strict=True):
                if part not in files:
                    if len(files) >= _OPEN_FILES:
                        files.pop(next(iter(files))).close()
                    files[part] = self._paths[part].open("rb")
                files[part].seek(offset)
                row: dict[str, Any] = json.loads(files[part].readline())
                del row["position"]
                yield row
        finally:
            for file in files.values():
                file.close()


def check_facts(path: Path, facts: dict[str, Any], target: Path) -> None:
    """Compare with what an earlier run wrote down.

    Raises:
        InputError: naming what is different.
    """
    try:
        before = parse_json(path.read_bytes())
        if not isinstance(before, dict):
            raise ValueError("it does not describe a run")
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); start over with --overwrite") from error
    now = json.loads(json.dumps(facts))
    different = sorted(name for name in now if before.get(name) != now[name])
    if different:
        raise InputError(
            f"{target} was started with other {', '.join(different)}; use the same as then, choose another --out, or "
            "start over with --overwrite"
        )


def _as_json(content: Any) -> bytes:
    return (json_text(content, indent=2) + "\n").encode()


def _label(shard: tuple[int, int]) -> str:
    return f"{shard[0]:05d}-of-{shard[1]:05d}"


def _is_locked(path: Path) -> bool:
    lock = FileLock(path)
    try:
        with lock.acquire(timeout=0):
            return False
    except Timeout:
        return True


def _end_of_last_line(file: Any) -> int:
    """Where the last line break ends, 0 if there is none."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - 65_536)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return int(start + found + 1)
        end = start
    return 0
