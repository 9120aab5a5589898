"""A small film at irregular times, and a selector that takes the frames whose numbers the question names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch

from refocus_select.encoding import VideoEncoding
from refocus_select.selectors import Choice, FrameSelector
from refocus_select.video import CandidateRule, Frames

# Seconds. No constant frame rate gives these.
TIMES = (0.0, 0.1, 0.333, 1.0, 2.0, 3.333, 3.367, 4.0, 5.0, 6.667, 7.0, 7.667)
DURATION = 7.668  # the last frame is shown for one millisecond
QUESTION = "What is shown in 1, 2, 5, 6, 9 and 11?"
CHOSEN = (1, 2, 5, 6, 9, 11)
CHOSEN_TIMES = tuple(TIMES[i] for i in CHOSEN)


class NamedFrames(FrameSelector):
    """Chooses the candidates whose numbers stand in the question, in the order they stand there."""

    name = "named-frames"
    fingerprint = "named-frames-1"
    rule = CandidateRule(fps=1000.0, max_frames=512)
    needs_frames = False

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []

    def encode_frames(
        self, frames: Iterator[Frames], total: int
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        return {}, {}

    def choose(
        self,
        encoding: VideoEncoding,
        questions: list[str],
        num_frames: int,
        options: list[Sequence[str] | None],
        **kwargs: Any,
    ) -> list[Choice]:
        self.asked += list(zip(questions, options, strict=True))
        choices = []
        for question in questions:
            named = [int(n) for n in re.findall(r"\d+", question)]
            picks = [p for n in named for p in np.flatnonzero(encoding.indices == n)]
            choices.append(Choice(np.asarray(picks[:num_frames], np.int64), np.zeros(len(encoding))))
        return choices


def picture(number: int, side: int = 64) -> np.ndarray:
    """Frame `number` of the film, uint8 [side, side, 3]: its grey is 20 + 20 * number."""
    return np.full((side, side, 3), 20 + 20 * number, np.uint8)


def write_film(path: Path, *, times: Sequence[float] = TIMES, sound: bool = False) -> Path:
    """Encode the film with its times in milliseconds; with sound, a sine of the same length."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=1000)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        stream.gop_size = 1
        audio = container.add_stream("aac", rate=16000, layout="mono") if sound else None
        for number, seconds in enumerate(times):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            frame.pts, frame.time_base = round(1000 * seconds), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if audio is not None:
            samples = np.sin(np.arange(int(16000 * DURATION)) * 0.1).astype(np.float32)
            for start in range(0, len(samples), 1024):
                piece = av.AudioFrame.from_ndarray(samples[None, start : start + 1024], format="fltp", layout="mono")
                piece.sample_rate, piece.pts = 16000, start
                container.mux(audio.encode(piece))
            container.mux(audio.encode(None))
    return path


def greys(frames: np.ndarray) -> list[int]:
    """Which frames of the film these pictures are."""
    return [round((float(f.mean()) - 20) / 20) for f in np.asarray(frames)]
