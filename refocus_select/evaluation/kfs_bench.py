"""KFS-Bench (Li et al., WACV 2026): do the chosen frames show all scenes that a question needs, and in balance?

Its two tables, `lvb_anno.csv` and `vidmme_anno.csv` (github.com/NEC-VID/KFS-Bench), mark the scenes of questions of
LongVideoBench and Video-MME: id, segment_id, scene_id, start, end. A scene may have several segments. No model answers
anything.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..plain_text import parse_json
from ..questions import Question
from ..video.inputs import parse_clock
from .selections import read_selections

Scene = tuple[tuple[float, float], ...]
"""(start, end) of each segment in seconds."""

COLUMNS = ("id", "scene_id", "start", "end")
LEAST = 0.01  # below it no question pulls the geometric mean, as in the authors' evaluation
EXPONENTS = np.linspace(0, 1, 11)  # from "the same for every scene" to "by the length of scenes"


@dataclass(frozen=True)
class SceneScore:
    """What the frames of one question are worth (paper, section on metrics).

    Attributes:
        key_frame_rate: share of the chosen frames that lie in a scene (KFR, precision).
        scene_hit_rate: share of the scenes that hold a chosen frame (SHR).
        balanced_recall: share of the scenes that hold their due of the frames that lie in scenes, at least one (BSR).
        balance: likeness of the frames' distribution over scenes to an even one or one by length, the better (BDS).
    """

    key_frame_rate: float
    scene_hit_rate: float
    balanced_recall: float
    balance: float

    @property
    def ukss(self) -> float:
        """Unified score: the geometric mean of key frame rate, balanced recall and balance."""
        return (self.key_frame_rate * self.balanced_recall * self.balance) ** (1 / 3)


@dataclass(frozen=True)
class SceneSummary:
    """Means over questions; the unified score's is geometric.

    Attributes:
        questions: how many were scored.
        missing: how many of the table have no frames.
        key_frame_rate, scene_hit_rate, ukss: see `SceneScore`.
    """

    questions: int
    missing: int
    key_frame_rate: float
    scene_hit_rate: float
    ukss: float


def read_scenes(path: str | os.PathLike[str]) -> dict[str, list[Scene]]:
    """The scenes of each question of a table of KFS-Bench. Its ends are whole seconds and belong to the scene.

    Raises:
        InputError: if the file is something else.
    """
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    try:
        with Path(path).open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            absent = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if absent:
                raise InputError(f"{path} is no table of KFS-Bench: it has no column {', '.join(absent)}")
            for row in reader:
                span = parse_clock(row["start"], "start"), parse_clock(row["end"], "end") + 1
                if span[0] >= span[1]:
                    raise InputError(f"{path}, line {reader.line_num}: the scene ends before it starts")
                found.setdefault(row["id"], {}).setdefault(row["scene_id"], []).append(span)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    return {name: [tuple(segments) for segments in scenes.values()] for name, scenes in found.items()}


def score_scenes(timestamps: Sequence[float] | np.ndarray, scenes: Sequence[Scene]) -> SceneScore:
    """Score the frames of one question.

    Args:
        timestamps: seconds, [K].
        scenes: what the question needs.

    Raises:
        InputError: without frames or scenes.
    """
    times = np.asarray(timestamps, dtype=np.float64)
    if not len(times) or not len(scenes):
        raise InputError("scenes are scored with at least one frame and one scene")
    within = np.stack([_within(times, scene) for scene in scenes])  # [scenes, K]
    counts, hits = within.sum(axis=1), int(within.any(axis=0).sum())
    lengths = np.array([sum(end - start for start, end in scene) for scene in scenes])
    fair = np.minimum(lengths / lengths.sum(), 1 / len(scenes))
    due = np.maximum(np.floor(fair * hits), 1)
    return SceneScore(
        hits / len(times), float((counts > 0).mean()), float((counts >= due).mean()), _balance(counts, lengths)
    )


def _within(times: np.ndarray, scene: Scene) -> np.ndarray:
    edges = np.asarray(scene)
    return np.asarray(((times[:, None] >= edges[:, 0]) & (times[:, None] <= edges[:, 1])).any(axis=1))


def _balance(counts: np.ndarray, lengths: np.ndarray) -> float:
    """The largest cosine between the frames per scene and a power of the scenes' lengths."""
    if not counts.any():
        return 0.0
    wanted = lengths[None] ** EXPONENTS[:, None]  # [exponents, scenes]
    return float((wanted @ counts / (np.linalg.norm(wanted, axis=1) * np.linalg.norm(counts))).max())


def summarise_scenes(chosen: Mapping[str, Sequence[float]], scenes: Mapping[str, Sequence[Scene]]) -> SceneSummary:
    """Score all questions of a table.

    Args:
        chosen: seconds of the frames, by the question's id; other questions are left out.
        scenes: what `read_scenes` gave.

    Raises:
        InputError: if no question of the table has frames.
    """
    scores = [score_scenes(times, scenes[name]) for name, times in chosen.items() if name in scenes and len(times)]
    if not scores:
        raise InputError(
            "no chosen frames belong to a question of this table; ids are those of LongVideoBench (VLInjyogciw_0) "
            "and of Video-MME (003-2)"
        )
    ukss = np.exp(np.log([max(s.ukss, LEAST) for s in scores]).mean())
    return SceneSummary(
        len(scores),
        len(scenes) - len(scores),
        float(np.mean([s.key_frame_rate for s in scores])),
        float(np.mean([s.scene_hit_rate for s in scores])),
        float(ukss),
    )


def read_chosen(path: str | os.PathLike[str], ids: Iterable[str]) -> dict[str, tuple[float, ...]]:
    """The times of chosen frames by the question's id.

    Args:
        path: results of `refocus-select batch`, selections of `evaluate export`, or the authors' JSON list of
            {"id", "frame_timestamps"}.
        ids: of the questions that count.

    Raises:
        InputError: if it is something else, or has two selections for a question.
    """
    wanted = set(ids)
    if Path(path).suffix.lower() == ".json":
        try:
            rows = parse_json(Path(path).read_bytes())
            return {r["id"]: tuple(map(float, r["frame_timestamps"])) for r in rows if r["id"] in wanted}
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise InputError(f"{path} is no list of objects with id and frame_timestamps ({error})") from error
    stored = read_selections(path, [Question(name, "any", "any") for name in wanted])
    chosen = {s.id: s.timestamps for s in stored}
    if len(chosen) < len(stored):
        raise InputError(f"{path} has several selections for a question: score one number of frames at a time")
    if any(not times for times in chosen.values()):
        raise InputError(f"{path} has frame numbers without their times")
    return chosen


def table(summaries: Mapping[str, SceneSummary]) -> str:
    """Selections side by side, as Markdown."""
    lines = [
        "| selection | questions | UKSS | key frame rate | scene hit rate | without frames |",
        "|---|---|---|---|---|---|",
    ]
    for name, s in summaries.items():
        rates = f"{s.ukss:.4f} | {s.key_frame_rate:.4f} | {s.scene_hit_rate:.4f}"
        lines.append(f"| {name} | {s.questions} | {rates} | {s.missing} |")
    return "\n".join(lines)
