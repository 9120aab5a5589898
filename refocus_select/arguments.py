"""What the public calls take: keyword arguments as types, for editors and type checkers."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, BinaryIO, Literal, TypeAlias, TypedDict

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL.Image import Image

    from .cache import EncodingCache
    from .encoders import DualEncoder
    from .video import CandidatePlan, CandidateRule, Video
    from .words.find import WordSource
    from .words.speech import Recogniser
    from .words.written import TextReader

VideoSource: TypeAlias = (
    "str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | np.ndarray | torch.Tensor | Video"
    " | Sequence[str | os.PathLike[str] | Image | np.ndarray]"
)
"""Whatever `open_video` opens: a path, a URL, the bytes of a file, a file object, pictures, frames, an open video."""


class EncodeArguments(TypedDict, total=False):
    """Keyword arguments of `FrameSelector.encode`."""

    candidates: CandidateRule | CandidatePlan | None
    fps: float | None
    max_frames: int | None
    min_frames: int | None
    start: float | None
    end: float | None
    exact: bool
    workers: int | None
    backend: str | None
    progress: bool | Callable[[int, int], None] | None
    cache: EncodingCache | str | os.PathLike[str] | bool | None
    words: WordSource
    ocr: bool | TextReader
    transcribe: str | Recogniser | None
    language: str | None


class ChoiceArguments(TypedDict, total=False):
    """Keyword arguments that decide a choice; each selector names those that it understands (`choice_arguments`)."""

    # of policies
    sample: bool
    num_samples: int
    choose_by: Literal["likelihood", "rank"]
    protocol: Literal["paper"] | None
    # of several
    seed: int | None
    temperature: float
    at_least: int
    at_most: int
    faithful: bool
    balance: float
    # of one algorithm each; see `refocus_select.selectors.algorithms`
    alpha: float
    coverage: float
    gamma: float
    logit_scale: float
    mass: float
    max_anchors: int
    max_depth: int
    min_gap: float
    min_std: float
    per_round: int
    recent: int
    redundancy: float
    relevance: float
    segment: int | None
    threshold: float
    top_ratio: float
    window: float | None


class SelectArguments(EncodeArguments, ChoiceArguments, total=False):
    """Keyword arguments of `FrameSelector.select`: of `encode`, and of the choice."""


class SamplingArguments(TypedDict, total=False):
    """Keyword arguments of `Index.build`: which frames and words of every video are read."""

    fps: float | None
    max_frames: int | None
    exact: bool
    words: Literal["auto", "off"]
    ocr: bool
    transcribe: str | None
    language: str | None


class BatchArguments(SamplingArguments, ChoiceArguments, total=False):
    """Keyword arguments of `select_batch`: which frames are read, and of the choice."""

    start: float | None
    end: float | None


class EncoderArguments(TypedDict, total=False):
    """Keyword arguments of `load_encoder`; each kind of encoder has some of them."""

    device: str | torch.device | None
    dtype: str | torch.dtype | None
    batch: int
    revision: str | None
    token: str | bool | None
    cache_dir: str | os.PathLike[str] | None
    local_files_only: bool


class LoadArguments(EncoderArguments, ChoiceArguments, total=False):
    """Keyword arguments of `FrameSelector.from_pretrained`; settings of an algorithm among them."""

    encoder: str | os.PathLike[str] | DualEncoder | None


ENCODE_ARGUMENTS = frozenset(EncodeArguments.__annotations__)
"""Names of the arguments of `FrameSelector.encode`."""
