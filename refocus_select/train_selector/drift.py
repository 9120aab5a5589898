"""What watches over a run: drift and the way back from it, and collapse.

A run needs none of it: it is one callback, which `Trainer(callbacks=[])` leaves out.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..errors import TrainingError
from ..files import replacing
from .checkpoints import at_step, load_checkpoint
from .config import TrainConfig
from .curriculum import WINDOW, Progress
from .metrics import MetricsLogger

if TYPE_CHECKING:
    from .trainer import Trainer

logger = logging.getLogger(__name__)

ANCHOR = "anchor.safetensors"  # first picks of the policy at the start of RL, by question


class Callback:
    """Is told what happens in a run. What it has to remember belongs into `Progress`, which checkpoints hold."""

    def on_start(self, trainer: Trainer, resumed: bool) -> None:
        """Before the first step."""

    def on_step(self, trainer: Trainer, numbers: dict[str, Any]) -> None:
        """After a step, which is counted already."""

    def on_evaluation(self, trainer: Trainer, reward: float, better: bool, metrics: MetricsLogger | None) -> None:
        """After an evaluation on held-out questions; `better` if it is the best so far."""


class DriftMonitor(Callback):
    """Goes back to the best policy when the policy drifts, and ends a run that has collapsed.

    Drift is a held-out reward far below the best one, or a first pick far from that at the start of RL (RL-FrameSel).
    """

    def on_start(self, trainer: Trainer, resumed: bool) -> None:
        """See `Callback`."""
        if not resumed and trainer.processes.is_main_process:
            (trainer.folder / ANCHOR).unlink(missing_ok=True)

    def on_step(self, trainer: Trainer, numbers: dict[str, Any]) -> None:
        """See `Callback`."""
        if "reward" in numbers and trainer.progress.stage_step:  # not right after the end of a stage
            check_collapse(trainer.config, trainer.progress, numbers["entropy"])

    def on_evaluation(self, trainer: Trainer, reward: float, better: bool, metrics: MetricsLogger | None) -> None:
        """See `Callback`."""
        now, validation = trainer.progress, trainer.config.validation
        kl = divergence(trainer)
        if metrics and kl is not None:
            metrics.log("drift", now.step, {"kl": kl})
        if better or now.best_reward is None:
            now.drifting = 0
            return
        far = validation.max_kl is not None and kl is not None and kl > validation.max_kl
        low = validation.max_drop is not None and reward < now.best_reward - validation.max_drop
        now.drifting = now.drifting + 1 if far or low else 0
        if now.drifting >= validation.patience:
            roll_back(trainer, reward)


def roll_back(trainer: Trainer, reward: float) -> None:
    """Restore the best policy, and lower the learning rate.

    Raises:
        TrainingError: if that has been done too often.
    """
    now, validation = trainer.progress, trainer.config.validation
    best = at_step(trainer.checkpoints, now.best_step)
    if now.rollbacks >= validation.max_rollbacks:
        raise TrainingError(
            f"step {now.step}: drift again after {now.rollbacks} rollbacks (held-out reward {reward:.3f}, best "
            f"{now.best_reward:.3f} at step {now.best_step}). Lower optimiser.lr or raise entropy_bonus; the best "
            f"checkpoint is {best}"
        )
    load_checkpoint(best, trainer.policy, trainer.optimiser)
    now.rollbacks, now.drifting, now.lr_factor = now.rollbacks + 1, 0, now.lr_factor * validation.lr_factor
    logger.warning(
        "step %d: held-out reward %.3f after %.3f at step %d; restored that policy, learning rate times %g",
        now.step, reward, now.best_reward, now.best_step, now.lr_factor,
    )  # fmt: skip


def divergence(trainer: Trainer) -> float | None:
    """KL of the first pick from the policy at the start of RL, in nats; None before that."""
    methods = [stage.method for stage in trainer.config.stages[: trainer.progress.stage + 1]]
    if "reinforce" not in methods:
        return None
    path = trainer.folder / ANCHOR
    current: dict[str, Tensor] = {}
    for part in trainer.processes.gather(trainer.comparison.first_picks):
        current.update(part)
    if trainer.processes.is_main_process and not path.exists():
        with replacing(path) as scratch:
            save_file({name: row.contiguous() for name, row in current.items()}, scratch)
    trainer.processes.barrier()
    anchor = load_file(path)
    known = [(row, anchor[name]) for name, row in current.items() if name in anchor]
    return sum(float((row.exp() * (row - old)).nansum()) for row, old in known) / max(1, len(known))


def check_collapse(config: TrainConfig, now: Progress, entropy: float) -> None:
    """A policy that draws the same subset again and again learns no more; stop if it has not learned anything.

    Raises:
        TrainingError: then.
    """
    validation = config.validation
    if len(now.recent) == WINDOW and now.stage_reward is None:
        now.stage_reward = float(np.mean(now.recent))
    now.collapsed = now.collapsed + 1 if entropy < validation.min_entropy else 0
    if now.collapsed < validation.collapse_steps or now.stage_reward is None:
        return
    mean = float(np.mean(now.recent))
    if mean <= now.stage_reward + 1e-3:
        raise TrainingError(
            f"step {now.step}: the policy has collapsed: its entropy was below {validation.min_entropy:g} nats for "
            f"{now.collapsed} steps, and the reward ({mean:.3f}) is not above that of the stage's beginning "
            f"({now.stage_reward:.3f}). Raise entropy_bonus or lower optimiser.lr; the best checkpoint is that of step "
            f"{now.best_step}"
        )
