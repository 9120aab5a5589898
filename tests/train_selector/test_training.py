"""What a run does: it learns, equal seeds give equal runs, and it stops or goes back when something is wrong."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from refocus_select.errors import InputError, TrainingError
from refocus_select.train_selector import ReferenceModel, Request
from refocus_select.train_selector.checkpoints import numbered
from refocus_select.train_selector.config import StageConfig, TrainConfig
from refocus_select.train_selector.curriculum import advance, entropy_bonus, learning_rate
from refocus_select.train_selector.data import Batches, QuestionSet
from refocus_select.train_selector.drift import check_collapse, divergence
from refocus_select.train_selector.process_group import ProcessGroup
from refocus_select.train_selector.reward import RewardModel
from refocus_select.train_selector.run import prepare_run
from refocus_select.train_selector.trainer import Trainer
from refocus_select.train_selector.vector_policy import VectorInputs

from .planted import World
from .small_run import Both, log, rows_of, small_config, small_policy, small_run, weights

SHORT = "stages=[{num_frames: [2], steps: 5, rollouts: 4}]"


def test_the_planted_rule_is_learned(tmp_path: Path) -> None:
    """Neither similarity nor position tells the frame behind the cue: the rewards do."""
    result = small_run(
        tmp_path, "stages=[{num_frames: [2], steps: 100, rollouts: 8, entropy_bonus: 0.02}]", "optimiser.batch=16",
        "validation.every=20", "validation.questions=16", policy=small_policy(d=48), train=World(2000, 1),
        validation=World(200, 2), reference=Both([World(2000, 1), World(200, 2)]),
    )  # fmt: skip
    (row,) = result.report["accuracy"]
    assert row["policy"]["mean"] >= 0.8
    assert row["uniform"]["mean"] < 0.5
    assert row["top-k"]["mean"] < 0.5
    assert result.beats_uniform
    rewards = [r["reward"] for r in rows_of(tmp_path, "train")]
    assert np.mean(rewards[-10:]) > np.mean(rewards[:5]) + 0.3


def test_equal_seeds_give_equal_runs_and_others_do_not(tmp_path: Path) -> None:
    last = []
    for number, seed in enumerate((0, 0, 1)):
        policy = small_policy(5)
        torch.manual_seed(number)  # the state of the process must not matter
        small_run(tmp_path / str(number), SHORT, f"seed={seed}", policy=policy)
        last.append((numbered(tmp_path / str(number) / "checkpoints")[-1] / "model.safetensors").read_bytes())
    assert last[0] == last[1]
    assert weights(tmp_path / "0") == weights(tmp_path / "1")
    assert log(tmp_path / "0") == log(tmp_path / "1")
    assert last[0] != last[2]
    assert log(tmp_path / "0") != log(tmp_path / "2")


# -- rewards that say nothing -----------------------------------------------------------------------


class Blind(ReferenceModel):
    """Answers without looking: always alike, or at random."""

    name = fingerprint = "blind"

    def __init__(self, rng: np.random.Generator | None = None, value: float = 0.7) -> None:
        self._rng, self._value = rng, value

    def option_logits(self, requests: Sequence[Request]) -> list[Tensor]:
        found = []
        for request in requests:
            logits = torch.zeros(len(request.subsets), len(request.question.options))
            worth = self._value if self._rng is None else self._rng.standard_normal(len(logits))
            logits[:, request.question.answer] = torch.as_tensor(worth, dtype=torch.float32)
            found.append(logits)
        return found


@pytest.mark.parametrize("kind", ["group", "batch", "none"])
def test_a_constant_reward_leaves_the_weights_as_they_are(tmp_path: Path, kind: str) -> None:
    policy = small_policy(2)
    before = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    small_run(
        tmp_path, "stages=[{num_frames: [2], steps: 3, rollouts: 4, entropy_bonus: 0.0}]", "optimiser.weight_decay=0",
        f"objective.advantage={kind}", policy=policy, reference=Blind(), train=World(50, 1), validation=World(30, 2),
    )  # fmt: skip
    assert all(torch.equal(tensor, before[name]) for name, tensor in policy.state_dict().items())
    assert [row["zero_variance"] for row in rows_of(tmp_path, "train")] == [1.0] * 3
    assert [row["gradient_norm"] for row in rows_of(tmp_path, "train")] == [0.0] * 3


def test_the_entropy_bonus_raises_the_entropy(tmp_path: Path) -> None:
    """With nothing to win, the bonus is all there is: it makes choices more even than they were."""
    last = {}
    for bonus in (0.0, 0.5):
        small_run(
            tmp_path / str(bonus), f"stages=[{{num_frames: [2], steps: 16, rollouts: 4, entropy_bonus: {bonus}}}]",
            "optimiser.weight_decay=0", policy=small_policy(2), reference=Blind(), train=World(50, 1),
            validation=World(30, 2),
        )  # fmt: skip
        last[bonus] = np.mean([row["entropy"] for row in rows_of(tmp_path / str(bonus), "train")][-4:])
    assert last[0.5] > last[0.0] + 0.2


def trainer(folder: Path, *words: str, policy: Any = None, reference: Any = None, count: int = 60) -> Trainer:
    """A trainer to look into."""
    worlds = World(count, 1), World(30, 2)
    config = small_config(folder, *words)
    processes = ProcessGroup("cpu")
    setup = prepare_run(
        config, processes, worlds[0], worlds[1], None, reference or Both(worlds), policy or small_policy()
    )
    return Trainer(
        config, setup.policy, setup.reward_model, setup.train, setup.validation, processes=processes, folder=folder
    )


def gradient(run: Trainer, step: int, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """The gradient of a step that is not taken."""
    monkeypatch.setattr(run.optimiser, "step", lambda: None)
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_: torch.zeros(()))
    run.progress.step = run.progress.stage_step = step
    run.step()
    found = [p.grad for p in run.policy.parameters() if p.requires_grad]
    return torch.cat([g.flatten() for g in found if g is not None])


@pytest.mark.parametrize("kind", ["group", "batch", "none"])
def test_random_rewards_have_no_gradient_on_average(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trainer(
        tmp_path, f"objective.advantage={kind}", "objective.reward=tanh_margin",
        "stages=[{num_frames: [2], steps: 1000, rollouts: 4, entropy_bonus: 0.0}]",
        reference=Blind(np.random.default_rng(4)),
    )  # fmt: skip
    draws = torch.stack([gradient(run, step, monkeypatch) for step in range(120)]).double()
    direction = torch.randn(draws.shape[1], 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    seen = draws @ direction / draws.shape[1] ** 0.5  # along 40 random directions
    error = seen.std(0) / len(seen) ** 0.5
    assert float(error.min()) > 0
    assert float((seen.mean(0).abs() / error).max()) < 4.5


@pytest.mark.parametrize("method", ["reinforce", "similarity", "evidence"])
@pytest.mark.parametrize("kind", ["group", "batch"])
def test_micro_batches_give_the_gradient_of_the_batch(
    tmp_path: Path, method: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One group keeps its graph, several are read again: both ways must agree where the same subsets are drawn."""
    policy = small_policy(1)
    words = [f"stages=[{{num_frames: [2], steps: 10, rollouts: 4, method: {method}, entropy_bonus: 0.05}}]",
             f"objective.advantage={kind}", "objective.clip=0.2"]  # fmt: skip
    whole = trainer(tmp_path, *words, policy=policy)
    parts = trainer(tmp_path, *words, "optimiser.micro_batch=1", policy=policy)
    subsets: list[Tensor] = []
    original = whole.forward

    def record(inputs: Any, picks: Any, *rest: Any) -> Any:
        rollouts = original(inputs, picks, *rest)
        subsets.extend(rollouts.picks)
        return rollouts

    replay = parts.forward
    monkeypatch.setattr(whole, "forward", record)
    one = gradient(whole, 3, monkeypatch)
    monkeypatch.setattr(
        parts, "forward", lambda i, p, k, number=0: replay(i, subsets[number][None] if p is None else p, k)
    )
    several = gradient(parts, 3, monkeypatch)
    assert float(one.abs().max()) > 1e-4
    assert torch.allclose(one, several, atol=1e-5 * float(one.abs().max()), rtol=1e-4)


# -- stopping and going back ------------------------------------------------------------------------


class Late(Both):
    """Gives numbers that are none after some calls."""

    def option_logits(self, requests: Sequence[Request]) -> list[Tensor]:
        found = super().option_logits(requests)
        return [logits * float("nan") for logits in found] if self.calls > 4 else found


def test_a_reference_model_that_gives_nan_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"answerer gave .* non-finite logits for question q"):
        small_run(tmp_path, SHORT, reference=Late([World(400, 1), World(48, 2)]))


def test_a_gradient_that_is_not_finite_stops_before_the_weights_change(tmp_path: Path) -> None:
    policy = small_policy()
    steps = 0

    def spoil(gradient: Tensor) -> Tensor:
        nonlocal steps
        steps += 1
        return gradient if steps < 3 else gradient * float("inf")

    policy.model.pointer.key_head.weight.register_hook(spoil)
    with pytest.raises(TrainingError, match=r"step 2: the gradient is not finite \(first in model.pointer.key_head"):
        small_run(tmp_path, SHORT, "checkpoint_every=1", policy=policy)
    assert all(bool(p.isfinite().all()) for p in policy.parameters())
    assert numbered(tmp_path / "checkpoints")[-1].name == "step-00000002"


def test_weights_that_overflow_stop_the_run_and_name_the_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"not finite.*last good checkpoint is in .*checkpoints.*optimiser.lr"):
        small_run(tmp_path, SHORT, "optimiser.lr=1e30", "optimiser.warmup_steps=0")
    assert numbered(tmp_path / "checkpoints")


def test_infinite_features_cost_only_their_question(tmp_path: Path) -> None:
    class Torn(World):
        def __call__(self, video: str) -> Any:
            clip = super().__call__(video)
            if int(video) % 3 == 0:
                clip._encoding.tensors["embeddings"][2, 1] = float("inf")
            return clip

    result = small_run(tmp_path, SHORT, train=Torn(12, 1), validation=Torn(48, 2))
    skipped = json.loads((tmp_path / "skipped.json").read_text())
    assert set(skipped) >= {"q0", "q3", "q6", "q9"}
    assert all("not finite" in reason for reason in skipped.values())
    assert result.report["accuracy"][0]["policy"]["count"] < result.report["questions"]["test"]["count"]
    assert rows_of(tmp_path, "train")[-1]["questions"] < 4


def test_a_collapsed_policy_stops_with_a_diagnosis(tmp_path: Path) -> None:
    policy = small_policy()
    with torch.no_grad():  # sure of the most similar frames, whatever they are worth
        policy.model.similarity_scale.fill_(400.0)
    with pytest.raises(TrainingError, match=r"collapsed: its entropy was below 0.01 nats for 22 steps.*entropy_bonus"):
        small_run(
            tmp_path, "stages=[{num_frames: [1], steps: 60, rollouts: 4}]", "optimiser.lr=1e-7", "validation.every=100",
            "validation.collapse_steps=22", policy=policy,
        )  # fmt: skip
    assert len(rows_of(tmp_path, "train")) < 45


def test_a_sure_policy_that_has_learned_is_no_collapse(tmp_path: Path) -> None:
    run = trainer(tmp_path, "validation.collapse_steps=3")
    run.progress.recent, run.progress.stage_reward = [0.9] * 20, 0.3
    for _ in range(10):
        check_collapse(run.config, run.progress, 0.001)
    run.progress.recent = [0.3] * 20
    with pytest.raises(TrainingError, match="the policy has collapsed"):
        check_collapse(run.config, run.progress, 0.001)


def test_drift_brings_the_best_policy_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A rate that ruins the policy: held-out reward falls, and the weights and half the rate come back."""
    run = trainer(tmp_path, "validation.max_drop=0.02", "validation.patience=2", "validation.max_rollbacks=1")
    with torch.no_grad():
        run.evaluate(None)
    run.save()
    best = {name: tensor.clone() for name, tensor in run.policy.state_dict().items()}
    now = run.progress
    assert now.best_reward is not None
    now.best_reward += 1.0  # so that what follows is far below
    with torch.no_grad():
        for parameter in run.policy.parameters():
            parameter.add_(0.5)
    now.step = 1
    assert run.evaluate(None) is False
    assert now.drifting == 1
    assert now.lr_factor == 1.0
    with caplog.at_level(logging.WARNING):
        now.step = 2
        run.evaluate(None)
    assert "restored that policy" in caplog.text
    assert now.lr_factor == 0.5
    assert now.rollbacks == 1
    assert now.drifting == 0
    assert all(torch.equal(tensor, best[name]) for name, tensor in run.policy.state_dict().items())
    assert learning_rate(run.config, run.progress) == pytest.approx(0.5 * 0.005 * 3 / 4)
    run.evaluate(None)
    with pytest.raises(TrainingError, match=r"drift again after 1 rollbacks.*Lower optimiser.lr.*step-00000000"):
        run.evaluate(None)


def test_divergence_counts_as_drift(tmp_path: Path) -> None:
    """KL of the first pick from the policy at the start of RL, by hand."""
    run = trainer(tmp_path, "validation.max_kl=1e-6", "validation.max_drop=null", "validation.patience=1")
    run.comparison.outcomes([1])
    assert divergence(run) == pytest.approx(0.0, abs=1e-9)
    before = run.comparison.first_picks
    with torch.no_grad():
        run.policy.model.similarity_scale.add_(0.5)
    run.comparison.outcomes([1])
    after = run.comparison.first_picks
    by_hand = np.mean([float((a.exp() * (a - before[name])).sum()) for name, a in after.items()])
    assert divergence(run) == pytest.approx(by_hand, rel=1e-5)
    assert by_hand > 1e-4
    run.progress.best_reward = 2.0
    run.progress.best_step = 0
    run.save()
    run.evaluate(None)
    assert run.progress.rollbacks == 1


# -- stages and schedules ---------------------------------------------------------------------------


def test_learning_rate_and_entropy_bonus_by_hand(tmp_path: Path) -> None:
    run = trainer(
        tmp_path, "optimiser.lr=0.01", "optimiser.warmup_steps=5", "optimiser.decay_from=0.5", "optimiser.final=0.1",
        "stages=[{num_frames: [1], steps: 10, entropy_bonus: 0.2, entropy_bonus_end: 0.1}, "
        "{num_frames: [2], steps: 30, lr: 0.02, entropy_bonus: 0.3}]",
    )  # fmt: skip
    now = run.progress
    seen = []
    for step in range(40):
        now.step, now.stage, now.stage_step = step, int(step >= 10), step - 10 * (step >= 10)
        seen.append((learning_rate(run.config, run.progress), entropy_bonus(run.config, run.progress)))
    rates, bonuses = np.array(seen).T
    assert rates[:5] == pytest.approx(0.01 * np.arange(1, 6) / 5)
    assert rates[5:10] == pytest.approx([0.01] * 5)
    assert rates[10:21] == pytest.approx([0.02] * 11)
    assert rates[30] == pytest.approx(0.02 * (1 - 0.9 * 0.5))
    assert rates[39] == pytest.approx(0.02 * (1 - 0.9 * 0.95))
    assert bonuses[:10] == pytest.approx(0.2 - 0.01 * np.arange(10))
    assert bonuses[10:] == pytest.approx([0.3] * 30)


def test_stages_end_early_by_their_rules(tmp_path: Path) -> None:
    def ends(rewards: Sequence[float], **rules: Any) -> int | None:
        run = trainer(tmp_path)
        run.config = replace(run.config, stages=(StageConfig((2,), steps=200, **rules), StageConfig((1,), steps=5)))
        for count, reward in enumerate(rewards, start=1):
            advance(run.config, run.progress, {"reward": reward, "entropy": 1.0})
            if run.progress.stage == 1:
                assert run.progress.recent == []
                assert run.progress.plateau_best == -math.inf
                return count
        return None

    assert ends([0.5] * 100) is None
    assert ends([0.5] * 100, reward_above=0.4) == 20  # a mean over 20 steps
    assert ends([0.0] * 30 + [1.0] * 30, reward_above=0.4) == 39  # 9 of 20
    assert ends([0.5] * 100, reward_above=0.4, min_steps=33) == 33
    assert ends([0.5] * 100, plateau=15) == 35  # the first mean is the best, and then 15 steps
    assert ends([0.01 * i for i in range(100)], plateau=15) is None
    assert ends([0.01 * i for i in range(100)], plateau=15, plateau_gain=5.0) == 35
    assert ends([0.5] * 250) == 200


def test_stages_use_their_questions_and_their_frames(tmp_path: Path) -> None:
    class Watching(Both):
        seen: ClassVar[list[tuple[str, int]]] = []

        def option_logits(self, requests: Sequence[Request]) -> list[Tensor]:
            self.seen += [(r.question.category, r.subsets.shape[1]) for r in requests if r.clip.key.startswith("1-")]
            return super().option_logits(requests)

    small_run(
        tmp_path, "stages=[{num_frames: [1], steps: 2, rollouts: 2, categories: [odd]}, "
        "{num_frames: [3, 5], steps: 8, rollouts: 2}, {num_frames: [20], steps: 1, rollouts: 2}]",
        reference=Watching([World(400, 1), World(48, 2)]),
    )  # fmt: skip
    assert set(Watching.seen[:8]) == {("odd", 1)}
    assert {k for _, k in Watching.seen[8:40]} == {3, 5}
    assert {c for c, _ in Watching.seen[8:40]} == {"odd", "even"}
    assert {k for _, k in Watching.seen[40:]} == {12}  # all candidates, where fewer than K are there
    assert rows_of(tmp_path, "train")[-1]["zero_variance"] == 1.0
    borders = {row["step"] for row in rows_of(tmp_path, "held_out")}
    assert borders >= {0, 2, 10, 11}
    with pytest.raises(InputError, match="has a category of green; there are even, odd"):
        small_run(tmp_path / "x", "stages=[{num_frames: [1], categories: [green]}]")


def test_batches_deal_out_every_question_once_per_epoch() -> None:
    dealt = Batches(np.arange(10) + 100, 4, (0, 1))
    epochs = np.concatenate([dealt[step] for step in range(5)]).reshape(2, 10)
    assert [sorted(epoch) for epoch in epochs.tolist()] == [list(range(100, 110))] * 2
    assert epochs[0].tolist() != epochs[1].tolist()
    again = Batches(np.arange(10) + 100, 4, (0, 1))
    assert again[4].tolist() == dealt[4].tolist()  # asked for in any order
    assert Batches(np.arange(10) + 100, 4, (1, 1))[0].tolist() != dealt[0].tolist()
    assert sorted(Batches(np.arange(2), 5, (0,))[0].tolist())[:2] == [0, 0]  # fewer questions than a batch


def test_mixed_precision_runs(tmp_path: Path) -> None:
    small_run(tmp_path, "stages=[{num_frames: [2], steps: 2, rollouts: 2}]", "optimiser.mixed_precision=bf16")
    assert all(np.isfinite(row["gradient_norm"]) for row in rows_of(tmp_path, "train"))


def test_progress_can_be_stored() -> None:
    """What a checkpoint holds survives JSON, minus infinity included."""
    assert QuestionSet(World(3, 1), World(3, 1), "w").fingerprint.startswith("world-3")
    assert TrainConfig().total_steps == 900
    assert RewardModel([Blind()], "correct").fingerprint == "blind+correct"


def test_sentences_are_disturbed_while_learning_only(tmp_path: Path) -> None:
    policy, world = small_policy(), World(40, 1)
    item = policy.inputs(world[0], world(world[0].video))
    same = policy.augment(item, torch.Generator())
    assert torch.equal(same.question, item.question)
    policy.sentence_noise = 0.5
    first, again, other = (policy.augment(item, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first.question, again.question)
    assert not torch.equal(first.question, other.question)
    for inputs in (first, other):
        assert isinstance(inputs, VectorInputs)
        assert torch.equal(inputs.texts, item.texts)
        assert torch.equal(inputs.frames, item.frames)
        assert 0 < (inputs.question - item.question).norm() <= 0.5 * item.question.norm()
    policy.sentence_noise, policy.sentence_dropout = 0.0, 0.3
    told = [bool(policy.augment(item, torch.Generator().manual_seed(seed)).question.any()) for seed in range(300)]
    assert 0.6 < np.mean(told) < 0.8

    for noise in (0.0, 1.0):
        learner = small_policy()
        learner.sentence_noise = noise
        small_run(tmp_path / str(noise), SHORT, policy=learner)
    quiet, noisy = (rows_of(tmp_path / str(noise), "train") for noise in (0.0, 1.0))
    assert [row["gradient_norm"] for row in quiet] != [row["gradient_norm"] for row in noisy]
