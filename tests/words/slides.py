"""Slides with text as a film, drawn on the spot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFont


def slide(lines: Sequence[str], size: tuple[int, int] = (640, 360)) -> np.ndarray:
    """uint8 RGB [H, W, 3]: a title and further lines, dark on light."""
    image = Image.new("RGB", size, (245, 243, 235))
    draw = ImageDraw.Draw(image)
    for number, line in enumerate(lines):
        large = ImageFont.load_default(34 if number == 0 else 22)
        draw.text((40, 36 + 70 * (number > 0) + 44 * number), line, fill=(25, 25, 60), font=large)
    return np.asarray(image)


def write_slides(path: Path, slides: Sequence[tuple[float, Sequence[str]]], *, fps: int = 5) -> None:
    """A film that shows each of (seconds, lines) in turn."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
        for seconds, lines in slides:
            picture = av.VideoFrame.from_ndarray(slide(lines))
            for _ in range(round(seconds * fps)):
                picture.pts = None
                container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
