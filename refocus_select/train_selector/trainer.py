"""The training loop: draw subsets, let the reference model answer from them, and make the better ones likelier.

Read `Trainer.run` first, then `Trainer._reinforce`. Every random choice is a function of the seed and the step, so a
resumed run repeats exactly what an uninterrupted one would have done.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import TrainingError
from ..files import write_text
from ..reference import Request
from .checkpoints import at_step, clean, load_checkpoint, numbered, save_checkpoint
from .compare import PREFIXES, Item, UnreadableItem, compared, grouped, score_readable, validation_frames
from .config import StageConfig, TrainConfig
from .curriculum import Progress, advance, entropy_bonus, learning_rate, next_step, planned_steps
from .data import Batches, QuestionSet, seeded, usable
from .drift import Callback, DriftMonitor
from .explain import changes, not_finite, out_of_memory
from .imitate import imitate
from .initialise import parameter_groups
from .loader import ItemLoader, workers_of
from .metrics import MetricsLogger
from .objective import CREDITS, Credits, advantages, prefix_subsets, surrogate
from .policy import Policy, Rollouts
from .process_group import ProcessGroup
from .reward import Reward, RewardModel

logger = logging.getLogger(__name__)


class Trainer:
    """One training run."""

    def __init__(
        self,
        config: TrainConfig,
        policy: Policy,
        reward_model: RewardModel,
        train: QuestionSet,
        held_out: QuestionSet,
        *,
        processes: ProcessGroup,
        folder: Path,
        progress_bar: bool | None = None,
        callbacks: Sequence[Callback] | None = None,
    ) -> None:
        """Prepare a run; `folder` receives checkpoints and logs, `callbacks` are told (default: `DriftMonitor`).

        Raises:
            InputError: if a stage names categories that no question has.
        """
        self.config, self.policy, self.reward_model, self.processes = config, policy, reward_model, processes
        self.folder, self.checkpoints = folder, folder / "checkpoints"
        self.progress = Progress()
        self.comparison = compared(config, policy, reward_model, held_out, processes)
        self.optimiser = torch.optim.AdamW(parameter_groups(policy, config.optimiser.weight_decay), config.optimiser.lr)
        self.callbacks = [DriftMonitor()] if callbacks is None else list(callbacks)
        processes.same_weights(policy)
        stages = [
            Batches(usable(train, stage), config.optimiser.batch, (config.seed, 2, number))
            for number, stage in enumerate(config.stages)
        ]
        self._loader = ItemLoader(policy, train, stages, processes, workers_of(config, train))
        self._bar = progress_bar

    # -- the loop -------------------------------------------------------------------------------------

    def run(self) -> None:
        """Train until the last stage is over, from the last checkpoint if there is one.

        Raises:
            TrainingError: if the numbers are no longer finite, the policy has collapsed, or drifts again and again.
        """
        from tqdm import tqdm

        resumed = self._resume()
        main = self.processes.is_main_process
        metrics = MetricsLogger(self.folder, self.config, last=self.progress.step if resumed else -1) if main else None
        disable = True if not main else None if self._bar is None else not self._bar
        done = planned_steps(self.config, self.progress)
        try:
            with tqdm(total=self.config.total_steps, initial=done, unit="step", disable=disable) as bar:
                for callback in self.callbacks:
                    callback.on_start(self, resumed)
                if self.progress.best_reward is None:
                    self.evaluate(metrics)
                    self.save()
                while self.progress.stage < len(self.config.stages):
                    numbers = self.step()
                    advance(self.config, self.progress, numbers)
                    for callback in self.callbacks:
                        callback.on_step(self, numbers)
                    if metrics:
                        metrics.log("train", self.progress.step, numbers)
                    bar.n = planned_steps(self.config, self.progress)
                    bar.set_postfix({k: f"{numbers[k]:.3f}" for k in ("reward", "entropy") if k in numbers})
                    over = self.progress.stage == len(self.config.stages)
                    better = False
                    if over or self.progress.stage_step == 0 or self.progress.step % self.config.validation.every == 0:
                        better = self.evaluate(metrics)
                    if over or better or self.progress.step % self.config.checkpoint_every == 0:
                        self.save()
        finally:
            self._loader.close()
            if metrics:
                metrics.close()

    @property
    def stage(self) -> StageConfig:
        """The stage that the next step belongs to."""
        return self.config.stages[self.progress.stage]

    def step(self) -> dict[str, Any]:
        """One optimiser step."""
        started = time.perf_counter()
        stage, now = self.stage, self.progress
        num_frames = int(np.random.default_rng([self.config.seed, 3, now.step]).choice(stage.num_frames))
        lr = learning_rate(self.config, self.progress)
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        self.policy.train()
        try:
            items = self._items()
            learn = self._reinforce if stage.method == "reinforce" else partial(imitate, self)
            numbers = learn(items, num_frames)
        except torch.OutOfMemoryError as error:
            raise out_of_memory(self, num_frames, str(error)) from error
        return {
            "stage": now.stage,
            "num_frames": num_frames,
            "lr": lr,
            **numbers,
            "skipped": len(now.skipped),
            "seconds": time.perf_counter() - started,
        }

    def _reinforce(self, items: list[Item], num_frames: int) -> dict[str, Any]:
        """Rollouts, rewards, advantages, gradient."""
        objective, device = self.config.objective, self.processes.device
        groups = self.groups(items)
        # The graph of a reading is kept until its rewards are known, so that prompts are read once.
        limit = self.policy.readings_kept if objective.passes == 1 else 0
        kept = [limit is None or number < limit for number in range(len(groups))]
        drawn = []
        with self.timed("rollouts"):
            for number, group in enumerate(groups):
                with torch.set_grad_enabled(kept[number]):
                    drawn.append(self.forward(group, None, num_frames, number))
        with self.timed("reference"):
            scored = [self._score(group, rollouts.picks) for group, rollouts in zip(groups, drawn, strict=True)]
            credits = [self._credits(*one) for one in zip(groups, drawn, scored, strict=True)]
        everywhere = [part for parts in self.processes.gather([c.values for c in credits]) for part in parts]
        questions = sum(map(len, everywhere))
        values = [advantages(c.values, objective.advantage, everywhere=everywhere) for c in credits]
        informative = sum(self.processes.gather(sum(int(v.informative.sum()) for v in values)))

        # Scaled by its own deviation, a question without information would only dilute the others, and is dropped.
        counted = max(informative, 1) if objective.advantage == "group" else questions
        beta = entropy_bonus(self.config, self.progress)
        with self.timed("gradient"):
            for _ in range(objective.passes):
                self.optimiser.zero_grad(set_to_none=True)
                for number, group in enumerate(groups):
                    before, credit = drawn[number], credits[number]
                    now = before if kept[number] else self.forward(group, before.picks, num_frames)
                    weight = values[number].values.to(device)
                    gain = surrogate(now.log_probs, before.log_probs.detach(), weight, objective.clip)
                    if credit.gains is not None and now.remaining is not None:
                        error = now.remaining[..., 1:] - credit.gains.to(device)
                        gain = gain - error.square().sum(-1).mean(1)
                    bonus = beta * now.entropy.sum(-1).mean(1)  # [B], over the whole subset
                    (-(gain.sum() / counted + bonus.sum() / questions)).backward()
                norm = self.apply()

        answers = [reward for group in scored for reward in group]
        entropy = [float(e) for d in drawn for e in d.entropy.detach().mean((1, 2))]
        rows = list(zip(*((j.value.mean(), j.margin.mean(), j.correct.mean()) for j in answers), strict=True))
        sums = self.processes.gather([float(sum(column)) for column in [*rows, entropy]] if answers else [0.0] * 4)
        means = (sum(column) / questions for column in zip(*sums, strict=True))
        return {
            **dict(zip(("reward", "margin", "accuracy", "entropy"), means, strict=True)),
            "zero_variance": 1 - informative / questions,
            "gradient_norm": norm,
            "entropy_bonus": beta,
            "questions": questions,
        }

    # -- parts of a step ------------------------------------------------------------------------------

    def _items(self) -> list[Item]:
        """The questions of this process in this step; unreadable videos are left out and counted."""
        now, items = self.progress, []
        with self.timed("inputs"):
            for place, item in self._loader.items(now.stage, now.stage_step, next_step(self.config, now)):
                if isinstance(item, UnreadableItem):
                    self._skip(item.id, item.reason)
                else:
                    generator = torch.Generator().manual_seed(seeded(self.config.seed, 6, now.step, place))
                    items.append(replace(item, inputs=self.policy.augment(item.inputs, generator)))
        if not any(self.processes.gather(len(items))):
            raise TrainingError(
                f"step {now.step}: not one video of the batch can be read, e.g. of question "
                f"{next(iter(now.skipped), None)}; check data.train"
            )
        return items

    def groups(self, items: Sequence[Item]) -> list[list[Item]]:
        rows = grouped(self.policy, [item.inputs for item in items], self.config.optimiser.micro_batch)
        return [[items[i] for i in group] for group in rows]

    def forward(self, group: Sequence[Item], picks: Tensor | None, num_frames: int, number: int = 0) -> Rollouts:
        device = self.processes.device
        seed = seeded(self.config.seed, 5, self.progress.step, self.processes.rank, number)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.config.optimiser.mixed_precision == "bf16"):
            try:
                rollouts: Rollouts = self.policy(
                    [item.inputs for item in group],
                    picks,
                    rollouts=self.stage.rollouts,
                    steps=num_frames,
                    temperature=self.config.objective.temperature,
                    generator=torch.Generator(device).manual_seed(seed),
                )
            except FloatingPointError as error:
                raise not_finite(self, str(error)) from error
        return rollouts

    def _credits(self, group: Sequence[Item], rollouts: Rollouts, rewards: Sequence[Reward]) -> Credits:
        """What is learned from: rewards, or credits of single picks."""

        def before() -> Tensor:
            subsets = prefix_subsets(rollouts.picks.cpu(), rollouts.distributions.shape[-1])  # [B, N, K - 1, K]
            scored = torch.stack([reward.value for reward in self._score(group, subsets.flatten(1, 2))])
            return scored.unflatten(1, subsets.shape[1:3])

        objective = self.config.objective
        kind = objective.credit if rollouts.picks.shape[-1] > 1 else "subset"
        return CREDITS[kind](torch.stack([reward.value for reward in rewards]), before, objective.credit_decay)

    def _score(self, group: Sequence[Item], subsets: Tensor) -> list[Reward]:
        """Score [B, N, K] subsets; a video that cannot be read any more teaches nothing in this step."""
        ordered = subsets.cpu().sort(-1).values
        requests = [Request(item.question, item.clip, picks) for item, picks in zip(group, ordered, strict=True)]
        scored = []
        for reward in score_readable(self.reward_model, requests):
            if isinstance(reward, UnreadableItem):
                self._skip(reward.id, reward.reason)
                zeros = torch.zeros(subsets.shape[1])
                reward = Reward(zeros, zeros, zeros)
            scored.append(reward)
        return scored

    def _skip(self, identity: str, reason: str) -> None:
        if identity not in self.progress.skipped:
            logger.warning("question %s is left out: %s", identity, reason)
            self.progress.skipped[identity] = reason

    def apply(self) -> float:
        """Sum the gradients of all processes, clip them, and take the step."""
        self.processes.sum_gradients(self.policy)
        trained = [p for p in self.policy.parameters() if p.requires_grad]
        norm = torch.nn.utils.clip_grad_norm_(trained, self.config.optimiser.gradient_norm)
        if not bool(torch.isfinite(norm)):
            raise not_finite(self, "the gradient is not finite", gradient=True)
        self.optimiser.step()
        return float(norm)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.progress.seconds[name] = self.progress.seconds.get(name, 0.0) + time.perf_counter() - started

    # -- between steps --------------------------------------------------------------------------------

    def evaluate(self, metrics: MetricsLogger | None) -> bool:
        """Answer held-out questions.

        Returns:
            Whether this is the best policy so far, so that it must be saved.
        """
        now = self.progress
        self.policy.eval()
        rewards = []
        with self.timed("held_out"):
            for k, outcomes in self.comparison.outcomes(validation_frames(self.config)).items():
                if not outcomes:
                    raise TrainingError("not one held-out video can be read; check data.validation")
                numbers: dict[str, Any] = {"num_frames": k, "stage": now.stage}
                for method, prefix in PREFIXES.items():
                    if method in outcomes[0].reward:
                        numbers[f"{prefix}reward"] = float(np.mean([o.reward[method] for o in outcomes]))
                        numbers[f"{prefix}accuracy"] = float(np.mean([o.correct[method] for o in outcomes]))
                rewards.append(numbers["reward"])
                if metrics:
                    metrics.log("held_out", now.step, numbers)
        for identity, reason in self.comparison.unreadable.items():
            self._skip(identity, reason)
        reward = float(np.mean(rewards))
        better = now.best_reward is None or reward > now.best_reward
        if better:
            now.best_reward, now.best_step = reward, now.step
        for callback in self.callbacks:
            callback.on_evaluation(self, reward, better, metrics)
        return better

    def save(self) -> None:
        skipped: dict[str, str] = {}
        for part in self.processes.gather(self.progress.skipped):
            skipped.update(part)
        now = self.progress
        now.skipped, now.planned = skipped, [stage.steps for stage in self.config.stages]
        now.validation, now.processes = self.comparison.identity, self.processes.size
        if self.processes.is_main_process:
            save_checkpoint(self.checkpoints, self.policy, self.optimiser, asdict(self.progress))
            clean(self.checkpoints, self.config.keep_checkpoints)
            if skipped:
                write_text(self.folder / "skipped.json", json.dumps(skipped, indent=1))
        self.processes.barrier()

    def _resume(self) -> bool:
        """Resume from the last checkpoint, if there is one."""
        found = numbered(self.checkpoints)
        if not found:
            return False
        self.progress = now = Progress(**load_checkpoint(found[-1], self.policy, self.optimiser))
        logger.info("resuming from step %d", now.step)
        for told in changes(self.config, now, self.comparison.identity, self.processes.size):
            logger.warning("%s", told)
        return True

    def load_best(self) -> int:
        """Put the best policy on held-out questions in place, and return the step it is from."""
        load_checkpoint(at_step(self.checkpoints, self.progress.best_step), self.policy, None)
        return self.progress.best_step
