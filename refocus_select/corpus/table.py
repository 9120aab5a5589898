"""The questions of a batch: on disk, in order, and grouped by video."""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import InputError
from ..plain_text import MAX_DEPTH, json_text, printable
from ..questions import BESIDE, KNOWN_FIELDS, Problem, Question, as_row, iter_questions
from ..video.inputs import VideoInput, read_input

Source = str | os.PathLike[str] | Iterable[Mapping[str, Any]]


@dataclass(frozen=True)
class VideoJob:
    """A video and all its questions: what is done in one go, or not at all.

    Attributes:
        number: of the video, in the order of the table.
        video: path or URL.
        positions: of the rows in the table.
        questions: one for each position.
        beside: what the rows say of the video (`questions.BESIDE`).
    """

    number: int
    video: str
    positions: tuple[int, ...]
    questions: tuple[Question, ...]
    beside: Mapping[str, Any] = field(default_factory=dict)

    @property
    def given(self) -> VideoInput:
        """The video as it was handed over.

        Raises:
            InputError: what stands beside it is not usable.
        """
        return read_input(self.video, self.beside)


class QuestionTable:
    """Rows in a temporary file; memory holds an offset and a video number for each, and the names.

    Attributes:
        digest: sha256 of all rows, to know the same questions again.
        videos: distinct videos with what is said of them, in order of their first row.
    """

    def __init__(self, source: Source, *, root: str | os.PathLike[str] | None = None) -> None:
        """Read all rows once.

        Args:
            source, root: as for `refocus_select.questions.read_questions`.

        Raises:
            InputError: if there is no such table, no row in it, or no room for temporary files.
        """
        self._file = tempfile.TemporaryFile(prefix="refocus-questions-")  # noqa: SIM115 (lives as long as the table)
        self._offsets, owners = array("q"), array("q")
        self.videos: dict[str, int] = {}
        first_row: dict[str, int] = {}
        digest = hashlib.sha256()
        end = 0
        for found in iter_questions(source, root=root):
            row = _row(found, first_row, len(owners) + 1)
            line = json_text(row).encode() + b"\n"
            try:
                self._file.write(line)
            except OSError as error:
                raise InputError(f"no room for temporary files in {tempfile.gettempdir()} ({error.strerror})") from None
            digest.update(line)
            self._offsets.append(end)
            end += len(line)
            owners.append(-1 if "error" in row else self.videos.setdefault(_key(row), len(self.videos)))
        if not owners:
            raise InputError("there are no questions; give a table with the columns video and question")
        self._file.flush()
        self.digest = digest.hexdigest()
        self._owners = np.array(owners, dtype=np.int64)
        self._by_video = np.argsort(self._owners, kind="stable")
        self._edges = np.searchsorted(self._owners[self._by_video], np.arange(len(self.videos) + 1))

    def __len__(self) -> int:
        """Number of rows, broken ones included."""
        return len(self._owners)

    def row(self, position: int) -> dict[str, Any]:
        """A row as it was read; a broken one has only `error` and what is known."""
        self._file.seek(self._offsets[position])
        row: dict[str, Any] = json.loads(self._file.readline())
        return row

    def broken(self) -> np.ndarray:
        """Positions of the rows that are not questions, int64."""
        return np.flatnonzero(self._owners < 0)

    def jobs(self, done: np.ndarray, *, part: tuple[int, int] = (0, 1)) -> Iterator[VideoJob]:
        """The videos with a question that is not done, each with all its questions.

        Args:
            done: bool, one per row.
            part: (i, n): every n-th video, from the i-th on.
        """
        for number in self.open_videos(done, part=part):
            positions = self._positions(number)
            questions = tuple(_question(self.row(int(place))) for place in positions)
            row = self.row(int(positions[0]))
            yield VideoJob(number, row["video"], tuple(positions.tolist()), questions, _beside(row))

    def open_videos(self, done: np.ndarray, *, part: tuple[int, int] = (0, 1)) -> Iterator[int]:
        """Numbers of the videos that `jobs` yields."""
        for number in range(part[0], len(self.videos), part[1]):
            if not done[self._positions(number)].all():
                yield number

    def _positions(self, number: int) -> np.ndarray:
        return self._by_video[self._edges[number] : self._edges[number + 1]]

    def close(self) -> None:
        """Remove the temporary file."""
        self._file.close()


def _row(found: Question | Problem, first_row: dict[str, int], number: int) -> dict[str, Any]:
    if isinstance(found, Problem):
        return {"id": None, "video": None, "question": None, "error": printable(f"{found.where}: {found.what}")}
    try:
        row: dict[str, Any] = _plain(as_row(found))
    except InputError as error:
        return {"id": found.id, "video": found.video, "question": found.question, "error": f"row {number}: {error}"}
    first = first_row.setdefault(found.id, number)
    if first != number:
        row["error"] = f"row {number}: the id {found.id!r} is that of row {first} already; ids must be unique"
    else:
        row.pop("error", None)  # a result that is asked again
    return row


def _beside(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a row says of its video."""
    return {name: row[name] for name in BESIDE if row.get(name) is not None}


def _key(row: Mapping[str, Any]) -> str:
    """Rows of one video are those of which the same is said."""
    beside = _beside(row)
    return json.dumps([row["video"], beside], sort_keys=True) if beside else str(row["video"])


def _question(row: dict[str, Any]) -> Question:
    return Question(
        id=row["id"],
        video=row["video"],
        question=row["question"],
        options=tuple(row.get("options", ())),
        extra={name: value for name, value in row.items() if name not in KNOWN_FIELDS},
    )


def _plain(value: Any, depth: int = MAX_DEPTH + 2) -> Any:
    """Values that JSON knows: tables may hold dates, bytes, and numbers that are not finite.

    Raises:
        InputError: for what cannot be written at all.
    """
    if not depth:
        raise InputError(f"lists or objects nest deeper than {MAX_DEPTH}")
    if isinstance(value, Mapping):
        return {str(key): _plain(item, depth - 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, depth - 1) for item in value]
    if isinstance(value, np.generic | np.ndarray):
        return _plain(value.tolist(), depth - 1)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 3300:
        raise InputError("a number has more than 1000 digits; write it as text")
    if value is None or isinstance(value, str | int | bool):
        return value
    try:
        return str(value)
    except Exception as error:
        raise InputError(f"a {type(value).__name__} has no text ({type(error).__name__}: {error})") from error
