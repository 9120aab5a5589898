"""Tables of benchmarks, and the pieces of which their rows are made."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError, MissingDependencyError
from ..plain_text import parse_json, shown
from ..questions import Question


@dataclass(frozen=True)
class Row:
    """A question before its video is looked for: `question.video` is the name in the list.

    Attributes:
        question: what the row says.
        near: a folder name that decides between videos of the same name.
        subtitles: name of the file with what is said; "" if the benchmark has none.
        subtitles_start: second of these at which the video begins.
    """

    question: Question
    near: str = ""
    subtitles: str = ""
    subtitles_start: float = 0.0


# -- tables ---------------------------------------------------------------------------------------


def table(files: list[Path]) -> Iterator[Mapping[str, Any]]:
    """Rows of Parquet, JSON Lines, CSV, or JSON (a list of rows, or a column per key)."""
    for path in files:
        try:
            for row in _rows(path):
                if not isinstance(row, Mapping):
                    raise ValueError(f"{shown(row)} is not a row with fields")
                yield row
        except InputError:
            raise
        except (OSError, ValueError, csv.Error) as error:
            raise InputError(f"{path} cannot be read ({error})") from error


def beside(path: Path) -> dict[str, Any]:
    """The JSON object of a file that belongs to a table.

    Raises:
        InputError: if it cannot be read.
    """
    try:
        content = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} must hold an object, not {shown(content)}")
    return content


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    kind = path.suffix.lower()
    if kind == ".parquet":
        yield from _parquet(path)
    elif kind == ".jsonl":
        yield from (parse_json(line) for line in path.read_bytes().split(b"\n") if line.strip())
    elif kind == ".csv":
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from csv.DictReader(file)
    elif kind == ".json":
        content = parse_json(path.read_bytes())
        if isinstance(content, dict) and content and all(isinstance(column, list) for column in content.values()):
            content = [dict(zip(content, row, strict=True)) for row in zip(*content.values(), strict=True)]
        if not isinstance(content, list):
            raise InputError(f"{path} must hold a list of rows")
        yield from content
    else:
        raise InputError(f"{path}: tables are read from .parquet, .jsonl, .csv and .json")


def _parquet(path: Path) -> Iterator[Mapping[str, Any]]:
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


# -- pieces of rows -------------------------------------------------------------------------------

_LETTERED = re.compile(r"^\s*\(?([A-Z])\s*[.):]\s*(.*?)\s*$", re.DOTALL)
_NEXT_OPTION = re.compile(r"\n\s*(?=\(?[A-Z]\s*[.):]\s)")


def unlettered(options: Iterable[Any]) -> tuple[str, ...]:
    """Options without "A." or "(A)" in front, if all of them have it in order."""
    texts = [str(option).strip() for option in options]
    matches = [_LETTERED.match(text) for text in texts]
    if all(match and match[1] == chr(65 + place) for place, match in enumerate(matches)):
        return tuple(match[2] for match in matches if match)
    return tuple(texts)


def split_question(text: str) -> tuple[str, tuple[str, ...]]:
    """A question with "(A) …" lines behind it, taken apart."""
    parts = _NEXT_OPTION.split(text.strip())
    options = unlettered(parts[1:])
    lettered = bool(options) and options != tuple(part.strip() for part in parts[1:])
    return (parts[0].strip(), options) if lettered else (text.strip(), ())


def by_letter(answer: Any, options: tuple[str, ...]) -> int | None:
    """Position of an answer that is given as a letter, or as the text of an option."""
    if answer is None:
        return None
    text = str(answer).strip()
    if len(text) == 1 and "A" <= text.upper() < chr(65 + len(options)):
        return ord(text.upper()) - 65
    if text in options:
        return options.index(text)
    raise InputError(f"the answer {text!r} is not one of the {len(options)} options")


def by_place(answer: Any, options: tuple[str, ...]) -> int | None:
    """Position of an answer that is given as a position from 0; None for a hidden one."""
    if answer is None or str(answer).strip() in ("", "None", "-1"):
        return None
    place = int(answer)
    if not 0 <= place < len(options):
        raise InputError(f"the answer {place} is not one of the {len(options)} options")
    return place


def seconds(clock: str) -> float | None:
    """Seconds of "12:05" or "1:02:05"; None if it is not a time."""
    if not re.fullmatch(r"\d+(:\d+(\.\d+)?){1,2}", clock.strip()):
        return None
    total = 0.0
    for part in clock.strip().split(":"):
        total = 60 * total + float(part)
    return total


def spans(pairs: Iterable[Any]) -> tuple[tuple[float, float], ...]:
    """(start, end) in seconds of each pair."""
    found = []
    for start, end in pairs:
        if float(end) < float(start):
            raise InputError(f"the evidence [{start}, {end}] ends before it begins")
        found.append((float(start), float(end)))
    return tuple(found)


def kept(row: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: row[name] for name in names if row.get(name) is not None}


def length_group(seconds: float) -> str:
    """A group of durations, for benchmarks that publish none."""
    for limit, label in ((120, "up to 2 min"), (900, "2 to 15 min"), (3600, "15 to 60 min")):
        if seconds <= limit:
            return label
    return "over 60 min"
