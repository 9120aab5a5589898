"""A clip of drawn pictures at irregular times, and questions about it."""

from __future__ import annotations

import numpy as np

from refocus_select.encoding import VideoEncoding
from refocus_select.errors import InputError
from refocus_select.questions import Question
from refocus_select.reference.clips import Clip
from refocus_select.selectors import FrameSelector

QUESTION = Question("q1", "scene", "Which colour is the ball?", ("red", "green", "blue", "white"), 1)
OTHER = Question("q2", "scene", "Who enters the room last?", ("a child", "a dog", "nobody"), 0)


class Scene(Clip):
    """Random pictures, the same ones for the same seed, at irregular times up to `seconds`."""

    def __init__(
        self, count: int = 12, *, height: int = 48, width: int = 64, seed: int = 0, seconds: float = 25.0
    ) -> None:
        rng = np.random.default_rng(seed)
        self.key = f"scene-{count}-{height}-{width}-{seed}"
        self.timestamps = np.sort(np.round(rng.uniform(0, seconds, count), 3))
        self.duration = seconds
        coarse = rng.integers(0, 256, (count, 6, 8, 3), dtype=np.uint8)
        self._pictures = coarse.repeat(-(-height // 6), axis=1).repeat(-(-width // 8), axis=2)[:, :height, :width]

    def pictures(self, positions: np.ndarray, *, size: tuple[int, int] | None = None) -> np.ndarray:
        assert size is None
        return self._pictures[positions]

    def encoding(self, reader: FrameSelector) -> VideoEncoding:
        raise InputError("this clip is for models that look at pictures")
