"""Random sampling: the other baseline."""

from __future__ import annotations

import numpy as np

from .contract import check_num_frames


def random(timestamps: np.ndarray, num_frames: int, *, seed: int = 0) -> np.ndarray:
    """Draw K candidates without replacement, all equally likely.

    Args:
        timestamps: times of the candidates, [T]; only their number matters.
        num_frames: K.
        seed: the same seed gives the same picks.

    Returns:
        Sorted distinct positions, int64 [min(K, T)].
    """
    check_num_frames(num_frames)
    total = len(timestamps)
    picks = np.random.default_rng(seed).choice(total, size=min(num_frames, total), replace=False)
    return np.sort(picks).astype(np.int64)
