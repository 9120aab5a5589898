"""AdaQ: sampling whose sharpness follows the spread of the scores."""

from __future__ import annotations

import numpy as np

from .contract import algorithm, gumbel_top_k, minmax

_COLDEST = 1e-4


@algorithm
def adaq(
    scores: np.ndarray,
    num_frames: int,
    *,
    timestamps: np.ndarray,
    gamma: float = 0.5,
    mass: float = 0.997,
    seed: int = 0,
) -> np.ndarray:
    """Draw K frames without replacement from a softmax whose temperature is the variance of the scores.

    Zhang et al., "Towards Fast and Effective Long Video Understanding of Multimodal Large Language Models via
    Adaptive Quasi-Gaussian Sampling" (arXiv 2606.24187): with a the scores scaled to [0, 1], p = softmax(a / (gamma
    Var a)); only the central "3 sigma" of the mass takes part. The paper does not say how that mass is found: we
    read it as the smallest set of most probable frames that holds 0.997 of it. Its equation 6 takes raw scores in
    the softmax and scaled ones in the variance; we take scaled ones in both, so that the result does not depend on
    the encoder's units.

    Args:
        scores: relevance to the question, [T].
        num_frames: K.
        timestamps: sorted times in seconds, [T].
        gamma: temperature per variance.
        mass: probability of the frames that take part; if they are fewer than K, the best of the others fill up.
        seed: of the draw.

    Returns:
        Sorted distinct positions, int64 [min(K, T)].
    """
    relevance = minmax(scores)
    logits = (relevance - 1.0) / max(gamma * float(relevance.var()), _COLDEST)
    probability = np.exp(logits) / np.exp(logits).sum()
    ranked = np.argsort(-probability, kind="stable")
    kept = ranked[: int(np.searchsorted(np.cumsum(probability[ranked]), mass)) + 1]
    return kept[gumbel_top_k(logits[kept], num_frames, np.random.default_rng(seed))]
