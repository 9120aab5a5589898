"""A small collection: generated clips with numbered pictures, the film of the examples, and tables of questions."""

from __future__ import annotations

import json
from pathlib import Path

from tests.video.clips import encode

FILM = Path(__file__).resolve().parents[2] / "examples" / "film" / "big_buck_bunny.mp4"
THINGS = ("bird", "dog", "car", "tree", "boat", "lamp", "book", "ball", "hat", "horse", "fish", "cup", "chair")


def write_clips(folder: Path, count: int, *, seconds: float = 3.0) -> list[Path]:
    """Clips of different lengths."""
    folder.mkdir(parents=True, exist_ok=True)
    return [encode(folder / f"clip{i:03d}.mp4", int(25 * seconds) + 5 * (i % 7)) for i in range(count)]


def write_questions(path: Path, videos: list[str], count: int) -> Path:
    """Rows that walk through the videos again and again, so that those of a video lie far apart."""
    rows = [
        {
            "id": f"q{i}",
            "video": videos[i % len(videos)],
            "question": f"Where is the {THINGS[(i * 7 + i // len(videos)) % len(THINGS)]}, number {i}?",
            "note": i,
        }
        for i in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
