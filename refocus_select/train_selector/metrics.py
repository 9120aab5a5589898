"""Metrics of a run: JSON lines, TensorBoard or Weights & Biases, and a plot of the learning curves."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..files import replacing, write_text
from .config import TrainConfig
from .data import rows

logger = logging.getLogger(__name__)

LOG = "log.jsonl"


class Tracker(Protocol):
    """Where numbers are shown besides `log.jsonl`."""

    def log(self, values: dict[str, float], step: int) -> None:
        """Show numbers of a step."""

    def close(self) -> None:
        """No more will come."""


class TensorBoard:
    """Files for TensorBoard in the run's folder."""

    def __init__(self, folder: Path, config: TrainConfig, last: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=last + 1)

    def log(self, values: dict[str, float], step: int) -> None:
        """See `Tracker`."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """See `Tracker`."""
        self._writer.close()


class WandB:
    """Weights & Biases; the project, the server and offline mode are set by its own environment variables.

    A resumed run goes on in the same W&B run. W&B takes no row of a step that is over, so that rows which a killed run
    wrote after its last checkpoint stay as they are.
    """

    def __init__(self, folder: Path, config: TrainConfig, last: int) -> None:
        import wandb

        identity = hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:16]
        self._run = wandb.init(id=identity, name=folder.name, dir=str(folder), config=config.to_dict(), resume="allow")

    def log(self, values: dict[str, float], step: int) -> None:
        """See `Tracker`."""
        self._run.log(values, step=step)

    def close(self) -> None:
        """See `Tracker`."""
        self._run.finish()


TRACKERS: dict[str, Callable[[Path, TrainConfig, int], Tracker]] = {"tensorboard": TensorBoard, "wandb": WandB}
"""By the names of `trackers`; add yours before a run starts."""


class MetricsLogger:
    """Writes metrics by step.

    A resumed run drops the rows after its checkpoint, so that every step is logged once.
    """

    def __init__(self, folder: Path, config: TrainConfig, *, last: int) -> None:
        """Open the log of `folder` and drop rows of steps after `last`; -1 drops all."""
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / LOG
        kept = [row for row in rows(self._path) if row["step"] <= last]
        write_text(self._path, "".join(json.dumps(row) + "\n" for row in kept))
        self._file = self._path.open("a", encoding="utf-8")
        self._trackers = [tracker for name in config.trackers if (tracker := _tracker(name, folder, config, last))]

    def log(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Add a row; its numbers are shown as "kind/name" by the trackers, with K if there are several."""
        self._file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
        self._file.flush()
        where = f"{kind}/{values['num_frames']} frames" if kind == "held_out" else kind
        numbers = {f"{where}/{name}": float(v) for name, v in values.items() if isinstance(v, int | float)}
        for tracker in self._trackers:
            tracker.log(numbers, step)

    def close(self) -> None:
        """Flush and close the files."""
        self._file.close()
        for tracker in self._trackers:
            tracker.close()


def _tracker(name: str, folder: Path, config: TrainConfig, last: int) -> Tracker | None:
    try:
        return TRACKERS[name](folder, config, last)
    except ImportError:
        extra = "'refocus-select[train]'" if name == "tensorboard" else name
        logger.warning("nothing is sent to %s: pip install %s for that; %s holds everything", name, extra, LOG)
        return None


def read_log(folder: Path) -> list[dict[str, Any]]:
    """All rows of a run, in order."""
    return list(rows(folder / LOG))


def draw_curves(log: Sequence[dict[str, Any]], path: Path) -> Path:
    """Reward, entropy, gradient norm and held-out accuracy over the steps, stages marked.

    Args:
        log: rows of a run.
        path: of the picture (.png).
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    steps = [row for row in log if row["kind"] == "train"]
    held_out = [row for row in log if row["kind"] == "held_out"]
    figure = Figure(figsize=(10, 6.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 2, sharex=True)
    for axis, name, title in (
        (axes[0, 0], "reward", "reward of the rollouts"),
        (axes[0, 1], "entropy", "entropy per pick, nats"),
        (axes[1, 0], "zero_variance", "questions whose rollouts are equally good, share"),
    ):
        x = np.array([row["step"] for row in steps if name in row])
        y = np.array([row[name] for row in steps if name in row], dtype=float)
        axis.set_title(title, fontsize=10, loc="left")
        if len(x):
            axis.plot(x, y, color="#9db8d6", linewidth=0.8)
            smooth = _smoothed(y)
            axis.plot(x[-len(smooth) :], smooth, color="#1f4e8c", linewidth=1.6)
    axis = axes[1, 1]
    axis.set_title("held-out accuracy of the reference model", fontsize=10, loc="left")
    colours = ("#1f4e8c", "#2a8f5b", "#b4562b", "#7a4fa3")
    for colour, k in zip(colours, sorted({row["num_frames"] for row in held_out}), strict=False):
        here = [row for row in held_out if row["num_frames"] == k]
        x = np.array([row["step"] for row in here])
        axis.plot(
            x, [row["accuracy"] for row in here], marker="o", markersize=3, color=colour, label=f"policy, {k} frames"
        )
        axis.plot(
            x, [row["uniform_accuracy"] for row in here], linestyle=":", color=colour, label=f"uniform, {k} frames"
        )
    if held_out:
        axis.legend(fontsize=8, frameon=False)
    borders = [b["step"] for a, b in pairwise(steps) if a["stage"] != b["stage"]]
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
        for border in borders:
            axis.axvline(border, color="#999999", linewidth=0.8, linestyle="--")
    for axis in axes[1]:
        axis.set_xlabel("step")
    with replacing(path) as scratch:
        figure.savefig(scratch, dpi=110)
    return path


def _smoothed(y: np.ndarray, width: int = 20) -> np.ndarray:
    if len(y) < 2 * width:
        return y
    return np.convolve(y, np.ones(width) / width, mode="valid")
