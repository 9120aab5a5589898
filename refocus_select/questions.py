"""Questions about videos, as files and tables hold them: for training, evaluation and batches.

One row is one question: `video`, `question`, and as far as known `options`, `answer`, `evidence`, `id`, `category`; and
`words`, what is said in the video, as `FrameSelector.encode` takes it, with `words_start`, the second of the transcript
at which the video begins.
"""

from __future__ import annotations

import base64
import csv
import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from .errors import InputError, MissingDependencyError
from .locations import is_address, local_path
from .plain_text import check_depth, is_utf8, parse_json, shown

KNOWN_FIELDS = ("id", "video", "question", "options", "answer", "evidence", "category")
BESIDE = ("sample_fps", "raw_fps", "video_start", "video_end")
"""Columns that say something of the video: the rate of a folder of pictures, and the part to look at (seconds)."""
_MOST_OPTIONS = 2**31  # what every table can hold


@dataclass(frozen=True)
class Question:
    """A question about a video.

    Attributes:
        id: unique among the questions of a run.
        video: path, URL, or whatever the reader of videos understands.
        question: without the options.
        options: answer options; empty for an open question.
        answer: position of the right option; None if unknown.
        evidence: (start, end) in seconds of what answers the question; empty if unknown.
        category: question type, for tables.
        extra: the other fields of the row.
    """

    id: str
    video: str
    question: str
    options: tuple[str, ...] = ()
    answer: int | None = None
    evidence: tuple[tuple[float, float], ...] = ()
    category: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict, compare=False, hash=False)


@dataclass(frozen=True)
class Problem:
    """Something wrong with one question.

    Attributes:
        where: the row ("line 3") or the question's id.
        what: the fault, naming the value.
    """

    where: str
    what: str


def read_questions(
    source: str | os.PathLike[str] | Iterable[Mapping[str, Any]], *, root: str | os.PathLike[str] | None = None
) -> tuple[list[Question], list[Problem]]:
    """Read a table of questions; rows that cannot be understood become problems, the others questions.

    Args:
        source: a file (.jsonl, .json, .csv, .parquet), a folder that `datasets.Dataset.save_to_disk` wrote, or any
            iterable of rows (a `datasets.Dataset` is one).
        root: folder that relative video paths start from (default: the folder of the file); "" leaves the names of
            videos as they are, for sources that are not files.

    Returns:
        The questions in order, and what is wrong with the other rows.

    Raises:
        InputError: if the file is missing or no such table.
        MissingDependencyError: for Parquet without pyarrow, and datasets without the package.
    """
    questions: list[Question] = []
    problems: list[Problem] = []
    for found in iter_questions(source, root=root):
        if isinstance(found, Problem):
            problems.append(found)
        else:
            questions.append(found)
    repeated = [name for name, count in Counter(q.id for q in questions).items() if count > 1]
    problems.extend(Problem(f"id {name}", "several questions have this id; ids must be unique") for name in repeated)
    return questions, problems


def iter_questions(
    source: str | os.PathLike[str] | Iterable[Mapping[str, Any]], *, root: str | os.PathLike[str] | None = None
) -> Iterator[Question | Problem]:
    """The same row by row, for tables of any length: a question or a problem for each row, in order.

    Arguments and errors as for `read_questions`; ids that occur twice are not noticed. Whatever is wrong with a row is
    a problem of that row; an error means that the table as a whole cannot be read.
    """
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        base = None if root == "" else Path(root) if root is not None else path.parent
        rows = _rows(path)
    else:
        if not isinstance(source, Iterable):
            raise InputError(f"questions must be a file or rows, not {type(source).__name__}")
        base = None if root == "" else Path(root) if root is not None else Path()
        rows = ((f"row {i}", row) for i, row in enumerate(source, start=1))
    for where, row in rows:
        try:
            if isinstance(row, InputError):
                raise row
            if not isinstance(row, Mapping):
                raise InputError(f"the row must be an object with fields, not {type(row).__name__}")
            yield _question(row, base, default_id=where.split()[-1])
        except InputError as error:
            yield Problem(where, str(error))
        except Exception as error:  # of a mapping or a value of somebody else: one row must not end the run
            yield Problem(where, f"the row cannot be used ({type(error).__name__}: {shown(str(error))})")


def words_of(question: Question, otherwise: Any = "off") -> Any:
    """What a row says of the words of its video, for `FrameSelector.add_words`.

    Args:
        question: with `words` and `words_start` among its further fields, if the row has them.
        otherwise: for rows that say nothing.

    Raises:
        TranscriptError: if a transcript with another beginning cannot be read.
        InputError: if `words_start` is no number.
    """
    words, start = question.extra.get("words") or otherwise, question.extra.get("words_start") or 0
    if isinstance(start, bool) or not isinstance(start, int | float) or not math.isfinite(start):
        raise InputError(f"words_start must be a number of seconds, not {shown(start)}")
    if not start or (isinstance(words, str) and words in ("auto", "off")):
        return words
    from .words.formats import parse_transcript, read_transcript

    named = isinstance(words, str | os.PathLike)
    found = read_transcript(words) if named else parse_transcript(json.dumps(words), name="words")
    return found.shifted(-float(start))


def check_choices(question: Question) -> list[Problem]:
    """What keeps a question from being scored as multiple choice."""
    found = []
    options = question.options
    if len(options) < 2:
        found.append("fewer than two options; an open question needs distractors to be scored")
    if len(options) > len(ascii_uppercase):
        found.append(f"{len(options)} options, but there are {len(ascii_uppercase)} letters")
    if any(not option.strip() for option in options):
        found.append("an option is empty")
    same = [text for text, count in Counter(option.strip().casefold() for option in options).items() if count > 1]
    if same:
        found.append(f"the option {same[0]!r} occurs twice")
    if question.answer is None:
        found.append("no answer is given")
    elif not 0 <= question.answer < len(options):
        found.append(f"answer {question.answer} is out of range for {len(options)} options")
    return [Problem(question.id, what) for what in found]


def problem_table(problems: Sequence[Problem], limit: int = 20) -> str:
    """Problems as text, one per line, the first `limit` of them."""
    width = max((len(p.where) for p in problems[:limit]), default=0)
    lines = [f"  {p.where:<{width}}  {p.what}" for p in problems[:limit]]
    if len(problems) > limit:
        lines.append(f"  … and {len(problems) - limit} more")
    return "\n".join(lines)


def as_row(question: Question) -> dict[str, Any]:
    """The row that `read_questions` turns into this question."""
    row: dict[str, Any] = {"id": question.id, "video": question.video, "question": question.question}
    if question.options:
        row["options"] = list(question.options)
    if question.answer is not None:
        row["answer"] = question.answer
    if question.evidence:
        row["evidence"] = [list(span) for span in question.evidence]
    if question.category:
        row["category"] = question.category
    return row | dict(question.extra)


def multiple_choice(question: Question) -> str:
    """The question with lettered options and the request for a letter, as most benchmarks ask."""
    lines = [
        question.question,
        *(f"{letter}. {text}" for letter, text in zip(ascii_uppercase, question.options, strict=False)),
    ]
    return "\n".join([*lines, "Answer with the option's letter from the given choices directly."])


def _rows(path: Path) -> Iterator[tuple[str, Any]]:
    """(where, row) of a file; instead of a row that cannot be read its error."""
    kind = path.suffix.lower()
    if not path.exists():
        raise InputError(f"no questions at {path}")
    if path.is_dir():
        yield from _dataset_rows(path)
        return
    try:
        if kind == ".jsonl":
            # What is not UTF-8 becomes lone surrogates: names of files are still found, other texts are refused.
            with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
                for number, line in enumerate(file, start=1):
                    if line.strip():
                        yield f"line {number}", _json_row(line)
        elif kind == ".json":
            content = parse_json(path.read_text(encoding="utf-8-sig"))
            if not isinstance(content, list):
                raise InputError(f"{path} must hold a list of questions; for one object per line call it .jsonl")
            yield from ((f"entry {i}", row) for i, row in enumerate(content, start=1))
        elif kind == ".csv":
            yield from ((f"line {i}", row) for i, row in enumerate(_csv_rows(path), start=2))
        elif kind == ".parquet":
            yield from ((f"row {i}", row) for i, row in enumerate(_parquet_rows(path), start=1))
        else:
            raise InputError(f"{path}: questions are read from .jsonl, .json, .csv, .parquet or a saved dataset")
    except InputError:
        raise
    except (OSError, ValueError) as error:  # ValueError: no UTF-8, or no JSON
        raise InputError(f"{path} cannot be read ({error})") from error


def _json_row(line: str) -> Any:
    try:
        return parse_json(line)
    except ValueError as error:
        return InputError(f"the row must be an object with fields, but it is not JSON ({error})")


def _csv_rows(path: Path) -> Iterator[Any]:
    """Rows of a CSV file; the error of the `csv` module instead of one that it cannot read (a cell of 128 kB)."""
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        rows = csv.DictReader(file)
        try:
            names = rows.fieldnames
        except csv.Error as error:
            raise InputError(
                f"{path}: the line with the names of the columns cannot be read ({error}); save it as CSV in UTF-8"
            ) from error
        if names and not all(map(is_utf8, names)):
            raise InputError(f"{path} is not UTF-8 text; save it as CSV in UTF-8")
        while True:
            try:
                row = next(rows, None)
            except csv.Error as error:
                yield InputError(f"the row cannot be read ({error}); is a quotation mark missing?")
                continue
            if row is None:
                return
            yield {k: v for k, v in row.items() if v not in (None, "") and k is not None}


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingDependencyError("Parquet files need pyarrow: pip install 'refocus-select[data]'") from error
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                yield from batch.to_pylist()
    except pyarrow.ArrowException as error:
        raise InputError(f"{path} is damaged or not a Parquet file ({error})") from error


def _dataset_rows(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        import datasets
    except ImportError as error:
        raise MissingDependencyError("a saved dataset needs datasets: pip install 'refocus-select[data]'") from error
    try:
        loaded = datasets.load_from_disk(str(path))
    except FileNotFoundError as error:
        raise InputError(f"{path} is a folder, but not a saved dataset ({error})") from error
    if not isinstance(loaded, datasets.Dataset):
        raise InputError(f"{path} holds several splits ({', '.join(loaded)}); give the folder of one of them")
    yield from ((f"row {i}", row) for i, row in enumerate(loaded, start=1))


def _question(row: Mapping[str, Any], base: Path | None, *, default_id: str) -> Question:
    row = dict(row)
    try:
        check_depth(row)
    except ValueError as error:
        raise InputError(str(error)) from None
    options = _options(row.get("options"))
    identity = row.get("id", default_id)
    if not isinstance(identity, str | Integral) or not str(identity).strip():
        raise InputError(f"id must be text or a number, not {shown(identity)}")
    category = row.get("category")
    return Question(
        id=_utf8("id", str(identity)),
        video=_video(_text({**row, "video": _path_of(row.get("video"))}, "video"), base),
        question=_utf8("question", _text(row, "question")),
        options=options,
        answer=_answer(row.get("answer"), options),
        evidence=_evidence(row.get("evidence")),
        category="" if category is None else _utf8("category", str(category)),
        extra=_keys_of(row.get("video"))
        | {k: _words(v, base) if k == "words" else v for k, v in row.items() if k not in KNOWN_FIELDS},
    )


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        told = "is missing" if value is None else f"must be text, not {shown(value)}"
        raise InputError(f"{name} {told}")
    return value.strip()


def _utf8(name: str, text: str) -> str:
    if not is_utf8(text):
        raise InputError(f"{name} {shown(text)} is not valid text (half of a surrogate pair); write it as UTF-8")
    return text


def _path_of(value: Any) -> Any:
    """What stands for a video as text: a path, an address, or content as a `data:` URL; other values as they are.

    Values of `datasets.Video` are dicts or decoders; blocks of chats hold keys beside the video (see `_keys_of`).
    """
    held = getattr(value, "_hf_encoded", value)
    path = held.get("path") if isinstance(held, Mapping) else None
    if path and local_path(path) and os.path.exists(str(local_path(path))):
        return os.fspath(path)
    if isinstance(held, Mapping):
        others = [name for name in ("video", "video_url", "url", "bytes", "path") if held.get(name) is not None]
        return _path_of(held[others[0]]) if others else value
    if isinstance(held, bytes | bytearray | memoryview) and len(held):
        return f"data:video/mp4;base64,{base64.b64encode(held).decode()}"
    return os.fspath(held) if isinstance(held, os.PathLike) else value


def _keys_of(value: Any) -> dict[str, Any]:
    """What a dict says beside its video.

    Raises:
        InputError: times of pictures, which tables do not hold.
    """
    if not isinstance(value, Mapping):
        return {}
    times = [name for name in ("timestamps", "video_metadata") if value.get(name) is not None]
    if times:
        raise InputError(f"video: {times[0]} beside pictures is not read from tables; give sample_fps, or a video file")
    return {name: value[name] for name in BESIDE if value.get(name) is not None}


def _video(video: str, base: Path | None) -> str:
    """The name may not be UTF-8 (a file on Linux): whether it can be opened is seen when it is."""
    if base is None or is_address(video) or Path(video).is_absolute():
        return video
    return str(base / video)


def _words(value: Any, base: Path | None) -> Any:
    """Of the words of a video: "auto", "off", lines, or a path, which starts where the video's does."""
    if not isinstance(value, str) or value.strip() in ("", "auto", "off"):
        return value
    if value.lstrip().startswith(("[", "{")):  # a CSV cell
        return _inside_cell(value)
    return _video(value.strip(), base)


def _inside_cell(value: Any) -> Any:
    """What a CSV cell holds if it is JSON; the cell itself if not."""
    try:
        return parse_json(value)
    except ValueError:
        return value


def _options(value: Any) -> tuple[str, ...]:
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = _inside_cell(value)
    if value is None:
        return ()
    if isinstance(value, Mapping):  # {"A": "…", "B": "…"}
        value = [value[key] for key in sorted(value, key=str)]
    if isinstance(value, str) or not isinstance(value, Sequence) or not all(isinstance(v, str) for v in value):
        raise InputError(f"options must be a list of texts, not {shown(value)}")
    return tuple(_utf8("an option", v.strip()) for v in value)


def _answer(value: Any, options: tuple[str, ...]) -> int | None:
    """A position, a letter, or the text of an option."""
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, Integral):
        return _position(int(value))
    text = str(value).strip()
    if text in options:
        return options.index(text)
    if len(text) == 1 and text.upper() in ascii_uppercase:
        return ascii_uppercase.index(text.upper())
    if text.isascii() and text.isdigit():
        return _position(int(text)) if len(text) < 10 else _position(text)
    if not options:
        return None  # the free answer of an open question
    raise InputError(f"answer {shown(text)} is not a position or a letter, and none of the options")


def _position(value: int | str) -> int:
    if isinstance(value, str) or abs(value) >= _MOST_OPTIONS:
        raise InputError(f"answer {shown(value)} is not a position: no question has so many options")
    return value


def _evidence(value: Any) -> tuple[tuple[float, float], ...]:
    if isinstance(value, str):
        value = _inside_cell(value) if value.strip() else None
    if value is None:
        return ()
    spans = []
    try:
        for span in value:
            start, end = (float(edge) for edge in span)
            spans.append((start, end))
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"evidence must be a list of [start, end] in seconds, not {shown(value)}") from error
    for start, end in spans:
        if not 0 <= start <= end < math.inf:
            raise InputError(f"evidence [{start:g}, {end:g}] must have 0 <= start <= end, in seconds")
    return tuple(spans)
