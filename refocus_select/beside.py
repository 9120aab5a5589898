"""Transcript files that lie beside a video: `film.srt`, `film.en.vtt` for `film.mp4`."""

from __future__ import annotations

import glob
import os

TRANSCRIPT_SUFFIXES = (".srt", ".vtt", ".ass", ".ssa", ".ttml", ".smi", ".sub", ".json3", ".json")
"""From the likeliest to the least likely."""


def transcripts_beside(path: str) -> list[str]:
    """Paths of files that are named like a video and end like a transcript; they are not opened."""
    stem = os.path.splitext(path)[0]
    found = glob.glob(glob.escape(stem) + ".*")
    return sorted(name for name in found if name.lower().endswith(TRANSCRIPT_SUFFIXES) and name != path)
