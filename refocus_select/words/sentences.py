"""Who turns passages and questions into sentence vectors: the embedded encoder, or the user's."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import EncoderError

if TYPE_CHECKING:
    import torch

    from .transcript import Transcript

_LATIN_SHARE = 0.5  # of the letters; below it a transcript is in another script


@dataclass(frozen=True)
class Sentences:
    """A sentence encoder.

    Attributes:
        fingerprint: identity of its weights.
        only_english: True for the embedded one.
        function: from texts to vectors [n, s].
    """

    fingerprint: str
    only_english: bool
    function: Callable[[list[str]], Any]

    def encode(self, texts: Sequence[str]) -> torch.Tensor:
        """Vectors of unit length, float32 [n, s], on the CPU.

        Raises:
            EncoderError: if they are not one finite vector for each text.
        """
        import torch
        import torch.nn.functional as F

        with torch.inference_mode():
            vectors = torch.as_tensor(self.function(list(texts))).detach().float().cpu()
        if vectors.ndim != 2 or len(vectors) != len(texts) or not vectors.isfinite().all():
            raise EncoderError(f"encode_sentences gives {list(vectors.shape)} for {len(texts)} texts, not [n, s]")
        return F.normalize(vectors, dim=-1).clone()

    @cached_property
    def unrelated(self) -> np.ndarray:
        """Vectors of unrelated questions, float32 [T, s]."""
        from .match import UNRELATED

        numbers: np.ndarray = self.encode(UNRELATED).numpy()
        return numbers

    def doubts(self, transcript: Transcript) -> tuple[str, ...]:
        """A warning if the words are in a language that the encoder does not know."""
        if not self.only_english:
            return ()
        language = transcript.language
        if language is None and _other_script("".join(line.text for line in transcript.lines[:50])):
            language = "another script"
        if language is None or language.split("-")[0] in ("en", "eng"):
            return ()
        return (
            f"{transcript.origin}: the words are in {language!r}, but the embedded sentence encoder knows English; "
            "names and numbers are still found. Give a transcript in English, or an encoder with encode_sentences",
        )


def sentences_for(encoder: Any = None) -> Sentences:
    """The user's encoder if it has `encode_sentences`, else the embedded one.

    Args:
        encoder: of a selector; the embedded dual encoder lends its text side, so that it is loaded once.
    """
    own = getattr(encoder, "encode_sentences", None)
    if callable(own):
        return Sentences(f"sentences-of-{encoder.fingerprint}", False, own)
    from ..models.mini import MiniEncoder

    if isinstance(encoder, MiniEncoder) and encoder.device.type == "cpu":
        return _kept(encoder)
    return _embedded()


@lru_cache(maxsize=2)
def _kept(encoder: Any) -> Sentences:
    return Sentences("sentences-1", True, encoder.text.encode)


@lru_cache(maxsize=1)
def _embedded() -> Sentences:
    from ..models.sentences import embedded_sentences

    return Sentences("sentences-1", True, embedded_sentences().encode)


def _other_script(text: str) -> bool:
    letters = [letter for letter in text if letter.isalpha()]
    latin = sum("LATIN" in unicodedata.name(letter, "") for letter in letters)
    return bool(letters) and latin < _LATIN_SHARE * len(letters)
