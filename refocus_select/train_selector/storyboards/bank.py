"""The bank: features of the pictures that storyboards are put together from, and the records of those pictures."""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ...errors import InputError
from ...files import write_bytes
from ...models.text_encoder import quantize_rows
from ...plain_text import parse_json

FORMAT = "refocus-select/storyboard-bank"
VERSION = 1
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Concept:
    """Something that questions can ask for.

    Attributes:
        name: noun phrase without an article.
        kind: what kind of thing it is ("animal", "fruit", …), "" if unknown.
        split: the only split whose questions name it.
        near: numbers of the concepts that are too similar in meaning to be asked for beside it.
    """

    name: str
    kind: str
    split: str
    near: tuple[int, ...] = ()


@dataclass(frozen=True)
class Bank:
    """Encoded pictures.

    Attributes:
        encoder: fingerprint of the encoder that made the features.
        concepts: the things, in the order that `series` counts them.
        cards: names of the kinds of written cards; a series of kind i has the concept number -1 - i.
        series: records of neighbouring pictures of one thing (`concept`, `split`, and how to draw them).
        backgrounds: records of clips that no question is about (`split`, `frames`, where they are from, and in `shows`
            the concepts that they show by chance).
        thing_rows: features of each series' pictures, float32 [series, steps, D].
        background_rows: features of all background pictures in order, float32 [rows, D].
        fingerprint: identity of the content.
    """

    encoder: str
    concepts: tuple[Concept, ...]
    cards: tuple[str, ...]
    series: tuple[Mapping[str, Any], ...]
    backgrounds: tuple[Mapping[str, Any], ...]
    thing_rows: Tensor
    background_rows: Tensor
    fingerprint: str

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Bank:
        """Read `PATH.safetensors` and `PATH.json.gz`.

        Args:
            path: with or without the ending `.safetensors`.

        Raises:
            InputError: if a file is missing, damaged or of another version, or the two do not belong together.
        """
        import hashlib

        from safetensors import SafetensorError
        from safetensors.torch import load

        rows_path, index_path = _paths(path)
        try:
            index_bytes, rows_bytes = gzip.decompress(index_path.read_bytes()), rows_path.read_bytes()
            index, rows = parse_json(index_bytes), load(rows_bytes)
        except (ValueError, SafetensorError, EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise InputError(f"{rows_path} or {index_path.name} is damaged ({error}); build the bank again") from error
        except OSError as error:
            raise InputError(f"no bank at {rows_path} ({error.strerror}); see benchmarks/storyboards") from error
        if not isinstance(index, dict) or index.get("format") != FORMAT or index.get("version") != VERSION:
            raise InputError(f"{index_path} is no bank of this version; build it again")
        things, behind = _unpacked(rows, "things"), _unpacked(rows, "backgrounds")
        if len(things) != len(index["series"]) or len(behind) != sum(len(c["frames"]) for c in index["backgrounds"]):
            raise InputError(f"{rows_path} and {index_path.name} do not belong together; build the bank again")
        return cls(
            encoder=index["encoder"],
            concepts=tuple(Concept(**{**entry, "near": tuple(entry["near"])}) for entry in index["concepts"]),
            cards=tuple(index["cards"]),
            series=tuple(index["series"]),
            backgrounds=tuple(index["backgrounds"]),
            thing_rows=things,
            background_rows=behind,
            fingerprint=hashlib.sha256(index_bytes + rows_bytes).hexdigest()[:32],
        )

    @cached_property
    def background_starts(self) -> np.ndarray:
        """First row of each background clip, and the number of rows, int64 [clips + 1]."""
        return np.cumsum([0, *(len(clip["frames"]) for clip in self.backgrounds)])

    @cached_property
    def series_of(self) -> dict[int, list[int]]:
        """Series of each thing; cards have the numbers -1, -2, … (see `cards`)."""
        found: dict[int, list[int]] = {}
        for number, record in enumerate(self.series):
            found.setdefault(record["concept"], []).append(number)
        return found


def write_bank(path: str | os.PathLike[str], index: Mapping[str, Any], *, things: Tensor, backgrounds: Tensor) -> None:
    """Write a bank's two files, each under a temporary name first.

    Args:
        path: with or without the ending `.safetensors`.
        index: what the JSON file holds.
        things: features of each series' pictures, float [series, steps, D].
        backgrounds: features of all background pictures, float [rows, D].
    """
    from safetensors.torch import save

    tensors = {}
    for name, rows in (("things", things), ("backgrounds", backgrounds)):
        packed, scale = quantize_rows(rows.flatten(0, -2))
        tensors[name] = packed.view(rows.shape)
        tensors[f"{name}_scale"] = scale.view(rows.shape[:-1])
    rows_path, index_path = _paths(path)
    entries = ",\n".join(f"{json.dumps(key)}: {_lines(value)}" for key, value in index.items())
    write_bytes(rows_path, save(tensors))
    write_bytes(index_path, gzip.compress(f"{{\n{entries}\n}}\n".encode(), mtime=0))


def _lines(value: Any) -> str:
    """JSON with one entry per line for lists, so that changes can be read."""
    if isinstance(value, list):
        rows = (json.dumps(entry, ensure_ascii=False, separators=(",", ":")) for entry in value)
        return "[\n" + ",\n".join(rows) + "\n]"
    return json.dumps(value)


def _unpacked(rows: Mapping[str, Tensor], name: str) -> Tensor:
    try:
        return rows[name].float() * rows[f"{name}_scale"][..., None]
    except KeyError as error:
        raise InputError(f"the bank holds no {error}; build it again") from error


def _paths(path: str | os.PathLike[str]) -> tuple[Path, Path]:
    name = os.fspath(path).removesuffix(".safetensors")
    return Path(f"{name}.safetensors"), Path(f"{name}.json.gz")
