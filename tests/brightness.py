"""A selector simple enough to predict: it prefers bright frames when asked for light, dark ones otherwise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from refocus_select.encoding import VideoEncoding
from refocus_select.selectors import Choice, FrameSelector
from refocus_select.video import CandidateRule, Frames


class BrightnessSelector(FrameSelector):
    name = "brightness"
    fingerprint = "brightness-1"
    rule = CandidateRule(fps=1000.0, max_frames=512)
    frame_size = (8, 8)
    choice_arguments = frozenset({"flat"})

    def encode_frames(
        self, frames: Iterator[Frames], total: int
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        means = [torch.from_numpy(piece.data.mean(axis=(1, 2, 3))) for piece in frames]
        self.seen = total
        return {"brightness": torch.cat(means) if means else torch.zeros(0)}, {"whole": torch.tensor([total])}

    def choose(
        self,
        encoding: VideoEncoding,
        questions: list[str],
        num_frames: int,
        options: list[Sequence[str] | None],
        **kwargs: Any,
    ) -> list[Choice]:
        self.options = options
        brightness = encoding.tensors["brightness"].numpy()
        choices = []
        for question in questions:
            scores = brightness if "light" in question else -brightness
            picks = np.argsort(-scores, kind="stable")[:num_frames]
            strategy = "uniform_fallback" if kwargs.get("flat") else "selected"
            choices.append(Choice(picks, scores, strategy, ("flat",) if kwargs.get("flat") else ()))
        return choices


def ramp(count: int = 12, height: int = 24, width: int = 40) -> np.ndarray:
    """Frames whose brightness is 10 times their number, uint8 [count, height, width, 3]."""
    frames = np.zeros((count, height, width, 3), np.uint8)
    frames += (10 * np.arange(count, dtype=np.uint8))[:, None, None, None]
    return frames
