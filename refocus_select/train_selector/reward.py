"""From the reference model's answers to rewards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from ..errors import InputError
from ..reference import ReferenceModel, Request


@dataclass(frozen=True)
class Reward:
    """Rewards of the answers from N subsets; means over the reference models.

    Attributes:
        value: what is learned from, float32 [N].
        margin: logit of the right option minus the largest of the others, float32 [N].
        correct: share of the reference models that answer right, float32 [N].
    """

    value: Tensor
    margin: Tensor
    correct: Tensor


def margins(logits: Tensor, answer: int) -> Tensor:
    """m = z_right - max z_wrong (ReFoCUS, reward): [N, options] to [N]."""
    wrong = torch.cat([logits[:, :answer], logits[:, answer + 1 :]], 1)
    return logits[:, answer] - wrong.amax(1)


RewardFunction = Callable[[Tensor, int], Tensor]
"""(logits [N, options], position of the right option) to rewards [N]."""

REWARDS: dict[str, RewardFunction] = {
    "tanh_margin": lambda logits, answer: torch.tanh(margins(logits, answer) / 2),
    "probability_margin": lambda logits, answer: margins(logits.softmax(-1), answer),
    "probability": lambda logits, answer: logits.softmax(-1)[:, answer],
    "correct": lambda logits, answer: (margins(logits, answer) > 0).float(),
}
"""By the name of `objective.reward`; add yours before a run starts."""


def rewards(logits: Tensor, answer: int, kind: str) -> Tensor:
    """Rewards of N answers.

    "tanh_margin" is tanh(m / 2), the paper's: with two options it equals p(right) - p(wrong).
    "probability_margin" is p(right) - max p(wrong) under the softmax over all options.
    "probability" is p(right), which pays for partial evidence where a margin to the largest wrong option does not.
    "correct" is 1 if the right option has the largest logit (alone), else 0.

    Args:
        logits: [N, options].
        answer: position of the right option.
        kind: see above.
    """
    return REWARDS[kind](logits, answer)


class RewardTerm(Protocol):
    """Something beside the answer that a subset is worth, or costs.

    Attributes:
        fingerprint: identity of everything that decides it.
    """

    fingerprint: str

    def __call__(self, request: Request, reward: Reward) -> Tensor:
        """What is added to the rewards of a request's subsets, float32 [N]."""


class RewardModel:
    """Reference models, and how their answers become rewards."""

    def __init__(self, references: Sequence[ReferenceModel], kind: str, terms: Sequence[RewardTerm] = ()) -> None:
        """Reward by the answers of one or several models.

        Args:
            references: the models; the mean of their rewards counts.
            kind: one of `REWARDS`.
            terms: added to that mean.

        Raises:
            InputError: without any.
        """
        if not references:
            raise InputError("a reference model is needed: set reference.model, or give reference=")
        self.references = list(references)
        self.kind = kind
        self.terms = tuple(terms)

    @property
    def fingerprint(self) -> str:
        """Identity of the models and of the reward."""
        parts = [reference.fingerprint for reference in self.references]
        return "+".join([*parts, self.kind, *(term.fingerprint for term in self.terms)])

    def __call__(self, requests: Sequence[Request]) -> list[Reward]:
        """Score the subsets of each request.

        Raises:
            RefocusError: as `ReferenceModel.option_logits`.
            InputError: if a reference model gives numbers of another shape, or not finite.
        """
        scored: list[list[Reward]] = [[] for _ in requests]
        for reference in self.references:
            for place, request, logits in zip(scored, requests, reference.option_logits(requests), strict=True):
                place.append(self._score(reference, request, logits))
        return [self._with_terms(request, _mean(each)) for request, each in zip(requests, scored, strict=True)]

    def _with_terms(self, request: Request, reward: Reward) -> Reward:
        value = reward.value
        for term in self.terms:
            value = value + term(request, reward)
        return replace(reward, value=value)

    def _score(self, reference: ReferenceModel, request: Request, logits: Tensor) -> Reward:
        question = request.question
        expected = (len(request.subsets), len(question.options))
        finite = bool(torch.isfinite(logits).all())
        if tuple(logits.shape) != expected or not finite:
            raise InputError(
                f"reference model {reference.name} gave {tuple(logits.shape)} {'' if finite else 'non-'}finite logits "
                f"for question {question.id}; expected are finite ones of shape {expected}"
            )
        if question.answer is None:
            raise InputError(f"question {question.id} has no answer")
        logits = logits.float()
        margin = margins(logits, question.answer)
        return Reward(rewards(logits, question.answer, self.kind), margin, (margin > 0).float())


def _mean(answers: list[Reward]) -> Reward:
    if len(answers) == 1:
        return answers[0]
    return Reward(
        *(torch.stack([getattr(a, name) for a in answers]).mean(0) for name in ("value", "margin", "correct"))
    )
