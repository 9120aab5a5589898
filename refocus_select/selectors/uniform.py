"""Uniform sampling: the baseline of every comparison, and what other selectors fall back to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..encoding import VideoEncoding
from ..video import CandidateRule, Frames
from ..video.candidates import MIN_CANDIDATES
from .algorithms import uniform
from .base import Choice, FrameSelector

if TYPE_CHECKING:
    import torch


class BlindSelector(FrameSelector):
    """A selector that looks at no picture: nothing is decoded, only the candidates' times count."""

    rule = CandidateRule(fps=4.0, max_frames=512, min_frames=MIN_CANDIDATES)
    looks = False

    def _encode_frames(
        self, frames: Iterator[Frames], total: int
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        return {}, {}


class UniformSelector(BlindSelector):
    """Takes the candidate nearest to the centre of each of K equal pieces of time; the question plays no part."""

    name = "uniform"
    fingerprint = "uniform-1"

    def _choose(
        self,
        encoding: VideoEncoding,
        questions: list[str],
        num_frames: int,
        options: list[Sequence[str] | None],
        **kwargs: Any,
    ) -> list[Choice]:
        picks = uniform(encoding.timestamps, num_frames)
        return [Choice(picks, np.zeros(len(encoding)), strategy="spread") for _ in questions]
