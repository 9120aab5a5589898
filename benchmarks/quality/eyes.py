"""Simulated encoders, made from the embedded one's vectors of composed videos, and unlike it in every way that matters.

A policy that reads cues must work with an encoder whose vectors it never saw. Each eye here is a fixed pair of image
and text tower: another number of dimensions, directions of very different length, a gap between the modalities, noise
in texts, things that are misperceived the same way again and again, or prototypes of things that make it see better.
None belongs to the family that policies are trained with (one rotation and one spectrum for each video).
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from refocus_select.encoders import DualEncoder
from refocus_select.encoding import VideoEncoding
from refocus_select.parsing import parse_question
from refocus_select.train_selector.storyboards import Bank, Storyboards


@dataclass(frozen=True)
class EyeSettings:
    """One simulated encoder.

    Attributes:
        name: for tables.
        seed: of its towers.
        dimensions: of its vectors.
        prototypes: share of a thing's own prototype in its frames and in texts that name it: how well the eye sees.
        confusion: length of the error that all frames of one picture series share.
        frame_noise, text_noise: length of the error of each frame and text.
        gap: length of the constant that each modality adds to its vectors.
        decay: exponent of the spectrum; 0: all directions alike.
        bent: whether the towers are nonlinear.
    """

    name: str
    seed: int
    dimensions: int
    prototypes: float = 0.0
    confusion: float = 0.0
    frame_noise: float = 0.0
    text_noise: float = 0.0
    gap: float = 0.62
    decay: float = 0.35
    bent: bool = False


EYES = (
    EyeSettings("clip-like", 11, 512, text_noise=0.3),
    EyeSettings("weak", 12, 512, confusion=0.7, frame_noise=0.2, text_noise=0.4),
    EyeSettings("better", 13, 768, prototypes=0.35, text_noise=0.2, gap=0.7, decay=0.3, bent=True),
    EyeSettings("much better", 14, 640, prototypes=0.6, text_noise=0.2, gap=0.7, decay=0.3, bent=True),
)


class SimulatedEye:
    """A dual encoder for composed videos: `view` turns their encodings into its own."""

    def __init__(self, settings: EyeSettings, base: DualEncoder, bank: Bank) -> None:
        self.settings, self.base, self.bank = settings, base, bank
        self.name = settings.name
        self.fingerprint = f"eye-{settings.name}-{settings.seed}-{bank.fingerprint[:16]}"
        self.frame_size = getattr(base, "frame_size", None)
        self._things = _Things(bank)
        size = bank.thing_rows.shape[-1]
        random = torch.Generator().manual_seed(1000 + settings.seed)
        self._towers = [torch.randn(size, settings.dimensions, generator=random) / settings.dimensions**0.5]
        if settings.bent:
            wide = 1024
            self._towers = [torch.randn(size, wide, generator=random) * 1.5,
                            torch.randn(wide, settings.dimensions, generator=random) / wide**0.5]  # fmt: skip
        spectrum = torch.arange(1, settings.dimensions + 1).float() ** -settings.decay
        spectrum = spectrum / spectrum.square().mean().sqrt()
        self._spectrum = spectrum[torch.randperm(settings.dimensions, generator=random)]
        directions = F.normalize(torch.randn(2, settings.dimensions, generator=random), dim=-1)
        self._frame_gap = directions[0] * settings.gap
        self._text_gap = F.normalize(0.8 * directions[1] + 0.35 * directions[0], dim=-1) * settings.gap

    def encode_frames(self, frames: Any) -> Tensor:
        """Vectors of pictures without prototypes, float32 [N, D]."""
        return F.normalize(self._through(self.base.encode_frames(frames).float()) + self._frame_gap, dim=-1)

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Float32 [texts, D], unit."""
        plain = F.normalize(self.base.encode_text(list(texts)).float(), dim=-1)
        rows = [self._text(text, row) for text, row in zip(texts, plain, strict=True)]
        return F.normalize(self._through(torch.stack(rows)) + self._text_gap, dim=-1)

    def view(self, boards: Storyboards, index: int, encoding: VideoEncoding) -> VideoEncoding:
        """A composed video as this eye sees it.

        Args:
            boards: the world of the video.
            index: number of its question.
            encoding: the video as the embedded encoder sees it.
        """
        question, layout = boards.item(index)
        series = torch.from_numpy(np.asarray(layout.series))
        frames = F.normalize(encoding.tensors["embeddings"].float(), dim=-1)
        share = self.settings.prototypes * (series >= 0).float()[:, None]
        prototypes = self._things.prototypes[self._things.of_series[series.clamp(min=0)]]
        frames = F.normalize((1 - share) * frames + share * prototypes, dim=-1)
        for number in series.unique().tolist():
            if number >= 0 and self.settings.confusion:
                frames[series == number] += self.settings.confusion * self._error(f"series {number}", frames.shape[1:])
        frames = frames + self.settings.frame_noise * self._error(question.id, frames.shape)
        frames = F.normalize(self._through(frames) + self._frame_gap, dim=-1)
        return dataclasses.replace(
            encoding, tensors={"embeddings": frames}, encoder=self.name, encoder_fingerprint=self.fingerprint
        )

    def _text(self, text: str, row: Tensor) -> Tensor:
        named = [self._things.named(name) for name in (text, *parse_question(text).entities)]
        found = [prototype for prototype in named if prototype is not None]
        if found:
            mean = F.normalize(torch.stack(found).mean(0), dim=0)
            row = F.normalize((1 - self.settings.prototypes) * row + self.settings.prototypes * mean, dim=0)
        return row + self.settings.text_noise * self._error(f"text {text}", row.shape)

    def _through(self, rows: Tensor) -> Tensor:
        """The towers, [N, base] to [N, D]."""
        rows = F.normalize(rows, dim=-1) @ self._towers[0]
        for tower in self._towers[1:]:
            rows = torch.tanh(rows) @ tower
        return F.normalize(rows * self._spectrum, dim=-1)

    def _error(self, of: str, shape: Sequence[int]) -> Tensor:
        """An error of about unit length that is the same each time."""
        random = torch.Generator().manual_seed(zlib.crc32(f"{self.settings.seed} {of}".encode()))
        return torch.randn(tuple(shape), generator=random) / shape[-1] ** 0.5


class _Things:
    """Prototypes of the things of a bank: the mean of their pictures, as the embedded encoder sees them."""

    def __init__(self, bank: Bank) -> None:
        names = [concept.name for concept in bank.concepts] + [card.removeprefix("a ") for card in bank.cards]
        cards = len(bank.concepts)
        numbers = [record["concept"] for record in bank.series]
        self.of_series = torch.tensor([number if number >= 0 else cards - 1 - number for number in numbers])
        rows = F.normalize(bank.thing_rows, dim=-1).mean(1)
        sums = torch.zeros(len(names), rows.shape[-1]).index_add_(0, self.of_series, rows)
        self.prototypes = F.normalize(sums, dim=-1)
        self._by_name: dict[str, list[int]] = {}
        for number, name in enumerate(names):
            self._by_name.setdefault(name.lower(), []).append(number)

    def named(self, text: str) -> Tensor | None:
        """The prototype of what a text names, if it is one of the things."""
        members = self._by_name.get(text.lower().removeprefix("a "))
        return None if members is None else F.normalize(self.prototypes[members].mean(0), dim=0)
