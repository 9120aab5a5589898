"""MarKey: relevance, coverage of anchors, and distance to recent picks."""

from __future__ import annotations

import numpy as np

from .contract import algorithm, minmax

_CLIP_SECONDS = 10.0


@algorithm
def markey(
    scores: np.ndarray,
    num_frames: int,
    *,
    timestamps: np.ndarray,
    embeddings: np.ndarray,
    relevance: float = 0.7,
    coverage: float = 0.2,
    redundancy: float = 0.1,
    recent: int = 4,
    max_anchors: int = 648,
) -> np.ndarray:
    """Greedily add the frame that is relevant, covers what is uncovered, and repeats no recent pick.

    MarKey: each step maximises `0.7 r_i + 0.2 mean_u max(c_ui - m_u, 0) - 0.1 max_j c_ij`, where r are the scores
    scaled to [0, 1], c cosines, u anchors that stand for the whole video, m_u the best cosine of anchor u to any
    pick (0 before the first), and j the last `recent` picks. Anchors come in equal parts from clips of high, middle
    and low relevance. How the paper spreads anchors within a third, and how many picks are recent, is not public:
    here they are evenly spaced, and 4.

    Args:
        scores: relevance to the question, [T].
        num_frames: K.
        timestamps: sorted times in seconds, [T].
        embeddings: of the candidates, [T, D].
        relevance: weight of r.
        coverage: weight of the anchors' gain.
        redundancy: weight of the closeness to recent picks.
        recent: how many picks count as recent.
        max_anchors: at most so many anchors.

    Returns:
        Sorted distinct positions, int64 [min(K, T)].
    """
    worth = relevance * minmax(scores)
    closeness = embeddings[_anchors(scores, timestamps, max_anchors)] @ embeddings.T  # [U, T]
    covered = np.zeros((len(closeness), 1), dtype=np.float32)
    repeats: list[np.ndarray] = []
    free = np.ones(len(scores), dtype=bool)
    picks: list[int] = []
    for _ in range(num_frames):
        gain = np.maximum(closeness - covered, 0).mean(axis=0)
        near = np.max(repeats[-recent:], axis=0) if repeats else 0.0
        pick = int(np.where(free, worth + coverage * gain - redundancy * near, -np.inf).argmax())
        picks.append(pick)
        free[pick] = False
        covered = np.maximum(covered, closeness[:, pick : pick + 1])
        repeats.append(embeddings @ embeddings[pick])
    return np.array(picks)


def _anchors(scores: np.ndarray, timestamps: np.ndarray, max_anchors: int) -> np.ndarray:
    """Positions of the anchors: all candidates if they are few, else evenly spaced in each third of the clips."""
    if len(scores) <= max_anchors:
        return np.arange(len(scores))
    _, clip = np.unique(np.floor((timestamps - timestamps[0]) / _CLIP_SECONDS), return_inverse=True)
    mean = np.bincount(clip, weights=scores) / np.bincount(clip)
    rank = np.empty(len(mean), dtype=np.int64)
    rank[np.argsort(-mean, kind="stable")] = np.arange(len(mean))
    third = rank[clip] * 3 // len(mean)  # 0 for the most relevant clips
    chosen = []
    for members in (np.flatnonzero(third == t) for t in range(3)):
        count = min(max_anchors // 3, len(members))
        chosen.append(members[((np.arange(count) + 0.5) / max(count, 1) * len(members)).astype(int)])
    return np.sort(np.concatenate(chosen))
