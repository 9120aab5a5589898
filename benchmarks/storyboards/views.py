"""Pictures of the storyboard world: things on moving backgrounds, drawn again and again the same from their records.

The bank stores the features of these pictures; `render` draws them for videos. Both call the functions below, so a
video shows what its features were computed from.
"""

from __future__ import annotations

import random
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from benchmarks.mini.materials import Pair, load_rgba

STEPS = 3
"""Frames of a series: neighbouring moments of one scene."""


def draw_series(root: Path, series: dict[str, Any], backgrounds: list[dict[str, Any]], size: int) -> np.ndarray:
    """A thing that moves a little in front of a background that moves as well.

    Args:
        root: folder of materials.
        series: `picture` (source, path below `root`, frame), `seed`, `background` (number of the clip, or -1 for a
            plain colour).
        backgrounds: records of the bank's background clips.
        size: side of the square pictures.

    Returns:
        uint8 [STEPS, size, size, 3].
    """
    rng = random.Random(series["seed"])
    picture = _cutout(root, *series["picture"])
    if rng.random() < 0.5 and series["picture"][0] != "cards":
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    part, squash = rng.uniform(0.65, 1.0), rng.uniform(0.75, 1.0)
    angle, turn = rng.uniform(-12, 12), rng.uniform(-3, 3)
    growth = rng.uniform(0.95, 1.06)
    x, y = rng.uniform(0, 1 - part), rng.uniform(0, 1 - part)
    dx, dy = rng.uniform(-0.04, 0.04), rng.uniform(-0.03, 0.03)
    look = [rng.uniform(0.8, 1.2) for _ in range(3)]  # brightness, contrast, colour
    fade = rng.choice((0.0, 0.35, 0.6))
    blur, grain = rng.choice((0.0, 0.0, 0.5, 1.0)), rng.uniform(0, 7)
    whole = series["picture"][0] == "cards"
    if whole:
        part, squash, angle, turn, fade = rng.uniform(0.92, 1.1), 1.0, rng.uniform(-2, 2), 0.0, 0.0
        x, y = (1 - part) / 2, (1 - part) / 2
    colour = tuple(rng.randrange(256) for _ in range(3))
    behind = (
        background_frames(root, _key(backgrounds[series["background"]]), size)
        if series["background"] >= 0
        else np.full((1, size, size, 3), colour, np.uint8)
    )
    first = rng.randrange(max(1, len(behind) - STEPS + 1))
    frames = []
    for step in range(STEPS):
        ground = Image.fromarray(behind[min(first + step, len(behind) - 1)])
        if fade:
            ground = Image.blend(
                ground.filter(ImageFilter.GaussianBlur(size / 60)), Image.new("RGB", ground.size, colour), fade
            )
        side = part * growth**step * size
        thing = _fitted(picture, side, squash, whole)
        thing = thing.rotate(angle + turn * step, Image.Resampling.BICUBIC, expand=not whole)
        left = round((x + dx * step) * size + (part * size - thing.width) / 2)
        top = round((y + dy * step) * size + (part * size - thing.height) / 2)
        ground.paste(thing, (left, top), thing)
        for enhance, strength in zip(
            (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color), look, strict=True
        ):
            ground = enhance(ground).enhance(strength)
        if blur:
            ground = ground.filter(ImageFilter.GaussianBlur(blur * size / 225))
        noise = np.random.default_rng(series["seed"] + step).normal(0, grain, (size, size, 1))
        frames.append((np.asarray(ground, np.float32) + noise).clip(0, 255).astype(np.uint8))
    return np.stack(frames)


def _fitted(picture: Image.Image, side: float, squash: float, stretch: bool) -> Image.Image:
    if stretch:
        width = height = side
    else:
        scale = side / max(picture.width * squash, picture.height)
        width, height = picture.width * squash * scale, picture.height * scale
    return picture.resize((max(1, round(width)), max(1, round(height))), Image.Resampling.BICUBIC)


@lru_cache(maxsize=64)
def _cutout(root: Path, source: str, path: str, frame: int) -> Image.Image:
    picture = load_rgba(Pair(source, Path(path) if source == "cards" else root / path, (), frame))
    picture.thumbnail((400, 400))
    box = picture.getchannel("A").getbbox()
    return picture.crop(box) if box else picture


def _key(clip: dict[str, Any]) -> tuple[str, str, tuple[float, ...]]:
    return clip["source"], clip["path"], tuple(clip["frames"])


@lru_cache(maxsize=96)
def background_frames(root: Path, clip: tuple[str, str, tuple[float, ...]], size: int) -> np.ndarray:
    """The pictures of one background clip, uint8 [n, size, size, 3].

    A clip is (source, path below `root`, frames): frame numbers of an animated picture, seconds of a video, or windows
    of a still picture (a slow pan).
    """
    source, path, frames = clip
    if source == "video":
        return _video_frames(root / path, frames, size)
    with Image.open(root / path) as image:
        rows = []
        for frame in frames:
            if source == "animation":
                image.seek(int(frame))
                picture = image.convert("RGB")
            else:
                picture = image.convert("RGB")
                side = min(picture.size) * 0.85
                left, top = frame * (picture.width - side), (1 - frame) * (picture.height - side)
                picture = picture.crop((round(left), round(top), round(left + side), round(top + side)))
            rows.append(np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR)))
    return np.stack(rows)


def _video_frames(path: Path, seconds: tuple[float, ...], size: int) -> np.ndarray:
    from refocus_select.video import open_video

    with open_video(str(path)) as video:
        indices = [int(np.abs(video.timestamps - second).argmin()) for second in seconds]
        return video.get_frames(np.array(indices), size=(size, size)).data
