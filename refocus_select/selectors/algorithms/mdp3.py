"""MDP3: a determinantal point process in segments, joined by dynamic programming."""

from __future__ import annotations

import numpy as np

from .contract import algorithm

_PAPER_WIDTHS = (2**-3, 2**-2, 2**0, 2**1, 2**2)
_RELEASED_WIDTHS = (2**-3, 2**-2, 2**-1, 2**0, 2**1)
_FLOOR = 1e-8  # of a squared distance to the span of the picks: duplicates would give log 0


@algorithm
def mdp3(
    scores: np.ndarray,
    num_frames: int,
    *,
    timestamps: np.ndarray,
    embeddings: np.ndarray,
    balance: float = 0.2,
    segment: int | None = None,
    faithful: bool = False,
) -> np.ndarray:
    """Frames that are relevant and span much, with the budget shared over the video by dynamic programming.

    Sun et al., "MDP3: A Training-free Approach for List-wise Frame Selection in Video-LLMs" (ICCV 2025, arXiv
    2501.02885). With a sum of Gaussian kernels k, relevance r_i = k(f_i, q) and kernel matrix K_S, the value of a
    set is `2 / balance * sum log r_i + log det K_S`. Within a segment frames are taken greedily (incremental
    Cholesky factors, as in Chen et al., "Fast Greedy MAP Inference for DPPs", 2018), given the last pick of the
    segments before; dynamic programming over (segment, picks so far) decides how many each segment gets. The
    authors use 128 uniform candidates, SigLIP, and K = 8.

    The released code differs from the paper in two ways: its kernel widths are 2^-3 … 2^1 without a gap, and the
    value of a segment counts the frame that it is conditioned on once more, which favours many segments with few
    picks each if that frame is relevant. By default each frame counts once.

    Args:
        scores: cosines of question and frames, [T].
        num_frames: K.
        timestamps: sorted times in seconds, [T].
        embeddings: of the candidates, [T, D].
        balance: the paper's lambda; smaller gives relevance more weight.
        segment: frames per segment (default: 32, or 128 if K > 32, as in the released code).
        faithful: do as the released code does.

    Returns:
        Sorted distinct positions, int64 [min(K, T)].
    """
    size = segment or (32 if num_frames <= 32 else 128)
    widths = _RELEASED_WIDTHS if faithful else _PAPER_WIDTHS
    relevance = 2 / balance * np.log(_kernel(2 - 2 * scores.clip(-1, 1), widths))  # [T]
    value = np.full(num_frames + 1, -np.inf)  # of the best set of c picks so far, for every c
    value[0] = 0.0
    traces: list[tuple[int, ...]] = [()] * (num_frames + 1)
    for start in range(0, len(scores), size):
        part = slice(start, min(start + size, len(scores)))
        reached = np.flatnonzero(value > -np.inf)
        lasts = [traces[c][-1] if traces[c] else -1 for c in reached]
        given, row_of = np.unique(lasts, return_inverse=True)  # states with the same last pick choose alike
        order, gains = _greedy(
            _kernel(_distances(embeddings[part], embeddings[part]), widths),
            _conditions(given, embeddings, part, widths),
            relevance[part],
            min(num_frames, part.stop - start),
        )
        totals = np.concatenate([np.zeros((len(given), 1)), np.cumsum(gains, axis=1)], axis=1)  # [B, steps + 1]
        if faithful:  # the condition's own relevance and log det, as soon as one frame is taken
            totals[:, 1:] += np.where(given < 0, 0.0, relevance[given] + np.log(len(widths)))[:, None]
        best = value.copy()
        source = [(c, 0, 0) for c in range(num_frames + 1)]  # picks before, condition, picks of this segment
        for c, row in zip(reached.tolist(), row_of.tolist(), strict=True):
            offer = value[c] + totals[row, 1 : num_frames - c + 1]
            better = np.flatnonzero(offer > best[c + 1 : c + 1 + len(offer)])
            best[c + 1 + better] = offer[better]
            for taken in (better + 1).tolist():
                source[c + taken] = (c, row, taken)
        traces = [
            traces[c] + tuple(sorted((start + order[row, :taken]).tolist())) if taken else traces[c]
            for c, row, taken in source
        ]
        value = best
    return np.array(traces[num_frames])


def _kernel(distances: np.ndarray, widths: tuple[float, ...]) -> np.ndarray:
    """Sum of Gaussians of squared distances."""
    return np.sum([np.exp(-distances / (2 * width)) for width in widths], axis=0)


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared distances of rows, float64 [len(a), len(b)]."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T
    return np.maximum(squares, 0.0)


def _conditions(given: np.ndarray, embeddings: np.ndarray, part: slice, widths: tuple[float, ...]) -> np.ndarray:
    """First Cholesky row of the part for each given frame, zeros for none (-1): [len(given), part]."""
    near = _kernel(_distances(embeddings[given], embeddings[part]), widths) / np.sqrt(len(widths))
    return np.where(given[:, None] < 0, 0.0, near)


def _greedy(
    kernel: np.ndarray, conditions: np.ndarray, relevance: np.ndarray, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Greedy picks for B conditions at once.

    Args:
        kernel: of the n frames of a segment, [n, n].
        conditions: [B, n].
        relevance: [n].
        steps: how many to pick.

    Returns:
        Picks int64 [B, steps] and what each one adds to the value, [B, steps].
    """
    every = np.arange(len(conditions))
    factors = np.empty((len(conditions), steps + 1, len(kernel)))  # rows of the Cholesky factor, [B, steps + 1, n]
    factors[:, 0] = conditions
    residual = np.diag(kernel) - conditions**2  # squared distance to the span of what is picked, [B, n]
    free = np.ones_like(residual, dtype=bool)
    order = np.empty((len(conditions), steps), dtype=np.int64)
    gains = np.empty((len(conditions), steps))
    for step in range(steps):
        residual = np.maximum(residual, _FLOOR)
        gain = np.where(free, np.log(residual) + relevance, -np.inf)
        pick = gain.argmax(axis=1)
        order[:, step], gains[:, step] = pick, gain[every, pick]
        free[every, pick] = False
        seen = factors[:, : step + 1]
        shared = (seen[every, :, pick][:, None, :] @ seen)[:, 0]  # [B, n]
        factors[:, step + 1] = (kernel[pick] - shared) / np.sqrt(residual[every, pick])[:, None]
        residual = residual - factors[:, step + 1] ** 2
    return order, gains
