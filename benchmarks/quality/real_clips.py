"""Real clips joined at random, with natural questions (benchmarks/clips): hits, shares, blank frames, alarms."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from refocus_select import FrameSelector

from ..clips.videos import JoinedVideo, clip_vectors, load_questions
from .contenders import GRIDS, Picker, Scores, algorithm, blind, settings
from .figures import gap_of, mean_of

SIZES = (4, 8)
GROUPS: Mapping[str, tuple[str, ...]] = {
    "look-ups": ("look-up",),
    "people": ("people",),
    "which person": ("which person",),
    "after, before": ("after", "before"),
    "between": ("between",),
    "first, last": ("first", "last"),
    "first or last time": ("first time", "last time"),
    "relations": ("after", "before", "between", "first", "last", "first time", "last time"),
    "with blank scenes": ("blank",),
}
MEASURES = ("hit", "share", "anchor too", "blank")


def load_videos(encoder: Any, root: Path, split: str) -> list[JoinedVideo]:
    """All videos of a split, as an encoder sees them."""
    vectors = clip_vectors(encoder, root, split)
    return [JoinedVideo(row, vectors, encoder) for row in load_questions(split)]


def outcome(video: JoinedVideo, picks: np.ndarray) -> tuple[float, ...]:
    """What `MEASURES` say about the frames chosen for one question.

    hit: the answer is among them; share: of the frames that show the answer; anchor too: the answer and every thing
    that the question starts from; blank: share of blank frames.
    """
    shown = set(video.scene_of[picks].tolist())
    hit = bool(video.right[picks].any())
    both = hit and shown.issuperset(video.row["anchor"])
    return float(hit), float(video.right[picks].mean()), float(both), float(video.blank[picks].mean())


def measure(
    videos: Sequence[JoinedVideo], pickers: Mapping[str, Picker], sizes: Sequence[int]
) -> dict[tuple[str, int], np.ndarray]:
    """`MEASURES` by (method, K), float64 [questions with an answer, measures]."""
    asked = [video for video in videos if video.row["answer"]]
    return {
        (name, size): np.array([outcome(video, pick(video.question, video.encoding, size)) for video in asked])
        for name, pick in pickers.items()
        for size in sizes
    }


def tuned(videos: Sequence[JoinedVideo], scores: Scores, sizes: Sequence[int]) -> dict[int, dict[str, dict[str, Any]]]:
    """The setting of every training-free algorithm that has most hits, ties by share, for each K; look-ups, people and
    relations count alike. Every second question is used."""
    options = {f"{name} {json.dumps(given)}": (name, given) for name in GRIDS for given in settings(name)}
    asked = [video for video in videos if video.row["answer"]][::2]
    masks = [np.isin([v.row["kind"] for v in asked], GROUPS[group]) for group in ("look-ups", "people", "relations")]
    best: dict[int, dict[str, tuple[float, dict[str, Any]]]] = {size: {} for size in sizes}
    for name, given in options.values():
        found = measure(asked, {name: algorithm(name, scores, **given)}, sizes)
        for size in sizes:
            values = found[name, size]
            worth = float(np.mean([values[mask, 0].mean() + 1e-3 * values[mask, 1].mean() for mask in masks]))
            if name not in best[size] or worth > best[size][name][0]:
                best[size][name] = worth, given
    return {size: {name: given for name, (_, given) in chosen.items()} for size, chosen in best.items()}


def alarms(videos: Sequence[JoinedVideo], selector: FrameSelector, num_frames: int = 8) -> dict[str, list[float]]:
    """How often a selector says "not to be seen" of what is there (false), and fails to of what is not (missed)."""
    said: dict[bool, list[float]] = {True: [], False: []}
    for video in videos:
        if video.row["kind"] in ("look-up", "absent"):
            chosen = selector.select(video.encoding, video.row["question"], num_frames=num_frames)
            said[bool(video.row["answer"])].append(float(chosen.strategy != "selected"))
    return {"false alarms": mean_of(said[True]), "missed alarms": mean_of([1 - x for x in said[False]])}


def compare_clips(
    root: Path, split: str, scores: Scores, policies: Mapping[str, Picker], selectors: Mapping[str, FrameSelector]
) -> dict[str, Any]:
    """Everybody on the clips of a split, seen by one encoder; training-free methods tuned on the validation clips.

    Args:
        root: folder of materials.
        split: "validation" or "test".
        scores: of the encoder.
        policies: trained policies, by name.
        selectors: those whose alarms are counted.
    """
    checked = load_videos(scores.encoder, root, "validation")
    found_settings = tuned(checked, scores, SIZES)
    videos = checked if split == "validation" else load_videos(scores.encoder, root, split)
    found: dict[tuple[str, int], np.ndarray] = {}
    for size in SIZES:
        free = {name: algorithm(name, scores, **given) for name, given in found_settings[size].items()}
        found |= measure(videos, blind(scores) | free | dict(policies), [size])
    kinds = np.array([video.row["kind"] for video in videos if video.row["answer"]])
    return {
        "split": split,
        "settings": {str(size): given for size, given in found_settings.items()},
        "groups": {group: _rows(found, np.isin(kinds, members), policies) for group, members in GROUPS.items()},
        "alarms": {name: alarms(videos, selector) for name, selector in selectors.items()},
    }


def _rows(found: dict[tuple[str, int], np.ndarray], mask: np.ndarray, policies: Mapping[str, Any]) -> dict[str, Any]:
    """Means of a group of questions by method and K, and what policies have over the best of the others."""
    rows = []
    for size in SIZES:
        at = {name: values[mask] for (name, k), values in found.items() if k == size}
        free = [name for name in at if name not in policies]
        best = max(free, key=lambda name: (at[name][:, 0].mean(), at[name][:, 1].mean()))
        for name, values in at.items():
            row: dict[str, Any] = {"K": size, "method": name}
            row |= {measure: mean_of(values[:, i]) for i, measure in enumerate(MEASURES)}
            row["hit over uniform"] = gap_of(values[:, 0], at["uniform"][:, 0])
            if name in policies:
                row |= {"best": best, "hit over best": gap_of(values[:, 0], at[best][:, 0])}
            rows.append(row)
    return {"questions": int(mask.sum()), "rows": rows}
