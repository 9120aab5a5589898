"""BOLT: inverse transform sampling of the scores."""

from __future__ import annotations

import numpy as np

from .contract import algorithm, minmax


@algorithm
def bolt(
    scores: np.ndarray,
    num_frames: int,
    *,
    timestamps: np.ndarray,
    alpha: float = 3.0,
    faithful: bool = False,
) -> np.ndarray:
    """Even steps through the cumulated, sharpened scores: more picks where the video is relevant.

    Liu et al., "BOLT: Boost Large Vision-Language Model Without Training for Long-form Video Understanding" (CVPR
    2025), inverse transform sampling: weights are the scores scaled to [0, 1] and raised to `alpha`; pick j is the
    first frame whose cumulated weight reaches u_j.

    The released code puts u at linspace(1/K, 1 - 1/K, K), which is one point twice for K = 2 and the last frame for
    K = 1, keeps repeated frames, and divides by zero for equal scores. By default u_j = (j + 1/2) / K, and repeats are
    replaced by the best frames left.

    Args:
        scores: relevance to the question, [T].
        num_frames: K.
        timestamps: sorted times in seconds, [T].
        alpha: sharpness; the authors use 3 for Video-MME and MLVU, 2.5 for LongVideoBench; 1 leaves the scores.
        faithful: do as the released code does, except for equal scores, which give uniform picks.

    Returns:
        Sorted distinct positions, int64 [min(K, T)]; with `faithful` K positions, possibly repeated.
    """
    weights = minmax(scores) ** alpha
    cumulated = np.cumsum(weights / weights.sum())
    if faithful:
        points = np.linspace(1 / num_frames, 1 - 1 / num_frames, num_frames)
    else:
        points = (np.arange(num_frames) + 0.5) / num_frames
    return np.minimum(np.searchsorted(cumulated, points, side="left"), len(scores) - 1)
