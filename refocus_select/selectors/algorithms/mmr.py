"""Maximal marginal relevance."""

from __future__ import annotations

import numpy as np

from .contract import algorithm, minmax


@algorithm
def mmr(
    scores: np.ndarray,
    num_frames: int,
    *,
    timestamps: np.ndarray,
    embeddings: np.ndarray,
    balance: float = 0.5,
) -> np.ndarray:
    """Relevant frames that differ from those already picked, one after the other.

    Carbonell and Goldstein, "The Use of MMR, Diversity-Based Reranking" (SIGIR 1998): the first pick is the most
    relevant, each further one maximises `balance * a_i - (1 - balance) * max_j c_ij` over the picks j, where a are the
    scores scaled to [0, 1] and c cosines mapped to [0, 1].

    Args:
        scores: relevance to the question, [T].
        num_frames: K.
        timestamps: sorted times in seconds, [T].
        embeddings: of the candidates, [T, D].
        balance: weight of relevance against diversity, 0 to 1.

    Returns:
        Sorted distinct positions, int64 [min(K, T)].
    """
    relevance = minmax(scores)
    nearest = np.zeros(len(scores))
    free = np.ones(len(scores), dtype=bool)
    pick = int(relevance.argmax())
    picks = [pick]
    while len(picks) < num_frames:
        free[pick] = False
        nearest = np.maximum(nearest, (1 + embeddings @ embeddings[pick]) / 2)
        pick = int(np.where(free, balance * relevance - (1 - balance) * nearest, -np.inf).argmax())
        picks.append(pick)
    return np.array(picks)
