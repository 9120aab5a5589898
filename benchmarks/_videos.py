"""Makes the benchmark's videos: moving, grainy pictures at realistic bitrates, each with its number burnt in.

One minute is encoded per (size, GOP); longer files are copies of its packets one after another, so the number in a
picture is its frame number modulo the frames of a minute. Files are kept between runs.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

FPS = 30
SIZES = {360: (640, 360, "700k"), 1080: (1920, 1080, "4M")}  # width, height, bitrate
COLUMNS, ROWS, BITS = 13, 2, 26  # 18 bits of number, 8 of check code


def default_folder() -> Path:
    """Where the files are kept: `REFOCUS_BENCH_DIR`, or a folder in the system's temporary directory."""
    return Path(os.environ.get("REFOCUS_BENCH_DIR", Path(tempfile.gettempdir()) / "refocus-bench"))


@dataclass(frozen=True)
class Clip:
    """A benchmark file: picture height, keyframe interval in frames, length in minutes."""

    height: int
    gop: int
    minutes: int

    @property
    def name(self) -> str:
        return f"{self.height}p_gop{self.gop}_{self.minutes}min.mp4"

    @property
    def frames(self) -> int:
        return self.minutes * 60 * FPS


def make(clip: Clip, folder: Path | None = None) -> Path:
    """The file for a clip; encoded or joined if it is not there yet."""
    folder = folder or default_folder()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / clip.name
    if path.exists():
        return path
    part = path.with_suffix(".part.mp4")
    if clip.minutes == 1:
        _encode_minute(clip, part)
    else:
        _repeat(make(Clip(clip.height, clip.gop, 1), folder), part, clip.minutes)
    part.rename(path)
    return path


def read_number(picture: NDArray[np.uint8]) -> int:
    """The number burnt into a picture of any size `[H, W, 3]`; -1 if its check code does not fit."""
    height, width = picture.shape[:2]
    band = picture[: height * ROWS // 12].astype(np.float32).mean(axis=2)
    code = 0
    for bit in range(BITS):
        row, column = divmod(bit, COLUMNS)
        y0, y1 = (row + 0.3) * height / 12, (row + 0.7) * height / 12
        x0, x1 = (column + 0.3) * width / COLUMNS, (column + 0.7) * width / COLUMNS
        block = band[round(y0) : max(round(y1), round(y0) + 1), round(x0) : max(round(x1), round(x0) + 1)]
        code = code << 1 | int(block.mean() > 128)
    number, check = code >> 8, code & 0xFF
    return number if check == _check(number) else -1


def _check(number: int) -> int:
    return (number * 37 + (number >> 8) * 101 + 13) & 0xFF


def _burn(picture: NDArray[np.uint8], number: int) -> None:
    height, width = picture.shape[:2]
    code = number << 8 | _check(number)
    for bit in range(BITS):
        row, column = divmod(bit, COLUMNS)
        y0, y1 = row * height // 12, (row + 1) * height // 12
        x0, x1 = column * width // COLUMNS, (column + 1) * width // COLUMNS
        picture[y0:y1, x0:x1] = 225 if code >> (BITS - 1 - bit) & 1 else 30


class _Scenes:
    """Textures of several scales that pan and drift, a new one every four seconds, with film grain."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.random = np.random.default_rng(7)
        self.texture = sum(self._noise(2**k) * w for k, w in ((7, 0.5), (5, 0.3), (3, 0.14), (1, 0.06)))
        self.grain = self.random.normal(0, 3.0, (6, height, width, 1)).astype(np.float32)

    def _noise(self, scale: int) -> NDArray[np.float32]:
        import cv2

        shape = (self.height * 2 // scale + 2, self.width * 2 // scale + 2, 3)
        coarse = self.random.uniform(0, 255, shape).astype(np.float32)
        return cv2.resize(coarse, (self.width * 2, self.height * 2), interpolation=cv2.INTER_CUBIC)

    def draw(self, number: int) -> NDArray[np.uint8]:
        scene, step = divmod(number, 4 * FPS)
        start = np.random.default_rng(scene).uniform(0.1, 0.6, 4)
        y = int(start[0] * self.height + step * (start[2] - 0.35) * self.height / 300)
        x = int(start[1] * self.width + step * (start[3] - 0.35) * self.width / 200)
        picture = self.texture[y : y + self.height, x : x + self.width].copy()
        self._foreground(picture, step, start)
        picture += self.grain[number % len(self.grain)]
        image = np.clip(picture, 0, 255).astype(np.uint8)
        _burn(image, number)
        return image

    def _foreground(self, picture: NDArray[np.float32], step: int, start: NDArray[np.float64]) -> None:
        for k in range(4):
            size = self.height // (4 + k)
            top = int((self.height - size) * (0.5 + 0.45 * np.sin(step / (17 + 5 * k) + k)))
            left = int((self.width - size) * (0.5 + 0.45 * np.cos(step / (23 + 7 * k) + start[k] * 9)))
            source = self.texture[k * 40 : k * 40 + size, k * 60 + step : k * 60 + step + size]
            picture[top : top + size, left : left + size] = 255 - source


def _encode_minute(clip: Clip, path: Path) -> None:
    width, height, bitrate = SIZES[clip.height]
    scenes = _Scenes(width, height)
    with av.open(str(path), "w", options={"movflags": "faststart"}) as output:
        options = {"preset": "medium", "g": str(clip.gop), "sc_threshold": "0", "b": bitrate, "tune": "film"}
        stream = output.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(clip.frames):
            frame = av.VideoFrame.from_ndarray(scenes.draw(number), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))


def _repeat(source: Path, path: Path, times: int) -> None:
    with av.open(str(source)) as given, av.open(str(path), "w", options={"movflags": "faststart"}) as output:
        stream = given.streams.video[0]
        copy = output.add_stream_from_template(stream)
        minute = int(60 / stream.time_base)
        for repetition in range(times):
            given.seek(0, stream=stream)
            for packet in given.demux(stream):
                if packet.size:
                    packet.pts += repetition * minute
                    packet.dts += repetition * minute
                    packet.stream = copy
                    output.mux(packet)
