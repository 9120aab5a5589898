"""The K best scores, with and without a distance between them."""

from __future__ import annotations

import numpy as np

from .contract import algorithm, spacing


@algorithm
def topk(scores: np.ndarray, num_frames: int, *, timestamps: np.ndarray) -> np.ndarray:
    """The K largest scores; ties go to the earlier candidate.

    Args:
        scores: relevance to the question, [T].
        num_frames: K.
        timestamps: sorted times in seconds, [T].

    Returns:
        Sorted distinct positions, int64 [min(K, T)].
    """
    return np.argsort(-scores, kind="stable")[:num_frames]


@algorithm
def topk_nms(scores: np.ndarray, num_frames: int, *, timestamps: np.ndarray, window: float | None = None) -> np.ndarray:
    """Greedy top-k that bans the neighbours of each pick.

    Non-maximum suppression as in Hu et al., "M-LLM Based Video Frame Selection for Efficient Video Understanding"
    (CVPR 2025): 1/(4K) of the video on either side of a pick is banned. The ban is lifted when nobody is left.

    Args:
        scores: relevance to the question, [T].
        num_frames: K.
        timestamps: sorted times in seconds, [T].
        window: seconds banned on either side (default: 1/(4K) of the video).

    Returns:
        Sorted distinct positions, int64 [min(K, T)].
    """
    if window is None:
        window = spacing(timestamps) * len(timestamps) / (4 * num_frames)
    free = np.ones(len(scores), dtype=bool)
    banned = np.zeros(len(scores), dtype=bool)
    picks = []
    for _ in range(num_frames):
        if not (free & ~banned).any():
            banned[:] = False
        pick = int(np.where(free & ~banned, scores, -np.inf).argmax())
        picks.append(pick)
        free[pick] = False
        banned |= np.abs(timestamps - timestamps[pick]) <= window + 1e-9  # times carry rounding errors
    return np.array(picks)
