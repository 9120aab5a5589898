"""What all selectors share that compare the vectors of frames with the question's: encoding, similarity, checks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ..encoders import DualEncoder, check_encoder
from ..encoders.protocol import check_one_space, checked_vectors, name_of, question_warnings
from ..encoding import VECTORS, VideoEncoding, check_tensors
from ..errors import EncoderError
from ..parsing import MAX_ENTITIES, parse_question
from ..video import CandidateRule, Frames, VideoMetadata
from ..video.candidates import MIN_CANDIDATES
from .base import Choice, FrameSelector
from .words import cover_lines, fused

if TYPE_CHECKING:
    import torch

    from ..words.match import WordMatch


class DualEncoderSelector(FrameSelector):
    """Keeps the encoder's vectors of the candidates, and ranks them by similarity alone.

    An encoding holds the encoder's vectors only: one encoding of a video serves every selector with that encoder.
    """

    rule = CandidateRule(fps=2.0, max_frames=256, min_frames=MIN_CANDIDATES)

    def __init__(self, encoder: DualEncoder, *, name: str = "similarity") -> None:
        self.encoder = check_encoder(encoder)
        self.name = name
        self.fingerprint = encoder.fingerprint
        self.frame_size = getattr(encoder, "frame_size", None)

    @property
    def encoding_fingerprint(self) -> str:
        return self.encoder.fingerprint

    def reads(self, fingerprint: str) -> bool:
        return super().reads(fingerprint) or fingerprint in getattr(self.encoder, "earlier", ())

    @property
    def encoding_name(self) -> str:
        return name_of(self.encoder)

    def decode_size(self, metadata: VideoMetadata) -> tuple[int, int] | None:
        decide = getattr(self.encoder, "decode_size", None)
        return decide(metadata.height, metadata.width) if decide else self.frame_size

    def question_warnings(self, question: str) -> tuple[str, ...]:
        return question_warnings(self.encoder, question)

    def encode_frames(
        self, frames: Iterator[Frames], total: int
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        import torch

        if not callable(getattr(self.encoder, "encode_frames", None)):
            raise EncoderError(
                f"{self.encoding_name} reads questions but sees no frames; give vectors of frames that you have by "
                "VideoEncoding.from_vectors(vectors, timestamps, encoder=…)"
            )
        rows = [
            checked_vectors(self.encoder, self.encoder.encode_frames(piece.data), len(piece), "frames")
            for piece in frames
        ]
        return {VECTORS: torch.cat(rows) if rows else torch.zeros(0, 0)}, {}

    def choose(
        self,
        encoding: VideoEncoding,
        questions: list[str],
        num_frames: int,
        options: list[Sequence[str] | None],
        **kwargs: Any,
    ) -> list[Choice]:
        return [
            Choice(np.argsort(-scores, kind="stable")[:num_frames], scores)
            for scores in self.similarity(encoding, questions)
        ]

    def check_encoding(self, encoding: VideoEncoding) -> None:
        import torch

        shape = (len(encoding), getattr(self.encoder, "dimensions", 0))
        check_tensors(encoding, {VECTORS: (shape, (torch.float32, torch.float16))})

    def choose_by_words(
        self, encoding: VideoEncoding, questions: list[str], num_frames: int, matches: list[WordMatch], **kwargs: Any
    ) -> list[Choice]:
        rows = self.similarity(encoding, questions, cosine=True)
        return [
            Choice(cover_lines(match, encoding.timestamps, num_frames, scores), fused(scores, match.gains.max(axis=0)))
            for scores, match in zip(rows, matches, strict=True)
        ]

    def picture_prominence(self, encoding: VideoEncoding, question: str) -> float:
        from ..models.recognition import prominence

        names = parse_question(question).entities[:MAX_ENTITIES]
        if not names:
            return float("-inf")
        found = prominence(encoding.tensors[VECTORS].float(), self.encode_text(names, like=encoding), self.unrelated)
        return float(found.max())

    @cached_property
    def unrelated(self) -> torch.Tensor:
        """Vectors of unrelated texts (`models.recognition.UNRELATED`), [T, D]."""
        from ..models.recognition import UNRELATED

        return self.encode_text(UNRELATED)

    def similarity(self, encoding: VideoEncoding, questions: Sequence[str], *, cosine: bool = False) -> np.ndarray:
        """Dot products, or cosines for encoders whose vectors have any length, float64 [questions, F].

        Raises:
            EncoderError: if the vectors of frames and text do not fit each other.
        """
        frames, text = encoding.tensors[VECTORS].float(), self.encode_text(questions, like=encoding)
        if cosine:
            import torch.nn.functional as F

            frames, text = F.normalize(frames, dim=-1), F.normalize(text, dim=-1)
        return (text @ frames.T).numpy().astype(np.float64)

    def encode_text(self, texts: Sequence[str], *, like: VideoEncoding | None = None) -> torch.Tensor:
        """Vectors of texts, float32 [n, D] on the CPU, checked.

        Args:
            texts: the questions.
            like: an encoding whose vectors they are to be compared with.

        Raises:
            EncoderError: if they are not finite, or of another length than the frames' vectors.
        """
        vectors = checked_vectors(self.encoder, self.encoder.encode_text(texts), len(texts), "text")
        if like is not None:
            check_one_space(self.encoder, vectors.shape[1], like.tensors[VECTORS].shape[1])
        return vectors
