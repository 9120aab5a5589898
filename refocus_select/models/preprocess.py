"""From decoded frames to the tower's input, exactly as the released evaluation does it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .config import VisionConfig


def resize_frames(frames: np.ndarray, size: int) -> np.ndarray:
    """Squash frames to a square, ignoring their aspect ratio.

    An axis that shrinks or stays is averaged (OpenCV INTER_AREA); one that grows is interpolated (INTER_CUBIC). If the
    two axes differ, the shrinking one goes first.

    Args:
        frames: uint8 RGB, [n, H, W, 3].
        size: pixels per side.

    Returns:
        uint8, [n, size, size, 3].
    """
    import cv2

    height, width = frames.shape[1:3]
    if (height, width) == (size, size):
        return frames
    stages: list[tuple[tuple[int, int], int]]  # ((width, height), rule)
    if height >= size and width >= size:
        stages = [((size, size), cv2.INTER_AREA)]
    elif height < size and width < size:
        stages = [((size, size), cv2.INTER_CUBIC)]
    else:
        shrunk = (min(width, size), min(height, size))
        stages = [((size, size), cv2.INTER_CUBIC)]
        if shrunk != (width, height):
            stages.insert(0, (shrunk, cv2.INTER_AREA))
    out = np.empty((len(frames), size, size, 3), np.uint8)
    for row, frame in enumerate(frames):
        for shape, rule in stages:
            frame = cv2.resize(frame, shape, interpolation=rule)
        out[row] = frame
    return out


def normalise_frames(frames: np.ndarray, config: VisionConfig) -> Tensor:
    """Make pixel values of frames.

    Frames of another size than the tower's are resized by PIL's bicubic filter first.

    Args:
        frames: uint8 RGB, [n, H, W, 3].
        config: size and pixel statistics.

    Returns:
        float32 [n, 3, S, S].
    """
    size = config.image_size
    if frames.shape[1:3] != (size, size):
        from PIL import Image

        bicubic = Image.Resampling.BICUBIC
        frames = np.stack([np.asarray(Image.fromarray(f).resize((size, size), bicubic)) for f in frames])
    # 256 possible values: the division in float64 and the rounding to float32 are done once for each of them.
    levels = (np.arange(256) / 255.0).astype(np.float32)
    mean, std = np.asarray(config.image_mean, np.float32), np.asarray(config.image_std, np.float32)
    table = torch.from_numpy((levels[:, None] - mean) / std)  # [256, 3]
    chosen = torch.from_numpy(np.ascontiguousarray(frames)).long()  # [n, S, S, 3]
    return torch.stack([table[:, channel][chosen[..., channel]] for channel in range(3)], 1)


def prepare_frames(frames: np.ndarray, config: VisionConfig) -> Tensor:
    """`resize_frames`, then `normalise_frames`: uint8 [n, H, W, 3] to float32 [n, 3, S, S]."""
    return normalise_frames(resize_frames(frames, config.image_size), config)
