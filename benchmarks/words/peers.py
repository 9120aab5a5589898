"""What words are compared with: lines alone, by BM25 or by sentence vectors, and blind fusion of ranks."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from refocus_select.encoding import VideoEncoding
from refocus_select.selectors.algorithms import uniform
from refocus_select.words.match import LineIndex

RRF = 60  # constant of reciprocal rank fusion (Cormack et al., 2009)


def bm25(lines: Sequence[str], question: str, *, k1: float = 1.2, b: float = 0.75) -> np.ndarray:
    """Okapi BM25 (Robertson & Zaragoza, 2009) of each line for a question, [L]."""
    documents = [Counter(_words(line)) for line in lines]
    lengths = np.array([sum(document.values()) for document in documents], float)
    known = Counter(word for document in documents for word in document)
    scores = np.zeros(len(lines))
    for word in set(_words(question)):
        rarity = math.log(1 + (len(lines) - known[word] + 0.5) / (known[word] + 0.5))
        counts = np.array([document[word] for document in documents], float)
        scores += rarity * counts * (k1 + 1) / (counts + k1 * (1 - b + b * lengths / max(lengths.mean(), 1.0)))
    return scores


def frames_of_lines(scores: np.ndarray, index: LineIndex, times: np.ndarray, num_frames: int) -> np.ndarray:
    """The middle frame of each of the best lines in turn; evenly spread frames if no line has a score."""
    if scores.max() <= 0:
        return uniform(times, num_frames)
    picks: list[int] = []
    for row in np.argsort(-scores, kind="stable"):
        line = index.lines[int(row)]
        moment = line.middle if line.best is None else line.best
        pick = int(np.abs(times - moment).argmin())
        if pick not in picks and scores[row] > 0:
            picks.append(pick)
        if len(picks) == num_frames:
            break
    return np.array(picks)


def fused_ranks(pictures: np.ndarray, said: np.ndarray, num_frames: int) -> np.ndarray:
    """The frames with the best sum of reciprocal ranks by pictures and by words, whatever is asked."""
    total = np.zeros(len(pictures))
    for scores in (pictures, said):
        ranks = np.argsort(np.argsort(-scores, kind="stable"), kind="stable")
        total += 1 / (RRF + 1 + ranks)
    return np.argsort(-total, kind="stable")[:num_frames]


def said_at(matches: np.ndarray, index: LineIndex, encoding: VideoEncoding) -> np.ndarray:
    """The best match of the lines that are said or shown at each candidate, [F]."""
    times = encoding.timestamps
    scores = np.full(len(times), float(matches.min()) - 1.0)
    for line, match in zip(index.lines, matches, strict=True):
        inside = (times >= line.start - 0.25) & (times <= line.end)
        scores[inside] = np.maximum(scores[inside], match)
    return scores


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
