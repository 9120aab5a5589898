"""Real pictures: Big Buck Bunny with moments that were marked by eye, and nine short clips in a row."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from refocus_select import FrameSelector
from refocus_select.encoding import VideoEncoding
from refocus_select.selectors.algorithms import farthest_first
from refocus_select.video import VideoMetadata

from ..mini.evaluate import CLIPS, FILM
from .figures import gap_of, mean_of

HERE = Path(__file__).parents[1]
MARKED = (HERE / "mini/questions.json", HERE / "storyboards/film_questions.json")
OF_EACH_CLIP = 12  # candidates


def film(selectors: dict[str, FrameSelector], sizes: Sequence[int]) -> dict[str, Any]:
    """How often a chosen frame shows what the question asks for, and which share of the frames does."""
    asked = [entry | {"new": path == MARKED[1]}
             for path in MARKED for entry in json.loads(path.read_text(encoding="utf-8"))["film"]]  # fmt: skip
    found: dict[tuple[str, int], np.ndarray] = {}
    new = np.array([entry["new"] for entry in asked])

    def shown(times: np.ndarray, entry: dict[str, Any]) -> list[float]:
        inside = [any(start <= t <= end for start, end in entry["moments"]) for t in times]
        moments = [any(start <= t <= end for t in times) for start, end in entry["moments"]]
        return [float(any(inside)), float(np.mean(inside)), float(np.mean(moments))]

    for name, selector in selectors.items():
        encoding = selector.encode(FILM, progress=False)
        for size in sizes:
            chosen = [selector.select(encoding, entry["question"], num_frames=size).timestamps for entry in asked]
            found[name, size] = np.array([shown(times, entry) for times, entry in zip(chosen, asked, strict=True)])
            if name == "mini":
                blind = encoding.timestamps[farthest_first(encoding.tensors["embeddings"], size)]
                found["k-centre", size] = np.array([shown(blind, entry) for entry in asked])
    rows = _rows(found, ("hit", "share of frames", "share of moments"))
    for row in rows:
        row["hit of the new"] = mean_of(found[row["method"], row["K"]][new, 0])
    return {"questions": len(asked), "new": int(new.sum()), "rows": rows}


def clips(selectors: dict[str, FrameSelector], root: Path, num_frames: int = 8) -> dict[str, Any]:
    """Nine mixed real clips as one video of 108 frames; the share of the picks that lie in the right clip."""
    import av

    asked = json.loads(MARKED[0].read_text(encoding="utf-8"))["clips"]
    encoder = selectors["mini"].encoder  # type: ignore[attr-defined]
    height, width = encoder.frame_size
    names: list[str] = []
    rows = []
    for name, file in CLIPS.items():
        with av.open(str(next(root.rglob(file)))) as container:
            frames = [f.to_ndarray(format="rgb24", width=width, height=height) for f in container.decode(video=0)]
        at = [int((i + 0.5) * len(frames) / OF_EACH_CLIP) for i in range(OF_EACH_CLIP)]
        rows.append(encoder.encode_frames(np.stack([frames[i] for i in at])))
        names += [name] * OF_EACH_CLIP
    vectors = torch.cat(rows)
    found: dict[tuple[str, int], np.ndarray] = {}
    for name, selector in selectors.items():
        encoding = VideoEncoding(
            tensors={"embeddings": vectors},
            indices=np.arange(len(vectors)),
            timestamps=np.arange(len(vectors), dtype=np.float64),
            video=VideoMetadata("nine clips", len(vectors), float(len(vectors)), average_fps=1.0),
            video_fingerprint="nine-clips",
            selector=selector.name,
            selector_fingerprint=selector.fingerprint,
        )
        shares = []
        for entry in asked:
            picks = selector.select(encoding, entry["question"], num_frames=num_frames).indices
            right = [names[i] == entry["clip"] for i in picks]
            shares.append([float(any(right)), float(np.mean(right))])
        found[name, num_frames] = np.array(shares)
    blind = farthest_first(vectors, num_frames)
    rights = np.array([[names[i] == entry["clip"] for i in blind] for entry in asked], dtype=float)
    found["k-centre", num_frames] = np.stack([rights.max(1), rights.mean(1)], 1)
    return {"questions": len(asked), "rows": _rows(found, ("hit", "share of frames"))}


def _rows(found: dict[tuple[str, int], np.ndarray], measures: Sequence[str]) -> list[dict[str, Any]]:
    rows = []
    for (name, size), values in found.items():
        row: dict[str, Any] = {"method": name, "K": size}
        for i, measure in enumerate(measures):
            row[measure] = mean_of(values[:, i])
            row[f"{measure} over uniform"] = gap_of(values[:, i], found["uniform", size][:, i])
        rows.append(row)
    return rows
