"""How stored pictures are shown: turned, mirrored, and with pixels that need not be square. Pure."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

_MAX_RATIO = 8.0  # more than any real pixel or scaling is out of proportion
_SQUARE = 0.005  # nearer to 1 than this, a pixel aspect ratio changes nothing worth scaling for


@dataclass(frozen=True)
class Orientation:
    """Stored pictures are mirrored left to right first, then turned counter-clockwise by `rotation` degrees."""

    rotation: int = 0
    mirrored: bool = False

    def apply(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A stored picture `[H, W, 3]` as it is shown; a view."""
        if self.mirrored:
            picture = picture[:, ::-1]
        return np.rot90(picture, self.rotation // 90) if self.rotation else picture

    @property
    def swaps_sides(self) -> bool:
        """Whether width and height change places."""
        return self.rotation in (90, 270)


def orientation_of(matrix: bytes | None) -> tuple[Orientation, str | None]:
    """The orientation that a display matrix asks for, and what was wrong with it.

    Args:
        matrix: nine 32-bit numbers as FFmpeg holds them (ISO/IEC 14496-12, `tkhd`): a picture's point (x, y), y down,
            is shown at (ax + cy, bx + dy).
    """
    if matrix is None:
        return Orientation(), None
    if len(matrix) < 36:
        return Orientation(), "its display matrix is too short and is ignored"
    a, b, u, c, d, v, _, _, _ = (value / 65536 for value in struct.unpack("=9i", matrix[:36]))
    x_scale, y_scale = math.hypot(a, b), math.hypot(c, d)
    if min(x_scale, y_scale) < 1e-3 or not 1 / _MAX_RATIO <= x_scale / y_scale <= _MAX_RATIO or u or v:
        return Orientation(), "its display matrix makes no sense and is ignored"
    if abs(a * c + b * d) > 0.1 * x_scale * y_scale:
        return Orientation(), "its display matrix is not a rotation or a reflection (it slants pictures) and is ignored"
    mirrored = a * d - b * c < 0
    clockwise = math.degrees(math.atan2(-b, -a) if mirrored else math.atan2(b, a))
    rotation = -round(clockwise / 90) * 90 % 360
    problem = None
    if abs(clockwise - round(clockwise / 90) * 90) > 1:
        turn = round(-clockwise) % 360
        problem = f"turned by {turn} degrees; only quarter turns are applied ({rotation})"
    return Orientation(rotation, mirrored), problem


def aspect_of(ratio: Fraction | None) -> tuple[float, str | None]:
    """Width of a pixel over its height, 1 where it is not known; and what was wrong with it."""
    if not ratio or ratio < 0:
        return 1.0, None
    value = float(ratio)
    if not 1 / _MAX_RATIO <= value <= _MAX_RATIO:
        return 1.0, f"its pixel aspect ratio ({ratio}) makes no sense and is ignored"
    return (1.0 if abs(value - 1) < _SQUARE else value), None


def square_size(width: int, height: int, aspect: float) -> tuple[int, int]:
    """(width, height) of the same picture with square pixels; the side that is too short grows."""
    return (max(1, round(width * aspect)), height) if aspect > 1 else (width, max(1, round(height / aspect)))
