"""GIFT: frames that no better frame could replace."""

from __future__ import annotations

import numpy as np

from .contract import algorithm, minmax


@algorithm
def gift(
    scores: np.ndarray,
    num_frames: int,
    *,
    timestamps: np.ndarray,
    embeddings: np.ndarray,
    per_round: int = 9,
) -> np.ndarray:
    """Relevance times the distance to the nearest frame that is more relevant, in rounds.

    Zheng et al., "GIFT: Global Irreplaceability Frame Targeting for Efficient Video Understanding" (CVPR 2026,
    arXiv 2603.25072), Directed Diversity and Budget-Aware Refinement: d_i is the smallest squared distance of frame
    i to a frame of higher relevance (the largest of all distances for the best one); the `per_round` largest r_i
    d_i are taken and removed, and d is computed again among the rest. r are the scores scaled to [0, 1]; at equal
    scores the earlier frame counts as more relevant, so that of two equal frames one is replaceable.

    Args:
        scores: relevance to the question, [T].
        num_frames: K.
        timestamps: sorted times in seconds, [T].
        embeddings: of the candidates, [T, D].
        per_round: how many are taken before the distances are computed again.

    Returns:
        Sorted distinct positions, int64 [min(K, T)].
    """
    ranked = np.argsort(-scores, kind="stable")
    relevance = minmax(scores)[ranked]
    rows = embeddings[ranked]
    squares = (rows**2).sum(axis=1)
    distances = np.maximum(squares[:, None] + squares - 2 * rows @ rows.T, 0.0)  # [T, T], most relevant first
    widest = distances.max()
    distances[np.triu_indices(len(rows))] = np.inf  # row i keeps the frames more relevant than i
    free = np.ones(len(rows), dtype=bool)
    picks: list[int] = []
    while len(picks) < num_frames:
        nearest = distances.min(axis=1)
        nearest[free.argmax()] = widest
        value = np.where(free, relevance * np.where(np.isfinite(nearest), nearest, widest), -np.inf)
        taken = np.argsort(-value, kind="stable")[: min(per_round, num_frames - len(picks))]
        picks.extend(taken.tolist())
        free[taken] = False
        distances[:, taken] = np.inf
    return ranked[picks]
