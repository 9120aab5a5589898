"""Words beside pictures: when they decide, which frames they choose, and the lines that say why.

Nothing of `refocus_select.words` is imported until there are words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..beside import transcripts_beside
from ..selection import Quote, Selection

if TYPE_CHECKING:
    from ..cache import EncodingCache
    from ..encoding import VideoEncoding
    from ..video import Video
    from ..words.match import WordMatch
    from .base import Choice, FrameSelector

WORD_ARGUMENTS = ("words", "ocr", "transcribe", "language")

PICTURE_SHARE = 0.25
"""Weight of the pictures' scores beside the words' where these decide: among frames of one line, the one that fits."""

SHOWS = 0.8
"""Chance that a frame from the middle of a line shows what is meant."""

_TIES = 1e-3  # weight of one deviation of the pictures' scores against a chance of 1
_APART, _NEAR = 0.02, 2.0  # weight of nearness in time to a frame that is taken, and seconds in which it fades

SURE = 2.0
"""Deviations by which a line must stand out to be called an answer; below it there is a note."""

UNSURE = "nothing that is said or written clearly answers this question; the frames lie where it comes nearest"

_MOST_QUOTES = 8
_QUOTED = 2.0  # deviations by which a line may match worse than the best one and still be quoted


def with_words(
    video: Video,
    encoding: VideoEncoding,
    asked: Mapping[str, Any],
    *,
    encoder: Any,
    path: str | None,
    store: EncodingCache | None,
) -> VideoEncoding:
    """The encoding with the words of the video, if any are wanted and there.

    Args:
        video: open.
        encoding: of its candidates.
        asked: arguments of `FrameSelector.encode` (`WORD_ARGUMENTS`).
        encoder: of the selector; it may have a sentence encoder of its own.
        path: beside which a transcript is looked for.
        store: where words are kept.
    """
    words, silent = asked["words"], asked["transcribe"] is None and not asked["ocr"]
    if not words_wanted(words, asked["ocr"], asked["transcribe"]):
        return encoding
    if silent and (words is True or (isinstance(words, str) and words == "auto")):
        near = path or video.path
        if not video.has_subtitles and not (near and transcripts_beside(near)):
            return encoding
    from ..words.gather import WordRequest, gather_words
    from ..words.sentences import sentences_for

    request = WordRequest(**asked)
    found, notes = gather_words(video, encoding, request, sentences_for(encoder), path=path, store=store)
    return replace(encoding, words=found, warnings=(*encoding.warnings, *notes))


def words_wanted(words: Any, ocr: Any = False, transcribe: Any = None) -> bool:
    """Whether any words are asked for."""
    off = words is None or words is False or (isinstance(words, str) and words == "off")
    return not off or bool(ocr) or transcribe is not None


def choices_by_route(
    selector: FrameSelector,
    encoding: VideoEncoding,
    questions: list[str],
    num_frames: int,
    options: list[Sequence[str] | None],
    choice: Mapping[str, Any],
) -> tuple[list[Choice], list[WordMatch | None]]:
    """Let the pictures or the words decide each question.

    Samples and the released evaluation are of the policy alone.

    Args:
        selector: who chooses.
        encoding: of the video.
        questions, num_frames, options: as for `FrameSelector.choose`.
        choice: further arguments of the choice.

    Returns:
        A choice for each question, and the match of the words where they decided.
    """
    matches: list[WordMatch | None] = [None] * len(questions)
    heard = encoding.words is not None and len(encoding.words.passages) > 0
    if heard and selector.reads_words and not (choice.get("sample") or choice.get("protocol")):
        matches = [
            match if decides else None
            for match, decides in word_matches(
                encoding, questions, getattr(selector, "encoder", None), selector.picture_prominence
            )
        ]
    said = {row: match for row, match in enumerate(matches) if match is not None}
    seen = [row for row in range(len(questions)) if row not in said]
    chosen: dict[int, Choice] = {}
    if seen:
        asked, answers = [questions[row] for row in seen], [options[row] for row in seen]
        chosen.update(zip(seen, selector.choose(encoding, asked, num_frames, answers, **choice), strict=True))
    if said:
        found = selector.choose_by_words(
            encoding, [questions[row] for row in said], num_frames, list(said.values()), **choice
        )
        chosen.update(zip(said, found, strict=True))
    return [chosen[row] for row in range(len(questions))], matches


def word_matches(
    encoding: VideoEncoding,
    questions: Sequence[str],
    encoder: Any,
    seen: Callable[[VideoEncoding, str], float] | None = None,
) -> list[tuple[WordMatch, bool]]:
    """Each question held against the words of the video, which must be there, and whether the words decide it.

    Args:
        encoding: with words.
        questions: as text.
        encoder: of the selector; it may have a sentence encoder of its own.
        seen: how far what a question names stands out in the pictures; see `FrameSelector.picture_prominence`.
    """
    assert encoding.words is not None
    from ..words.asking import what_is_asked
    from ..words.match import words_decide
    from ..words.sentences import sentences_for

    sentences = sentences_for(encoder)
    index = encoding.words.index(sentences)
    asked = [what_is_asked(question) for question in questions]
    texts = list(dict.fromkeys([*questions, *(content for one in asked for content in one.contents)]))
    vectors = dict(zip(texts, sentences.encode(texts).numpy(), strict=True))
    matches = []
    for question, one in zip(questions, asked, strict=True):
        contents = np.stack([vectors[content] for content in one.contents])
        match = index.match(one, vectors[question], contents, encoding.timestamps)
        look = partial(seen, encoding, question) if seen is not None else _unseen
        matches.append((match, words_decide(one, match.prominence, look)))
    return matches


def _unseen() -> float:
    return -np.inf


def fused(scores: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """Scores by words, with pictures to break ties, on the scale of the pictures' scores.

    Both are standardised over the video; the sum has mean and deviation of `scores`.

    Args:
        scores: by pictures, [F].
        gains: by words, 0 to 1, [F].
    """
    both = standardised(standardised(gains) + PICTURE_SHARE * standardised(scores))
    return float(scores.mean()) + (float(scores.std()) or 1.0) * both


def standardised(values: np.ndarray) -> np.ndarray:
    """Mean 0 and deviation 1; zeros if all values are equal."""
    centred = np.asarray(values, np.float64) - np.mean(values)
    deviation = float(centred.std())
    return centred / deviation if deviation > 1e-12 else np.zeros(len(centred))


def cover_lines(
    match: WordMatch, timestamps: np.ndarray, num_frames: int, pictures: np.ndarray | None = None
) -> np.ndarray:
    """The frames that are likeliest to show what is meant.

    A question in other words than the answer has several likely lines. Frames are taken one by one where they add most
    to the chance that the right line is shown: a frame shows what belongs to its lines with chance `SHOWS`, so a
    further frame of one line adds less than the one before.

    Args:
        match: of F candidates.
        timestamps: of these, in seconds, [F].
        num_frames: K.
        pictures: the pictures' scores, which break ties among the frames of one line, [F].

    Returns:
        min(K, F) distinct picks, the most important first.
    """
    count = match.shown.shape[1]
    ties = np.zeros(count) if pictures is None else standardised(pictures)
    left = match.chances.max(axis=0)  # chance that the line is meant, and no frame has shown it yet, [n]
    free, near = np.ones(count, dtype=bool), np.zeros(count)
    picks: list[int] = []
    for _ in range(min(num_frames, count)):
        adds = SHOWS * (left @ match.shown)
        pick = int(np.where(free, adds + _TIES * ties - _APART * near, -np.inf).argmax())
        picks.append(pick)
        free[pick] = False
        near = np.maximum(near, np.exp(-np.abs(timestamps - timestamps[pick]) / _NEAR))
        left = left * (1 - SHOWS * match.shown[:, pick])
    return np.array(picks, dtype=np.int64)


def with_quotes(selection: Selection, encoding: VideoEncoding, match: WordMatch | None) -> Selection:
    """The selection with the lines of its moments, and those that decided."""
    if encoding.words is None:
        return selection
    times = encoding.timestamps
    heard = encoding.words.heard_at(selection.timestamps)
    lines = tuple(Quote(line.start, line.end, line.text, line.source, None) for line in heard)
    if match is None:
        return replace(selection, lines=lines)
    least = match.prominence - _QUOTED
    order = np.argsort(-match.lines, kind="stable")[:_MOST_QUOTES]
    passages = encoding.words.passages
    reach = max(3.0, *np.diff(times)) if len(times) > 1 else 3.0  # a short line may lie between two candidates
    chosen = {id(line) for line in encoding.words.heard_at(selection.timestamps, reach, reach)}
    if match.relation:  # then the frames lie before or after what is said
        chosen |= {id(passages[int(i)]) for i in match.likely}
    picked = sorted(int(i) for i in order if match.lines[i] >= least and id(passages[int(i)]) in chosen)
    quotes = tuple(
        Quote(p.start, p.end, p.text, p.source, float(match.lines[i])) for i in picked for p in [passages[i]]
    )
    unsure = (UNSURE,) if match.prominence < SURE else ()
    return replace(selection, lines=lines, quotes=quotes, warnings=(*selection.warnings, *unsure))
