"""Selections as files: to be scored elsewhere, and to score here what others selected.

Ours are lines of JSON. The frame index databases of the authors' release (interlive-team/ReFoCUS, scripts/prepare.sh)
are read and written too, and lists of frame numbers in the order of the questions, as AKS and FOCUS write them.
"""

from __future__ import annotations

import dbm
import io
import math
import os
import pickle
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..plain_text import json_text, parse_json
from ..questions import Question
from .formats import convert_row
from .records import read_records, write_text

_DATABASE_ENDINGS = ("", ".db", ".dir", ".dat", ".pag")


@dataclass(frozen=True)
class StoredSelection:
    """Frames that somebody chose for a question.

    Attributes:
        id: of the question.
        num_frames: how many frames K were asked for; repeats count.
        indices: frame numbers in the video, sorted and distinct; None if only times are known.
        timestamps: seconds, if no frame numbers are known.
        selector: who chose; empty if the file does not say.
    """

    id: str
    num_frames: int
    indices: tuple[int, ...] | None
    timestamps: tuple[float, ...] = ()
    selector: str = ""


def read_selections(
    path: str | os.PathLike[str], questions: Sequence[Question], *, order: Sequence[str] = (), benchmark: str = ""
) -> list[StoredSelection]:
    """Read selections for these questions; those for other questions are left out.

    Args:
        path: lines of JSON (see `write_selections`; lines of `refocus-select select --json` too), a JSON list of lists
            of frame numbers in the order of the benchmark, or a database of the authors' release.
        questions: what the selections are for.
        order: ids of all questions in the benchmark's own order, for a list (default: that of `questions`).
        benchmark: name of the benchmark whose rows the database holds.

    Raises:
        InputError: if the file is missing, of another kind, or fits none of the questions.
    """
    source = Path(path)
    if source.suffix == ".jsonl":
        found = list(_from_lines(source, questions))
    elif source.suffix == ".json":
        found = list(_from_list(source, questions, order or [question.id for question in questions]))
    else:
        found = list(_from_database(source, questions, benchmark))
    if not found:
        raise InputError(f"{source} holds no selection for any of the {len(questions)} questions; is it of another?")
    return found


def write_selections(path: str | os.PathLike[str], selections: Iterable[StoredSelection]) -> Path:
    """Write lines of JSON: {"id", "num_frames", "indices", "timestamps", "selector"}."""
    rows = []
    for item in selections:
        row: dict[str, Any] = {"id": item.id, "selector": item.selector, "num_frames": item.num_frames}
        row["indices"] = None if item.indices is None else list(item.indices)
        row["timestamps"] = list(item.timestamps)
        rows.append(json_text(row) + "\n")
    return write_text(Path(path), "".join(rows))


def write_database(
    path: str | os.PathLike[str],
    selections: Iterable[StoredSelection],
    *,
    like: str | os.PathLike[str],
    questions: Sequence[Question],
    benchmark: str,
) -> int:
    """Write a frame index database for the authors' `scripts/evaluate.sh`.

    Its keys hold the benchmark's rows and prompts as lmms-eval makes them, so they are taken from a database that
    `scripts/prepare.sh` made for the same benchmark; the frame numbers are replaced.

    Args:
        path: the new database; it must not exist yet.
        selections: one for each question at most.
        like: the authors' database.
        questions: what the selections are for.
        benchmark: see `read_selections`.

    Returns:
        How many entries were written; entries without a selection are left out.

    Raises:
        InputError: if the new database exists, or no entry of the other fits.
    """
    import shelve

    target = Path(path)
    if any(target.with_name(target.name + ending).exists() for ending in _DATABASE_ENDINGS):
        raise InputError(f"{target} exists already; choose another name")
    chosen = {item.id: item for item in selections}
    known = _Lookup(questions)
    entries = {}
    for key, _ in _database_entries(Path(like)):
        question = known.of_database_key(key, benchmark)
        item = chosen.get(question.id) if question is not None else None
        if item is not None and item.indices is not None:
            entries[key.decode("utf-8")] = np.array(item.indices, dtype=np.int64)
    if not entries:
        raise InputError(f"no entry of {like} is about a question with a selection; is it of another benchmark?")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with shelve.open(str(target), "n") as database:
            database.update(entries)
    except (OSError, *dbm.error) as error:
        raise InputError(f"cannot write {target}: {error}; make room, or choose another place") from error
    return len(entries)


# -- finding the question ---------------------------------------------------------------------------------


class _Lookup:
    """Questions by id, and by video and words."""

    def __init__(self, questions: Sequence[Question]) -> None:
        self._by_id = {question.id: question for question in questions}
        self._by_words: dict[tuple[str, str], list[Question]] = defaultdict(list)
        for question in questions:
            self._by_words[Path(question.video).stem, _words(question.question)].append(question)

    def by_id(self, name: str) -> Question | None:
        return self._by_id.get(name)

    def by_words(self, video: str, question: str) -> Question | None:
        """None if there is no such question, or more than one."""
        found = self._by_words.get((Path(video).stem, _words(question)), [])
        return found[0] if len(found) == 1 else None

    def of_database_key(self, key: bytes, benchmark: str) -> Question | None:
        """A key is JSON: [prompt, row of the benchmark]."""
        try:
            _, row = parse_json(key)
        except (ValueError, TypeError) as error:
            raise InputError(f"the database has a key that is not [prompt, row]: {key[:60]!r}") from error
        question = convert_row(benchmark, row) if isinstance(row, Mapping) else None
        if question is None:
            return None
        return self.by_id(question.id) or self.by_words(question.video, question.question)


def _words(text: str) -> str:
    return " ".join(text.casefold().split())


# -- kinds of files ---------------------------------------------------------------------------------------


def _from_lines(path: Path, questions: Sequence[Question]) -> Iterator[StoredSelection]:
    if not path.is_file():
        raise InputError(f"no selections at {path}")
    known = _Lookup(questions)
    for number, row in enumerate(read_records(path), start=1):
        if row.get("error") is not None:  # a row of `refocus-select batch` that has no frames
            continue
        if "id" in row:
            question = known.by_id(str(row["id"]))
        else:
            question = known.by_words(str(row.get("video", "")), str(row.get("question", "")))
        if question is None:
            continue
        indices, times = row.get("indices"), row.get("timestamps") or ()
        if indices is None and not times:
            raise InputError(f"{path}, line {number}: a selection needs indices or timestamps")
        yield _stored(
            question.id, indices, times, row.get("num_frames"), str(row.get("selector", "")), f"{path}, line {number}"
        )


def _from_list(path: Path, questions: Sequence[Question], order: Sequence[str]) -> Iterator[StoredSelection]:
    try:
        content = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error})") from error
    if not isinstance(content, list) or not all(isinstance(row, list) for row in content):
        raise InputError(f"{path} must be a list with a list of frame numbers for each question")
    if len(content) != len(order):
        raise InputError(
            f"{path} has {len(content)} selections, but the benchmark {len(order)} questions: they cannot be matched"
        )
    wanted = {question.id for question in questions}
    for name, row in zip(order, content, strict=True):
        if name in wanted:
            yield _stored(name, row, (), None, "", f"{path}, question {name}")


def _from_database(path: Path, questions: Sequence[Question], benchmark: str) -> Iterator[StoredSelection]:
    known = _Lookup(questions)
    for key, value in _database_entries(path):
        question = known.of_database_key(key, benchmark)
        if question is not None:
            yield _stored(question.id, _frame_numbers(value, path), (), None, "", f"{path}, question {question.id}")


def _stored(
    name: str, indices: Any, times: Sequence[Any], num_frames: Any, selector: str, where: str
) -> StoredSelection:
    try:
        numbers = None if indices is None else [int(index) for index in indices]
        seconds = [float(time) for time in times]
        count = int(num_frames) if num_frames is not None else len(seconds if numbers is None else numbers)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{where}: frame numbers must be whole numbers and times numbers ({error})") from error
    if count < 1 or any(n < 0 for n in numbers or ()) or any(not t >= 0 for t in seconds):
        raise InputError(f"{where}: no frame, or a negative one")
    if any(n >= 2**62 for n in [count, *(numbers or ())]) or math.inf in seconds:
        raise InputError(f"{where}: a number larger than any video has")
    if numbers == [] or (numbers is None and not seconds):
        raise InputError(f"{where}: no frame is given")
    distinct = None if numbers is None else tuple(sorted(set(numbers)))
    return StoredSelection(name, count, distinct, tuple(sorted(set(seconds))), selector)


# -- the databases of the release -------------------------------------------------------------------------


def _database_entries(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """Keys and stored values of a `shelve`, as bytes: nothing is unpickled here."""
    plain = path.with_suffix("") if path.suffix in _DATABASE_ENDINGS else path
    name = next((str(name) for name in (path, plain) if dbm.whichdb(str(name))), None)
    if name is None:
        raise InputError(
            f"no selections at {path}: there is neither a database nor a .jsonl or .json file that can be read"
        )
    try:
        database: Any = dbm.open(name, "r")  # noqa: SIM115
    except Exception as error:  # every kind of database has errors of its own
        kind = dbm.whichdb(name)
        raise InputError(
            f"{path} is a database of the kind {kind}, which this Python cannot open ({error}); "
            "export it to .jsonl with a Python that can"
        ) from error
    with database:
        try:
            entries = [(bytes(key), bytes(database[key])) for key in database.keys()]  # noqa: SIM118
        except Exception as error:  # every kind of database has errors of its own
            raise InputError(f"{path} is damaged ({type(error).__name__}: {error}); export it again") from error
    yield from entries


def _frame_numbers(value: bytes, path: Path) -> list[int]:
    try:
        loaded = _ArrayUnpickler(io.BytesIO(value)).load()
        array = np.asarray(loaded)
    except Exception as error:  # a pickle that is none can end in any of them
        raise InputError(f"{path} holds something other than frame numbers ({error})") from error
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise InputError(
            f"{path} holds {array.dtype} {array.shape}, not a list of frame numbers; give the exported database"
        )
    return [int(number) for number in array]


class _ArrayUnpickler(pickle.Unpickler):
    """Builds arrays of numbers and nothing else: a pickle from elsewhere can run no code here."""

    def find_class(self, module: str, name: str) -> Any:
        allowed = {
            "_reconstruct": _empty,
            "ndarray": np.ndarray,
            "dtype": np.dtype,
            "_frombuffer": _from_buffer,
            "scalar": np.int64(0).__reduce__()[0],
        }
        if module.split(".")[0] != "numpy" or name not in allowed:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a list of frame numbers")
        return allowed[name]


def _empty(kind: Any, shape: Any, dtype: Any) -> np.ndarray:
    """An array as every pickle of one begins: its content follows, with its size."""
    if kind is not np.ndarray or shape != (0,):
        raise pickle.UnpicklingError("not an array as NumPy writes it")
    return np.ndarray((0,), np.int8)


def _from_buffer(buffer: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    if np.dtype(dtype).hasobject:
        raise pickle.UnpicklingError("objects are not allowed in a list of frame numbers")
    return np.frombuffer(buffer, dtype=dtype).reshape(shape, order=order)
