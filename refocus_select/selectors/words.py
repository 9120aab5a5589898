"""Words beside pictures: when they decide, which frames they choose, and the lines that say why.

Nothing of `refocus_select.words` is imported until there are words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
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

_APART = 0.5  # weight of nearness in time against one deviation of what words say, where nothing else is known
_MOST_QUOTES = 8
_QUOTED = 0.35  # share of the best match that a line needs to be quoted, from the usual line (0) to the best (1)


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
    if silent and (words is None or words is False or (isinstance(words, str) and words == "off")):
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
    if encoding.words is not None and selector.reads_words and not (choice.get("sample") or choice.get("protocol")):
        matches = word_matches(encoding, questions, getattr(selector, "encoder", None))
    said = {row: match.frames for row, match in enumerate(matches) if match is not None}
    seen = [row for row in range(len(questions)) if row not in said]
    chosen: dict[int, Choice] = {}
    if seen:
        asked, answers = [questions[row] for row in seen], [options[row] for row in seen]
        chosen.update(zip(seen, selector.choose(encoding, asked, num_frames, answers, **choice), strict=True))
    if said:
        asked, gains = [questions[row] for row in said], list(said.values())
        found = selector.choose_by_words(encoding, asked, num_frames, gains, **choice)
        chosen.update(zip(said, found, strict=True))
    return [chosen[row] for row in range(len(questions))], matches


def word_matches(encoding: VideoEncoding, questions: Sequence[str], encoder: Any) -> list[WordMatch | None]:
    """Each question held against the words of the video, which must be there; None where the pictures decide."""
    assert encoding.words is not None
    from ..words.match import content_of
    from ..words.sentences import sentences_for

    sentences = sentences_for(encoder)
    index = encoding.words.index(sentences)
    vectors = sentences.encode([*questions, *map(content_of, questions)]).numpy()
    matches = []
    for row, question in enumerate(questions):
        match = index.match(question, vectors[row], vectors[len(questions) + row], encoding.timestamps)
        matches.append(match if match.decides else None)
    return matches


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


def apart_in_time(gains: np.ndarray, timestamps: np.ndarray, num_frames: int) -> np.ndarray:
    """Picks with large gains that lie apart, where the pictures cannot be compared: min(K, F) positions."""
    times = np.asarray(timestamps, np.float64)
    reach = max(1.0, float(times[-1] - times[0]) / (8.0 * max(num_frames, 1)))
    near = np.exp(-np.abs(times[:, None] - times[None]) / reach)
    return spread_picks(standardised(gains), near, num_frames, _APART)


def spread_picks(relevance: np.ndarray, alike: np.ndarray, num_frames: int, diversity: float) -> np.ndarray:
    """Picks with high scores that differ: maximal marginal relevance (Carbonell & Goldstein, 1998).

    Args:
        relevance: standardised scores, [F].
        alike: how much frames show the same, 1 on the diagonal, [F, F].
        num_frames: K.
        diversity: weight of likeness against one deviation of relevance.

    Returns:
        min(K, F) distinct picks; ties go to the earlier candidate.
    """
    nearest, free = np.zeros(len(relevance)), np.ones(len(relevance), dtype=bool)
    picks: list[int] = []
    for _ in range(min(num_frames, len(relevance))):
        pick = int(np.where(free, relevance - diversity * nearest, -np.inf).argmax())
        picks.append(pick)
        free[pick] = False
        nearest = np.maximum(nearest, alike[pick])
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
    usual, best = float(np.median(match.lines)), float(match.lines.max())
    least = max(usual + _QUOTED * (best - usual), 0.0)
    order = np.argsort(-match.lines, kind="stable")[:_MOST_QUOTES]
    passages = encoding.words.passages
    reach = max(3.0, *np.diff(times)) if len(times) > 1 else 3.0  # a short line may lie between two candidates
    chosen = {id(line) for line in encoding.words.heard_at(selection.timestamps, reach, reach)}
    picked = sorted(int(i) for i in order if match.lines[i] >= least and id(passages[int(i)]) in chosen)
    quotes = tuple(
        Quote(p.start, p.end, p.text, p.source, float(match.lines[i])) for i in picked for p in [passages[i]]
    )
    return replace(selection, lines=lines, quotes=quotes)
