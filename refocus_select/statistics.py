"""Means with bootstrap intervals, and paired differences. Pure functions of arrays and a seed."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from .errors import InputError

RESAMPLES = 10_000
_CHUNK = 4_000_000  # draws held at once


@dataclass(frozen=True)
class Interval:
    """A mean and how far it can be trusted.

    Attributes:
        mean: of all values; nan if there are none.
        low: lower end of the interval; nan if there are fewer than two groups.
        high: upper end.
        count: values.
        groups: independent units that were resampled (videos, or the values themselves).
        level: probability that the interval is meant to cover, e.g. 0.95.
    """

    mean: float
    low: float
    high: float
    count: int
    groups: int
    level: float = 0.95

    def text(self, *, scale: float = 1.0, digits: int = 3, sign: bool = False) -> str:
        """ "0.625 [0.500, 0.750]", or the mean alone where no interval is known."""
        form = f"{{:{'+' if sign else ''}.{digits}f}}"
        if np.isnan(self.mean):
            return "–"
        mean = form.format(scale * self.mean)
        if np.isnan(self.low):
            return mean
        return f"{mean} [{form.format(scale * self.low)}, {form.format(scale * self.high)}]"


@dataclass(frozen=True)
class Difference(Interval):
    """The mean of `a - b` over the same questions.

    Attributes:
        better: questions on which a is ahead.
        worse: questions on which b is ahead.
    """

    better: int = 0
    worse: int = 0

    @property
    def decided(self) -> bool:
        """Whether the interval leaves zero out."""
        return bool(self.low > 0 or self.high < 0)


def bootstrap_interval(
    values: ArrayLike,
    groups: Sequence[Hashable] | None = None,
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """The mean of values with a percentile bootstrap interval.

    Whole groups are drawn with replacement, since questions about one video are not independent evidence (the cluster
    bootstrap; Davison and Hinkley, *Bootstrap Methods and their Application*, 1997, section 3.8). The mean of a draw
    weighs every value alike, whatever the size of its group.

    Args:
        values: numbers or booleans, [N].
        groups: the group of each value, e.g. its video, [N]; None if every value stands for itself.
        level: between 0 and 1.
        resamples: how many draws.
        seed: of the draws; equal inputs give equal intervals.

    Returns:
        The mean and its interval; nan at both ends for fewer than two groups.

    Raises:
        InputError: if a value is not finite, or lengths or arguments do not fit.
    """
    if not 0 < level < 1:
        raise InputError(f"level must lie between 0 and 1, not {level!r}")
    if resamples < 1:
        raise InputError(f"resamples must be at least 1, not {resamples!r}")
    numbers = _numbers(values, "values")
    totals, counts = _by_group(numbers, groups)
    low = high = float("nan")
    if len(totals) > 1:
        means = _drawn_means(totals, counts, resamples, np.random.default_rng(seed))
        low, high = (float(end) for end in np.quantile(means, [(1 - level) / 2, (1 + level) / 2]))
    mean = float(numbers.mean()) if len(numbers) else float("nan")
    return Interval(mean, low, high, len(numbers), len(totals), level)


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    groups: Sequence[Hashable] | None = None,
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Difference:
    """How much better a is than b on the same questions, with a bootstrap interval of the difference.

    Both are drawn together: what makes a question easy for both cancels out, so that this interval is narrower than
    those of a and of b suggest.

    Args:
        a: results, [N].
        b: results of the other on the same questions in the same order, [N].
        groups: the group of each question, see `bootstrap_interval`.
        level: between 0 and 1.
        resamples: how many draws.
        seed: of the draws.

    Raises:
        InputError: if the lengths differ, or a value is not finite.
    """
    first, second = _numbers(a, "a"), _numbers(b, "b")
    if len(first) != len(second):
        raise InputError(f"a has {len(first)} values and b {len(second)}; a paired difference needs the same questions")
    gap = first - second
    found = bootstrap_interval(gap, groups, level=level, resamples=resamples, seed=seed)
    return Difference(**vars(found), better=int((gap > 0).sum()), worse=int((gap < 0).sum()))


def _numbers(values: ArrayLike, name: str) -> np.ndarray:
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1:
        raise InputError(f"{name} must be one list of numbers, not of shape {numbers.shape}")
    if not np.isfinite(numbers).all():
        raise InputError(
            f"{name} holds {int((~np.isfinite(numbers)).sum())} values that are not finite; leave them out"
        )
    return numbers


def _by_group(numbers: np.ndarray, groups: Sequence[Hashable] | None) -> tuple[np.ndarray, np.ndarray]:
    """Sum and number of the values of each group, in the order of first appearance."""
    if groups is None:
        return numbers, np.ones(len(numbers))
    if len(groups) != len(numbers):
        raise InputError(f"{len(numbers)} values but {len(groups)} groups; give the group of each value")
    places = {group: place for place, group in enumerate(dict.fromkeys(groups))}
    member = np.array([places[group] for group in groups], dtype=np.int64)
    return np.bincount(member, numbers, len(places)), np.bincount(member, minlength=len(places)).astype(float)


def _drawn_means(totals: np.ndarray, counts: np.ndarray, resamples: int, generator: np.random.Generator) -> np.ndarray:
    """Means of draws of as many groups as there are, with replacement, [resamples]."""
    size = len(totals)
    chunk = max(1, _CHUNK // size)
    means = []
    for start in range(0, resamples, chunk):
        drawn = generator.integers(0, size, (min(chunk, resamples - start), size))  # [draws, groups]
        means.append(totals[drawn].sum(axis=1) / counts[drawn].sum(axis=1))
    return np.concatenate(means)
