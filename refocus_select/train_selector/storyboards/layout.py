"""Where the scenes of a storyboard lie in time, and which pictures fill it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .bank import Bank

NOTHING = -1000
"""Stands for a frame without any thing: background only."""

STEPS_BETWEEN_CANDIDATES = (0.5, 1.0, 2.0)
_LENGTHS, _LENGTH_SHARES = (1, 2, 3, 4, 5), (0.22, 0.34, 0.28, 0.1, 0.06)
_REPEAT_GAP = 3  # frames at least between two scenes of the same thing


@dataclass(frozen=True)
class Scene:
    """Some neighbouring frames that show one thing.

    Attributes:
        concept: number in the bank; -1 - i for a card of kind i.
        series: number of the bank's series that is shown.
        start, stop: positions among the candidates, stop excluded.
    """

    concept: int
    series: int
    start: int
    stop: int


@dataclass(frozen=True)
class Layout:
    """A video as a list of pictures.

    Attributes:
        timestamps: of the candidates in seconds, float64 [F].
        scenes: in the order of time; they do not overlap.
        shown: what each frame shows, as `Scene.concept`, or NOTHING, int64 [F].
        series: series of each frame, or -1 for a frame of background, int64 [F].
        step: place within the series, or the row of the bank's backgrounds, int64 [F].
    """

    timestamps: np.ndarray
    scenes: tuple[Scene, ...]
    shown: np.ndarray
    series: np.ndarray
    step: np.ndarray


def place(
    rng: np.random.Generator,
    sequence: Sequence[int],
    num_candidates: int,
    *,
    pinned: tuple[int, float] | None = None,
    pace: float = 1.0,
) -> list[tuple[int, int]]:
    """Positions for scenes in a given order.

    Args:
        sequence: concepts in the order of their scenes.
        num_candidates: F.
        pinned: a scene (by its place in the sequence) and the share of the video's length where its middle must lie;
            no other scene comes within a tenth of the video of it.
        pace: how many times longer than usual the scenes are.

    Returns:
        (start, stop) of each scene.
    """
    lengths = rng.choice(_LENGTHS, size=len(sequence), p=_LENGTH_SHARES)
    share = 1 / 3 if pace == 1 else 2 / 3  # of the video that shows things, at most
    lengths = np.minimum(np.round(pace * lengths).astype(np.int64), max(1, int(share * num_candidates / len(sequence))))
    if pinned is None:
        return _spread(rng, sequence, lengths, 0, num_candidates)
    which, middle = pinned
    start = int(np.clip(round(middle * num_candidates - lengths[which] / 2), 0, num_candidates - lengths[which]))
    margin = round(0.1 * num_candidates)
    before = _spread(rng, sequence[:which], lengths[:which], 0, start - margin)
    after_start = start + int(lengths[which]) + margin
    after = _spread(rng, sequence[which + 1 :], lengths[which + 1 :], after_start, num_candidates)
    return [*before, (start, start + int(lengths[which])), *after]


def _spread(
    rng: np.random.Generator, sequence: Sequence[int], lengths: np.ndarray, start: int, stop: int
) -> list[tuple[int, int]]:
    """Scenes between two positions with random gaps; a quarter of the gaps are hard cuts from thing to thing."""
    if not len(sequence):
        return []
    gaps = (rng.random(len(sequence) + 1) > 0.25).astype(np.int64)
    last_stop: dict[int, int] = {}
    for i, concept in enumerate(sequence):
        if concept in last_stop:
            between = sum(lengths[last_stop[concept] + 1 : i]) + sum(gaps[last_stop[concept] + 1 : i + 1])
            gaps[i] += max(0, _REPEAT_GAP - between)
        last_stop[concept] = i
    lengths = lengths.copy()
    while lengths.sum() + gaps.sum() > stop - start and lengths.max() > 1:
        lengths[lengths.argmax()] -= 1
    free = stop - start - lengths.sum() - gaps.sum()
    if free > 0:
        shares = rng.dirichlet(np.full(len(gaps), 1.2))
        gaps += np.floor(shares * free).astype(np.int64)
    found, position = [], start
    for gap, length in zip(gaps, lengths, strict=False):
        position += int(gap)
        found.append((position, position + int(length)))
        position += int(length)
    return found


def join(rng: np.random.Generator, scenes: int, num_candidates: int) -> list[tuple[int, int]]:
    """(start, stop) of scenes that fill the video, some a few times longer than others."""
    lengths = 1 + np.floor(rng.dirichlet(np.full(scenes, 3.0)) * (num_candidates - scenes)).astype(np.int64)
    lengths[rng.permutation(scenes)[: num_candidates - lengths.sum()]] += 1
    stops = lengths.cumsum()
    return list(zip((stops - lengths).tolist(), stops.tolist(), strict=True))


def fill(
    rng: np.random.Generator,
    bank: Bank,
    sequence: Sequence[int],
    spans: Sequence[tuple[int, int]],
    clips: Sequence[int],
    cards: Sequence[Sequence[int]],
    num_candidates: int,
) -> Layout:
    """The pictures of every frame.

    Args:
        sequence: concepts in the order of their scenes.
        spans: (start, stop) of each scene.
        clips: background clips that this video may show.
        cards: series that show each kind of card.
        num_candidates: F.
    """
    shown = np.full(num_candidates, NOTHING, np.int64)
    series = np.full(num_candidates, -1, np.int64)
    step = np.zeros(num_candidates, np.int64)
    steps = bank.thing_rows.shape[1]
    scenes: list[Scene] = []
    used: dict[int, list[int]] = {}
    for concept, (start, stop) in zip(sequence, spans, strict=True):
        choice = cards[-1 - concept] if concept < 0 else bank.series_of[concept]
        fresh = used.setdefault(concept, list(rng.permutation(choice)))
        number = int(fresh.pop())
        if not fresh:
            used.pop(concept)
        shown[start:stop], series[start:stop] = concept, number
        step[start:stop] = _to_and_fro(stop - start, steps, int(rng.integers(steps)))
        scenes.append(Scene(concept, number, start, stop))
    empty = np.flatnonzero(series < 0)
    done = 0
    while done < len(empty):
        clip = int(rng.choice(clips))
        first, rows = bank.background_starts[clip], len(bank.backgrounds[clip]["frames"])
        run = empty[done : done + int(rng.integers(3, 10))]
        step[run] = first + _to_and_fro(len(run), rows, int(rng.integers(rows)))
        done += len(run)
    seconds = float(rng.choice(STEPS_BETWEEN_CANDIDATES))
    return Layout(np.arange(num_candidates) * seconds, tuple(scenes), shown, series, step)


def _to_and_fro(count: int, rows: int, first: int) -> np.ndarray:
    """Neighbouring rows, turning round at both ends, int64 [count]."""
    period = max(1, 2 * (rows - 1))
    at = (first + np.arange(count)) % period
    return np.minimum(at, period - at)
