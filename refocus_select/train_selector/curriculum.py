"""Where a run is, and the rules that lead it from stage to stage: rates, bonuses, early ends."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .config import StageConfig, TrainConfig

WINDOW = 20
"""Steps over which rewards are averaged for the rules."""


@dataclass
class Progress:
    """Where a run is: what a checkpoint holds besides weights."""

    step: int = 0
    stage: int = 0
    stage_step: int = 0
    recent: list[float] = field(default_factory=list)
    stage_reward: float | None = None
    plateau_best: float = -math.inf
    plateau_step: int = 0
    collapsed: int = 0
    lr_factor: float = 1.0
    drifting: int = 0
    rollbacks: int = 0
    best_reward: float | None = None
    best_step: int = 0
    skipped: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    done: list[int] = field(default_factory=list)  # steps of the stages that are over
    planned: list[int] = field(default_factory=list)  # steps of all stages, as the settings were
    validation: str = ""  # what `best_reward` was found on
    processes: int = 0


def planned_steps(config: TrainConfig, now: Progress) -> int:
    """Steps of the plan that are behind us; a stage that ended early counts whole."""
    return sum(stage.steps for stage in config.stages[: now.stage]) + now.stage_step


def next_step(config: TrainConfig, now: Progress) -> tuple[int, int] | None:
    """Stage and step within it after the next one, if no stage ends early."""
    if now.stage_step + 1 < config.stages[now.stage].steps:
        return now.stage, now.stage_step + 1
    return (now.stage + 1, 0) if now.stage + 1 < len(config.stages) else None


def reopen(config: TrainConfig, now: Progress) -> bool:
    """Take the last stage of a finished run up again if it has got more steps since.

    Returns:
        Whether that is so.
    """
    over = bool(now.done) and now.stage == len(now.planned)
    if not over or not now.done[-1] == now.planned[-1] < config.stages[now.stage - 1].steps:
        return False
    now.stage, now.stage_step = now.stage - 1, now.done.pop()
    return True


def learning_rate(config: TrainConfig, now: Progress) -> float:
    """Warm-up, constant, linear fall; times what rollbacks have taken off."""
    schedule = config.optimiser
    base = config.stages[now.stage].lr or schedule.lr
    if now.step < schedule.warmup_steps:
        return base * now.lr_factor * (now.step + 1) / schedule.warmup_steps
    done = planned_steps(config, now) / config.total_steps
    if done <= schedule.decay_from:
        return base * now.lr_factor
    fall = (done - schedule.decay_from) / (1 - schedule.decay_from)
    return base * now.lr_factor * (1 - (1 - schedule.final) * fall)


def entropy_bonus(config: TrainConfig, now: Progress) -> float:
    """Beta of the next step."""
    stage = config.stages[now.stage]
    start, end = stage.entropy_bonus, stage.entropy_bonus_end
    return start if end is None else start + (end - start) * now.stage_step / stage.steps


def advance(config: TrainConfig, now: Progress, numbers: dict[str, Any]) -> None:
    """Count a step, and go on to the next stage if its rules say so.

    Args:
        config: of the run.
        now: changed in place.
        numbers: of the step; "reward" and "entropy" if it was one of reinforcement.
    """
    stage = config.stages[now.stage]
    now.step += 1
    now.stage_step += 1
    if "reward" in numbers:
        now.recent = [*now.recent[-WINDOW + 1 :], numbers["reward"]]
    if now.stage_step < stage.steps and not _ends_early(stage, now):
        return
    now.done.append(now.stage_step)
    now.stage, now.stage_step = now.stage + 1, 0
    now.recent, now.stage_reward, now.collapsed = [], None, 0
    now.plateau_best, now.plateau_step = -math.inf, 0
    if now.stage < len(config.stages) and config.stages[now.stage].method != stage.method:
        now.best_reward = None  # drift is measured anew: warm starts may end far from where rewards lead


def _ends_early(stage: StageConfig, now: Progress) -> bool:
    if len(now.recent) < WINDOW or now.stage_step < stage.min_steps:
        return False
    mean = float(np.mean(now.recent))
    if stage.reward_above is not None and mean > stage.reward_above:
        return True
    if stage.plateau is None:
        return False
    if mean > now.plateau_best + stage.plateau_gain:
        now.plateau_best, now.plateau_step = mean, now.stage_step
    return now.stage_step - now.plateau_step >= stage.plateau
