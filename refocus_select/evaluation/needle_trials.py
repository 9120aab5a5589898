"""Trials of needle in a haystack: kept as lines of JSON, summed up as recall, drawn as heat maps."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..pictures import drawable
from ..plain_text import json_text, parse_json
from .records import from_row, writing

_RESAMPLES = 2000


@dataclass(frozen=True)
class Trial:
    """One question about one haystack.

    Attributes:
        selector: who chose.
        needle: what was hidden.
        length: candidates N, the needle among them.
        depth: 0 for the begin of the video, 1 for its end.
        num_frames: how many were chosen, K.
        position: where the needle's first frame lies among the candidates.
        size: frames of the needle.
        picked: positions that were chosen.
        found: how many frames of the needle are among them.
    """

    selector: str
    needle: str
    length: int
    depth: float
    num_frames: int
    position: int
    size: int
    picked: tuple[int, ...]
    found: int

    @property
    def key(self) -> tuple[str, str, int, float, int]:
        """What tells trials apart."""
        return self.selector, self.needle, self.length, self.depth, self.num_frames


@dataclass(frozen=True)
class NeedleScore:
    """Result of one selector.

    Attributes:
        selector: who chose.
        trials: how many.
        recall: share of trials in which the needle was found.
        low: lower end of the 95 % bootstrap interval over needles; nan for a single needle.
        high: upper end.
        worst: recall of the worst cell (length, depth).
        chance: what drawing K of N candidates at random would have found on average.
    """

    selector: str
    trials: int
    recall: float
    low: float
    high: float
    worst: float
    chance: float


def summarise(trials: Sequence[Trial]) -> list[NeedleScore]:
    """One line per selector, in the order of first appearance.

    The interval resamples needles, not trials: depths of the same needle are not independent evidence.
    """
    scores = []
    for selector in dict.fromkeys(trial.selector for trial in trials):
        own = [trial for trial in trials if trial.selector == selector]
        found = np.array([trial.found > 0 for trial in own], dtype=float)
        needles = list(dict.fromkeys(trial.needle for trial in own))
        means = np.array([found[[trial.needle == needle for trial in own]].mean() for needle in needles])
        low = high = float("nan")
        if len(means) > 1:
            generator = np.random.default_rng(0)
            drawn = means[generator.integers(0, len(means), (_RESAMPLES, len(means)))].mean(axis=1)
            low, high = (float(value) for value in np.quantile(drawn, [0.025, 0.975]))
        chance = np.mean([_chance(trial) for trial in own])
        worst = float(np.nanmin(recall_grid(own)[0]))
        scores.append(NeedleScore(selector, len(own), float(found.mean()), low, high, worst, float(chance)))
    return scores


def recall_grid(trials: Sequence[Trial]) -> tuple[np.ndarray, list[float], list[int]]:
    """Recall over depths and lengths of one selector.

    Returns:
        [depths, lengths] with nan where nothing was tried, the depths, and the lengths.
    """
    depths = sorted({trial.depth for trial in trials})
    lengths = sorted({trial.length for trial in trials})
    won, tried = np.zeros((2, len(depths), len(lengths)))
    for trial in trials:
        cell = depths.index(trial.depth), lengths.index(trial.length)
        won[cell] += trial.found > 0
        tried[cell] += 1
    return np.where(tried > 0, won / np.maximum(tried, 1), np.nan), depths, lengths


def draw_heat_maps(trials: Sequence[Trial], path: str | os.PathLike[str]) -> Path:
    """Draw recall over depth and length, one map per selector, as in the paper's V-NIAH figure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    scores = summarise(trials)
    columns = min(3 if len(scores) <= 9 else 5, len(scores))
    rows = -(-len(scores) // columns)
    figure = Figure(figsize=(4.6 * columns, 3.9 * rows), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    for number, score in enumerate(scores):
        grid, depths, lengths = recall_grid([trial for trial in trials if trial.selector == score.selector])
        axis = figure.add_subplot(rows, columns, number + 1)
        shown = axis.imshow(grid, vmin=0, vmax=1, cmap="RdYlGn", aspect="auto")
        axis.set_title(f"{drawable(score.selector)}: {score.recall:.2f}", fontsize=11)
        axis.set_xticks(range(len(lengths)), [str(length) for length in lengths], fontsize=8)
        axis.set_yticks(range(len(depths)), [f"{100 * depth:.0f} %" for depth in depths], fontsize=8)
        axis.set_xlabel("candidate frames", fontsize=8)
        axis.set_ylabel("depth of the needle", fontsize=8)
        if number == len(scores) - 1:
            figure.colorbar(shown, ax=figure.axes, label="recall", shrink=0.7)
    target = Path(path)
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(target)
    return target


def write_trial(trial: Trial, file: Any) -> None:
    """Append a trial to an open text file as one line of JSON, at once."""
    with writing(Path(file.name)):
        file.write(json_text(asdict(trial)) + "\n")
        file.flush()


def read_trials(path: str | os.PathLike[str]) -> list[Trial]:
    """Trials that `write_trial` wrote; a last line that an interrupted run left half written is cut off the file.

    Raises:
        InputError: if the file holds something else.
    """
    source = Path(path)
    if not source.is_file():
        return []
    try:
        text = source.read_bytes()
        complete = text[: text.rfind(b"\n") + 1]
        trials = [from_row(Trial, parse_json(line)) for line in complete.split(b"\n")[:-1]]
        if any(trial.length < 1 or trial.size < 1 or trial.num_frames < 1 for trial in trials):
            raise ValueError("a trial without candidates or frames")
    except (OSError, ValueError) as error:
        raise InputError(f"{source} holds no trials of this evaluation ({error}); choose another folder") from error
    if len(complete) < len(text):
        with writing(source), source.open("r+b") as file:
            file.truncate(len(complete))
    return trials


def _chance(trial: Trial) -> float:
    """Probability that K of N candidates drawn at random hold a frame of the needle."""
    missed = 1.0
    for step in range(trial.size):
        missed *= max(0, trial.length - trial.num_frames - step) / (trial.length - step)
    return 1 - missed


def table(scores: Sequence[NeedleScore]) -> str:
    """The scores as a table in Markdown."""
    lines = ["| selector | recall | 95 % interval | worst cell | chance | trials |", "|---|---|---|---|---|---|"]
    for score in scores:
        interval = "–" if np.isnan(score.low) else f"{score.low:.3f} – {score.high:.3f}"
        lines.append(
            f"| {score.selector} | {score.recall:.3f} | {interval} | {score.worst:.2f} | {score.chance:.3f} | "
            f"{score.trials} |"
        )
    return "\n".join(lines)
