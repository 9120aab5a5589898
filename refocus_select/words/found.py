"""`VideoWords`: the words of a video with their sentence vectors, as an encoding keeps them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import TranscriptError
from ..plain_text import parse_json
from .transcript import Line, Transcript

if TYPE_CHECKING:
    import torch

    from .match import LineIndex
    from .sentences import Sentences


@dataclass(frozen=True, eq=False)
class VideoWords:
    """What is said and written in a video, ready to be compared with questions.

    Attributes:
        passages: lines that can be understood alone (see `Transcript.passages`), spoken and written, sorted by start.
        vectors: their sentence vectors, unit length, float32 [L, s].
        encoder: identity of the sentence encoder.
    """

    passages: Transcript
    vectors: torch.Tensor
    encoder: str

    @classmethod
    def of(cls, transcript: Transcript, sentences: Sentences) -> VideoWords:
        """Join lines to passages and encode them."""
        passages = replace(transcript, lines=tuple(transcript.passages()))
        return cls(passages, sentences.encode([line.text for line in passages]), sentences.fingerprint)

    @classmethod
    def joined(cls, parts: Sequence[VideoWords]) -> VideoWords | None:
        """Words of several sources of one video as one; None if there are none at all."""
        import torch

        parts = [part for part in parts if len(part.passages)]
        if len(parts) < 2:
            return parts[0] if parts else None
        lines = [line for part in parts for line in part.passages]
        order = sorted(range(len(lines)), key=lambda i: (lines[i].start, lines[i].end))
        together = Transcript(
            tuple(lines[i] for i in order),
            next((part.passages.language for part in parts if part.passages.language), None),
            "; ".join(part.passages.origin for part in parts),
            tuple(warning for part in parts for warning in part.passages.warnings),
        )
        return cls(together, torch.cat([part.vectors for part in parts])[order], parts[0].encoder)

    def between(self, start: float, end: float) -> VideoWords:
        """The passages that can be heard or read in a part of the video (seconds)."""
        rows = [i for i, line in enumerate(self.passages) if line.end >= start and line.start <= end]
        if len(rows) == len(self.passages):
            return self
        return replace(
            self,
            passages=replace(self.passages, lines=tuple(self.passages[i] for i in rows)),
            vectors=self.vectors[rows],
        )

    def index(self, sentences: Sentences) -> LineIndex:
        """What all questions need; made once. Vectors of another sentence encoder are replaced."""
        from .match import LineIndex

        known: dict[str, Any] = self.__dict__.setdefault("_indices", {})
        if sentences.fingerprint not in known:
            vectors = self.vectors
            if self.encoder != sentences.fingerprint:
                vectors = sentences.encode([line.text for line in self.passages])
            known[sentences.fingerprint] = LineIndex(self.passages.lines, _numbers(vectors), sentences.unrelated)
        index: LineIndex = known[sentences.fingerprint]
        return index

    def heard_at(self, times: np.ndarray, before: float = 0.25, after: float = 1.0) -> list[Line]:
        """The passages that are said or shown at some of the times (seconds), a little earlier or later."""
        times = np.asarray(times)
        return [line for line in self.passages if ((times >= line.start - before) & (times <= line.end + after)).any()]

    def header(self) -> str:
        """Everything but the vectors, as JSON."""
        return json.dumps({"encoder": self.encoder, "passages": self.passages.to_dict()})

    @classmethod
    def from_header(cls, header: str, vectors: torch.Tensor | None) -> VideoWords:
        """The inverse of `header`.

        Raises:
            ValueError: if it is something else, or does not fit the vectors.
        """
        raw = parse_json(header)
        try:
            passages, encoder = Transcript.from_dict(raw["passages"]), str(raw["encoder"])
        except (TranscriptError, KeyError, TypeError) as error:
            raise ValueError(f"its words cannot be read ({error})") from None
        if vectors is None or vectors.ndim != 2 or len(vectors) != len(passages):
            shape = None if vectors is None else list(vectors.shape)
            raise ValueError(f"{len(passages)} passages of words and vectors {shape}")
        if not vectors.is_floating_point() or not vectors.isfinite().all():
            raise ValueError("the vectors of its words are not finite numbers")
        return cls(passages, vectors, encoder)


def _numbers(vectors: torch.Tensor) -> np.ndarray:
    numbers: np.ndarray = vectors.detach().float().cpu().numpy()
    return numbers
