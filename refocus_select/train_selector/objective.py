"""The objective: group-relative advantages, the policy gradient and the entropy bonus, as pure functions.

Ascend (1/N) sum_j A_j log pi(A_j) + beta H over the N subsets of a question (ReFoCUS, with the advantage of GRPO, Shao
et al. 2024, and an entropy bonus in the place of its KL term). Letters: B questions, N subsets, K picks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

SAME = 1e-6
"""Deviation of rewards below which the subsets of a question are equally good and teach nothing."""


@dataclass(frozen=True)
class Advantages:
    """How much better each subset is than the others of its question.

    Attributes:
        values: float32 [B, N], or [B, N, K] if picks are scored one by one; zero for questions without information.
        informative: whether the rewards of the question differ, bool [B].
    """

    values: Tensor
    informative: Tensor


def advantages(
    rewards: Tensor, kind: Literal["group", "batch", "none"] = "group", *, everywhere: Tensor | None = None
) -> Advantages:
    """Centre the rewards of each question and scale them.

    Args:
        rewards: float32 [B, N].
        kind: "group" divides by the sample deviation of the question (the paper), "batch" by that of all questions, so
            that questions with tiny differences do not weigh as much as others, "none" by nothing.
        everywhere: for "batch", the rewards of all processes [B', N] (default: `rewards`).
    """
    centred = rewards - rewards.mean(1, keepdim=True)
    deviation = rewards.std(1, keepdim=True)
    informative = deviation[:, 0] > SAME
    if kind == "group":
        centred = centred / deviation.clamp(min=SAME)
    elif kind == "batch":
        total = rewards if everywhere is None else everywhere
        spread = (total - total.mean(1, keepdim=True)).square().mean().sqrt()
        centred = centred / spread.clamp(min=SAME)
    return Advantages(centred * informative[:, None], informative)


def prefix_credits(rewards: Tensor, before: Tensor, decay: float = 1.0) -> Tensor:
    """What each pick, with all that follows it, adds to what was picked before: r(A) - v(a_1 … a_{j-1}).

    The reward to go with a baseline that depends on the earlier picks only, so that the expected gradient is that of
    the expected reward, whatever v is (Williams 1992). A baseline that sees later picks, such as the subset without the
    pick, is biased where these depend on it.

    A decay below 1 counts what later picks add with weights decay, decay², … (Schulman et al. 2016, with v in the
    place of a learned value): less noise, and a bias against picks that pay off later only.

    Args:
        rewards: r of whole subsets, float32 [B, N], N at least 2.
        before: v of the first 1, 2, … K - 1 picks, float32 [B, N, K - 1]. Before the first there is nothing: it is
            compared with the mean of the question's other subsets.
        decay: 0 to 1.

    Returns:
        [B, N, K].
    """
    worth = torch.cat([before, rewards[..., None]], -1)  # of the picks up to each
    credits = worth.diff(dim=-1, prepend=torch.zeros_like(worth[..., :1]))
    for place in range(credits.shape[-1] - 2, -1, -1):
        credits[..., place] += decay * credits[..., place + 1]
    first = credits[..., 0]
    others = (first.sum(1, keepdim=True) - first) / (first.shape[1] - 1)
    return torch.cat([(first - others)[..., None], credits[..., 1:]], -1)


def remaining_gains(rewards: Tensor, before: Tensor) -> Tensor:
    """What the picks after the first 1, 2, … K - 1 add to these, r(A) - v(a_1 … a_j); arguments as `prefix_credits`.

    Returns:
        [B, N, K - 1].
    """
    return rewards[..., None] - before


def pick_advantages(
    credits: Tensor, kind: Literal["group", "batch", "none"] = "batch", *, everywhere: Tensor | None = None
) -> Advantages:
    """Scale `prefix_credits`; they are not centred.

    Args:
        credits: float32 [B, N, K].
        kind: as for `advantages`, with the root mean square in the place of the deviation.
        everywhere: for "batch", the credits of all processes (default: `credits`).
    """
    size = credits.square().mean((1, 2), keepdim=True).sqrt()
    informative = size[:, 0, 0] > SAME
    if kind == "group":
        credits = credits / size.clamp(min=SAME)
    elif kind == "batch":
        total = credits if everywhere is None else everywhere
        credits = credits / total.square().mean().sqrt().clamp(min=SAME)
    return Advantages(credits * informative[:, None, None], informative)


def surrogate(log_probs: Tensor, drawn: Tensor, values: Tensor, clip: float | None) -> Tensor:
    """What is ascended for each question, [B], without the entropy.

    Args:
        log_probs: of each pick under the current policy, [B, N, K], with gradient.
        drawn: the same under the policy that drew the subsets, [B, N, K].
        values: advantages [B, N], or [B, N, K] of each pick.
        clip: None for A log pi; else the clipped ratio of each pick (PPO, Schulman et al. 2017), whose gradient is the
            same on the first pass.
    """
    weight = values if values.ndim == 3 else values[..., None]
    if clip is None:
        return (weight * log_probs).sum(-1).mean(1)
    ratio = (log_probs - drawn).exp()
    clipped = ratio.clamp(1 - clip, 1 + clip)
    return torch.minimum(ratio * weight, clipped * weight).sum(-1).mean(1)


def entropies(log_probs: Tensor) -> Tensor:
    """Entropy of each pick's distribution in nats: [..., F] (-inf where masked) to [...]."""
    allowed = log_probs.isfinite()
    finite = log_probs.masked_fill(~allowed, 0.0)
    return -(finite.exp() * finite * allowed).sum(-1)
