"""Vectors of all frames of an index, and the best of them for a question: exactly, or with faiss."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..encoding import VideoEncoding
from ..errors import InputError, MissingDependencyError
from ..selection import Quote
from .index_files import Entry
from .output import write_output

logger = logging.getLogger(__name__)

LARGE = 500_000  # frames from which comparing with all of them takes longer than a tenth of a second per core
_BLOCK = 65_536  # frames compared at once
_TRAINING = 64  # vectors per cell that faiss learns its cells from


@dataclass(frozen=True)
class Hit:
    """A moment that a search has found.

    Attributes:
        video: path.
        timestamp: seconds from the first frame.
        index: frame number.
        score: similarity to the question; larger is better, comparable within one index. Of a line that is said or
            written: by how many deviations it matches better than lines match unrelated texts.
        quote: the line, where words decided.
    """

    video: str
    timestamp: float
    index: int
    score: float
    quote: Quote | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


class Search(ABC):
    """The frames of an index by number: frame f is candidate f - starts[v] of video v."""

    def __init__(self, entries: Sequence[Entry], load: Callable[[Entry], VideoEncoding]) -> None:
        """Read all vectors.

        Args:
            entries: the videos.
            load: the encoding of one of them.
        """
        self._entries, self._load = list(entries), load
        counts = [entry.candidates for entry in entries]
        self._starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)  # [V + 1]
        self._times = np.empty(self._starts[-1])
        self._indices = np.empty(self._starts[-1], dtype=np.int64)
        self._read()

    def best(self, vector: np.ndarray, k: int, min_gap: float) -> list[Hit]:
        """At most k moments, the best first."""
        total = len(self._times)
        asked = min(total, k if min_gap == 0 else 16 * k)
        while True:
            frames, scores = self._nearest(vector, asked)
            kept = self._apart(frames, min_gap, k)
            if len(kept) >= min(k, total) or asked >= total or len(frames) < asked:
                break
            asked = min(total, 4 * asked)
        videos = np.searchsorted(self._starts, frames[kept], side="right") - 1
        return [
            Hit(self._entries[v].video, float(self._times[f]), int(self._indices[f]), float(s))
            for v, f, s in zip(videos.tolist(), frames[kept].tolist(), scores[kept].tolist(), strict=True)
        ]

    def _apart(self, frames: np.ndarray, min_gap: float, k: int) -> list[int]:
        """Places in `frames` that are kept: none too near to a better one."""
        videos = np.searchsorted(self._starts, frames, side="right") - 1
        return apart(videos.tolist(), self._times[frames].tolist(), min_gap, k)

    def _encodings(self) -> Iterator[VideoEncoding]:
        return map(self._load, self._entries)

    def _read(self) -> None:
        for number, encoding in enumerate(self._encodings()):
            part = slice(self._starts[number], self._starts[number + 1])
            self._times[part], self._indices[part] = encoding.timestamps, encoding.indices
            self._add(part, encoding.tensors["embeddings"].float().numpy())

    @abstractmethod
    def _add(self, part: slice, vectors: np.ndarray) -> None:
        """Take the vectors of a video, [F, D]."""

    @abstractmethod
    def _nearest(self, vector: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Frame numbers and scores of the best, best first."""


def apart(videos: Sequence[int], times: Sequence[float], min_gap: float, k: int) -> list[int]:
    """Places of at most k moments, the best of which come first, none within `min_gap` seconds of a better one."""
    kept: list[int] = []
    taken: dict[int, list[float]] = {}
    for place, (video, time) in enumerate(zip(videos, times, strict=True)):
        moments = taken.setdefault(video, [])
        if min_gap and any(abs(time - moment) < min_gap for moment in moments):
            continue
        moments.append(time)
        kept.append(place)
        if len(kept) == k:
            break
    return kept


class ExactSearch(Search):
    """Compares with every frame."""

    _vectors: np.ndarray | None = None

    def _add(self, part: slice, vectors: np.ndarray) -> None:
        if self._vectors is None:
            self._vectors = np.empty((self._starts[-1], vectors.shape[1]), dtype=np.float16)  # as they are stored
        self._vectors[part] = vectors

    def _nearest(self, vector: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        assert self._vectors is not None  # an index that is searched is not empty
        scores = np.empty(len(self._vectors), dtype=np.float32)
        for start in range(0, len(scores), _BLOCK):
            scores[start : start + _BLOCK] = self._vectors[start : start + _BLOCK].astype(np.float32) @ vector
        likely = np.argpartition(-scores, count - 1)[:count] if count < len(scores) else np.arange(len(scores))
        order = likely[np.lexsort((likely, -scores[likely]))]
        return order, scores[order]


class FaissSearch(Search):
    """Compares with the frames in the cells near the question (an inverted file; Johnson et al., "Billion-scale
    similarity search with GPUs", 2017). Its file is kept beside the index until that changes."""

    def __init__(self, entries: Sequence[Entry], load: Callable[[Entry], VideoEncoding], folder: Path) -> None:
        """Read the stored file, or learn and store it.

        Args:
            entries: the videos.
            load: the encoding of one of them.
            folder: of the index.
        """
        self._faiss = _faiss()
        self._path = folder / "search.faiss"
        self._digest_path = folder / "search.sha256"
        self._table_digest = hashlib.sha256(json.dumps([asdict(entry) for entry in entries]).encode()).hexdigest()
        self._stored = self._read_stored()
        super().__init__(entries, load)
        if self._stored is None:
            self._save()

    def _read_stored(self) -> Any:
        if not self._path.is_file() or not self._digest_path.is_file():
            return None
        content = np.fromfile(self._path, dtype=np.uint8)
        if self._digest_path.read_text("ascii") != self._identity(content):
            return None
        return self._faiss.deserialize_index(content)

    def _identity(self, content: np.ndarray) -> str:
        digest = hashlib.sha256(self._table_digest.encode())
        digest.update(content.tobytes())
        return digest.hexdigest()

    def _save(self) -> None:
        content = self._faiss.serialize_index(self._index)
        write_output(self._digest_path, lambda file: file.write(self._identity(content).encode()))
        write_output(self._path, lambda file: file.write(content.tobytes()))

    def _read(self) -> None:
        self._index = self._stored if self._stored is not None else self._trained()
        super()._read()
        self._index.nprobe = max(8, self._index.nlist // 8)

    def _add(self, part: slice, vectors: np.ndarray) -> None:
        if self._stored is None:
            self._index.add(np.ascontiguousarray(vectors, dtype=np.float32))

    def _trained(self) -> Any:
        """An empty inverted file whose cells were learned from an even sample of the collection."""
        total = int(self._starts[-1])
        cells = int(np.clip(4 * np.sqrt(total), 1, max(1, total // 39)))  # faiss wants 39 vectors per cell at least
        step = max(1, total // (_TRAINING * cells))
        sample = np.concatenate([e.tensors["embeddings"].float().numpy()[::step] for e in self._encodings()])
        faiss = self._faiss
        coarse = faiss.IndexFlatIP(sample.shape[1])
        made = faiss.IndexIVFScalarQuantizer(
            coarse, sample.shape[1], cells, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT, False
        )
        made.train(np.ascontiguousarray(sample, dtype=np.float32))
        return made

    def _nearest(self, vector: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        scores, frames = self._index.search(np.ascontiguousarray(vector[None], dtype=np.float32), count)
        found = frames[0] >= 0
        return frames[0][found], scores[0][found]


def choose_engine(engine: str, frames: int) -> str:
    """ "exact" or "faiss".

    Raises:
        InputError: for another name.
        MissingDependencyError: if faiss was asked for and is not there.
    """
    if engine not in ("auto", "exact", "faiss"):
        raise InputError(f"engine must be 'auto', 'exact' or 'faiss', not {engine!r}")
    if engine == "faiss":
        _faiss()
    if engine != "auto":
        return engine
    if frames < LARGE:
        return "exact"
    if importlib.util.find_spec("faiss") is None:
        logger.info("%d frames are compared one by one; pip install 'refocus-select[search]' for less", frames)
        return "exact"
    return "faiss"


def open_search(engine: str, entries: Sequence[Entry], load: Callable[[Entry], VideoEncoding], folder: Path) -> Search:
    """The search of the index in a folder; see `choose_engine`."""
    return FaissSearch(entries, load, folder) if engine == "faiss" else ExactSearch(entries, load)


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise MissingDependencyError("the engine 'faiss' needs faiss: pip install 'refocus-select[search]'") from error
    return faiss
