"""Everybody who chooses frames in the comparison, over the same vectors of the embedded encoder."""

from __future__ import annotations

import inspect
import itertools
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from refocus_select.encoders import DualEncoder
from refocus_select.encoding import VideoEncoding
from refocus_select.models.cues import mean_similarity, similarities
from refocus_select.models.sentences import entity_vectors
from refocus_select.parsing import MAX_ENTITIES
from refocus_select.questions import Question
from refocus_select.selectors.algorithms import SCORED, farthest_first, random, uniform
from refocus_select.selectors.similarity import pick_relevant
from refocus_select.selectors.vector_policy import VectorPolicySelector
from refocus_select.train_selector.imitate import evidence_targets

COVER_AFTER = 6
"""Frames after which coverage takes over from a training-free method, where it does."""

Picker = Callable[[Question, VideoEncoding, int], np.ndarray]
"""Positions among the candidates, in the order of time: (question, encoding, K) -> int64 [K]."""

SCORES = ("dot", "cosine", "named")
"""Similarity of frames with the whole question, as the dot product or the cosine of their vectors, or with the things
that the question names, as policies get it."""

GRIDS: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "topk": {},
    "topk-nms": {"window": (None, 2.0, 4.0, 8.0)},
    "mmr": {"balance": (0.2, 0.35, 0.5, 0.65, 0.8, 0.9)},
    "aks": {"threshold": (0.2, 0.5, 0.8, 1.2), "max_depth": (1, 2, 3, 5)},
    "bolt": {"alpha": (1.0, 2.0, 3.0, 5.0, 8.0)},
    "mdp3": {"balance": (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)},
    "adaq": {"gamma": (0.25, 0.5, 1.0), "mass": (0.9, 0.997)},
    "qframe": {"temperature": (0.2, 0.8, 3.2, 12.8)},
    "focus": {"top_ratio": (0.2, 0.5, 1.0)},
    "markey": {"relevance": (0.5, 0.7, 0.9), "coverage": (0.2, 0.5)},
    "gift": {"per_round": (4, 9)},
}
"""What is tuned on the validation split; the first published setting of each is in its grid."""


def settings(name: str) -> Iterator[dict[str, Any]]:
    """Every setting of an algorithm's grid, over each kind of scores."""
    grid = GRIDS[name]
    for values in itertools.product(SCORES, *grid.values()):
        yield dict(zip(("scores", *grid), values, strict=True))


class Scores:
    """Similarity of frames and question, computed once for all algorithms."""

    def __init__(self, encoder: DualEncoder) -> None:
        self.encoder = encoder
        self._texts: dict[str, torch.Tensor] = {}

    def __call__(self, question: Question, encoding: VideoEncoding, kind: str) -> np.ndarray:
        """One of `SCORES`, float64 [F]."""
        vectors = encoding.tensors["embeddings"].float()
        if kind == "named":
            return np.asarray(
                mean_similarity(similarities(vectors[None], self._entities(question.question)))[0].double()
            )
        whole = self._whole(question.question)
        if kind == "cosine":
            return np.asarray(torch.nn.functional.cosine_similarity(vectors, whole[None]).double())
        return np.asarray((vectors @ whole).double())

    def _entities(self, text: str) -> torch.Tensor:
        if "entities " + text not in self._texts:
            self._texts["entities " + text] = entity_vectors(self.encoder, [text], MAX_ENTITIES)
        return self._texts["entities " + text]

    def _whole(self, text: str) -> torch.Tensor:
        if text not in self._texts:
            self._texts[text] = self.encoder.encode_text([text])[0].float()
        return self._texts[text]


def algorithm(name: str, similarity: Scores, *, scores: str, **given: Any) -> Picker:
    """A training-free algorithm over one of `SCORES` with given settings."""
    function = SCORED[name]
    wanted = inspect.signature(function).parameters

    def pick(question: Question, encoding: VideoEncoding, num_frames: int) -> np.ndarray:
        known = {"timestamps": encoding.timestamps, "embeddings": encoding.tensors["embeddings"].numpy()}
        inputs = {key: value for key, value in known.items() if key in wanted}
        return function(similarity(question, encoding, scores), num_frames, **inputs, **given)

    return pick


def covering(picker: Picker, after: int) -> Picker:
    """`after` frames of a picker, then those least like them."""

    def pick(question: Question, encoding: VideoEncoding, num_frames: int) -> np.ndarray:
        first = picker(question, encoding, min(num_frames, after))
        return np.sort(farthest_first(encoding.tensors["embeddings"], num_frames, first))

    return pick


def mini(scores: Scores) -> Picker:
    """The similarity selector of `weights/mini` (smoothed similarity, marginal relevance, uniform when unsure)."""

    def pick(question: Question, encoding: VideoEncoding, num_frames: int) -> np.ndarray:
        frames = encoding.tensors["embeddings"].float()
        unit = torch.nn.functional.normalize(frames, dim=-1)
        similarity = scores(question, encoding, "dot")
        alike = np.asarray((unit @ unit.T).double())
        return np.sort(pick_relevant(similarity, alike, encoding.timestamps, num_frames).picks)

    return pick


def policy(chooser: VectorPolicySelector) -> Picker:
    """A trained policy: its best frame at every step."""

    def pick(question: Question, encoding: VideoEncoding, num_frames: int) -> np.ndarray:
        chosen = chooser.select(encoding, question.question, num_frames=num_frames)
        return np.searchsorted(encoding.indices, chosen.indices)

    return pick


def blind(scores: Scores) -> dict[str, Picker]:
    """Those who do not read the question, and the embedded similarity selector: nothing to tune."""

    def drawn(question: Question, encoding: VideoEncoding, num_frames: int) -> np.ndarray:
        return random(encoding.timestamps, num_frames, seed=zlib.crc32(question.id.encode()))

    return {
        "uniform": lambda question, encoding, k: uniform(encoding.timestamps, k),
        "random": drawn,
        "k-centre": lambda question, encoding, k: np.sort(farthest_first(encoding.tensors["embeddings"], k)),
        "mini": mini(scores),
    }


def oracle(question: Question, encoding: VideoEncoding, num_frames: int) -> np.ndarray:
    """The evidence, filled up with other frames."""
    rng = np.random.default_rng(zlib.crc32(question.id.encode()))
    return np.sort(evidence_targets(question, encoding.timestamps, num_frames, rng)[0].numpy())
