"""Reading videos and questions that are vectors: one token per frame, many videos in one batch.

    reading = read_vectors(model, features, questions, times)
    picks = model.decode(reading.keys, reading.values, reading.state, similarity=reading.similarity, steps=8).picks

The vectors come from a dual encoder (`refocus_select.selectors.training_free.DualEncoder`), in whose space questions
and frames can be compared. The scale of the vectors does not matter, except for the raw similarity among the cues.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..parsing import parse_question
from .backbone import BackboneState
from .cues import entity_similarity
from .refocus import RefocusModel


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
    return Reading(
        model.pointer.keys(hidden), model.pointer.values(hidden), state, entity_similarity(features, questions)
    )


def question_parts(encoder: TextEncoder, questions: Sequence[str], entities: int) -> Tensor:
    """Questions as a network reads them.

    Args:
        encoder: with the method `encode_text` of dual encoders.
        questions: as text.
        entities: `question_mentions` of the network.

    Returns:
        float32 [B, 1 + entities, h]: the vector of each question, or of its sentence without the things it names and of
        up to `entities` such things, zero where there are fewer.
    """
    if not entities:
        return encoder.encode_text(questions)[:, None]
    parsed = [parse_question(question) for question in questions]
    texts = list(dict.fromkeys(text for p in parsed for text in (p.template, *p.entities[:entities])))
    vectors = dict(zip(texts, encoder.encode_text(texts).float(), strict=True))
    parts = torch.zeros(len(questions), 1 + entities, next(iter(vectors.values())).shape[-1])
    for row, question in zip(parts, parsed, strict=True):
        for place, text in enumerate((question.template, *question.entities[:entities])):
            row[place] = vectors[text]
    return parts


def _whitened(vectors: Tensor) -> Tensor:
    """Mean 0 and deviation 1 within each vector, whatever its length was."""
    return F.layer_norm(vectors, vectors.shape[-1:])
