"""`ReferenceModel`: who answers questions from subsets of frames, and so gives the reward."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ..questions import Question
from .clips import Clip


@dataclass(frozen=True)
class Request:
    """Subsets of one video's candidates, from each of which one question is answered.

    Attributes:
        question: with options.
        clip: the video's candidates.
        subsets: positions among the candidates, each row sorted and without repeats, int64 [N, K].
    """

    question: Question
    clip: Clip
    subsets: Tensor


class ReferenceModel(ABC):
    """A frozen model that answers a multiple-choice question from a few frames.

    Subclass it to use a model of your own: `option_logits` is all that training, filter and evaluation need.

    Attributes:
        name: for people.
        fingerprint: identity of weights and of everything else that decides the answers.
    """

    name: str
    fingerprint: str

    @abstractmethod
    def option_logits(self, requests: Sequence[Request]) -> list[Tensor]:
        """Answer each request from each of its subsets.

        Args:
            requests: any number; K may differ between them.

        Returns:
            For each request the logits of its options, float32 [N, options] on the CPU, without gradient. Equal
            inputs give equal logits.

        Raises:
            RefocusError: if a video cannot be read, or the model cannot answer such a question.
        """
