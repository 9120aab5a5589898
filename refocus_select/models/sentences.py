"""Questions as the portable policy reads them: the things that they name, and the sentence around these."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor

from ..parsing import parse_question
from .workers import FEW, workers


class TextTower(Protocol):
    """Whoever turns texts into vectors [n, h] that can be compared with frames, e.g. a dual encoder."""

    def encode_text(self, texts: Sequence[str]) -> Tensor: ...


class SentenceEncoder(Protocol):
    """Whoever turns sentences into vectors [n, s] of unit length."""

    def encode(self, texts: Sequence[str]) -> Tensor: ...


@lru_cache(maxsize=1)
def embedded_sentences() -> SentenceEncoder:
    """The sentence encoder that the package ships, without the image network beside it.

    Raises:
        SelectorLoadError: if its weights are missing or damaged.
    """
    from ..weights import resolve
    from .mini import load_text_encoder

    return load_text_encoder(resolve("mini"))


def sentences_beside(encoder: object) -> SentenceEncoder:
    """The embedded sentence encoder: that of the embedded dual encoder if this is one, so that it is loaded once."""
    from .mini import MiniEncoder

    return encoder.text if isinstance(encoder, MiniEncoder) else embedded_sentences()


def read_questions(
    tower: TextTower, sentences: SentenceEncoder, questions: Sequence[str], entities: int
) -> tuple[Tensor, Tensor]:
    """Questions as vectors.

    Args:
        tower: the user's encoder.
        sentences: of the policy.
        questions: as text.
        entities: M, things that are read.

    Returns:
        `entity_vectors`, [B, M, h]; and vectors of the sentences around the things, float32 [B, s].
    """
    templates = [parse_question(question).template for question in questions]
    distinct = list(dict.fromkeys(templates))
    if len(distinct) > FEW:
        vectors, named = sentences.encode(distinct), entity_vectors(tower, questions, entities)
    else:  # on a core of its own, beside the named things: all cores on a few short texts stall each other
        pending = workers().submit(sentences.encode, distinct)
        named = entity_vectors(tower, questions, entities)
        vectors = pending.result()
    around = dict(zip(distinct, vectors.float().cpu(), strict=True))
    return named, torch.stack([around[template] for template in templates])


def entity_vectors(tower: TextTower, questions: Sequence[str], entities: int) -> Tensor:
    """Vectors of the things that questions name, float32 [B, entities, h]; zero where a question names fewer."""
    named = [parse_question(question).entities[:entities] for question in questions]
    names = list(dict.fromkeys(name for each in named for name in each)) or ["something"]
    vectors = dict(zip(names, tower.encode_text(names).float(), strict=True))
    texts = torch.zeros(len(questions), entities, next(iter(vectors.values())).shape[-1])
    for row, each in zip(texts, named, strict=True):
        for place, name in enumerate(each):
            row[place] = vectors[name]
    return texts
