"""The objective: group-relative advantages, the policy gradient and the entropy bonus, as pure functions.

Ascend (1/N) sum_j A_j log pi(A_j) + beta H over the N subsets of a question (ReFoCUS, with the advantage of GRPO, Shao
et al. 2024, and an entropy bonus in the place of its KL term). Letters: B questions, N subsets, K picks.

On the entropy bonus: H is the sum over the K picks of the entropy of each pick's distribution, along the subset that
was drawn. Its expectation over subsets is the entropy of the whole selection (chain rule). Its gradient is taken
pathwise, through these distributions, and not through the chance of drawing that subset: the bonus keeps every single
choice open, and pays nothing for going where later choices are open. Being a sum, it weighs more the larger K is;
divide beta by K where stages of different K shall be held equally open. What is published does not say which of these
the authors do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..models.portable import beside

SAME = 1e-6
"""Deviation of rewards below which the subsets of a question are equally good and teach nothing."""


@dataclass(frozen=True)
class Advantages:
    """How much better each subset is than the others of its question.

    Attributes:
        values: float32 [B, N], or [B, N, K] if picks are credited one by one; zero for questions without information.
        informative: whether the rewards of the question differ, bool [B].
    """

    values: Tensor
    informative: Tensor


Scaling = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(centred values, size of those of each question, size of all of them) to advantages."""

ADVANTAGES: dict[str, Scaling] = {
    "group": lambda values, size, total: values / size.clamp(min=SAME),  # GRPO, and the paper
    "batch": lambda values, size, total: values / total.clamp(min=SAME),  # small differences weigh less than large ones
    "none": lambda values, size, total: values,
}
"""By the name of `objective.advantage`; add yours before a run starts."""


def advantages(credits: Tensor, kind: str = "group", *, everywhere: Sequence[Tensor] | None = None) -> Advantages:
    """Centre the rewards of each question and scale them.

    Credits of single picks are compared with something already: they are scaled by their root mean square, not centred.

    Args:
        credits: rewards of subsets, float32 [B, N], or credits of picks, [B, N, K].
        kind: one of `ADVANTAGES`.
        everywhere: credits of the whole batch, for scales over it; K may differ between them (default: `credits`).
    """
    values, size = _sized(credits)
    parts = [values] if everywhere is None else [_sized(part)[0] for part in everywhere]
    total = torch.cat([part.flatten() for part in parts]).square().mean().sqrt()
    informative = size.flatten() > SAME
    values = ADVANTAGES[kind](values, size, total) * informative.view(size.shape)
    return Advantages(values, informative)


def _sized(credits: Tensor) -> tuple[Tensor, Tensor]:
    """What is scaled, and its size for each question: [B, 1] or [B, 1, 1]."""
    if credits.ndim == 3:
        return credits, credits.square().mean((1, 2), keepdim=True).sqrt()
    return credits - credits.mean(1, keepdim=True), credits.std(1, keepdim=True)


pick_advantages = advantages  # its name for credits of picks in earlier releases


@dataclass(frozen=True)
class Credits:
    """What is learned from.

    Attributes:
        values: [B, N] of subsets, or [B, N, K] of picks.
        gains: what later picks add to the first 1, 2, … K - 1, [B, N, K - 1], for policies that predict it; or None.
    """

    values: Tensor
    gains: Tensor | None = None


CreditRule = Callable[[Tensor, "Callable[[], Tensor]", float], Credits]
"""(rewards [B, N]; a function that scores the picks before each pick, [B, N, K - 1]; `credit_decay`) to credits."""


def _subset_credit(rewards: Tensor, before: Callable[[], Tensor], decay: float) -> Credits:
    return Credits(rewards)


def _prefix_credit(rewards: Tensor, before: Callable[[], Tensor], decay: float) -> Credits:
    scored = before()
    return Credits(prefix_credits(rewards, scored, decay), remaining_gains(rewards, scored))


CREDITS: dict[str, CreditRule] = {"subset": _subset_credit, "prefix": _prefix_credit}
"""By the name of `objective.credit`; add yours before a run starts."""


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


def prefix_subsets(picks: Tensor, frames: int) -> Tensor:
    """The picks before each pick but the first, filled up to K with the frames beside them.

    Args:
        picks: int64 [B, N, K].
        frames: candidates F.

    Returns:
        Positions, int64 [B, N, K - 1, K].
    """
    count = picks.shape[-1]
    earlier = [beside(picks, torch.full(picks.shape[:2], taken), count, frames) for taken in range(1, count)]
    return torch.stack(earlier, 2)


def remaining_gains(rewards: Tensor, before: Tensor) -> Tensor:
    """What the picks after the first 1, 2, … K - 1 add to these, r(A) - v(a_1 … a_j); arguments as `prefix_credits`.

    Returns:
        [B, N, K - 1].
    """
    return rewards[..., None] - before


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
