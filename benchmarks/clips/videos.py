"""The clips as an encoder sees them, and the videos of the questions joined from them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from refocus_select.encoding import VideoEncoding
from refocus_select.questions import Question
from refocus_select.video import VideoMetadata, open_video

from .compose import BLANKS, FRAMES, HERE, compose, read_clips

FILMS = HERE.parents[1] / "examples/film"
SECONDS = 0.5  # from one frame of a joined video to the next
SIZE = (225, 225)  # of frames for encoders that have no size of their own
COLOURS = {"black": 0, "white": 255, "grey": 128}


def load_questions(split: str) -> list[dict[str, Any]]:
    """The rows of one split."""
    return [row for row in compose() if row["split"] == split]


def clip_frames(clip: Mapping[str, Any], root: Path, size: tuple[int, int]) -> np.ndarray:
    """The kept frames of a clip, uint8 [FRAMES, H, W, 3].

    Args:
        clip: a row of clips.json.
        root: folder that benchmarks/mini/fetch.sh filled.
        size: height and width.

    Raises:
        FileNotFoundError: if the clip's file is not below `root`.
    """
    path = next((found for folder in (FILMS, root) for found in sorted(folder.rglob(clip["file"]))), None)
    if path is None:
        raise FileNotFoundError(f"{clip['file']} is not below {root}; run benchmarks/mini/fetch.sh {root}")
    with open_video(str(path)) as video:
        times = video.timestamps
        start, stop = clip.get("part", (times[0], times[-1]))
        inside = np.flatnonzero((times >= start) & (times <= stop))
        at = inside[np.linspace(0, len(inside) - 1, FRAMES).round().astype(int)]
        distinct, back = np.unique(at, return_inverse=True)
        return np.asarray(video.get_frames(distinct, size=size).data)[back]


def clip_vectors(encoder: Any, root: Path, split: str) -> dict[str, torch.Tensor]:
    """Vectors of all clips of a split and of the blank pictures, each [FRAMES, D]; kept below `root`."""
    clips = [clip for clip in read_clips() if clip["split"] == split]
    known = hashlib.sha256(json.dumps([clips, encoder.fingerprint]).encode()).hexdigest()[:16]
    stored = root / "clip-vectors" / f"{split}-{known}.safetensors"
    if stored.is_file():
        return load_file(stored)
    size = encoder.frame_size or SIZE
    vectors = {clip["id"]: encoder.encode_frames(clip_frames(clip, root, size)) for clip in clips}
    for colour in BLANKS:
        vectors[colour] = encoder.encode_frames(np.full((FRAMES, *size, 3), COLOURS[colour], np.uint8))
    stored.parent.mkdir(exist_ok=True)
    temporary = stored.with_suffix(".part")
    save_file({name: rows.contiguous() for name, rows in vectors.items()}, temporary)
    temporary.replace(stored)
    return vectors


class JoinedVideo:
    """One row of `compose` as a question and the encoding of its video.

    Attributes:
        scene_of: number of the scene that each frame belongs to, int64 [F].
        blank: whether a frame is a blank one, bool [F].
        right: whether a frame belongs to the answer, bool [F].
        anchor: the same for the thing that the question starts from.
    """

    def __init__(self, row: Mapping[str, Any], vectors: Mapping[str, torch.Tensor], encoder: Any) -> None:
        self.row = row
        scenes = row["scenes"]
        lengths = [length for _, _, length in scenes]
        self.scene_of = np.repeat(np.arange(len(scenes)), lengths)
        self.right = np.isin(self.scene_of, row["answer"])
        self.anchor = np.isin(self.scene_of, row["anchor"])
        self.blank = np.repeat([name in BLANKS for name, _, _ in scenes], lengths)
        frames = torch.cat([vectors[name][start : start + length] for name, start, length in scenes])
        times = np.arange(len(frames)) * SECONDS
        ends = np.cumsum(lengths)
        evidence = [(times[ends[n] - lengths[n]], times[ends[n] - 1]) for n in (*row["answer"], *row["anchor"])]
        self.question = Question(
            id=row["id"], video=row["id"], question=row["question"], category=row["kind"],
            evidence=tuple((float(a), float(b)) for a, b in evidence),
        )  # fmt: skip
        self.encoding = VideoEncoding(
            tensors={"embeddings": frames},
            indices=np.arange(len(frames)),
            timestamps=times,
            video=VideoMetadata(row["id"], len(frames), len(frames) * SECONDS, average_fps=1 / SECONDS),
            video_fingerprint=row["id"],
            encoder="mini",
            encoder_fingerprint=encoder.fingerprint,
        )  # fmt: skip
