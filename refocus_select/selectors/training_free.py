"""Selectors without training: an encoder that compares frames with the question, and an algorithm that chooses."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..encoders import DualEncoder, load_encoder
from ..encoders.protocol import name_of
from ..encoding import VideoEncoding
from ..errors import InputError
from .algorithms import SCORED
from .algorithms.contract import clean_scores, is_flat
from .base import Choice
from .dual_encoder import VECTORS, DualEncoderSelector
from .words import fused

if TYPE_CHECKING:
    from ..words.match import WordMatch

_GIVEN = frozenset({"scores", "num_frames", "timestamps", "embeddings"})  # filled in here; the rest are settings


def _settings_of(algorithm: str) -> frozenset[str]:
    return frozenset(inspect.signature(SCORED[algorithm]).parameters) - _GIVEN


_OF_COSINES = frozenset({"mdp3"})  # its kernel turns similarities into distances on the unit sphere


class AlgorithmSelector(DualEncoderSelector):
    """One of the published algorithms behind the selector interface.

        selector = FrameSelector.from_pretrained("aks", encoder="google/siglip2-base-patch16-224")
        selector.select("match.mp4", "Who scores first?", num_frames=8, faithful=True)

    The settings of the algorithm (`alpha`, `seed`, `faithful`, …; see `refocus_select.selectors.algorithms`) are given
    to `from_pretrained`, or to `select` for one answer. Only the question is compared, never the answer options.
    """

    choice_arguments: ClassVar[frozenset[str]] = frozenset().union(*(_settings_of(name) for name in SCORED))

    def __init__(self, algorithm: str, encoder: DualEncoder, *, name: str | None = None, **settings: Any) -> None:
        if algorithm not in SCORED:
            raise InputError(f"no algorithm {algorithm!r}; known are {', '.join(SCORED)}")
        super().__init__(encoder, name=name or algorithm)
        self.algorithm = algorithm
        self.settings = self._known(settings)
        facts = json.dumps([algorithm, self.settings, encoder.fingerprint], sort_keys=True, default=str)
        self.fingerprint = f"{algorithm}-{hashlib.sha256(facts.encode()).hexdigest()[:32]}"

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str] = "aks",
        *,
        encoder: str | os.PathLike[str] | DualEncoder | None = None,
        **kwargs: Any,
    ) -> AlgorithmSelector:
        """Load an encoder for an algorithm.

        Args:
            name_or_path: an algorithm: "topk", "topk-nms", "mmr", "aks", "bolt", "mdp3", "qframe", "focus", "adaq",
                "markey" or "gift".
            encoder: see `load_encoder`; by default the one that the package ships.
            **kwargs: settings of the algorithm, and arguments of `load_encoder`.

        Raises:
            SelectorLoadError: if the encoder cannot be loaded.
            EncoderError: if it is not a dual encoder.
            InputError: for a setting that the algorithm does not have.
        """
        name = os.fspath(name_or_path)
        settings = {key: kwargs.pop(key) for key in list(kwargs) if key in cls.choice_arguments}
        loaded = load_encoder(encoder, **kwargs)
        label = Path(name_of(loaded)).name
        return cls(name, loaded, name=name if label == "mini" else f"{name} ({label})", **settings)

    def choose(
        self,
        encoding: VideoEncoding,
        questions: list[str],
        num_frames: int,
        options: list[Sequence[str] | None],
        **kwargs: Any,
    ) -> list[Choice]:
        settings = {**self.settings, **self._known(kwargs)}
        embeddings = encoding.tensors[VECTORS].float().numpy()
        similarity = self.similarity(encoding, questions, cosine=self.algorithm in _OF_COSINES)
        return [self._choice(scores, embeddings, encoding, num_frames, settings) for scores in similarity]

    def choose_by_words(
        self, encoding: VideoEncoding, questions: list[str], num_frames: int, matches: list[WordMatch], **kwargs: Any
    ) -> list[Choice]:
        settings = {**self.settings, **self._known(kwargs)}
        embeddings = encoding.tensors[VECTORS].float().numpy()
        similarity = self.similarity(encoding, questions, cosine=self.algorithm in _OF_COSINES)
        rows = [fused(scores, match.gains.max(axis=0)) for scores, match in zip(similarity, matches, strict=True)]
        return [self._choice(scores, embeddings, encoding, num_frames, settings) for scores in rows]

    def _choice(
        self,
        scores: np.ndarray,
        embeddings: np.ndarray,
        encoding: VideoEncoding,
        num_frames: int,
        settings: dict[str, Any],
    ) -> Choice:
        algorithm = SCORED[self.algorithm]
        known = inspect.signature(algorithm).parameters
        given: dict[str, Any] = {"timestamps": encoding.timestamps, "embeddings": embeddings}
        if hasattr(self.encoder, "logit_scale"):
            given["logit_scale"] = self.encoder.logit_scale
        inputs = {key: value for key, value in given.items() if key in known} | settings
        picks = algorithm(scores, num_frames, **inputs)
        distinct, wanted = len(np.unique(picks)), min(num_frames, len(scores))
        warnings: tuple[str, ...] = ()
        if distinct < wanted:  # only `faithful` algorithms give fewer
            warnings = (
                f"{self.algorithm} as released gave {distinct} of {wanted} frames; the rest are the best by score",
            )
        flat = is_flat(clean_scores(scores))
        if flat:
            warnings += ("all candidates match the question equally well: the frames are spread over the video",)
        return Choice(picks, scores, "uniform_fallback" if flat else "selected", warnings)

    def _known(self, settings: dict[str, Any]) -> dict[str, Any]:
        unknown = sorted(settings.keys() - _settings_of(self.algorithm))
        if unknown:
            known = ", ".join(sorted(_settings_of(self.algorithm))) or "none"
            raise InputError(f"{self.algorithm!r} has no setting {', '.join(unknown)}; it has {known}")
        return settings
