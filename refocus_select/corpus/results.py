"""Finished results: lines of JSON, Parquet, a `datasets` dataset, and the index databases of the authors' release."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ..errors import InputError, MissingDependencyError
from ..plain_text import json_text, parse_json, printable, shown
from ..questions import Question
from .output import write_output

if TYPE_CHECKING:
    import datasets
    import pyarrow

    from ..evaluation.selections import StoredSelection

SUFFIXES = (".jsonl", ".parquet")
_ROWS_AT_ONCE = 1000


def check_target(path: Path) -> None:
    """Refuse a name that says no format, and Parquet without pyarrow."""
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path}: results are written to .jsonl or .parquet")
    if path.suffix.lower() == ".parquet":
        _pyarrow()


def write_rows(rows: Iterable[Mapping[str, Any]], file: BinaryIO, name: Path) -> None:
    """Write rows to an open file in the format that the name asks for; memory holds a thousand of them at most."""
    if name.suffix.lower() == ".jsonl":
        for row in rows:
            file.write(json_text(row).encode() + b"\n")
        return
    import pyarrow.parquet

    with pyarrow.parquet.ParquetWriter(file, schema(), compression="zstd") as writer:
        for table in _tables(rows):
            writer.write_table(table)


def read_results(path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """The rows of a result, in order.

    Args:
        path: a .jsonl or .parquet file of `select_batch`.

    Raises:
        InputError: if there is none, or it is something else.
    """
    source = Path(path)
    if not source.is_file():
        raise InputError(f"no results at {source}")
    if source.suffix.lower() == ".jsonl":
        with source.open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    row = parse_json(line)
                    _check(row)
                except ValueError as error:
                    raise InputError(
                        f"{source}, line {number}: not a result of `refocus-select batch` ({error})"
                    ) from error
                yield row
        return
    pyarrow = _pyarrow()
    import pyarrow.parquet as parquet

    try:
        with parquet.ParquetFile(source) as file:
            if not any(file.schema_arrow.equals(known) for known in (schema(), _without_quotes())):
                raise InputError(f"{source} is not a result of `refocus-select batch`")
            for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE):
                for row in batch.to_pylist():
                    extra = parse_json(row.pop("extra") or "{}")
                    if not isinstance(extra, dict):
                        raise ValueError("the column extra does not hold a JSON object")
                    _check(row)
                    absent = [name for name in _OPTIONAL if row[name] is None]
                    yield {**extra, **{name: value for name, value in row.items() if name not in absent}}
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{source} is damaged or not a Parquet file ({error})") from error


def load_results(path: str | os.PathLike[str]) -> datasets.Dataset:
    """Results as a `datasets.Dataset`; fields of ours are columns, further ones JSON in the column `extra`.

    Raises:
        InputError: see `read_results`.
        MissingDependencyError: without the package datasets.
    """
    try:
        import datasets
    except ImportError as error:
        raise MissingDependencyError("a dataset needs datasets: pip install 'refocus-select[data]'") from error
    pyarrow = _pyarrow()
    source = Path(path)
    if source.is_dir():
        loaded = datasets.load_from_disk(str(source))
        if not isinstance(loaded, datasets.Dataset):
            raise InputError(f"{source} holds several splits; give the folder of one of them")
        return loaded
    if source.suffix.lower() == ".parquet" and source.is_file():
        import pyarrow.parquet as parquet

        return datasets.Dataset(parquet.read_table(source, memory_map=True))
    return datasets.Dataset(pyarrow.concat_tables([schema().empty_table(), *_tables(read_results(source))]))


def convert_results(
    path: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    like: str | os.PathLike[str] | None = None,
    benchmark: str = "",
) -> int:
    """Write results in another form.

    Args:
        path: results.
        target: .jsonl, .parquet, a folder for `datasets.load_from_disk`, or with `like` a frame index database that
            the authors' `scripts/evaluate.sh` reads.
        like: a database that the authors' `scripts/prepare.sh` made for the same benchmark.
        benchmark: its name, e.g. "videomme".

    Returns:
        How many rows or entries were written; a database has none for questions with errors.

    Raises:
        InputError: if the target exists, or nothing fits.
    """
    goal = Path(target)
    if goal.exists():
        raise InputError(f"{goal} exists already; choose another name")
    if like is not None:
        from ..evaluation.selections import write_database

        questions = [_question(row) for row in read_results(path) if row["error"] is None]
        return write_database(goal, stored_selections(path), like=like, questions=questions, benchmark=benchmark)
    if goal.suffix.lower() in SUFFIXES:
        check_target(goal)
        count = 0

        def counted() -> Iterator[dict[str, Any]]:
            nonlocal count
            for row in read_results(path):
                count += 1
                yield row

        write_output(goal, lambda file: write_rows(counted(), file, goal))
        return count
    if goal.suffix:
        raise InputError(f"{goal}: results become .jsonl, .parquet, a folder, or with --like a database")
    dataset = load_results(path)
    dataset.save_to_disk(str(goal))
    return len(dataset)


def stored_selections(path: str | os.PathLike[str]) -> Iterator[StoredSelection]:
    """Results as `refocus_select.evaluation` takes them; rows with errors are left out."""
    from ..evaluation.selections import StoredSelection

    for row in read_results(path):
        if row["error"] is None:
            yield StoredSelection(
                row["id"], row["num_frames"], tuple(row["indices"]), tuple(row["timestamps"]), row["selector"]
            )


def schema() -> pyarrow.Schema:
    """The columns of a result."""
    pa = _pyarrow()
    text, number = pa.string(), pa.float64()
    return pa.schema(
        [
            ("id", text),
            ("video", text),
            ("question", text),
            ("options", pa.list_(text)),
            ("answer", pa.int64()),
            ("evidence", pa.list_(pa.list_(number))),
            ("category", text),
            ("selector", text),
            ("num_frames", pa.int64()),
            ("indices", pa.list_(pa.int64())),
            ("timestamps", pa.list_(number)),
            ("frame_scores", pa.list_(number)),
            ("strategy", text),
            ("duration", number),
            ("warnings", pa.list_(text)),
            ("quotes", pa.list_(pa.struct([("start", number), ("end", number), ("text", text), ("source", text),
                                           ("match", number)]))),
            ("files", pa.list_(text)),
            ("error", text),
            ("scores", pa.list_(number)),
            ("candidate_indices", pa.list_(pa.int64())),
            ("candidate_timestamps", pa.list_(number)),
            ("extra", text),
        ]
    )  # fmt: skip


def _without_quotes() -> pyarrow.Schema:
    """The columns of results that were written before words were read."""
    columns = schema()
    return columns.remove(columns.get_field_index("quotes"))


_SINGLE = {"id": str | None, "video": str | None, "question": str | None, "error": str | None, "selector": str,
           "num_frames": int}  # fmt: skip
_SERIES = {"indices": int, "timestamps": int | float}
_OPTIONAL = ("options", "answer", "evidence", "category", "scores", "candidate_indices", "candidate_timestamps")


def _tables(rows: Iterable[Mapping[str, Any]]) -> Iterator[pyarrow.Table]:
    pa, columns = _pyarrow(), schema()
    known = set(columns.names) - {"extra"}
    source = iter(rows)
    while piece := list(islice(source, _ROWS_AT_ONCE)):
        shaped = []
        for row in piece:
            others = {name: value for name, value in row.items() if name not in known}
            shaped.append({**row, "extra": json_text(others) if others else None})
        try:
            yield pa.Table.from_pylist(shaped, columns)
        except UnicodeEncodeError:  # names of files that are not UTF-8
            yield pa.Table.from_pylist([_printable(row) for row in shaped], columns)


def _printable(value: Any) -> Any:
    """The same with all texts as UTF-8 can hold them."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        return {name: _printable(item) for name, item in value.items()}
    return [_printable(item) for item in value] if isinstance(value, list | tuple) else value


def _check(row: Any) -> None:
    """Refuse what is not a result of ours.

    Raises:
        ValueError: naming the field.
    """
    if not isinstance(row, dict):
        raise ValueError("it is not an object with fields")
    for name, kinds in _SINGLE.items():
        if not isinstance(row.get(name, False), kinds) or isinstance(row.get(name), bool):
            raise ValueError(f"{name} is {shown(row.get(name))}")
    for name, kinds in _SERIES.items():
        values = row.get(name)
        if not isinstance(values, list) or not all(isinstance(value, kinds) for value in values):
            raise ValueError(f"{name} is {shown(values)}")


def _question(row: Mapping[str, Any]) -> Question:
    return Question(row["id"], row["video"], row["question"], tuple(row.get("options") or ()))


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ImportError as error:
        raise MissingDependencyError("Parquet files need pyarrow: pip install 'refocus-select[data]'") from error
    return pyarrow
