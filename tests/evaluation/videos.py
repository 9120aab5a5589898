"""A few real video files for the tests of this folder, and a small video model on disk."""

from __future__ import annotations

from pathlib import Path

from tests.adapters import tiny
from tests.adapters.models import build
from tests.video.clips import encode

FPS = 10


def write_videos(folder: Path, *names: str, seconds: int = 6) -> None:
    """Small videos with these names, suffix and folders included; each picture carries its number."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        encode(path, seconds * FPS, fps=FPS)


def write_model(folder: Path) -> str:
    """A Qwen2.5-VL of a few thousand random weights with its processor."""
    processor = tiny.qwen2_5_vl()
    processor.save_pretrained(folder)
    build("qwen2_5_vl", processor).save_pretrained(folder)
    return str(folder)
