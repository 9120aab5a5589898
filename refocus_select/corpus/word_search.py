"""What is said and written in the videos of an index, searched as one transcript."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ..encoding import VideoEncoding
from ..selection import Quote
from ..words.asking import what_is_asked
from ..words.match import LineIndex, words_decide
from ..words.sentences import sentences_for
from ..words.transcript import Line
from .index_files import Entry
from .search import Hit, apart


class WordSearch:
    """The lines of all videos, compared with a question at once."""

    def __init__(self, entries: Iterable[Entry], load: Callable[[Entry], VideoEncoding], encoder: Any) -> None:
        """Read all words.

        Args:
            entries: the videos.
            load: the encoding of one of them.
            encoder: of the selector; it may have a sentence encoder of its own.
        """
        self._sentences = sentences_for(encoder)
        self._videos: list[tuple[str, np.ndarray, np.ndarray]] = []  # path, frame numbers, times
        self._owners: list[int] = []
        lines: list[Line] = []
        vectors: list[np.ndarray] = []
        for entry in entries:
            encoding = load(entry)
            if encoding.words is None:
                continue
            known = encoding.words.index(self._sentences)
            lines += known.lines
            vectors.append(known.vectors)
            self._owners += [len(self._videos)] * len(known.lines)
            self._videos.append((entry.video, encoding.indices, encoding.timestamps))
        self._index = LineIndex(lines, np.concatenate(vectors), self._sentences.unrelated) if lines else None

    def best(self, question: str, k: int, min_gap: float) -> list[Hit] | None:
        """The moments at which what is asked for is said or written, best first; None if the pictures should decide."""
        asked = what_is_asked(question)
        if self._index is None:
            return None
        vectors = self._sentences.encode([question, *asked.contents]).numpy()
        each = self._index.compare(asked, vectors[0], vectors[1:])
        if not words_decide(asked, float(each.max(axis=1).min()), lambda: float("-inf")):
            return None
        matches = each.max(axis=0)
        order = np.argsort(-matches, kind="stable")
        moments = [self._moment(int(row)) for row in order]
        kept = apart([self._owners[row] for row in order], [time for time, _ in moments], min_gap, k)
        return [self._hit(int(order[place]), float(matches[order[place]]), *moments[place]) for place in kept]

    def _moment(self, row: int) -> tuple[float, int]:
        """The candidate at which a line is said or can be read best: its time and frame number."""
        assert self._index is not None
        line = self._index.lines[row]
        _, indices, times = self._videos[self._owners[row]]
        place = int(np.abs(times - (line.middle if line.best is None else line.best)).argmin())
        return float(times[place]), int(indices[place])

    def _hit(self, row: int, match: float, time: float, index: int) -> Hit:
        assert self._index is not None
        line = self._index.lines[row]
        quote = Quote(line.start, line.end, line.text, line.source, match)
        return Hit(self._videos[self._owners[row]][0], time, index, match, quote)
