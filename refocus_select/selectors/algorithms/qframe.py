"""Q-Frame: Gumbel top-k of the matching scores."""

from __future__ import annotations

import numpy as np

from .contract import algorithm, gumbel_top_k


@algorithm
def qframe(
    scores: np.ndarray,
    num_frames: int,
    *,
    timestamps: np.ndarray,
    logit_scale: float = 100.0,
    temperature: float = 0.8,
    seed: int = 0,
) -> np.ndarray:
    """Draw K frames without replacement, in proportion to the softmax of the image-text logits.

    Zhang et al., "Q-Frame: Query-aware Frame Selection and Multi-Resolution Adaptation for Video-LLMs" (ICCV 2025,
    arXiv 2506.22139), by the Gumbel-Max trick. The authors draw from 128 uniform frames (`max_frames=128`) and show
    the first 4 at full size, the next 8 at half and the next 32 at a quarter of each side, by rank. Their code
    multiplies embeddings that are not of unit length, so that the strength of the noise is arbitrary; here logits
    are cosines times the model's own scale.

    Args:
        scores: cosines of question and frames, [T].
        num_frames: K.
        timestamps: sorted times in seconds, [T].
        logit_scale: what the encoder multiplies cosines with, 100 for CLIP.
        temperature: divides the logits.
        seed: of the noise.

    Returns:
        Sorted distinct positions, int64 [min(K, T)].
    """
    logits = scores * (logit_scale / temperature)
    return gumbel_top_k(logits - logits.max(), num_frames, np.random.default_rng(seed))
