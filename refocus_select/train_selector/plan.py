"""What a run would do and cost, found out by doing one step of every stage and keeping nothing."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from .process_group import ProcessGroup
from .run_setup import RunSetup
from .trainer import Trainer


def plan(setup: RunSetup, processes: ProcessGroup) -> str:
    """The resolved plan as text. Changes the weights in memory, so train with freshly loaded ones."""
    config, policy = setup.config, setup.policy
    trained = sum(p.numel() for p in policy.parameters() if p.requires_grad)
    total = sum(p.numel() for p in policy.parameters())
    lines = [
        f"questions      {len(setup.train)} to learn from ({setup.train.name}), "
        f"{len(setup.validation)} for validation, "
        f"{len(setup.test)} for the report",
        f"policy         {total:,} parameters, {trained:,} trained; {policy.model.config.n_layer} blocks of width "
        f"{policy.model.config.d_model}; on {processes.device}",
        f"reference      {', '.join(r.name for r in setup.reward_model.references)}; reward {setup.reward_model.kind}",
        f"output         {config.output}",
        "",
        "stage  method      frames      steps  rollouts  entropy bonus   s/step     hours",
    ]
    hours = 0.0
    with tempfile.TemporaryDirectory() as scratch:
        trainer = Trainer(
            config, policy, setup.reward_model, setup.train, setup.validation, processes=processes, folder=Path(scratch)
        )
        for number, stage in enumerate(config.stages):
            trainer.progress.stage, trainer.progress.stage_step = number, 0
            trainer.step()  # the first one fills caches
            trainer.progress.stage_step = 1
            started = time.perf_counter()
            trainer.step()
            seconds = time.perf_counter() - started
            hours += seconds * stage.steps / 3600
            frames = ", ".join(map(str, stage.num_frames))
            end = stage.entropy_bonus if stage.entropy_bonus_end is None else stage.entropy_bonus_end
            bonus = f"{stage.entropy_bonus:g} to {end:g}"
            lines.append(
                f"{number:>5}  {stage.method:<10}  {frames:<10}  {stage.steps:>5}  {stage.rollouts:>8}  {bonus:<13}  "
                f"{seconds:7.3f}  {seconds * stage.steps / 3600:8.2f}"
            )
        times = 1 + config.total_steps // config.validation.every
        started = time.perf_counter()
        trainer.evaluate(None)
        seconds = time.perf_counter() - started
    hours += seconds * times / 3600
    scored = sum(s.steps * s.rollouts for s in config.stages if s.method == "reinforce") * config.optimiser.batch
    lines += [
        f"       held-out    {times} times {seconds:.1f} s",
        "",
        f"in all         {config.total_steps} steps, {scored:,} rollouts, about {hours:.2f} hours if no stage ends "
        "early and features are cached as in this trial",
    ]
    return "\n".join(lines)
