"""Makes small video files whose every picture carries its own number, and reads the number back."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

COLUMNS, ROWS = 8, 4  # 16 bits of number, 8 bits of check code, 8 bits of inverted check code
WIDTH, HEIGHT = 160, 96


def _check(number: int) -> int:
    return (number * 37 + (number >> 8) * 101 + 13) & 0xFF


def _bits(number: int) -> NDArray[np.bool_]:
    code = (number << 16) | (_check(number) << 8) | (_check(number) ^ 0xFF)
    return np.array([code >> (31 - i) & 1 for i in range(32)], dtype=bool).reshape(ROWS, COLUMNS)


def draw(number: int, width: int = WIDTH, height: int = HEIGHT) -> NDArray[np.uint8]:
    """RGB `[height, width, 3]`: the upper two thirds carry the code, the lower third moves and is coloured."""
    picture = np.empty((height, width, 3), dtype=np.uint8)
    upper = height * 2 // 3
    rows = np.arange(upper) * ROWS // upper
    columns = np.arange(width) * COLUMNS // width
    picture[:upper] = np.where(_bits(number)[rows][:, columns], 220, 36)[..., None]
    x = np.arange(width)[None, :] + 3 * number
    y = np.arange(height - upper)[:, None] + number
    picture[upper:, :, 0] = 128 + 90 * np.sin(x / 9.0 + y / 14.0)
    picture[upper:, :, 1] = 128 + 90 * np.sin(x / 13.0 - y / 6.0)
    picture[upper:, :, 2] = (x * 2 + y * 3) % 256 // 2 + 60
    return picture


def read(picture: NDArray[np.uint8]) -> int:
    """The number in a picture of any size, or -1 if the check codes do not agree."""
    height, width = picture.shape[:2]
    upper = height * 2 // 3
    gray = picture[:upper].astype(np.float32).mean(axis=2)
    code = 0
    for row in range(ROWS):
        for column in range(COLUMNS):
            top, left = (row + 0.3) * upper / ROWS, (column + 0.3) * width / COLUMNS
            bottom, right = (row + 0.7) * upper / ROWS, (column + 0.7) * width / COLUMNS
            block = gray[int(top) : max(int(bottom), int(top) + 1), int(left) : max(int(right), int(left) + 1)]
            code = code << 1 | int(block.mean() > 128)
    number, check, inverse = code >> 16, code >> 8 & 0xFF, code & 0xFF
    return number if check == _check(number) and inverse == check ^ 0xFF else -1


def read_all(pictures: Iterable[NDArray[np.uint8]]) -> list[int]:
    return [read(picture) for picture in pictures]


def encode(
    path: str | Path,
    frames: int = 72,
    *,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    fps: int | Fraction = 25,
    pix_fmt: str = "yuv420p",
    width: int = WIDTH,
    height: int = HEIGHT,
    container: str | None = None,
    container_options: dict[str, str] | None = None,
    pts: Callable[[int], int] | None = None,
    time_base: Fraction | None = None,
    matrix: tuple[int, int, int, int] | None = None,
    audio: bool = False,
    keyframes: set[int] | None = None,
    metadata: dict[str, str] | None = None,
    pixel_aspect_ratio: Fraction | None = None,
) -> Path:
    """Writes a video of `frames` numbered pictures; `pts(i)` in units of `time_base` makes the rate vary;
    `matrix` (mp4 and mov) says how players turn it, see `oriented`."""
    path = Path(path)
    with av.open(str(path), "w", format=container, container_options=container_options or {}) as output:
        output.metadata.update(metadata or {})
        stream = output.add_stream(codec, rate=fps, options=dict(options or {}))
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        base = time_base or 1 / Fraction(fps)
        stream.codec_context.time_base = base
        if pixel_aspect_ratio is not None:
            stream.codec_context.sample_aspect_ratio = pixel_aspect_ratio
        stream.thread_count = 1
        sound = output.add_stream("aac", rate=16000, layout="mono") if audio else None
        for number in range(frames):
            image = draw(number, width, height)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=pix_fmt)
            if keyframes is not None:
                frame.pict_type = av.video.frame.PictureType.I if number in keyframes else 0
            frame.pts = pts(number) if pts else number
            frame.time_base = base
            output.mux(stream.encode(frame))
            if sound is not None:
                _mux_sound(output, sound, number, int(16000 / fps))
        output.mux(stream.encode(None))
        if sound is not None:
            output.mux(sound.encode(None))
    if matrix is not None:
        path.write_bytes(oriented(path.read_bytes(), matrix))
    return path


def oriented(mp4: bytes, matrix: tuple[int, int, int, int]) -> bytes:
    """An mp4 with the first track's display matrix `a b c d`: a picture's point (x, y) is shown at (ax+cy, bx+dy)."""
    a, b, c, d = (65536 * entry for entry in matrix)
    place = mp4.index(b"tkhd") + 44
    return mp4[:place] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + mp4[place + 36 :]


def _mux_sound(output, sound, number: int, samples: int) -> None:
    wave = (3000 * np.sin(np.arange(samples) * 0.1)).astype(np.int16)[None, :]
    frame = av.AudioFrame.from_ndarray(wave, format="s16", layout="mono")
    frame.sample_rate = 16000
    frame.pts = number * samples
    output.mux(sound.encode(frame))


def write_sound(path: str | Path, seconds: int = 1) -> Path:
    """An audio-only file."""
    with av.open(str(path), "w") as output:
        sound = output.add_stream("aac", rate=16000, layout="mono")
        for number in range(seconds * 10):
            _mux_sound(output, sound, number, 1600)
        output.mux(sound.encode(None))
    return Path(path)


def truth(path: str | Path) -> tuple[list[int], list[float], list[NDArray[np.uint8]]]:
    """Numbers, seconds and full pictures of a plain front-to-back decode, in order of presentation."""
    numbers, times, pictures = [], [], []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        for frame in container.decode(stream):
            image = frame.to_ndarray(format="rgb24")
            numbers.append(read(image))
            times.append(frame.time)
            pictures.append(image)
    return numbers, times, pictures
