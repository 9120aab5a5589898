"""Frames in memory, in whatever form they come: uint8 RGB pictures out."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refocus_select.errors import InputError, UnsupportedVideoError
from refocus_select.video.base import MAX_PIXELS

_CHANNELS = (1, 3, 4)  # grey, RGB, RGBA
_HASHED_BYTES = 2**28  # clips up to this size are hashed whole
_OVERSHOOT = 16  # of 255, by which resizing with a bicubic filter may leave the range


def is_array(value: Any) -> bool:
    """Whether a value is a numpy array or a torch tensor."""
    return isinstance(value, np.ndarray) or (hasattr(value, "detach") and hasattr(value, "shape"))


class Pixels:
    """The pictures of a clip as uint8 RGB `[H, W, 3]`, converted one by one when they are asked for.

    What the numbers mean is judged over the whole clip: floats are from 0 to 1 if none is above 1, else from 0 to 255.
    """

    def __init__(self, frames: Any) -> None:
        """Take frames; they are not copied.

        Args:
            frames: an array or tensor `[T, H, W, C]`, `[T, C, H, W]` or `[T, H, W]`, or a list of arrays or tensors
                `[H, W, C]`, `[C, H, W]` or `[H, W]` of one shape; C is 1 (grey), 3 (RGB) or 4 (RGBA). uint8, other
                whole numbers from 0 to 255, bool, or floats.

        Raises:
            InputError: shape, type or range is not usable.
            UnsupportedVideoError: pictures too large.
        """
        listed = isinstance(frames, list | tuple)
        self._frames = [_channels_last(f, frames) for f in (frames if listed else _frames_of(frames))]
        if not self._frames:
            raise InputError("an empty list holds no frames; pass at least one picture")
        shapes = sorted({frame.shape for frame in self._frames})
        if len(shapes) > 1:
            raise InputError(f"frames of different shapes {shapes}; scale them to one size, or pass PIL images")
        height, width = shapes[0][:2]
        if height * width > MAX_PIXELS:
            raise UnsupportedVideoError(f"pictures of {width}x{height} exceed {MAX_PIXELS} pixels")
        self._scale = self._scale_of()

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        picture = self._frames[index]
        if picture.dtype != np.uint8:
            exact = picture.astype(np.float32) * self._scale
            picture = np.clip(np.rint(exact), 0, 255).astype(np.uint8)
        channels = picture.shape[2]
        if channels == 1:
            return np.repeat(picture, 3, axis=2)
        return picture if channels == 3 else _on_white(picture)

    def _scale_of(self) -> float:
        kinds = {frame.dtype.kind for frame in self._frames}
        if kinds == {"b"}:
            return 255.0
        if {frame.dtype.name for frame in self._frames} == {"uint8"}:
            return 1.0
        if not kinds <= set("fiu"):
            kind = self._frames[0].dtype
            raise InputError(f"frames must be uint8, or floats from 0 to 1, not {kind}; use .astype('uint8')")
        low = min(float(frame.min()) for frame in self._frames)
        high = max(float(frame.max()) for frame in self._frames)
        of_one = "f" in kinds and high <= 1.001
        over = 0.05 if of_one or high < 16 or "f" not in kinds else _OVERSHOOT
        if not (low >= -over and high <= 255 + over):  # also refuses NaN
            raise InputError(
                f"frames must lie from 0 to 1 or from 0 to 255, not from {low:g} to {high:g}; undo the normalisation, "
                "or pass uint8"
            )
        return 255.0 if of_one else 1.0

    def digest(self) -> str:
        """Hash of the content; of large clips, of evenly spaced frames."""
        count = len(self)
        step = max(1, -(-count * self._frames[0].nbytes // _HASHED_BYTES))
        digest = hashlib.sha256(f"{count}{self._frames[0].shape}{self._frames[0].dtype}{self._scale}".encode())
        for number in (*range(0, count, step), count - 1):
            digest.update(np.ascontiguousarray(self._frames[number]).tobytes())
        return digest.hexdigest()[:32]


def _frames_of(video: Any) -> list[Any]:
    """One array for a whole clip, frame by frame."""
    shape = tuple(video.shape)
    grey = len(shape) == 3 and shape[0] not in _CHANNELS and shape[2] not in _CHANNELS
    if len(shape) != 4 and not grey:
        raise InputError(f"frames must have four dimensions, [T, H, W, 3], not shape {shape}")
    if 0 in shape:
        raise InputError(f"an array of shape {shape} holds no frames; pass at least one picture")
    return list(video)


def _channels_last(frame: Any, clip: Any) -> NDArray[Any]:
    """`[H, W, C]`, from a picture in any order of its dimensions."""
    is_torch = hasattr(frame, "detach")
    array = _numpy(frame)
    if 0 in array.shape:
        raise InputError(f"a frame of shape {array.shape} holds no pixels")
    if array.ndim == 2:
        return array[..., None]
    if array.ndim == 3:
        first, last = (array.shape[axis] in _CHANNELS for axis in (0, 2))
        if first and (is_torch or not last):
            return np.moveaxis(array, 0, 2)
        if last:
            return array
    shape = getattr(clip, "shape", None) or array.shape
    raise InputError(f"frames must have 3 colour channels (RGB), [T, H, W, 3], not shape {tuple(shape)}")


def _numpy(frame: Any) -> NDArray[Any]:
    if not hasattr(frame, "detach"):
        return np.asarray(frame)
    frame = frame.detach().cpu()
    array: NDArray[Any] = (frame.float() if frame.is_floating_point() else frame).numpy()
    return array


def _on_white(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Transparent parts become white, as on a page."""
    opacity = picture[..., 3:].astype(np.float32) / 255
    return np.rint(picture[..., :3] * opacity + 255 * (1 - opacity)).astype(np.uint8)
