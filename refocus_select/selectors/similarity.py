"""`SimilaritySelector`: the frames most similar to the question, avoiding repeats; the embedded selector 'mini'."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..encoding import VideoEncoding
from ..errors import SelectorLoadError
from ..weights import resolve
from .algorithms import uniform
from .base import Choice
from .dual_encoder import VECTORS, DualEncoderSelector

if TYPE_CHECKING:
    import torch

    from ..models.mini import MiniEncoder

DIVERSITY = 0.3
"""Weight of an already picked near-copy against one standard deviation of relevance."""

NEIGHBOUR = 0.25
"""Weight of a neighbouring candidate's similarity against a candidate's own: what is there for one frame only is often
a mistake of the classifier."""

NEAR = 3.0
"""Seconds up to which the next candidate counts as a neighbour; what lies farther apart is another scene."""

FLAT_PEAK = 1.05
"""Below this similarity of the best frames (in deviations over unrelated texts) nothing answers the question.

Set on the questions of benchmarks/mini: 1 in 36 about things that are in the film or the clips lies below, and 12 in 20
about things that are not.
"""

FLAT_RISE = 0.4
"""Below this rise of the best frames over the video's mean they differ too little to tell where to look."""


class SimilaritySelector(DualEncoderSelector):
    """Compares question and candidates with a `MiniEncoder` and picks relevant, differing frames.

    The similarity is centred on its mean over the video, since only the differences between frames tell where to look.
    When they are too small to tell anything, the frames are spread evenly over the video and a warning says so.
    """

    encoder: MiniEncoder  # the thresholds above are those of its vectors

    def __init__(self, encoder: MiniEncoder, *, name: str = "mini") -> None:
        super().__init__(encoder, name=name)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, name_or_path: str | os.PathLike[str] = "mini", *, device: str | torch.device | None = None
    ) -> SimilaritySelector:
        """Load the encoder from an embedded name or a local folder.

        Args:
            name_or_path: "mini", or a folder with the files of `weights/mini`.
            device: e.g. "cpu" or "cuda"; by default the GPU if there is one.

        Raises:
            SelectorLoadError: if the weights are missing or damaged.
        """
        from ..models.mini import MiniEncoder

        name = os.fspath(name_or_path)
        folder = resolve(name) if name == "mini" else Path(name)
        if not folder.is_dir():
            raise SelectorLoadError(f"no weights for {name!r}: give 'mini' or a folder that holds config.json")
        return cls(MiniEncoder.from_pretrained(folder, device=device), name=name)

    def choose(
        self,
        encoding: VideoEncoding,
        questions: list[str],
        num_frames: int,
        options: list[Sequence[str] | None],
        **kwargs: Any,
    ) -> list[Choice]:
        similarity = self.similarity(encoding, questions)
        pairwise = cosines(encoding.tensors[VECTORS])
        return [pick_relevant(row, pairwise, encoding.timestamps, num_frames) for row in similarity]


def pick_relevant(
    similarity: np.ndarray, pairwise_similarity: np.ndarray, timestamps: np.ndarray, num_frames: int
) -> Choice:
    """Pick relevant frames that differ, or spread over the video when no frame stands out.

    Maximal marginal relevance (Carbonell & Goldstein, 1998) over centred, standardised similarity.

    Args:
        similarity: of each candidate to the question, in deviations over unrelated texts, `[F]`.
        pairwise_similarity: of each candidate to each other, 1 on the diagonal, `[F, F]`.
        timestamps: sorted times in seconds, `[F]`.
        num_frames: how many to pick, K.

    Returns:
        min(K, F) distinct picks; ties go to the earlier candidate. The scores are the centred similarity, smoothed over
        the neighbours in time.
    """
    scores = smoothed(similarity, timestamps)
    scores -= scores.mean()
    best = np.sort(similarity)[-peak_size(len(similarity)) :].mean()
    if best < FLAT_PEAK or best - similarity.mean() < FLAT_RISE:
        warning = "nothing in the video stands out for this question; the frames are spread evenly"
        return Choice(uniform(timestamps, num_frames), scores, strategy="uniform_fallback", warnings=(warning,))
    relevance = scores / max(float(scores.std()), 1e-9)
    return Choice(spread_picks(relevance, pairwise_similarity, num_frames, DIVERSITY), scores)


def peak_size(candidates: int) -> int:
    """How many of the best frames tell whether something is to be seen: one, one more for each 16, at most eight."""
    return min(8, 1 + candidates // 16)


def smoothed(similarity: np.ndarray, timestamps: np.ndarray) -> np.ndarray:
    """The weighted mean of each candidate's similarity and its near neighbours', `[F]`."""
    weight = np.where(np.diff(timestamps) <= NEAR, NEIGHBOUR, 0.0)
    total, parts = similarity.astype(np.float64, copy=True), np.ones(len(similarity))
    total[:-1] += weight * similarity[1:]
    total[1:] += weight * similarity[:-1]
    parts[:-1] += weight
    parts[1:] += weight
    return total / parts


def spread_picks(relevance: np.ndarray, alike: np.ndarray, num_frames: int, diversity: float) -> np.ndarray:
    """Picks with high scores that differ: maximal marginal relevance (Carbonell & Goldstein, 1998).

    Args:
        relevance: standardised scores, [F].
        alike: how much frames show the same, 1 on the diagonal, [F, F].
        num_frames: K.
        diversity: weight of likeness against one deviation of relevance.

    Returns:
        min(K, F) distinct picks; ties go to the earlier candidate.
    """
    nearest, free = np.zeros(len(relevance)), np.ones(len(relevance), dtype=bool)
    picks: list[int] = []
    for _ in range(min(num_frames, len(relevance))):
        pick = int(np.where(free, relevance - diversity * nearest, -np.inf).argmax())
        picks.append(pick)
        free[pick] = False
        nearest = np.maximum(nearest, alike[pick])
    return np.array(picks, dtype=np.int64)


def cosines(vectors: torch.Tensor) -> np.ndarray:
    """Of all frames' vectors with each other, float64 [F, F]."""
    from torch.nn.functional import normalize

    unit = normalize(vectors.float(), dim=-1)
    matrix: np.ndarray = (unit @ unit.T).numpy().astype(np.float64)
    return matrix
