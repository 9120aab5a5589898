"""A user's own reference model: it likes late frames."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from refocus_select.reference import ReferenceModel, Request


class Late(ReferenceModel):
    """Answers 0, the more surely the later the frames."""

    name = "late"
    fingerprint = "late-1"

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale

    def option_logits(self, requests: Sequence[Request]) -> list[Tensor]:
        results = []
        for request in requests:
            logits = torch.zeros(len(request.subsets), len(request.question.options))
            logits[:, 0] = self.scale * request.subsets.float().mean(1)
            results.append(logits)
        return results


made = Late(2.0)


def make(scale: float) -> Late:
    return Late(scale)


def broken() -> int:
    return 3
