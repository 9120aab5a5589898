"""The variance filter: keep the questions whose answer depends on which frames are seen.

Source: ReFoCUS, poster: the reference model is probed with 16 subsets of each video, 8 circular windows (a quarter of
the video each, an eighth apart, the last one wraps) and their 8 complements; a question is kept if the sample variance
of the 16 margins exceeds 0.21. The authors' histogram of these variances ends at 16/15, the largest sample variance
that 16 values between -1 and 1 can have: so the margins are the bounded ones, tanh(m / 2), which are also the reward.
Both variances are kept. How many frames a probe has is not published.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import InputError, VideoDecodeError
from ..files import replacing, write_text
from ..questions import Question, as_row
from ..reference import Request
from .compare import READ_ERRORS
from .data import QuestionSet, read_object, rows
from .reward import RewardModel

logger = logging.getLogger(__name__)

WINDOWS = 8
KEPT, SUMMARY, HISTOGRAM = "kept.jsonl", "summary.json", "histogram.png"
_CHUNK = 16  # questions that are probed at once


@dataclass(frozen=True)
class FilterResult:
    """What a filter found so far.

    Attributes:
        folder: of all files.
        complete: whether every question is probed; until then there is no kept set.
        probed: questions with margins.
        kept: of them, above the threshold.
        unreadable: questions whose video cannot be read.
    """

    folder: Path
    complete: bool
    probed: int
    kept: int
    unreadable: int


def windows(frames: int) -> list[np.ndarray]:
    """The 8 circular windows and then their 8 complements among F candidates, each sorted, int64.

    Raises:
        InputError: for fewer than two candidates, where there is nothing to choose.
    """
    if frames < 2:
        raise InputError(f"a video of {frames} candidate frames cannot be probed")
    width = max(1, round(frames / 4))
    starts = [frames * i // WINDOWS for i in range(WINDOWS)]
    inside = [np.sort((start + np.arange(width)) % frames) for start in starts]
    return inside + [np.setdiff1d(np.arange(frames), window) for window in inside]


def probes(frames: int, num_frames: int) -> list[np.ndarray]:
    """At most `num_frames` evenly spaced members of each window and complement."""
    return [part[np.unique(np.linspace(0, len(part) - 1, min(num_frames, len(part))).round().astype(int))]
            for part in windows(frames)]  # fmt: skip


def filter_questions(
    questions: QuestionSet,
    reward_model: RewardModel,
    folder: str | os.PathLike[str],
    *,
    threshold: float = 0.21,
    num_frames: int = 16,
    shard: tuple[int, int] = (0, 1),
    progress: bool | None = None,
) -> FilterResult:
    """Probe every question, and write those that are kept.

    Margins are written as they are found; the same call resumes an interrupted one. Several shards may write to
    one folder at once, and whichever completes it writes kept.jsonl, summary.json and histogram.png.

    Args:
        questions: all of them, also for a shard.
        reward_model: its reference models; margins of several are averaged.
        folder: of the result.
        threshold: of the sample variance of the bounded margins, below 16/15.
        num_frames: of a probe.
        shard: (i, n): the i-th of n parts.
        progress: show a progress bar (default: only on a terminal).

    Raises:
        InputError: if the folder holds margins of another reference model or other questions.
    """
    from tqdm import tqdm

    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    _same_identity(target, questions, reward_model, num_frames)
    path = target / f"margins-{shard[0]}-of-{shard[1]}.jsonl"
    _mend(path)
    done = {row["id"] for row in _margins(target)}
    mine = [i for i in range(shard[0], len(questions), shard[1]) if questions.questions[i].id not in done]
    disable = None if progress is None else not progress
    with path.open("a", encoding="utf-8") as file, tqdm(total=len(mine), unit="question", disable=disable) as bar:
        for start in range(0, len(mine), _CHUNK):
            chunk = [questions.questions[i] for i in mine[start : start + _CHUNK]]
            for row in _probe(chunk, questions, reward_model, num_frames):
                file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())
            bar.update(len(chunk))
    return _summarise(target, questions, threshold)


def _probe(
    chunk: list[Question], questions: QuestionSet, reward_model: RewardModel, num_frames: int
) -> Iterator[dict[str, Any]]:
    for question in chunk:
        try:
            clip = questions.clips(question.video)
            if len(clip) < 2:
                raise VideoDecodeError(f"{question.video} has a single candidate frame: there is nothing to choose")
            parts = probes(len(clip), num_frames)
            halves = [parts[:WINDOWS], parts[WINDOWS:]]  # of different sizes when windows are shorter than a probe
            asked = [Request(question, clip, torch.from_numpy(np.stack(half))) for half in halves]
            margins = torch.cat([reward.margin for reward in reward_model(asked)])
        except READ_ERRORS as error:
            logger.warning("question %s is left out: %s", question.id, error)
            yield {"id": question.id, "unreadable": str(error)}
            continue
        yield {"id": question.id, "margins": margins.tolist(), **variances(margins)}


def variances(margins: torch.Tensor) -> dict[str, float]:
    """Sample variance of the bounded margins, which decides, and of the margins themselves."""
    return {"variance": float(torch.tanh(margins / 2).var()), "margin_variance": float(margins.var())}


def _summarise(folder: Path, questions: QuestionSet, threshold: float) -> FilterResult:
    found = {row["id"]: row for row in _margins(folder)}
    for row in found.values():  # earlier releases wrote the variance of the margins themselves
        if "margins" in row:
            row.update(variances(torch.tensor(row["margins"])))
    variance = {name: row["variance"] for name, row in found.items() if "variance" in row}
    kept = {name for name, value in variance.items() if value > threshold}
    complete = len(found) >= len(questions)
    result = FilterResult(folder, complete, len(variance), len(kept), len(found) - len(variance))
    if not complete:
        return result
    lines: list[str] = []
    by_category: dict[str, list[int]] = {}
    for question in questions.questions:
        row = found[question.id]
        total = by_category.setdefault(question.category or "all", [0, 0])
        total[1] += 1
        if question.id in kept:
            total[0] += 1
            extra = {name: row[name] for name in ("margins", "variance", "margin_variance")}
            lines.append(
                json.dumps({**as_row(question), "video": _absolute(question.video), **extra}, ensure_ascii=False)
            )
    write_text(folder / KEPT, "".join(line + "\n" for line in lines))
    summary = {
        "questions": len(questions), "probed": result.probed, "kept": result.kept, "unreadable": result.unreadable,
        "threshold": threshold, "categories": {name: {"kept": k, "of": n} for name, (k, n) in by_category.items()},
    }  # fmt: skip
    write_text(folder / SUMMARY, json.dumps(summary, indent=1))
    _draw(np.array(list(variance.values())), threshold, folder / HISTOGRAM)
    for name, (k, n) in by_category.items():
        if n >= 20 and k < n / 20:
            logger.warning(
                "category %r keeps %d of %d questions: what it asks may need frames from everywhere", name, k, n
            )
    return result


def _draw(variance: np.ndarray, threshold: float, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    shown = np.log10(np.maximum(variance, 1e-4))
    axis.hist(shown, bins=40, color="#9db8d6")
    axis.axvline(np.log10(max(threshold, 1e-4)), color="#b4562b", linewidth=1.5)
    kept = float((variance > threshold).mean()) if len(variance) else 0.0
    axis.set_title(f"{kept:.0%} of {len(variance)} questions lie above {threshold:g}", fontsize=10, loc="left")
    ticks = np.arange(-4, np.ceil(shown.max() if len(shown) else 0) + 1)
    axis.set_xticks(ticks, [f"{10**t:g}" for t in ticks])
    axis.set_xlabel("sample variance of the bounded margins, 16/15 at most (up to 0.0001 in the first bar)")
    axis.set_ylabel("questions")
    axis.spines[["top", "right"]].set_visible(False)
    with replacing(path) as scratch:
        figure.savefig(scratch, dpi=110)


def _margins(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.glob("margins-*.jsonl")):
        yield from rows(path)


def _mend(path: Path) -> None:
    """Cut off the half line that a killed process left."""
    with suppress(FileNotFoundError):
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            with path.open("rb+") as file:
                file.truncate(whole)


def _same_identity(folder: Path, questions: QuestionSet, reward_model: RewardModel, num_frames: int) -> None:
    identity = {
        "questions": questions.fingerprint,
        "reference": [reference.fingerprint for reference in reward_model.references],
        "num_frames": num_frames,
    }
    path = folder / "identity.json"
    if not path.exists():
        write_text(path, json.dumps(identity))
        return
    before = read_object(path)
    changed = [name for name in identity if before.get(name) != identity[name]]
    if changed:
        raise InputError(
            f"{folder} holds margins for other {', '.join(changed)}; give another filter.out, or remove this folder"
        )


def _absolute(video: str) -> str:
    return video if "://" in video or not Path(video).exists() else str(Path(video).absolute())
