"""The training loop: draw subsets, let the reference model answer from them, and make the better ones likelier.

Read `Trainer.run` first, then `Trainer._reinforce`. Every random choice is a function of the seed and the step, so a
resumed run repeats exactly what an uninterrupted one would have done.
"""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..errors import InputError, TrainingError
from ..files import replacing, write_text
from ..models.portable import beside
from ..reference import Request
from .checkpoints import at_step, clean, load_checkpoint, numbered, save_checkpoint
from .compare import Comparison, Item, UnreadableItem, cosines, grouped, load_item, matcher_of, score_readable
from .config import StageConfig, TrainConfig
from .curriculum import Progress, advance, entropy_bonus, learning_rate, planned_steps
from .data import Batches, QuestionSet, seeded
from .imitate import draw_by_similarity, evidence_targets, imitation_loss, similarity_targets
from .initialise import parameter_groups
from .metrics import MetricsLogger
from .objective import advantages, pick_advantages, prefix_credits, remaining_gains, surrogate
from .policy import Policy, PolicyInputs, Rollouts, VectorPolicy
from .process_group import ProcessGroup
from .reward import Reward, RewardModel

logger = logging.getLogger(__name__)

ANCHOR = "anchor.safetensors"  # first picks of the policy at the start of RL, by question


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
    ) -> None:
        """Prepare a run; `folder` receives checkpoints and logs.

        Raises:
            InputError: if a stage names categories that no question has.
        """
        self.config, self.policy, self.reward_model, self.train, self.processes, self.folder = (
            config, policy, reward_model, train, processes, folder,
        )  # fmt: skip
        self.checkpoints = folder / "checkpoints"
        self.progress = Progress()
        self.comparison = Comparison(policy, reward_model, held_out, processes, batch=config.optimiser.micro_batch)
        self.optimiser = torch.optim.AdamW(parameter_groups(policy, config.optimiser.weight_decay), config.optimiser.lr)
        self._wrapped = processes.wrap(policy)
        self._pools = [
            Batches(self._usable(stage), config.optimiser.batch, (config.seed, 2, number))
            for number, stage in enumerate(config.stages)
        ]
        self._bar = progress_bar
        self._spare: PolicyInputs | None = None

    # -- the loop -------------------------------------------------------------------------------------

    def run(self) -> None:
        """Train until the last stage is over, from the last checkpoint if there is one.

        Raises:
            TrainingError: if the numbers are no longer finite, the policy has collapsed, or drifts again and again.
        """
        from tqdm import tqdm

        resumed = self._resume()
        metrics = (
            MetricsLogger(self.folder, last=self.progress.step if resumed else -1)
            if self.processes.is_main_process
            else None
        )
        disable = True if not self.processes.is_main_process else None if self._bar is None else not self._bar
        try:
            with tqdm(
                total=self.config.total_steps,
                initial=planned_steps(self.config, self.progress),
                unit="step",
                disable=disable,
            ) as bar:
                if not resumed:
                    self.evaluate(metrics)
                    self._save()
                while self.progress.stage < len(self.config.stages):
                    numbers = self._step()
                    advance(self.config, self.progress, numbers)
                    if metrics:
                        metrics.log("train", self.progress.step, numbers)
                    bar.n = planned_steps(self.config, self.progress)
                    bar.set_postfix({k: f"{numbers[k]:.3f}" for k in ("reward", "entropy") if k in numbers})
                    over = self.progress.stage == len(self.config.stages)
                    better = False
                    if over or self.progress.stage_step == 0 or self.progress.step % self.config.validation.every == 0:
                        better = self.evaluate(metrics)
                    if over or better or self.progress.step % self.config.checkpoint_every == 0:
                        self._save()
        finally:
            if metrics:
                metrics.close()

    @property
    def stage(self) -> StageConfig:
        """The stage that the next step belongs to."""
        return self.config.stages[self.progress.stage]

    def _step(self) -> dict[str, Any]:
        """One optimiser step."""
        started = time.perf_counter()
        stage, now = self.stage, self.progress
        rng = np.random.default_rng([self.config.seed, 3, now.step])
        num_frames = int(rng.choice(stage.num_frames))
        lr = learning_rate(self.config, self.progress)
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        self.policy.train()
        items = self._items()
        if stage.method == "reinforce":
            numbers = self._reinforce(items, num_frames)
        else:
            numbers = self._imitate(items, num_frames)
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
        objective = self.config.objective
        groups = [[items[row] for row in rows] for rows in self._groups(items)]
        # Rollouts that keep their graph need no second reading. Graphs of long prompts are too large for more than one
        # group, and processes that exchange gradients must go through their groups one by one.
        light = isinstance(self.policy, VectorPolicy) and self.processes.size == 1
        single = (light or max(self.processes.gather(len(groups))) == 1) and objective.passes == 1
        with self._timed("rollouts"), torch.set_grad_enabled(single):
            drawn = [self._forward(_inputs(group), None, num_frames, number) for number, group in enumerate(groups)]
        with self._timed("reference"):
            scored = [self._score(group, rollouts) for group, rollouts in zip(groups, drawn, strict=True)]
            worth = [torch.stack([reward.value for reward in group]) for group in scored]  # [B, N] each
            by_pick = objective.credit == "prefix" and num_frames > 1
            gains = [torch.zeros(())] * len(groups)
            if by_pick and groups:  # [B, N, K] and [B, N, K - 1] each
                worth, gains = map(list, zip(*map(self._credits, groups, drawn, worth), strict=True))
        every = torch.cat([torch.cat(part) for part in self.processes.gather(worth) if part])
        scaled = pick_advantages if by_pick else advantages
        values = [scaled(part, objective.advantage, everywhere=every) for part in worth]
        informative = sum(self.processes.gather(sum(int(v.informative.sum()) for v in values)))

        # Scaled by its own deviation, a question without information would only dilute the others, and is dropped.
        counted = max(informative, 1) if objective.advantage == "group" else len(every)
        with self._timed("gradient"):
            for _ in range(objective.passes):
                self.optimiser.zero_grad(set_to_none=True)
                for i, last in self._turns(len(groups)):
                    with self._synchronised(last):
                        if i >= len(groups):
                            self._idle(num_frames)
                            continue
                        now = drawn[i]
                        if not single:
                            now = self._forward(_inputs(groups[i]), now.picks, num_frames)
                        gain = surrogate(
                            now.log_probs,
                            drawn[i].log_probs.detach(),
                            values[i].values.to(self.processes.device),
                            objective.clip,
                        )
                        if by_pick and now.remaining is not None:
                            error = now.remaining[..., 1:] - gains[i].to(self.processes.device)
                            gain = gain - error.square().sum(-1).mean(1)
                        gain = gain + _nothing(now)
                        bonus = entropy_bonus(self.config, self.progress) * now.entropy.sum(-1).mean(
                            1
                        )  # [B], over the whole subset
                        ascended = gain.sum() / counted + bonus.sum() / len(every)
                        (-self.processes.size * ascended).backward()
                norm = self._apply()

        answers = [reward for group in scored for reward in group]
        entropy = [float(e) for d in drawn for e in d.entropy.detach().mean((1, 2))]
        rows = list(zip(*((j.value.mean(), j.margin.mean(), j.correct.mean()) for j in answers), strict=True))
        sums = self.processes.gather([float(sum(column)) for column in [*rows, entropy]] if answers else [0.0] * 4)
        means = (sum(column) / len(every) for column in zip(*sums, strict=True))
        return {
            **dict(zip(("reward", "margin", "accuracy", "entropy"), means, strict=True)),
            "zero_variance": 1 - informative / len(every),
            "gradient_norm": norm,
            "entropy_bonus": entropy_bonus(self.config, self.progress),
            "questions": len(every),
        }

    def _imitate(self, items: list[Item], num_frames: int) -> dict[str, Any]:
        """A step towards a teacher's picks."""
        stage = self.stage
        examples = []
        for item in items:
            try:
                examples.append((item, *self._target(item, min(num_frames, len(item.clip)))))
            except InputError as error:  # no evidence in this question
                self.progress.skipped.setdefault(item.question.id, str(error))
        count = sum(self.processes.gather(len(examples)))
        if not count:
            raise TrainingError(
                f"stage {self.progress.stage}: no question of the batch can be taught by {stage.method}"
            )
        groups = self._groups([example[0] for example in examples])
        total = 0.0
        self.optimiser.zero_grad(set_to_none=True)
        with self._timed("gradient"):
            for i, last in self._turns(len(groups)):
                with self._synchronised(last):
                    if i >= len(groups):
                        self._idle(num_frames)
                        continue
                    group, picks, targets = zip(*(examples[row] for row in groups[i]), strict=True)
                    share = len(group) / count
                    rollouts = self._forward(_inputs(group), torch.stack(picks)[:, None], num_frames)
                    loss = imitation_loss(
                        rollouts.distributions[:, 0], torch.stack(targets).to(rollouts.distributions.device)
                    )
                    (loss * share * self.processes.size + _nothing(rollouts)).backward()
                total += loss.item() * share
            norm = self._apply()
        return {"imitation_loss": sum(self.processes.gather(total)), "gradient_norm": norm, "questions": count}

    def _target(self, item: Item, num_frames: int) -> tuple[Tensor, Tensor]:
        """Picks of the teacher, and the target at each of them."""
        seed = seeded(self.config.seed, 4, self.progress.step, int.from_bytes(item.question.id.encode()[-6:], "big"))
        if self.stage.method == "evidence":
            return evidence_targets(item.question, item.clip.timestamps, num_frames, np.random.default_rng(seed))
        similar = cosines(self._matcher(), item.question, item.clip)
        picks = draw_by_similarity(similar, num_frames, self.stage.temperature, torch.Generator().manual_seed(seed))
        return picks, similarity_targets(similar, picks, self.stage.temperature)

    # -- parts of a step ------------------------------------------------------------------------------

    def _usable(self, stage: StageConfig) -> np.ndarray:
        """Positions of the questions that a stage can learn from."""
        positions = self.train.positions(stage.categories)
        if stage.method == "evidence" and self.train.listed:  # a generated set has it everywhere or nowhere
            positions = positions[[bool(self.train.questions[i].evidence) for i in positions]]
            if not len(positions):
                raise InputError(f"a stage imitates evidence, but no question of {self.train.name} tells where it is")
        return positions

    def _items(self) -> list[Item]:
        """The questions of this process in this step; unreadable videos are left out and counted."""
        with self._timed("inputs"):
            batch = self._pools[self.progress.stage][self.progress.stage_step]
            items = []
            for place in batch[self.processes.rank :: self.processes.size]:
                item = load_item(self.policy, self.train, int(place))
                if isinstance(item, UnreadableItem):
                    self._skip(item.id, item.reason)
                else:
                    generator = torch.Generator().manual_seed(seeded(self.config.seed, 6, self.progress.step, place))
                    items.append(replace(item, inputs=self.policy.augment(item.inputs, generator)))
        if not any(self.processes.gather(len(items))):
            raise TrainingError(
                f"step {self.progress.step}: not one video of the batch can be read, e.g. of question "
                f"{next(iter(self.progress.skipped), None)}; check data.train"
            )
        if items:
            self._spare = items[0].inputs
        if not all(self.processes.gather(self._spare is not None)):  # a process without videos borrows one
            spares = self.processes.gather(self._spare)
            self._spare = self._spare or next(spare for spare in spares if spare is not None)
        return items

    def _groups(self, items: Sequence[Item]) -> list[list[int]]:
        return grouped(self.policy, [item.inputs for item in items], self.config.optimiser.micro_batch)

    def _idle(self, num_frames: int) -> None:
        """Take part in the exchange of gradients while another process has more groups."""
        assert self._spare is not None
        idle = self._forward([self._spare], None, num_frames)
        (0.0 * idle.log_probs.sum() + _nothing(idle)).backward()

    def _forward(
        self,
        inputs: Sequence[PolicyInputs],
        picks: Tensor | None,
        num_frames: int,
        number: int = 0,
    ) -> Rollouts:
        device = self.processes.device
        seed = seeded(self.config.seed, 5, self.progress.step, self.processes.rank, number)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.config.optimiser.mixed_precision == "bf16"):
            try:
                rollouts: Rollouts = self._wrapped(
                    inputs,
                    picks,
                    rollouts=self.stage.rollouts,
                    steps=num_frames,
                    temperature=self.config.objective.temperature,
                    generator=torch.Generator(device).manual_seed(seed),
                )
            except FloatingPointError as error:
                raise self._not_finite(str(error)) from error
        return rollouts

    def _not_finite(self, what: str) -> TrainingError:
        return TrainingError(
            f"step {self.progress.step}: {what}; the last good checkpoint is in {self.checkpoints}. Lower "
            "optimiser.lr, or train without mixed precision"
        )

    def _credits(self, group: Sequence[Item], rollouts: Rollouts, rewards: Tensor) -> tuple[Tensor, Tensor]:
        """`prefix_credits` [B, N, K] and `remaining_gains` [B, N, K - 1].

        The picks before a pick are worth what is answered from them and the frames beside them.
        """
        picks = rollouts.picks.cpu()
        number, count = picks.shape[1:]
        earlier = [
            beside(picks, torch.full(picks.shape[:2], taken), count, rollouts.distributions.shape[-1])
            for taken in range(1, count)
        ]
        subsets = torch.stack(earlier, 2).flatten(1, 2)  # [B, N * (K - 1), K]
        before = torch.stack([reward.value for reward in self._score_subsets(group, subsets)])
        before = before.unflatten(1, (number, count - 1))
        credits = prefix_credits(rewards, before, self.config.objective.credit_decay)
        return credits, remaining_gains(rewards, before)

    def _score(self, group: Sequence[Item], rollouts: Rollouts) -> list[Reward]:
        """Rewards of each question's subsets."""
        return self._score_subsets(group, rollouts.picks.cpu())

    def _score_subsets(self, group: Sequence[Item], subsets: Tensor) -> list[Reward]:
        """Score [B, N, K] subsets; a video that cannot be read any more teaches nothing in this step."""
        ordered = subsets.sort(-1).values
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

    def _turns(self, groups: int) -> Iterator[tuple[int, bool]]:
        """(number, is it the last) of the backward passes, equally many in all processes."""
        total = max(self.processes.gather(groups))
        yield from ((i, i + 1 == total) for i in range(total))

    @contextmanager
    def _synchronised(self, last: bool) -> Iterator[None]:
        if last:
            yield
        else:
            with self.processes.no_sync(self._wrapped):
                yield

    def _apply(self) -> float:
        """Clip the gradient and take the step."""
        norm = torch.nn.utils.clip_grad_norm_(
            (p for p in self.policy.parameters() if p.requires_grad), self.config.optimiser.gradient_norm
        )
        if not bool(torch.isfinite(norm)):
            trained = ((name, p.grad) for name, p in self.policy.named_parameters() if p.grad is not None)
            bad = [name for name, gradient in trained if not gradient.isfinite().all()]
            raise self._not_finite(f"the gradient is not finite (first in {', '.join(bad[:3])})")
        self.optimiser.step()
        return float(norm)

    def _matcher(self) -> Any:
        if not hasattr(self, "_matching"):
            self._matching = matcher_of(self.policy)
        return self._matching

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.progress.seconds[name] = self.progress.seconds.get(name, 0.0) + time.perf_counter() - started

    # -- between steps --------------------------------------------------------------------------------

    def evaluate(self, metrics: MetricsLogger | None) -> bool:
        """Answer held-out questions, and restore the best policy when this one drifts.

        Returns:
            Whether this is the best policy so far, so that it must be saved.
        """
        now = self.progress
        self.policy.eval()
        rewards = []
        with self._timed("held_out"):
            for k in self._validation_frames():
                outcomes = self.comparison.outcomes(k)
                if not outcomes:
                    raise TrainingError("not one held-out video can be read; check data.validation")
                numbers: dict[str, Any] = {"num_frames": k, "stage": now.stage}
                for method, prefix in (("policy", ""), ("uniform", "uniform_"), ("top-k", "topk_")):
                    numbers[f"{prefix}reward"] = float(np.mean([o.reward[method] for o in outcomes]))
                    numbers[f"{prefix}accuracy"] = float(np.mean([o.correct[method] for o in outcomes]))
                rewards.append(numbers["reward"])
                if metrics:
                    metrics.log("held_out", now.step, numbers)
            divergence = self._divergence()
        for identity, reason in self.comparison.unreadable.items():
            self._skip(identity, reason)
        reward = float(np.mean(rewards))
        if metrics and divergence is not None:
            metrics.log("drift", now.step, {"kl": divergence})
        validation = self.config.validation
        if now.best_reward is None or reward > now.best_reward:
            now.best_reward, now.best_step, now.drifting = reward, now.step, 0
            return True
        far = validation.max_kl is not None and divergence is not None and divergence > validation.max_kl
        low = validation.max_drop is not None and reward < now.best_reward - validation.max_drop
        now.drifting = now.drifting + 1 if far or low else 0
        if now.drifting >= validation.patience:
            self._roll_back(reward)
        return False

    def _roll_back(self, reward: float) -> None:
        now, validation = self.progress, self.config.validation
        if now.rollbacks >= validation.max_rollbacks:
            raise TrainingError(
                f"step {now.step}: drift again after {now.rollbacks} rollbacks (held-out reward {reward:.3f}, best "
                f"{now.best_reward:.3f} at step {now.best_step}). Lower optimiser.lr or raise entropy_bonus; the best "
                f"checkpoint is {at_step(self.checkpoints, now.best_step)}"
            )
        load_checkpoint(at_step(self.checkpoints, now.best_step), self.policy, self.optimiser)
        now.rollbacks, now.drifting, now.lr_factor = now.rollbacks + 1, 0, now.lr_factor * validation.lr_factor
        logger.warning(
            "step %d: held-out reward %.3f after %.3f at step %d; restored that policy, learning rate times %g",
            now.step, reward, now.best_reward, now.best_step, now.lr_factor,
        )  # fmt: skip

    def _divergence(self) -> float | None:
        """KL of the first pick from the policy at the start of RL, in nats; None before that."""
        methods = [stage.method for stage in self.config.stages[: self.progress.stage + 1]]
        if "reinforce" not in methods:
            return None
        path = self.folder / ANCHOR
        current: dict[str, Tensor] = {}
        for part in self.processes.gather(self.comparison.first_picks()):
            current.update(part)
        if self.processes.is_main_process and not path.exists():
            with replacing(path) as scratch:
                save_file({name: row.contiguous() for name, row in current.items()}, scratch)
        self.processes.barrier()
        anchor = load_file(path)
        known = [(row, anchor[name]) for name, row in current.items() if name in anchor]
        return sum(float((row.exp() * (row - old)).nansum()) for row, old in known) / max(1, len(known))

    def _validation_frames(self) -> list[int]:
        return sorted(set(self.config.validation.num_frames or (k for s in self.config.stages for k in s.num_frames)))

    # -- checkpoints ----------------------------------------------------------------------------------

    def _save(self) -> None:
        skipped: dict[str, str] = {}
        for part in self.processes.gather(self.progress.skipped):
            skipped.update(part)
        self.progress.skipped = skipped
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
            if self.processes.is_main_process:
                (self.folder / ANCHOR).unlink(missing_ok=True)
            return False
        self.progress = Progress(**load_checkpoint(found[-1], self.policy, self.optimiser))
        logger.info("resuming from step %d", self.progress.step)
        return True

    def load_best(self) -> int:
        """Put the best policy on held-out questions in place.

        Returns:
            The step it is from.
        """
        load_checkpoint(at_step(self.checkpoints, self.progress.best_step), self.policy, None)
        return self.progress.best_step

    @property
    def share_of_time(self) -> dict[str, float]:
        """Seconds spent in the parts of the run."""
        return dict(Counter(self.progress.seconds))


def _inputs(group: Sequence[Item]) -> list[PolicyInputs]:
    return [item.inputs for item in group]


def _nothing(rollouts: Rollouts) -> Tensor | float:
    """Zero, through what the loss may not use: processes that exchange gradients wait for those of every output."""
    return 0.0 if rollouts.remaining is None else 0.0 * rollouts.remaining.sum()
