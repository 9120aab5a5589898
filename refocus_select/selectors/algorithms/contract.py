"""What all algorithms share: clean inputs in, exactly min(K, T) distinct picks out."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np

from ...errors import InputError
from .uniform import uniform

_LARGEST = 1e30  # scores beyond are as good as infinite; products of clipped ones stay finite
_FLAT = 1e-6  # relative range below which scores say nothing: the rounding of float32 dot products

Chooser = TypeVar("Chooser", bound=Callable[..., np.ndarray])


def algorithm(choose: Chooser) -> Chooser:
    """Put the common contract round `choose(scores, num_frames, *, timestamps, embeddings, …) -> picks`.

    Scores and embeddings are cleaned first. If K >= T all candidates are returned; if all scores are equal, picks
    are uniform in time; otherwise `choose` decides, repeats are dropped, and missing picks are filled by score.
    Only with `faithful=True` are its picks returned as they are, sorted, too few or repeated as they may be.
    """

    @functools.wraps(choose)
    def contracted(scores: Any, num_frames: int, *, timestamps: Any, **inputs: Any) -> np.ndarray:
        check_num_frames(num_frames)
        times = clean_times(timestamps)
        values = clean_scores(scores)
        if len(values) != len(times):
            raise InputError(f"{len(values)} scores but {len(times)} timestamps; give one of each per candidate")
        if "embeddings" in inputs:
            inputs["embeddings"] = unit_rows(inputs["embeddings"])
            if len(inputs["embeddings"]) != len(times):
                raise InputError(f"{len(inputs['embeddings'])} embeddings but {len(times)} timestamps")
        if num_frames >= len(values):
            return np.arange(len(values), dtype=np.int64)
        if is_flat(values):
            return uniform(times, num_frames)
        picks = np.asarray(choose(values, num_frames, timestamps=times, **inputs), dtype=np.int64)
        if inputs.get("faithful"):
            return np.sort(picks)
        return complete_picks(picks, values, np.arange(len(values)), num_frames)

    return cast(Chooser, contracted)


def complete_picks(picks: np.ndarray, scores: np.ndarray, indices: np.ndarray, num_frames: int) -> np.ndarray:
    """Make picks distinct frames and exactly min(num_frames, distinct frames) of them, sorted in time.

    Args:
        picks: positions among the candidates, [P], possibly with repeats or too few.
        scores: [F]; the best unused candidates fill what is missing, earlier ones first at equal scores.
        indices: frame numbers of the candidates, [F]; two candidates may be the same frame.

    Returns:
        Sorted positions, int64 [min(num_frames, number of distinct frame numbers)].
    """
    refill = np.argsort(-scores, kind="stable")
    queue = np.concatenate([picks, refill])
    _, first = np.unique(indices[queue], return_index=True)
    chosen = queue[np.sort(first)[:num_frames]]
    return chosen[np.argsort(indices[chosen], kind="stable")]


def clean_scores(scores: Any) -> np.ndarray:
    """Finite float64 [T]: NaN and -inf become the worst finite score, +inf the best.

    Raises:
        InputError: if scores are not one-dimensional.
    """
    values = np.array(scores, dtype=np.float64)
    if values.ndim != 1:
        raise InputError(f"scores must be one-dimensional, not of shape {list(values.shape)}")
    finite = np.isfinite(values)
    if not finite.any():
        return np.where(values == np.inf, 1.0, 0.0)
    worst, best = values[finite].min(), values[finite].max()
    return np.nan_to_num(values, nan=worst, neginf=worst, posinf=best).clip(-_LARGEST, _LARGEST)


def clean_times(timestamps: Any) -> np.ndarray:
    """Seconds, float64 [T].

    Raises:
        InputError: if they are not finite and sorted.
    """
    times = np.asarray(timestamps, dtype=np.float64)
    if times.ndim != 1 or not np.isfinite(times).all() or (np.diff(times) < 0).any():
        raise InputError("timestamps must be a sorted list of finite seconds")
    return times


def unit_rows(embeddings: Any) -> np.ndarray:
    """Rows of unit length, float32 [T, D]; rows that are not finite become zero.

    Raises:
        InputError: if embeddings are not two-dimensional.
    """
    rows = np.asarray(embeddings, dtype=np.float32)
    if rows.ndim != 2:
        raise InputError(f"embeddings must be [T, D], not of shape {list(rows.shape)}")
    rows = np.where(np.isfinite(rows).all(axis=1, keepdims=True), rows, np.float32(0))
    rows = rows / np.maximum(np.abs(rows).max(axis=1, initial=0.0, keepdims=True), np.float32(1e-30))
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-12))


def check_num_frames(num_frames: Any) -> None:
    """Raise `InputError` unless `num_frames` is a whole number of at least 1."""
    if isinstance(num_frames, bool) or not isinstance(num_frames, int | np.integer):
        raise InputError(f"num_frames must be a whole number, not {num_frames!r}")
    if num_frames < 1:
        raise InputError(f"num_frames must be at least 1, not {num_frames}")


def is_flat(scores: np.ndarray) -> bool:
    """Whether scores differ by no more than rounding, so that they cannot rank."""
    return bool(np.ptp(scores) <= _FLAT * np.abs(scores).max())


def minmax(scores: np.ndarray) -> np.ndarray:
    """Scores moved and scaled to [0, 1]; zeros if all are equal."""
    low, span = scores.min(), np.ptp(scores)
    return (scores - low) / span if span > 0 else np.zeros_like(scores)


def spacing(timestamps: np.ndarray) -> float:
    """Mean seconds between neighbours, of T >= 2 candidates."""
    return float(timestamps[-1] - timestamps[0]) / (len(timestamps) - 1)


def gumbel_top_k(log_weights: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """Draw `count` positions without replacement, each with probability proportional to exp(log_weights).

    The keys log w + Gumbel noise, largest first, are such a sample (Kool et al., "Stochastic Beams and Where to
    Find Them", 2019).
    """
    keys = log_weights + generator.gumbel(size=len(log_weights))
    return np.argsort(-keys, kind="stable")[:count]
