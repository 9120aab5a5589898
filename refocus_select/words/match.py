"""Which lines of a video answer a question, whether the words or the pictures should decide, and what frames show.

Lines and questions are compared by their sentence vectors, and by the rare words that they share, since sentence
vectors are weak on names and numbers. All is measured in deviations over unrelated texts on the same video: how much
better does a line match than the best line for anything else would? So numbers mean the same for every sentence
encoder, and beside the pictures, which are measured alike (`models.recognition`).

Blind mixing of words and pictures hurts (Q-Gate, 2026): a gate decides by what the question asks for ("Where does she
explain …", "Which title …"), by how far the best line stands out, and by how far the pictures do.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .asking import Asked
from .transcript import SPOKEN, WRITTEN, Line

SHARED_WORDS = 4.0  # deviations that sharing all rare words adds
OTHER_SOURCE = 3.0  # deviations that a written line lacks where the question asks for what is said
WANTED_SOURCE = 1.5  # deviations that a written line gains where the question asks for what is written
OPEN_CLAUSE, OPEN_ASKED, OPEN_UNASKED = -1.0, 4.0, 7.0
"""Deviations by which the best line must stand out for the words to decide: where the question tells what is said
("while she says that …"), where it only has a word that asks for words ("title"), and where it has none."""
AS_GOOD, OTHER_TIME = 2.0, 0.1
"""Deviations within which lines say the same, and what the chances of the others are multiplied by where the first or
the last time is asked for."""
MOST_LINES = 16  # lines that may be what is meant; further ones are less likely by far
_AFTER = 3.0  # seconds after a spoken line in which frames still belong to it
_BEFORE = 0.25

UNRELATED = tuple(
    text.strip()
    for text in """
    How is olive oil pressed?|The history of the Olympic Games|Who won the chess tournament?|Repairing a bicycle tyre
    When do whales migrate?|Interest rates and inflation|A recipe for lentil soup|The rules of cricket
    Learning to play the violin|What causes a rainbow?|The election of a mayor|Training a puppy to sit
    How do vaccines work?|Packing a suitcase for a journey|Roman roads and bridges|The price of coffee beans
    Growing tomatoes on a balcony|A strike of the train drivers|The orbit of Jupiter's moons|How to knit a scarf
    Sorting a list of numbers|A painting by Vermeer|Forest fires in summer|The birth of a giraffe at the zoo
    Changing the oil of a car|Poems about the sea|A new phone with a better camera|The wages of nurses
    How glaciers shape valleys|Buying a first house|The rehearsal of a choir|Why do leaves turn red?
    Electric cars and charging stations|The trial of a banker|Yoga for a stiff back|A treaty between two countries
    The taste of different cheeses|How bees find their hive|Writing a letter of complaint|The speed of light
    Building a wooden table|A storm on the coast|The final of the football cup|Teaching children to read
    Sugar and healthy teeth|Mining for copper|The costumes of a ballet|Saving files on a computer
    """.strip()
    .replace("\n", "|")
    .split("|")
)
"""Texts about many things, to know how well lines match what has nothing to do with them."""


@dataclass(frozen=True)
class WordMatch:
    """A question held against the lines of a video.

    Attributes:
        lines: how well each line matches, in deviations over unrelated texts, float64 [L].
        prominence: of the best line.
        relation: of what is asked for to what is named; see `Asked`.
        likely: the lines that may be meant, int64 [n].
        chances: of each to be meant, for each thing that the question names; rows sum to 1, float64 [C, n].
        shown: how far a candidate frame belongs to each of them, 0 to 1, float64 [n, F].
    """

    lines: np.ndarray
    prominence: float
    relation: str
    likely: np.ndarray
    chances: np.ndarray
    shown: np.ndarray

    @property
    def gains(self) -> np.ndarray:
        """What each candidate frame gains from the lines said or shown there, for each thing, 0 to 1, [C, F]."""
        relative = self.chances / self.chances.max(axis=1, keepdims=True)
        gains: np.ndarray = (relative[:, :, None] * self.shown).max(axis=1)
        return gains


def words_decide(asked: Asked, prominence: float, seen: Callable[[], float]) -> bool:
    """Whether a question is answered by words rather than by pictures.

    Args:
        asked: what it asks for.
        prominence: of the best line, in deviations.
        seen: how far what it names stands out in the pictures, in deviations; asked only if the words would decide.
    """
    if asked.for_words:
        return prominence >= (OPEN_CLAUSE if asked.clause else OPEN_ASKED)
    return prominence >= OPEN_UNASKED and prominence >= seen()


class LineIndex:
    """The lines of one video, ready to be compared with questions."""

    def __init__(self, lines: Sequence[Line], vectors: np.ndarray, unrelated: np.ndarray) -> None:
        """Keep what all questions need.

        Args:
            lines: L passages, at least one.
            vectors: their sentence vectors, unit length, [L, s].
            unrelated: sentence vectors of unrelated texts, [T, s].
        """
        self.lines = tuple(lines)
        self.vectors = vectors
        self._terms = [_terms(line.text) for line in lines]
        documents = Counter(term for terms in self._terms for term in terms)
        self._rarity = {term: math.log(1 + len(lines) / count) for term, count in documents.items()}
        self._written = np.array([line.source == WRITTEN for line in lines])
        self._spoken = any(line.source == SPOKEN for line in lines)
        peaks = (unrelated @ vectors.T).max(axis=1)
        self._middle = float(np.median(peaks))
        self._spread = float(max(np.median(np.abs(peaks - self._middle)) * 1.4826, 0.02))

    def match(self, asked: Asked, sentence: np.ndarray, contents: np.ndarray, timestamps: np.ndarray) -> WordMatch:
        """Compare a question with all lines.

        Args:
            asked: what it asks for.
            sentence: its sentence vector [s].
            contents: sentence vectors of what it looks for, [C, s].
            timestamps: of the candidate frames, seconds, sorted [F].
        """
        each = self.compare(asked, sentence, contents)
        prominence = float(each.max(axis=1).min())
        likely = np.argsort(-each.max(axis=0), kind="stable")[:MOST_LINES]
        chances = np.exp(each[:, likely] - each[:, likely].max(axis=1, keepdims=True))
        if asked.relation in ("first", "last"):
            chances = chances * self._in_order(likely, each[:, likely].max(axis=0), asked.relation)
        shown = np.stack([frames_of(self.lines[i], timestamps) for i in likely.tolist()])
        return WordMatch(
            each.max(axis=0), prominence, asked.relation, likely, chances / chances.sum(axis=1, keepdims=True), shown
        )

    def _in_order(self, likely: np.ndarray, matches: np.ndarray, relation: str) -> np.ndarray:
        """Weights of the likely lines where the first or the last time is asked for: of those alike, one counts."""
        starts = np.array([self.lines[i].start for i in likely.tolist()])
        alike = matches >= matches.max() - AS_GOOD
        wanted = starts[alike].min() if relation == "first" else starts[alike].max()
        return np.where(alike & (starts != wanted), OTHER_TIME, 1.0)

    def compare(self, asked: Asked, sentence: np.ndarray, contents: np.ndarray) -> np.ndarray:
        """How well each line matches what is asked for, in deviations over unrelated texts, float64 [C, L].

        Arguments as for `match`.
        """
        each = np.stack([self._compared(vector, text) for vector, text in zip(contents, asked.contents, strict=True)])
        if len(each) == 1:  # the whole question may say more than what it looks for
            each = np.maximum(each, self._compared(sentence, asked.contents[0]))
        if asked.for_writing:  # a question for a title means the title, not who reads it out
            each = each + WANTED_SOURCE * self._written
        elif asked.clause and self._spoken:
            each = each - OTHER_SOURCE * self._written
        return each

    def _compared(self, vector: np.ndarray, text: str) -> np.ndarray:
        """How well each line matches a phrase, in deviations, [L]."""
        cosines = (self.vectors @ vector - self._middle) / self._spread
        matches: np.ndarray = cosines + SHARED_WORDS * self._shared(text)
        return matches

    def _shared(self, content: str) -> np.ndarray:
        """Which part of the question's rare words each line has, weighted by rarity, [L]."""
        asked = _terms(content)
        unknown = math.log(1 + len(self.lines))  # words that no line has count as the rarest
        total = sum(self._rarity.get(term, unknown) for term in asked)
        if not total:
            return np.zeros(len(self.lines))
        return np.array([sum(self._rarity[term] for term in asked & terms) / total for terms in self._terms])


def frames_of(line: Line, timestamps: np.ndarray) -> np.ndarray:
    """How far candidate frames belong to a line, 0 to 1, float64 [F].

    A spoken line counts while it is said, in its middle most, and fades in the seconds after it; a written one counts
    while it is shown, and most where it can be read best. A line between two candidates counts for the nearer one.
    """
    shown = np.zeros(len(timestamps))
    first = int(np.searchsorted(timestamps, line.start - _BEFORE))
    last = int(np.searchsorted(timestamps, line.end + _AFTER))
    times = timestamps[first:last]
    inside = (times <= line.end).astype(np.float64)
    written = line.source == WRITTEN
    aside = np.abs(times - line.middle) / max(line.end - line.middle, 1e-6)
    said = np.where(inside, 1.0 - 0.1 * aside, 0.7 * np.exp(-(times - line.end) / _AFTER))
    shown[first:last] = 0.8 * inside if written else said
    if line.best is not None or not inside.any():
        moment = line.best if line.best is not None else line.middle
        shown[int(np.abs(timestamps - moment).argmin())] = 1.0
    return shown


@lru_cache(maxsize=65536)
def _terms(text: str) -> frozenset[str]:
    """Words that carry meaning, without their endings."""
    words = re.findall(r"\w+", text.lower())
    return frozenset(re.sub(r"(ies|ing|ed|es|s|ly)$", "", w) if len(w) > 4 else w for w in words if w not in _STOP)


_STOP = frozenset(
    """a an and are as at be but by can did do does for from had has have he her his how i if in into is it its just me
    my not of on one or our she so some than that the their them then there these they this to up us very was we were
    what when where which who why will with would you your about after before during while first last""".split()  # noqa: SIM905
)
