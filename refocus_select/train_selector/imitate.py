"""Warm starts: imitate a teacher before, or instead of, learning from rewards.

- "similarity" distils what a dual encoder finds similar (after RL-FrameSel's pre-training);
- "evidence" imitates spans of time that are known to hold the answer. It uses labels, which the paper does without.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError, TrainingError
from ..questions import Question
from .compare import Item, cosines, matcher_of
from .data import seeded

if TYPE_CHECKING:
    from .trainer import Trainer


def imitate(trainer: Trainer, items: Sequence[Item], num_frames: int) -> dict[str, Any]:
    """A step of the trainer towards a teacher's picks.

    Raises:
        TrainingError: if no question of the batch can be taught.
    """
    now = trainer.progress
    examples = {}
    for item in items:
        try:
            examples[id(item)] = _target(trainer, item, min(num_frames, len(item.clip)))
        except InputError as error:  # no evidence in this question
            now.skipped.setdefault(item.question.id, str(error))
    count = sum(trainer.processes.gather(len(examples)))
    if not count:
        raise TrainingError(f"stage {now.stage}: no question of the batch can be taught by {trainer.stage.method}")
    total = 0.0
    trainer.optimiser.zero_grad(set_to_none=True)
    with trainer.timed("gradient"):
        for group in trainer.groups([item for item in items if id(item) in examples]):
            picks, targets = zip(*(examples[id(item)] for item in group), strict=True)
            distributions = trainer.forward(group, torch.stack(picks)[:, None], num_frames).distributions[:, 0]
            loss = imitation_loss(distributions, torch.stack(targets).to(distributions.device))
            (loss * (len(group) / count)).backward()
            total += loss.item() * (len(group) / count)
        norm = trainer.apply()
    return {"imitation_loss": sum(trainer.processes.gather(total)), "gradient_norm": norm, "questions": count}


def _target(trainer: Trainer, item: Item, num_frames: int) -> tuple[Tensor, Tensor]:
    """Picks of the teacher, and the target at each of them."""
    stage, step = trainer.stage, trainer.progress.step
    seed = seeded(trainer.config.seed, 4, step, int.from_bytes(item.question.id.encode()[-6:], "big"))
    if stage.method == "evidence":
        return evidence_targets(item.question, item.clip.timestamps, num_frames, np.random.default_rng(seed))
    similar = cosines(matcher_of(trainer.policy), item.question, item.clip)
    picks = draw_by_similarity(similar, num_frames, stage.temperature, torch.Generator().manual_seed(seed))
    return picks, similarity_targets(similar, picks, stage.temperature)


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
