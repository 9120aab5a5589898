"""What an index is on disk: its facts, its table of videos, and the lock of whoever writes."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..errors import EncodingError, InputError, MissingDependencyError
from ..files import remove_leftovers
from ..plain_text import is_utf8, parse_json, shown
from .output import write_output

_FORMAT, _VERSION = "refocus-select/index", 1


@dataclass(frozen=True)
class Entry:
    """A video of an index.

    Attributes:
        video: absolute path.
        identity: of the file: size, time of change, and a hash of its ends.
        encoding: name of the file with its encoding.
        sha256: of that file.
        bytes: of that file.
        candidates: number of frames F.
        duration: seconds.
    """

    video: str
    identity: str
    encoding: str
    sha256: str
    bytes: int
    candidates: int
    duration: float


class held:
    """An index, for one process that writes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = FileLock(folder / ".lock")

    def __enter__(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
            remove_leftovers(self._folder)
            remove_leftovers(self._folder / "encodings")
        except Timeout:
            raise InputError(f"another process builds {self._folder}; wait for it") from None
        except OSError as error:
            raise InputError(f"cannot write to {self._folder}: {error.strerror or error}") from error

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def read_facts(folder: Path) -> dict[str, Any]:
    """What index.json says.

    Raises:
        InputError: if there is no index.
        EncodingError: if it is damaged or of another version.
    """
    path = folder / "index.json"
    if not path.is_file():
        raise InputError(f"no index at {folder}; make one with `refocus-select index VIDEO … --out {folder}`")
    try:
        facts = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise EncodingError(f"{path} is damaged ({error}); build the index again in another folder") from error
    if not isinstance(facts, dict) or facts.get("format") != _FORMAT or facts.get("version") != _VERSION:
        raise EncodingError(f"{path} does not describe an index of this version; build it again in another folder")
    for name, kind in (("selector", str), ("fingerprint", str), ("arguments", dict), ("sampling", dict)):
        if not isinstance(facts.get(name), kind):
            raise EncodingError(f"{path} is damaged ({name} is {shown(facts.get(name))}); build the index again")
    return facts


def check_facts(folder: Path, facts: dict[str, Any]) -> None:
    """Write index.json for a new index; of an old one, check that it was made alike.

    Raises:
        InputError: if it was made with another selector or sampling, or the folder holds other files.
    """
    path = folder / "index.json"
    if not path.exists():
        if any(item.name != ".lock" for item in folder.iterdir()):
            raise InputError(f"{folder} holds other files; choose an empty folder, or a new one")
        text = json.dumps({"format": _FORMAT, "version": _VERSION, **facts}, indent=2) + "\n"
        write_output(path, lambda file: file.write(text.encode()))
        return
    before = read_facts(folder)
    different = [name for name in ("fingerprint", "sampling") if before[name] != json.loads(json.dumps(facts[name]))]
    if different:
        raise InputError(
            f"{folder} was made with another selector or sampling ({before['selector']}, {before['sampling']}); use "
            "those, or another folder"
        )


def read_table(folder: Path) -> dict[str, Entry]:
    """All entries by path; none if there is no table yet.

    Raises:
        EncodingError: if the table is damaged.
    """
    pyarrow = need_pyarrow()
    import pyarrow.parquet as parquet

    path = folder / "videos.parquet"
    if not path.is_file():
        return {}
    try:
        names = [field.name for field in fields(Entry)]
        rows = parquet.read_table(path, columns=names).to_pylist()
        entries = [_entry(row) for row in rows]
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise EncodingError(f"{path} is damaged ({error}); remove it and index again: encodings are kept") from error
    return {entry.video: entry for entry in entries}


def _entry(row: Mapping[str, Any]) -> Entry:
    """A row of the table.

    Raises:
        ValueError: naming the field that is none of ours.
    """
    if isinstance(row["video"], bytes):  # names that are not UTF-8
        row = {**row, "video": os.fsdecode(row["video"])}
    for item in fields(Entry):
        if not isinstance(row[item.name], _KINDS[str(item.type)]):
            raise ValueError(f"{item.name} is {shown(row[item.name])}")
    entry = Entry(**row)
    if Path(entry.encoding).name != entry.encoding or entry.candidates < 1 or not 0 <= entry.duration < math.inf:
        raise ValueError(f"the row of {shown(entry.video)} does not belong to an index")
    return entry


_KINDS = {"str": str, "int": int, "float": float}


def write_table(folder: Path, entries: Mapping[str, Entry]) -> None:
    """Write all entries, in the order of their paths."""
    pyarrow = need_pyarrow()
    import pyarrow.parquet as parquet

    kinds = {"str": pyarrow.string(), "int": pyarrow.int64(), "float": pyarrow.float64()}
    columns = pyarrow.schema([(field.name, kinds[str(field.type)]) for field in fields(Entry)])
    rows = [asdict(entries[video]) for video in sorted(entries)]
    if not all(is_utf8(video) for video in entries):
        columns = columns.set(0, pyarrow.field("video", pyarrow.binary()))
        rows = [{**row, "video": os.fsencode(row["video"])} for row in rows]
    table = pyarrow.Table.from_pylist(rows, columns)
    write_output(folder / "videos.parquet", lambda file: parquet.write_table(table, file, compression="zstd"))


def sha256_of(path: Path) -> str:
    """Of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def need_pyarrow() -> Any:
    """The module.

    Raises:
        MissingDependencyError: if it is not installed.
    """
    try:
        import pyarrow
    except ImportError as error:
        raise MissingDependencyError("an index needs pyarrow: pip install 'refocus-select[data]'") from error
    return pyarrow
