"""Which lines of a video answer a question, whether the words or the pictures should decide, and what frames gain.

Lines and questions are compared by their sentence vectors, and by the rare words that they share, since sentence
vectors are weak on names and numbers. Blind mixing of words and pictures hurts (Q-Gate, 2026): a gate decides by what
the question asks for ("Where does she explain …", "Which title …") and by how far the best line stands out among the
best lines for unrelated questions.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..parsing import content_phrase
from .transcript import WRITTEN, Line

SHARED_WORDS = 0.5  # what sharing all rare words adds to a cosine
ASKED, UNASKED = 4.0, 9.0  # deviations by which the best line must stand out if the question asks for words, or not
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

# Questions about words have one of these; "read", "sign" and "name" alone also stand in questions about pictures.
_ABOUT_WORDS = re.compile(
    r"\b(say(s|ing)?|said|tell(s|ing)?|told|talk(s|ed|ing)?|speak(s|ing)?|spoke|spoken|mention(s|ed|ing)?|quot(es?|ed)|"
    r"expla(in|ins|ined|ining|nation)|discuss(es|ed|ion)?|describ(es?|ed)|announc(es?|ed)|defin(es?|ed|ition)|"
    r"argu(es?|ed)|claim(s|ed)?|answer(s|ed)?|asks?|asked|greet(s|ed)?|whisper(s|ed)?|shout(s|ed)?|sings?|lyrics|"
    r"words?|sentences?|phrases?|subtitles?|captions?|text|titles?|headlines?|headings?|written|writes?|wrote|"
    r"reads?|spell(s|ed)?|slides?|credits?|labels?|called|according to|introduc(es?|ed)|recommend(s|ed)?|"
    r"warn(s|ed)?|promis(es?|ed)|comment(s|ed)?|remark(s|ed)?|lecture(r|s)?|speaker|interview(s|ed|er)?|topic)\b",
    re.IGNORECASE,
)
_WRITTEN_WORDS = re.compile(
    r"\b(text|titles?|headlines?|headings?|written|writes?|reads?|slides?|credits?|labels?|captions?|screen)\b", re.I
)
_ROUTINE = frozenset(
    """
    say says said tell tells told talk talks speak speaks spoken mention mentions mentioned explain explains explained
    discuss discusses discussed describe describes described announce announces word words sentence phrase text title
    titles headline heading written write reads read slide slides credit credits called speaker lecturer lecture topic
    according subtitle caption he she they
    """.split()  # noqa: SIM905
)


@dataclass(frozen=True)
class WordMatch:
    """A question held against the lines of a video.

    Attributes:
        lines: how well each line matches, float64 [L].
        prominence: how far the best line stands out among those of unrelated questions, in deviations.
        decides: whether the words, not the pictures, should decide.
        frames: what each candidate frame gains from the lines said or shown there, 0 to 1, float64 [F].
    """

    lines: np.ndarray
    prominence: float
    decides: bool
    frames: np.ndarray


def asks_for_words(question: str) -> bool:
    """Whether a question asks about what is said or written."""
    return _ABOUT_WORDS.search(question) is not None


class LineIndex:
    """The lines of one video, ready to be compared with questions."""

    def __init__(self, lines: Sequence[Line], vectors: np.ndarray, unrelated: np.ndarray) -> None:
        """Keep what all questions need.

        Args:
            lines: L passages.
            vectors: their sentence vectors, unit length, [L, s].
            unrelated: sentence vectors of unrelated texts, [T, s].
        """
        self.lines = tuple(lines)
        self.vectors = vectors
        self._terms = [_terms(line.text) for line in lines]
        documents = Counter(term for terms in self._terms for term in terms)
        self._rarity = {term: math.log(1 + len(lines) / count) for term, count in documents.items()}
        peaks = (unrelated @ vectors.T).max(axis=1) if len(lines) else np.zeros(len(unrelated))
        self._middle = float(np.median(peaks))
        self._spread = float(max(np.median(np.abs(peaks - self._middle)) * 1.4826, 0.02))

    def match(self, question: str, sentence: np.ndarray, content: np.ndarray, timestamps: np.ndarray) -> WordMatch:
        """Compare a question with all lines.

        Args:
            question: its text.
            sentence: its sentence vector [s].
            content: the sentence vector of `content_of(question)` [s].
            timestamps: of the candidate frames, seconds, sorted [F].
        """
        if not self.lines:
            return WordMatch(np.zeros(0), 0.0, False, np.zeros(len(timestamps)))
        cosines = np.maximum(self.vectors @ sentence, self.vectors @ content)
        matches = cosines + SHARED_WORDS * self._shared(content_of(question))
        if _WRITTEN_WORDS.search(question):  # a question for a title means the title, not who reads it out
            matches = matches + 0.1 * np.array([line.source == WRITTEN for line in self.lines])
        prominence = (float(matches.max()) - self._middle) / self._spread
        decides = prominence >= (ASKED if asks_for_words(question) else UNASKED)
        return WordMatch(matches, prominence, decides, frame_gains(self.lines, matches, timestamps))

    def _shared(self, content: str) -> np.ndarray:
        """Which part of the question's rare words each line has, weighted by rarity, [L]."""
        asked = _terms(content)
        unknown = math.log(1 + len(self.lines))  # words that no line has count as the rarest
        total = sum(self._rarity.get(term, unknown) for term in asked)
        if not total:
            return np.zeros(len(self.lines))
        return np.array([sum(self._rarity[term] for term in asked & terms) / total for terms in self._terms])


def frame_gains(lines: Sequence[Line], matches: np.ndarray, timestamps: np.ndarray) -> np.ndarray:
    """What candidate frames gain from the lines said or shown there, 0 to 1, float64 [F].

    A spoken line counts while it is said, and fades in the seconds after it; a written one counts while it is shown,
    and most where it can be read best. A line between two candidates counts for the nearer one.
    """
    scaled = _scaled(matches)
    gains = np.zeros(len(timestamps))
    for line, match in zip(lines, scaled, strict=True):
        if match <= 0:
            continue
        first = int(np.searchsorted(timestamps, line.start - _BEFORE))
        last = int(np.searchsorted(timestamps, line.end + _AFTER))
        times = timestamps[first:last]
        inside = (times <= line.end).astype(np.float64)
        weight = np.where(times <= line.end, 1.0, 0.7 * np.exp(-(times - line.end) / _AFTER))
        if line.source == WRITTEN:
            weight = 0.8 * inside
        gains[first:last] = np.maximum(gains[first:last], match * weight)
        moment = line.best if line.best is not None else line.middle
        if line.best is not None or not inside.any():
            nearest = int(np.abs(timestamps - moment).argmin())
            gains[nearest] = max(gains[nearest], match)
    return gains


def content_of(question: str) -> str:
    """What a question about words wants to hear of: "Where does she explain overfitting?" -> "overfitting"."""
    phrase = content_phrase(question)
    kept = [word for word in phrase.split() if word.lower() not in _ROUTINE]
    return " ".join(kept) or phrase


def _scaled(matches: np.ndarray) -> np.ndarray:
    """0 for the usual line, 1 for the best; steep, so that the second best line gains clearly less."""
    usual, best = np.median(matches), matches.max()
    if len(matches) < 3 or best - usual < 1e-6:
        usual = best - 0.5
    return np.clip((matches - usual) / (best - usual), 0, 1) ** 3


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
