"""Reading videos and questions that are vectors: one token per frame, many videos in one batch.

    reading = read_vectors(model, features, questions, times)
    picks = model.decode(reading.keys, reading.values, reading.state, similarity=reading.similarity, steps=8).picks

The vectors come from a dual encoder (`refocus_select.selectors.training_free.DualEncoder`), in whose space questions
and frames can be compared. The scale of the vectors does not matter, except for the raw similarity among the cues.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from .backbone import BackboneState
from .config import RefocusConfig
from .wording import take_apart

if TYPE_CHECKING:
    from .refocus import RefocusModel

VIDEO_CUES = 8
QUESTION_CUES = 4
_EPS = 1e-6


class TextEncoder(Protocol):
    """Whoever turns texts into vectors [n, h], e.g. a dual encoder."""

    def encode_text(self, texts: Sequence[str]) -> Tensor: ...


@dataclass(frozen=True)
class Reading:
    """Videos and questions, read; B questions about videos of F frames each.

    Attributes:
        keys: [B, F, d].
        values: [B, F, d].
        state: behind each question, of B rows.
        similarity: standardised over the frames of each video, [B, F]; None if it is not known.
    """

    keys: Tensor
    values: Tensor
    state: BackboneState
    similarity: Tensor | None

    @property
    def finite(self) -> bool:
        """Whether all numbers are finite."""
        tensors = [self.keys, self.values, *(tensor for layer in self.state.layers for tensor in layer)]
        return bool(torch.stack([tensor.isfinite().all() for tensor in tensors]).all())

    def detached(self) -> Reading:
        """The same without gradient."""
        layers = self.state.stacked()
        return Reading(
            self.keys.detach(),
            self.values.detach(),
            BackboneState.unstacked(*(tensor.detach() for tensor in layers)),
            None if self.similarity is None else self.similarity.detach(),
        )


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


def read_vectors(model: RefocusModel, features: Tensor, questions: Tensor, times: Tensor) -> Reading:
    """Read B questions about B videos of equal length.

    Args:
        model: with `frame_encoder` "none" and a `question_hidden_size`.
        features: of the frames, [B, F, mm_hidden_size].
        questions: [B, question_hidden_size]; or [B, 1 + question_mentions, question_hidden_size] for models that read
            questions in parts (`question_parts`), zero where a question names fewer things.
        times: of the frames in seconds, ascending, [B, F].

    Raises:
        InputError: if the model reads pictures or text, or the vectors have other sizes.
    """
    config = model.config
    if config.frame_encoder != "none" or model.question_projector is None:
        raise InputError("this network reads pictures and text, not vectors")
    if features.shape[-1] != config.mm_hidden_size or questions.shape[-1] != config.question_hidden_size:
        raise InputError(
            f"vectors of {features.shape[-1]} (frames) and {questions.shape[-1]} (question) dimensions, but the "
            f"network reads {config.mm_hidden_size} and {config.question_hidden_size}; use its own encoder"
        )
    questions = questions if questions.ndim == 3 else questions[:, None]  # [B, P, h]
    if questions.shape[1] != 1 + config.question_mentions:
        raise InputError(
            f"questions of {questions.shape[1]} vectors, but the network reads {1 + config.question_mentions}"
        )
    features, questions = features.to(model.dtype), questions.to(model.dtype)
    asked = model.question_projector(_whitened(questions).flatten(1))[:, None]  # [B, 1, d]
    tokens = model.projector(_whitened(features))  # [B, F, d]
    if model.cues is not None:
        tokens = tokens + model.cues(features, questions, times)
    if config.question_fusion == "before":
        tokens = tokens + asked
    hidden, state = model.backbone(tokens, model.backbone.empty_state(len(tokens)))
    if model.reverse is not None:
        backwards, _ = model.reverse(tokens.flip(1), model.reverse.empty_state(len(tokens)), return_state=False)
        hidden = hidden + backwards.flip(1)
    _, state = model.backbone(asked, state)
    return Reading(model.pointer.keys(hidden), model.pointer.values(hidden), state, likeness(features, questions))


def question_parts(encoder: TextEncoder, questions: Sequence[str], mentions: int) -> Tensor:
    """Questions as a network reads them.

    Args:
        encoder: with the method `encode_text` of dual encoders.
        questions: as text.
        mentions: `question_mentions` of the network.

    Returns:
        float32 [B, 1 + mentions, h]: the vector of each question, or of its sentence without the things it names and of
        up to `mentions` such things, zero where there are fewer.
    """
    if not mentions:
        return encoder.encode_text(questions)[:, None]
    taken = [take_apart(question) for question in questions]
    texts = list(dict.fromkeys(text for w in taken for text in (w.frame, *w.mentions[:mentions])))
    vectors = dict(zip(texts, encoder.encode_text(texts).float(), strict=True))
    parts = torch.zeros(len(questions), 1 + mentions, next(iter(vectors.values())).shape[-1])
    for row, wording in zip(parts, taken, strict=True):
        for place, text in enumerate((wording.frame, *wording.mentions[:mentions])):
            row[place] = vectors[text]
    return parts


def likeness(features: Tensor, questions: Tensor) -> Tensor:
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


def _whitened(vectors: Tensor) -> Tensor:
    """Mean 0 and deviation 1 within each vector, whatever its length was."""
    return F.layer_norm(vectors, vectors.shape[-1:])
