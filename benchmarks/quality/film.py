"""Real pictures: Big Buck Bunny with moments that were marked by eye."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from refocus_select import FrameSelector
from refocus_select.selectors.algorithms import farthest_first

from ..mini.evaluate import FILM
from .figures import gap_of, mean_of

HERE = Path(__file__).parents[1]
MARKED = (HERE / "mini/questions.json", HERE / "storyboards/film_questions.json")


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


def _rows(found: dict[tuple[str, int], np.ndarray], measures: Sequence[str]) -> list[dict[str, Any]]:
    rows = []
    for (name, size), values in found.items():
        row: dict[str, Any] = {"method": name, "K": size}
        for i, measure in enumerate(measures):
            row[measure] = mean_of(values[:, i])
            row[f"{measure} over uniform"] = gap_of(values[:, i], found["uniform", size][:, i])
        rows.append(row)
    return rows
