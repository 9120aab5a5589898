"""`SimilaritySelector`: the frames most similar to the question, spread over what differs; the embedded default."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..encoding import VideoEncoding
from ..errors import SelectorLoadError
from ..video import CandidateRule, Frames
from .base import Choice, FrameSelector

if TYPE_CHECKING:
    import torch

    from ..models.mini import MiniEncoder


class SimilaritySelector(FrameSelector):
    """Compares question and candidates with a `MiniEncoder` and picks relevant, differing frames."""

    ordered = False
    rule = CandidateRule(fps=2.0, max_frames=256)

    def __init__(self, encoder: MiniEncoder, *, name: str = "mini") -> None:
        self.encoder = encoder
        self.name = name
        self.fingerprint = encoder.fingerprint
        self.frame_size = encoder.frame_size

    @classmethod
    def from_pretrained(cls, name_or_path: str | os.PathLike[str] = "mini", **kwargs: Any) -> SimilaritySelector:
        """Load the encoder from an embedded name or a local folder.

        Args:
            name_or_path: "mini", or a folder with the files of `weights/mini`.
            **kwargs: `device`, e.g. "cpu" or "cuda".

        Raises:
            SelectorLoadError: if the weights are missing or damaged, or an argument is unknown.
        """
        from ..models.mini import MiniEncoder

        name = os.fspath(name_or_path)
        device = kwargs.pop("device", None)
        if kwargs:
            raise SelectorLoadError(f"{name!r} takes no {', '.join(sorted(kwargs))}; it takes device")
        folder = _embedded_folder(name) or Path(name)
        if not folder.is_dir():
            raise SelectorLoadError(f"no weights for {name!r}: give 'mini' or a folder that holds config.json")
        return cls(MiniEncoder.from_pretrained(folder, device=device), name=name)

    def _encode_frames(
        self, frames: Iterator[Frames], total: int
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        import torch

        rows = [self.encoder.encode_frames(piece.data) for piece in frames]
        return {
            "embeddings": torch.cat(rows) if rows else self.encoder.encode_frames(np.zeros((0, 1, 1, 3), np.uint8))
        }, {}

    def _choose(
        self,
        encoding: VideoEncoding,
        questions: list[str],
        num_frames: int,
        options: list[Sequence[str] | None],
        **kwargs: Any,
    ) -> list[Choice]:
        frames = encoding.tensors["embeddings"].float()
        similarity = (self.encoder.encode_text(questions) @ frames.T).numpy().astype(np.float64)  # [Q, F]
        closeness = (frames @ frames.T).numpy().astype(np.float64)  # [F, F]
        return [choose(row - row.mean(), closeness, num_frames) for row in similarity]


def choose(scores: np.ndarray, closeness: np.ndarray, num_frames: int, *, diversity: float = 0.3) -> Choice:
    """Maximal marginal relevance (Carbonell & Goldstein, 1998) over standardised scores.

    Args:
        scores: relevance of the candidates, `[F]`.
        closeness: similarity of each candidate to each other, about 1 on the diagonal, `[F, F]`.
        num_frames: how many to pick, K.
        diversity: weight of the closeness to what is already picked.

    Returns:
        min(K, F) distinct picks in the order they were taken; ties go to the earlier candidate.
    """
    relevance = scores / max(float(scores.std()), 1e-9)
    nearest = np.zeros(len(scores))
    free = np.ones(len(scores), dtype=bool)
    picks: list[int] = []
    for _ in range(min(num_frames, len(scores))):
        gain = np.where(free, relevance - diversity * nearest, -np.inf)
        pick = int(gain.argmax())
        picks.append(pick)
        free[pick] = False
        nearest = np.maximum(nearest, closeness[pick])
    return Choice(np.array(picks, dtype=np.int64), scores)


def _embedded_folder(name: str) -> Path | None:
    from ..weights import EMBEDDED, resolve

    return resolve(name) if name in EMBEDDED else None
