"""Figures as the stored results hold them: a mean, or a difference, with both ends of its interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from refocus_select.statistics import bootstrap_interval, paired_difference


def mean_of(values: Sequence[float] | np.ndarray) -> list[float]:
    """Mean, low, high: 95 % bootstrap over questions."""
    interval = bootstrap_interval(np.asarray(values))
    return [round(x, 4) for x in (interval.mean, interval.low, interval.high)]


def gap_of(values: np.ndarray, others: np.ndarray) -> list[float]:
    """Mean, low, high of a paired difference: 95 % bootstrap over questions."""
    gap = paired_difference(values, others)
    return [round(x, 4) for x in (gap.mean, gap.low, gap.high)]
