"""Cues: what a frame's token says besides its own feature: when it is, how it differs, how it matches the question.

Vectors come from a dual encoder, in whose space questions and frames can be compared.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import RefocusConfig

VIDEO_CUES = 8
QUESTION_CUES = 4
_EPS = 1e-6


class FrameCues(nn.Module):
    """What a frame's token says besides its own feature: when it is, how it differs, how it matches."""

    def __init__(self, config: RefocusConfig) -> None:
        super().__init__()
        self.knows_question = config.question_fusion == "before"
        asked = QUESTION_CUES * max(1, config.question_mentions) * self.knows_question
        self.projector = nn.Linear(VIDEO_CUES + asked, config.d_model)

    def forward(self, features: Tensor, questions: Tensor, times: Tensor) -> Tensor:
        """[B, F, h], [B, P, h] and [B, F] to [B, F, d]."""
        cues = video_cues(features, times)
        if self.knows_question:
            cues = torch.cat([cues, question_cues(features, questions)], -1)
        return self.projector(cues.to(self.projector.weight.dtype))


def entity_similarity(features: Tensor, questions: Tensor) -> Tensor:
    """How well frames match what a question names, standardised over the frames of each video, [B, F].

    The mean over the named things of [B, P, h]; zero where a question in parts names none.
    """
    named = questions[:, 1:] if questions.shape[1] > 1 else questions
    relative = torch.stack([standardised(match(features, part)) for part in named.unbind(1)], -1)  # [B, F, M]
    count = named.abs().sum(-1).gt(0).sum(1).clamp(min=1)
    return relative.sum(-1) / count[:, None]


def match(features: Tensor, questions: Tensor) -> Tensor:
    """Similarity of frames and question, [B, F]: the dot product of the encoder's vectors, in float32."""
    return torch.einsum("bfh,bh->bf", features.float(), questions.float())


def standardised(similarity: Tensor) -> Tensor:
    """Zero mean and unit deviation over the frames of each video; zero where all are alike."""
    centred = similarity - similarity.mean(-1, keepdim=True)
    return centred / centred.square().mean(-1, keepdim=True).sqrt().clamp(min=_EPS)


def video_cues(features: Tensor, times: Tensor) -> Tensor:
    """Cues that need no question, [B, F, 8]: place in the video (4) and change (4)."""
    start, end = times[:, :1], times[:, -1:]
    place = ((times - start) / (end - start).clamp(min=_EPS)).float()  # 0 .. 1
    unit = F.normalize(features.float(), dim=-1)
    step = 1 - (unit[:, 1:] * unit[:, :-1]).sum(-1)  # [B, F-1]
    before, after = F.pad(step, (1, 0)), F.pad(step, (0, 1))
    mean = F.normalize(unit.mean(1, keepdim=True), dim=-1)
    unusual = 1 - (unit * mean).sum(-1)
    angle = torch.pi * place
    return torch.stack(
        [
            2 * place - 1, angle.cos(), (2 * angle).cos(), (2 * angle).sin(),
            before, after, unusual, standardised(unusual),
        ],
        -1,
    )  # fmt: skip


def question_cues(features: Tensor, questions: Tensor) -> Tensor:
    """Cues of each named thing (or of the question as a whole), [B, F, 4 M]: similarity as it is, standardised, below
    the best, and its rise over the frame before; zero for things that are not there."""
    cues = []
    for part in (questions[:, 1:] if questions.shape[1] > 1 else questions).unbind(1):
        similarity = match(features, part)
        relative = standardised(similarity)
        below = relative - relative.amax(-1, keepdim=True)
        rise = F.pad(relative.diff(dim=-1), (1, 0))
        cues += [similarity, relative, below, rise]
    return torch.stack(cues, -1)
