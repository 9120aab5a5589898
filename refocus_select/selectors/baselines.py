"""Baselines: uniform sampling, which other selectors fall back to, and random sampling. No picture is decoded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..encoding import VideoEncoding
from ..video import CandidateRule, Frames
from ..video.candidates import MIN_CANDIDATES
from .algorithms import random, uniform
from .base import Choice, FrameSelector

if TYPE_CHECKING:
    import torch


class BlindSelector(FrameSelector):
    """A selector that needs no picture: nothing is decoded, only the candidates' times count."""

    rule = CandidateRule(fps=4.0, max_frames=512, min_frames=MIN_CANDIDATES)
    needs_frames = False
    reads_words = False

    def encode_frames(
        self, frames: Iterator[Frames], total: int
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        return {}, {}


class UniformSelector(BlindSelector):
    """Takes the candidate nearest to the centre of each of K equal pieces of time; the question plays no part."""

    name = "uniform"
    fingerprint = "uniform-1"

    def choose(
        self,
        encoding: VideoEncoding,
        questions: list[str],
        num_frames: int,
        options: list[Sequence[str] | None],
        **kwargs: Any,
    ) -> list[Choice]:
        picks = uniform(encoding.timestamps, num_frames)
        return [Choice(picks, np.zeros(len(encoding)), strategy="uniform_fallback") for _ in questions]


class RandomSelector(BlindSelector):
    """Draws candidates at random; `seed` (default 0) decides which. A baseline."""

    name = "random"
    fingerprint = "random-1"
    choice_arguments: ClassVar[frozenset[str]] = frozenset({"seed"})

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = seed

    def choose(
        self,
        encoding: VideoEncoding,
        questions: list[str],
        num_frames: int,
        options: list[Sequence[str] | None],
        **kwargs: Any,
    ) -> list[Choice]:
        picks = random(encoding.timestamps, num_frames, seed=kwargs.get("seed", self.seed))
        return [Choice(picks, np.zeros(len(encoding)), strategy="uniform_fallback") for _ in questions]


def load_uniform(name: str, *, device: Any = None) -> UniformSelector:
    """For the registry; it runs nowhere, so that any `device` is right."""
    return UniformSelector()


def load_random(name: str, *, device: Any = None, seed: int = 0) -> RandomSelector:
    """For the registry."""
    return RandomSelector(seed=seed)
