"""AKS: adaptive keyframe sampling."""

from __future__ import annotations

import math

import numpy as np

from .contract import algorithm, minmax


@algorithm
def aks(
    scores: np.ndarray,
    num_frames: int,
    *,
    timestamps: np.ndarray,
    threshold: float = 0.8,
    min_std: float = -100.0,
    max_depth: int = 5,
    faithful: bool = False,
) -> np.ndarray:
    """Halve the video until a part's best frames stand out, then take each part's share of its best.

    Tang et al., "Adaptive Keyframe Sampling for Long Video Understanding" (CVPR 2025, arXiv 2502.21271), the
    strategy ADA. With scores scaled to [0, 1], a part is kept whole if the mean of its best frames exceeds its own
    mean by more than `threshold` (and its standard deviation exceeds `min_std`); otherwise it is halved. A part at
    depth d has K / 2^d picks.

    The released code has three faults: every part at depth 5 gets floor(K / 32) picks, so that scores without a peak
    give no frame at all for K < 32; it judges a part by its best K frames at every depth, although the part's share is
    K / 2^d; and it divides by zero for equal scores. By default the depth ends at log2 K, shares are rounded so that
    they sum to K (largest remainder, then the part with the better frame), and a part is judged by its own share.

    Args:
        scores: relevance to the question, [T].
        num_frames: K.
        timestamps: sorted times in seconds, [T].
        threshold: the paper's s_thr, t1 in the code.
        min_std: t2 in the code; -100 switches the test off, as there.
        max_depth: how often a part may be halved.
        faithful: do as the released code does, except for equal scores, which give uniform picks.

    Returns:
        Sorted distinct positions, int64 [min(K, T)]; with `faithful` possibly fewer, down to none.
    """
    relevance = minmax(scores)
    depth_cap = max_depth if faithful else min(max_depth, int(math.log2(num_frames)))
    smallest = 0 if faithful else 1  # a part of one frame cannot be halved; the released code goes on to empty parts
    leaves = []
    parts = [(0, len(scores), 0)]
    while parts:
        start, stop, depth = parts.pop()
        part = relevance[start:stop]
        share = num_frames if faithful else max(1, num_frames >> depth)
        if depth >= depth_cap or len(part) <= smallest or _stands_out(part, share, threshold, min_std):
            leaves.append((start, stop, depth))
        else:
            middle = start + len(part) // 2
            parts += [(start, middle, depth + 1), (middle, stop, depth + 1)]
    shares = np.array([num_frames / 2**depth for _, _, depth in leaves])
    quotas = np.floor(shares).astype(int)
    if not faithful:
        peaks = np.array([relevance[start:stop].max() for start, stop, _ in leaves])
        owed = num_frames - quotas.sum()
        quotas[np.lexsort((-peaks, quotas - shares))[:owed]] += 1
    picks = [
        start + np.argsort(-relevance[start:stop], kind="stable")[:quota]
        for (start, stop, _), quota in zip(leaves, quotas, strict=True)
    ]
    return np.concatenate(picks)


def _stands_out(part: np.ndarray, share: int, threshold: float, min_std: float) -> bool:
    best = np.sort(part)[-share:]
    return bool(best.mean() - part.mean() > threshold and part.std() > min_std)
