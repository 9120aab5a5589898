"""Selectors that meddle: they count, wait, change files, or die. Pickled by value for Ray's workers."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from refocus_select.video import Frames
from tests.brightness import BrightnessSelector


class Counting(BrightnessSelector):
    """Writes down every encoding it begins, and may take its time."""

    def __init__(self, log: Path, *, delay: float = 0.0) -> None:
        self.log, self.delay = str(log), delay

    @property
    def encodings(self) -> int:
        path = Path(self.log)
        return len(path.read_text().splitlines()) if path.exists() else 0

    def encode_frames(
        self, frames: Iterator[Frames], total: int
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        with open(self.log, "a") as file:
            file.write("encode\n")
        time.sleep(self.delay)
        return super().encode_frames(frames, total)


class Meddling(BrightnessSelector):
    """Changes the video while it is read."""

    def __init__(self, video: Path) -> None:
        self.video = video

    def encode_frames(
        self, frames: Iterator[Frames], total: int
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        encoded = super().encode_frames(frames, total)
        with open(self.video, "ab") as file:
            file.write(b"more")
        return encoded


class Mortal(BrightnessSelector):
    """Kills its own process: at the first video it meets, and at every video of `deadly` frames."""

    def __init__(self, flag: Path, *, deadly: int = -1) -> None:
        self.flag, self.deadly = str(flag), deadly

    def encode_frames(
        self, frames: Iterator[Frames], total: int
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        if total == self.deadly or not os.path.exists(self.flag):
            with open(self.flag, "a") as file:
                file.write("died\n")
            os.kill(os.getpid(), signal.SIGKILL)
        return super().encode_frames(frames, total)
