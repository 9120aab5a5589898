"""FOCUS: a bandit that looks closer where the video promises more."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from .contract import (
    check_num_frames,
    clean_scores,
    clean_times,
    complete_picks,
    gumbel_top_k,
    is_flat,
    minmax,
    spacing,
)
from .uniform import uniform

_ARM_SECONDS, _MIN_ARMS = 16.0, 8
_ZOOM_RATIO, _MIN_ZOOM = 0.25, 4
_FINAL_ARMS = (4, 32)
_MIN_VARIANCE = 1e-6

Scorer = Callable[[np.ndarray], np.ndarray]


def focus(
    scores: np.ndarray | Scorer,
    num_frames: int,
    *,
    timestamps: np.ndarray,
    top_ratio: float = 0.2,
    min_gap: float = 1.0,
    temperature: float = 0.06,
    seed: int = 42,
    faithful: bool = False,
) -> np.ndarray:
    """Score a few frames everywhere, more where the upper confidence bound is high, then pick.

    FOCUS ("Frame-Optimistic Confidence Upper-bound Selection", code of NUS HPC-AI-Lab). Arms are stretches of about
    16 s, at least 8. Three frames of each are scored; with N samples in all and n in an arm its bound is `mean +
    sqrt(2 ln N max(variance, 1e-6) / n) + 3 ln N / n`. The best quarter of the arms (at least 4) is scored once a
    second, half evenly and half at random. `top_ratio * K` picks are the best scored frames. The others are shared
    evenly by the best quarter of the arms (4 to 32) and drawn in each from a softmax of the scores, where a frame
    without a score has that of the nearest one with.

    The released code has four faults: arms of T // count frames leave out the frames behind the last one; the gap is
    not kept between the picks that one arm draws together; estimated scores are cut to [0, 1], so that negative cosines
    cannot rank; and arms that are too short leave the answer with fewer than K frames. By default all frames belong
    to an arm, the gap holds between all picks as long as an arm has frames left, scores are not cut, and missing picks
    are filled by the estimated score.

    Args:
        scores: a function from positions int64 [n] to scores [n], called at most twice, each time with new positions;
            or all scores, [T].
        num_frames: K.
        timestamps: sorted times in seconds, [T].
        top_ratio: share of K that goes to the best frames of all.
        min_gap: seconds between picks; the authors' scripts use 1.
        temperature: of the softmax over an arm's scores scaled to [0, 1].
        seed: of all draws.
        faithful: do as the released code does, except for equal scores, which give uniform picks.

    Returns:
        Sorted distinct positions, int64 [min(K, T)]; with `faithful` possibly fewer.
    """
    check_num_frames(num_frames)
    times = clean_times(timestamps)
    if num_frames >= len(times):
        return np.arange(len(times), dtype=np.int64)
    ask = scores if callable(scores) else clean_scores(scores).__getitem__
    generator = np.random.default_rng(seed)
    arms = _released_arms(times) if faithful else _arms(times)
    arm_of = np.full(len(times), -1)
    for number, arm in enumerate(arms):
        arm_of[arm] = number

    asked = np.concatenate([_coarse(arm, generator) for arm in arms])
    found = clean_scores(ask(asked))
    bounds = _bounds(arm_of[asked], found, len(arms))
    zoomed = np.argsort(-bounds, kind="stable")[: max(_MIN_ZOOM, math.ceil(_ZOOM_RATIO * len(arms)))]
    second = max(1, round(1 / spacing(times))) if spacing(times) > 0 else 1  # candidates per second
    more = np.concatenate([_fine(arms[number], asked, second, generator) for number in zoomed])
    if len(more):
        asked, found = np.concatenate([asked, more]), clean_scores(np.concatenate([found, ask(more)]))
        bounds = _bounds(arm_of[asked], found, len(arms))
    if is_flat(found):
        return uniform(times, num_frames)

    estimate = _nearest(times, arm_of, asked, found)
    if faithful:
        estimate = estimate.clip(0, 1)
    top = round(top_ratio * min(num_frames, len(found)))
    picks = asked[np.argsort(-found, kind="stable")[:top]].tolist()
    count = min(max(math.ceil(_ZOOM_RATIO * len(arms)), _FINAL_ARMS[0]), _FINAL_ARMS[1], len(arms))
    share, rest = divmod(num_frames - top, count)
    for rank, number in enumerate(np.argsort(-bounds, kind="stable")[:count].tolist()):
        wanted = share + (rank < rest)
        draw = _draw_released if faithful else _draw
        picks += draw(arms[number], wanted, estimate, times, picks, min_gap, temperature, generator)
    if faithful:
        return np.sort(np.array(picks, dtype=np.int64))
    return complete_picks(np.array(picks, dtype=np.int64), estimate, np.arange(len(times)), num_frames)


def _arms(times: np.ndarray) -> list[np.ndarray]:
    """Positions of the candidates of each arm: equal stretches of time, without those that hold no candidate."""
    duration = spacing(times) * len(times)
    count = min(max(_MIN_ARMS, math.ceil(duration / _ARM_SECONDS)), len(times))
    edges = times[0] + np.arange(1, count) * duration / count
    parts = np.split(np.arange(len(times)), np.searchsorted(times, edges))
    return [part for part in parts if len(part)]


def _released_arms(times: np.ndarray) -> list[np.ndarray]:
    """Arms of equally many candidates; what does not divide evenly belongs to none."""
    wanted = max(_MIN_ARMS, math.ceil(spacing(times) * len(times) / _ARM_SECONDS))
    count = len(times) // max(1, len(times) // wanted)
    return list(np.arange(len(times) // count * count).reshape(count, -1))


def _coarse(arm: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """The centre of an arm and two others at random."""
    centre = (len(arm) - 1) // 2
    others = np.delete(arm, centre)
    return np.append(generator.choice(others, size=min(2, len(others)), replace=False), arm[centre])


def _fine(arm: np.ndarray, asked: np.ndarray, second: int, generator: np.random.Generator) -> np.ndarray:
    """One frame a second of an arm, half of them evenly spaced, half at random, without those asked before."""
    wanted = max(1, len(arm) // second)
    even = round(wanted / 2)
    steady = arm[((np.arange(even) + 0.5) / max(even, 1) * len(arm)).astype(int)]
    chosen = np.setdiff1d(steady, asked)
    others = np.setdiff1d(arm, np.concatenate([asked, chosen]))
    drawn = generator.choice(others, size=min(wanted - even, len(others)), replace=False)
    return np.concatenate([chosen, drawn])


def _bounds(arm_of: np.ndarray, found: np.ndarray, count: int) -> np.ndarray:
    """Upper confidence bound of each arm, [count]; each has at least one sample."""
    samples = np.bincount(arm_of, minlength=count)
    mean = np.bincount(arm_of, weights=found, minlength=count) / samples
    variance = np.bincount(arm_of, weights=(found - mean[arm_of]) ** 2, minlength=count) / samples
    log_total = math.log(len(found))
    return mean + np.sqrt(2 * log_total * np.maximum(variance, _MIN_VARIANCE) / samples) + 3 * log_total / samples


def _nearest(times: np.ndarray, arm_of: np.ndarray, asked: np.ndarray, found: np.ndarray) -> np.ndarray:
    """For every candidate the score of the candidate of its arm that is nearest in time and has one, [T]."""
    away = np.abs(times[:, None] - times[asked])  # [T, asked]
    away[arm_of[:, None] != arm_of[asked]] = np.inf
    return found[away.argmin(axis=1)]


def _draw(
    arm: np.ndarray,
    wanted: int,
    estimate: np.ndarray,
    times: np.ndarray,
    picks: list[int],
    min_gap: float,
    temperature: float,
    generator: np.random.Generator,
) -> list[int]:
    """Up to `wanted` new frames of an arm, away from all picks if there are such."""
    queue = arm[~np.isin(arm, picks)]
    if not len(queue) or not wanted:
        return []
    # One draw of all frames in random order, weighted: taking the first that fit is sampling without replacement.
    queue = queue[gumbel_top_k(minmax(estimate[queue]) / temperature, len(queue), generator)]
    drawn: list[int] = []
    for pick in queue.tolist():
        if len(drawn) < wanted and (np.abs(times[[*picks, *drawn]] - times[pick]) >= min_gap).all():
            drawn.append(pick)
    near = [pick for pick in queue.tolist() if pick not in drawn]
    return drawn + near[: wanted - len(drawn)]


def _draw_released(
    arm: np.ndarray,
    wanted: int,
    estimate: np.ndarray,
    times: np.ndarray,
    picks: list[int],
    min_gap: float,
    temperature: float,
    generator: np.random.Generator,
) -> list[int]:
    """Up to `wanted` new frames of an arm at once, each away from the picks of other arms only."""
    free = arm[~np.isin(arm, picks)]
    if not len(free):
        return []
    away = np.array([(np.abs(times[picks] - times[pick]) >= min_gap).all() for pick in free.tolist()], dtype=bool)
    queue = free[away] if away.any() else free
    taken = gumbel_top_k(minmax(estimate[queue]) / temperature, wanted, generator)
    return [int(pick) for pick in queue[taken]]
