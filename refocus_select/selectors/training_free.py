"""Selectors without training: an encoder that compares frames with the question, and an algorithm that chooses."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from ..encoding import VideoEncoding
from ..errors import InputError, SelectorLoadError
from ..video import CandidateRule, Frames, VideoMetadata
from ..video.candidates import MIN_CANDIDATES
from .algorithms import SCORED, random
from .algorithms.contract import clean_scores, is_flat
from .base import Choice, FrameSelector
from .uniform import BlindSelector

if TYPE_CHECKING:
    import torch

_GIVEN = frozenset({"scores", "num_frames", "timestamps", "embeddings"})  # filled in here; the rest are settings


def _settings_of(algorithm: str) -> frozenset[str]:
    return frozenset(inspect.signature(SCORED[algorithm]).parameters) - _GIVEN


class DualEncoder(Protocol):
    """Vectors of frames and of text in one space: `MiniEncoder`, `HFEncoder`, or your own.

    Attributes:
        fingerprint: identity of weights and configuration.
        frame_size: (height, width) that frames are best decoded at, or None. An encoder that wants a size for each
            video has a method `decode_size(height, width)`.
    """

    @property
    def fingerprint(self) -> str: ...

    @property
    def frame_size(self) -> tuple[int, int] | None: ...

    def encode_frames(self, frames: np.ndarray) -> torch.Tensor:
        """Uint8 RGB [N, H, W, 3] to float32 [N, D] of unit length on the CPU."""

    def encode_text(self, texts: Sequence[str]) -> torch.Tensor:
        """Float32 [len(texts), D] of unit length on the CPU."""


class VectorReader(FrameSelector):
    """Keeps the encoder's vectors of the candidates: what all selectors with that encoder need of a video.

    It ranks by similarity alone when it is asked to choose.
    """

    rule = CandidateRule(fps=2.0, max_frames=512, min_frames=MIN_CANDIDATES)

    def __init__(self, encoder: DualEncoder, *, name: str = "similarity") -> None:
        self.encoder = encoder
        self.name = name
        self.fingerprint = f"embeddings-1-{encoder.fingerprint}"
        self.frame_size = encoder.frame_size

    def _decode_size(self, metadata: VideoMetadata) -> tuple[int, int] | None:
        decide = getattr(self.encoder, "decode_size", None)
        return decide(metadata.height, metadata.width) if decide else self.frame_size

    def _encode_frames(
        self, frames: Iterator[Frames], total: int
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        import torch

        rows = [self.encoder.encode_frames(piece.data) for piece in frames]
        return {"embeddings": torch.cat(rows) if rows else torch.zeros(0, 0)}, {}

    def _choose(
        self,
        encoding: VideoEncoding,
        questions: list[str],
        num_frames: int,
        options: list[Sequence[str] | None],
        **kwargs: Any,
    ) -> list[Choice]:
        return [
            Choice(np.argsort(-scores, kind="stable")[:num_frames], scores)
            for scores in self._similarity(encoding, questions)
        ]

    def _similarity(self, encoding: VideoEncoding, questions: list[str], *, cosine: bool = False) -> np.ndarray:
        """Dot products, or cosines for encoders whose vectors have any length, float64 [questions, F]."""
        frames, text = encoding.tensors["embeddings"].float(), self.encoder.encode_text(questions).float()
        if cosine:
            import torch.nn.functional as F

            frames, text = F.normalize(frames, dim=-1), F.normalize(text, dim=-1)
        return (text @ frames.T).numpy().astype(np.float64)


_OF_COSINES = frozenset({"mdp3"})  # its kernel turns similarities into distances on the unit sphere


class AlgorithmSelector(VectorReader):
    """One of the published algorithms behind the selector interface.

        selector = FrameSelector.from_pretrained("aks", encoder="google/siglip2-base-patch16-224")
        selector.select("match.mp4", "Who scores first?", num_frames=8, faithful=True)

    The settings of the algorithm (`alpha`, `seed`, `faithful`, …; see `refocus_select.selectors.algorithms`) are given
    to `from_pretrained`, or to `select` for one answer. An encoding depends on the encoder only: one encoding of a
    video serves every algorithm with that encoder. Only the question is compared, never the answer options.
    """

    choice_arguments: ClassVar[frozenset[str]] = frozenset().union(*(_settings_of(name) for name in SCORED))

    def __init__(self, algorithm: str, encoder: DualEncoder, *, name: str | None = None, **settings: Any) -> None:
        if algorithm not in SCORED:
            raise InputError(f"no algorithm {algorithm!r}; known are {', '.join(SCORED)}")
        super().__init__(encoder, name=name or algorithm)
        self.algorithm = algorithm
        self.settings = self._checked(settings)

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
            encoder: None or "mini" for the encoder that the package ships; a folder or Hub id of a dual encoder; or an
                object with the methods of `DualEncoder`.
            **kwargs: settings of the algorithm; `device`; for a folder or Hub id also `dtype`, `batch`, `revision`,
                `token`, `cache_dir`, `local_files_only`.

        Raises:
            SelectorLoadError: if the encoder cannot be loaded.
            InputError: for a setting that the algorithm does not have.
        """
        name = os.fspath(name_or_path)
        settings = {key: kwargs.pop(key) for key in list(kwargs) if key in cls.choice_arguments}
        loaded, label = load_encoder(encoder, kwargs)
        return cls(name, loaded, name=name if label is None else f"{name} ({label})", **settings)

    def _choose(
        self,
        encoding: VideoEncoding,
        questions: list[str],
        num_frames: int,
        options: list[Sequence[str] | None],
        **kwargs: Any,
    ) -> list[Choice]:
        settings = {**self.settings, **self._checked(kwargs)}
        embeddings = encoding.tensors["embeddings"].float().numpy()
        similarity = self._similarity(encoding, questions, cosine=self.algorithm in _OF_COSINES)
        return [self._choice(scores, embeddings, encoding, num_frames, settings) for scores in similarity]

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
        return Choice(picks, scores, "spread" if flat else "selected", warnings)

    def _checked(self, settings: dict[str, Any]) -> dict[str, Any]:
        unknown = sorted(settings.keys() - _settings_of(self.algorithm))
        if unknown:
            known = ", ".join(sorted(_settings_of(self.algorithm))) or "none"
            raise InputError(f"{self.algorithm!r} has no setting {', '.join(unknown)}; it has {known}")
        return settings


class RandomSelector(BlindSelector):
    """Draws candidates at random; `seed` (default 0) decides which. A baseline."""

    name = "random"
    fingerprint = "random-1"
    choice_arguments: ClassVar[frozenset[str]] = frozenset({"seed"})

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = seed

    def _choose(
        self,
        encoding: VideoEncoding,
        questions: list[str],
        num_frames: int,
        options: list[Sequence[str] | None],
        **kwargs: Any,
    ) -> list[Choice]:
        picks = random(encoding.timestamps, num_frames, seed=kwargs.get("seed", self.seed))
        return [Choice(picks, np.zeros(len(encoding)), strategy="spread") for _ in questions]


def load_encoder(
    encoder: str | os.PathLike[str] | DualEncoder | None, arguments: dict[str, Any]
) -> tuple[DualEncoder, str | None]:
    """An encoder, and what to call it; None for the embedded one.

    Raises:
        SelectorLoadError: if it cannot be loaded, or has no such arguments.
    """
    if encoder is None or encoder == "mini":
        from ..models.mini import MiniEncoder
        from ..weights import resolve

        _refuse(arguments, {"device"}, "the embedded encoder")
        return MiniEncoder.from_pretrained(resolve("mini"), **arguments), None
    if isinstance(encoder, str | os.PathLike):
        from ..models.hf_encoder import HFEncoder

        known = inspect.signature(HFEncoder.from_pretrained).parameters.keys() - {"name_or_path"}
        _refuse(arguments, set(known), f"the encoder {os.fspath(encoder)!r}")
        return HFEncoder.from_pretrained(encoder, **arguments), Path(encoder).name
    _refuse(arguments, set(), "an encoder that is loaded already")
    return encoder, getattr(encoder, "name", type(encoder).__name__)


def _refuse(arguments: dict[str, Any], known: set[str], whose: str) -> None:
    unknown = sorted(arguments.keys() - known)
    if unknown:
        raise SelectorLoadError(
            f"{', '.join(unknown)}: neither the algorithm nor {whose} has such an argument"
            + (f" (the encoder has {', '.join(sorted(known))})" if known else "")
        )
