"""The policy under training: a network with what it reads, drawing subsets and scoring them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..models.portable import PortablePolicy
from ..models.refocus import RefocusModel
from ..questions import Question
from ..reference.clips import Clip
from ..selectors import FrameSelector


@dataclass(frozen=True)
class PolicyInputs:
    """What the policy reads for one question.

    Attributes:
        frames: vectors [F, h]; for policies that read pictures pooled features [F, T, h], or pixels uint8 [F, H, W, 3].
        times: seconds, float32 [F].
        question: vector of its sentence [s], or token ids int64 [L].
    """

    frames: Tensor
    times: Tensor
    question: Tensor


@dataclass(frozen=True)
class Rollouts:
    """Subsets of B questions, in the order of picking.

    Attributes:
        picks: positions among the candidates, int64 [B, N, K].
        log_probs: of each pick, [B, N, K].
        remaining: what the policy expects further picks to add, before each pick, [B, N, K]; None if it does not say.
        entropy: of each pick's distribution in nats, [B, N, K].
        distributions: log-probabilities of all frames before each pick, [B, N, K, F]; -inf for those picked already.
    """

    picks: Tensor
    log_probs: Tensor
    remaining: Tensor | None
    entropy: Tensor
    distributions: Tensor


class Policy(nn.Module, ABC):
    """A policy under training.

    Attributes:
        model: the network.
        reader: the selector whose encodings hold the frames' features.
        readings_kept: groups of a step whose reading keeps its graph until their rewards are known; further ones are
            read again for the gradient. None: all.
    """

    model: RefocusModel | PortablePolicy
    reader: FrameSelector
    readings_kept: int | None = None

    @property
    def device(self) -> torch.device:
        """Where the network lies."""
        return self.model.device

    @abstractmethod
    def inputs(self, question: Question, clip: Clip) -> PolicyInputs:
        """What the network reads, on the CPU.

        Raises:
            RefocusError: if the video cannot be read.
        """

    @abstractmethod
    def group(self, inputs: PolicyInputs) -> Hashable:
        """Inputs with equal values can be read in one batch."""

    def augment(self, inputs: PolicyInputs, generator: torch.Generator) -> PolicyInputs:
        """Inputs with the noise that training adds to them; here, none."""
        return inputs

    @abstractmethod
    def selector(self, name: str) -> FrameSelector:
        """The network behind the interface of a selector, sharing its weights."""

    @abstractmethod
    def read(self, batch: Sequence[PolicyInputs]) -> Any:
        """Read the videos and questions of one group, with gradient if it is enabled.

        Returns:
            An object with `finite` and `detached()`.
        """

    @abstractmethod
    def pick(
        self,
        reading: Any,
        steps: int,
        *,
        rollouts: int = 1,
        sample: bool = False,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Pick frames without gradient, drawn or each the best.

        Returns:
            Picks [B, N, K], and log-probabilities of the first one [B, F].
        """

    @abstractmethod
    def score(self, reading: Any, picks: Tensor, temperature: float) -> Rollouts:
        """Score given subsets [B, N, K] in one parallel pass, with gradient into the reading."""

    def forward(
        self,
        batch: Sequence[PolicyInputs],
        picks: Tensor | None = None,
        *,
        rollouts: int = 1,
        steps: int = 8,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Rollouts:
        """Score given subsets, or draw and score new ones, from one reading of videos and questions.

        Drawing takes no gradient. Scoring is one parallel pass over all picks, and its gradient goes through the state
        into the reading of the prompt.

        Args:
            batch: inputs of one group.
            picks: [B, N, K]; None draws `rollouts` subsets of `steps` picks.

        Raises:
            FloatingPointError: if the network no longer gives numbers.
        """
        reading = self.read(batch)
        if not reading.finite:
            raise FloatingPointError("what the policy reads in the videos is not finite")
        if picks is None:
            picks, _ = self.pick(
                reading.detached(), steps, rollouts=rollouts, sample=True, temperature=temperature, generator=generator
            )
        return self.score(reading, picks.to(self.device), temperature)

    @torch.no_grad()
    def best(
        self, batch: Sequence[PolicyInputs], steps: int, draw: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """The best frame at every step, and frames drawn at temperature 1 too if there is a generator for it.

        Returns:
            Picks [B, K], log-probabilities of the first best pick [B, F], and drawn picks [B, K] or None.
        """
        reading = self.read(batch)
        picks, first = self.pick(reading, steps)
        drawn = None if draw is None else self.pick(reading, steps, sample=True, generator=draw)[0][:, 0]
        return picks[:, 0], first, drawn
