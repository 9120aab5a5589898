"""Pictures as JPEG files that together stay below a number of bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

_QUALITY = 85
_STEP = 0.9  # by how much more than the bytes ask for pictures are made smaller: small ones compress less well
_SMALLEST = 64  # pixels of the longer side


def jpegs(pictures: Sequence[np.ndarray] | np.ndarray, most_bytes: int) -> list[bytes]:
    """Encode pictures, all made smaller alike as far as that is needed.

    Args:
        pictures: uint8 RGB, [H, W, 3] each.
        most_bytes: of all of them together.
    """
    from PIL import Image

    return jpegs_of([Image.fromarray(picture) for picture in pictures], most_bytes)


def jpegs_of(images: Sequence[Image.Image], most_bytes: int) -> list[bytes]:
    """`jpegs` of PIL images."""
    scale = 1.0
    while True:
        coded = [_jpeg(image, scale) for image in images]
        total = sum(map(len, coded))
        if total <= most_bytes or scale * max(max(image.size) for image in images) <= _SMALLEST:
            return coded
        scale *= _STEP * (most_bytes / total) ** 0.5


def _jpeg(image: Image.Image, scale: float) -> bytes:
    if scale < 1.0:
        image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    out = io.BytesIO()
    image.convert("RGB").save(out, "JPEG", quality=_QUALITY)
    return out.getvalue()
