"""Warm starts: imitate a teacher before, or instead of, learning from rewards.

- "similarity" distils what a dual encoder finds similar (after RL-FrameSel's pre-training);
- "evidence" imitates spans of time that are known to hold the answer. It uses labels, which the paper does without.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..questions import Question


def draw_by_similarity(cosines: Tensor, steps: int, temperature: float, generator: torch.Generator) -> Tensor:
    """Picks of the teacher that samples without replacement from softmax(cosine / temperature).

    Args:
        cosines: [F].
        steps: K <= F.
        temperature: 0.03 in RL-FrameSel.

    Returns:
        int64 [K], in the order of picking (the Gumbel-top-k trick; Kool et al. 2019).
    """
    noise = -torch.empty_like(cosines).exponential_(generator=generator).log()
    return (cosines / temperature + noise).topk(steps).indices


def similarity_targets(cosines: Tensor, picks: Tensor, temperature: float) -> Tensor:
    """The teacher's distribution before each pick, [F] and [K] to [K, F]."""
    used = F.pad(F.one_hot(picks, len(cosines)).cumsum(0), (0, 0, 1, 0))[:-1] > 0
    return (cosines / temperature).expand(len(picks), -1).masked_fill(used, -torch.inf).softmax(-1)


def evidence_targets(
    question: Question, timestamps: np.ndarray, steps: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Picks that show the evidence, and what would have been right at each of them.

    Every span is shown once before any is shown again; what is left is filled with other frames.

    Args:
        question: with `evidence`.
        timestamps: of the candidates in seconds, [F].
        steps: K <= F.
        rng: decides among frames of a span and among the others.

    Returns:
        picks int64 [K], and which frames are right before each pick, bool [K, F]; all False where any frame will do.

    Raises:
        InputError: if no candidate lies in the evidence.
    """
    spans = [np.flatnonzero((timestamps >= start) & (timestamps <= end)) for start, end in question.evidence]
    spans = [span for span in spans if len(span)]
    if not spans:
        raise InputError(f"question {question.id}: no candidate frame lies in its evidence {list(question.evidence)}")
    picks: list[int] = []
    right = np.zeros((steps, len(timestamps)), dtype=bool)
    while len(picks) < steps:
        hidden = [span for span in spans if not np.isin(span, picks).any()] or spans
        left = [rest for rest in (np.setdiff1d(span, picks) for span in hidden) if len(rest)]
        if not left:
            break
        right[len(picks), np.concatenate(left)] = True
        picks.append(int(rng.choice(left[rng.integers(len(left))])))
    others = rng.permutation(np.setdiff1d(np.arange(len(timestamps)), picks))
    picks += others[: steps - len(picks)].tolist()
    return torch.tensor(picks), torch.from_numpy(right)


def imitation_loss(log_probs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy with a distribution over frames, or with a set of right ones; mean over the picks that have any.

    Args:
        log_probs: [B, K, F], -inf where masked.
        targets: probabilities [B, K, F]; or bool [B, K, F], of which any frame is right.
    """
    if targets.dtype == torch.bool:
        taught = targets.any(-1)  # [B, K]
        found = log_probs.masked_fill(~targets, -torch.inf)[taught].logsumexp(-1)
        return -found.mean()
    return -(targets * log_probs.masked_fill(targets == 0, 0.0)).sum(-1).mean()
