"""Warm starts: distilling similarity and imitating evidence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from refocus_select.errors import InputError, TrainingError
from refocus_select.questions import Question
from refocus_select.train_selector.checkpoints import load_checkpoint, numbered
from refocus_select.train_selector.compare import Comparison, cosines, load_item
from refocus_select.train_selector.data import QuestionSet
from refocus_select.train_selector.imitate import (
    draw_by_similarity,
    evidence_targets,
    imitation_loss,
    similarity_targets,
)
from refocus_select.train_selector.process_group import ProcessGroup
from refocus_select.train_selector.reward import RewardModel
from refocus_select.train_selector.vector_policy import VectorPolicy

from .planted import Answerer, World
from .small_run import Both, rows_of, small_policy, small_run

TIMES = np.arange(0.0, 20.0)
spans = st.lists(
    st.tuples(st.integers(0, 19), st.integers(0, 6)).map(lambda s: (float(s[0]), float(min(19, s[0] + s[1])))),
    min_size=1, max_size=5,
)  # fmt: skip


@settings(max_examples=150, deadline=None, derandomize=True)
@given(spans, st.integers(1, 20), st.integers(0, 1000))
def test_evidence_targets(evidence: list[tuple[float, float]], steps: int, seed: int) -> None:
    question = Question("q", "v", "?", evidence=tuple(evidence))
    picks, right = evidence_targets(question, TIMES, steps, np.random.default_rng(seed))
    chosen = picks.tolist()
    assert len(chosen) == steps == len(set(chosen))
    assert right.shape == (steps, 20)
    members = [{f for f in range(20) if a <= f <= b} for a, b in evidence]
    union = set().union(*members)
    for step, pick in enumerate(chosen):
        allowed = set(right[step].nonzero()[:, 0].tolist())
        used = set(chosen[:step])
        assert not allowed & used  # what is used is not right any more
        hidden = [span for span in members if not span & used]
        if hidden:  # some span was not shown: only such are right, and one of them is
            assert pick in allowed
            assert allowed == set().union(*hidden)
        elif union - used:
            assert pick in allowed
            assert allowed == union - used
        else:  # nothing is left of the evidence: any frame will do
            assert not allowed
    again, _ = evidence_targets(question, TIMES, steps, np.random.default_rng(seed))
    assert again.tolist() == chosen


def test_evidence_without_a_candidate_is_refused() -> None:
    with pytest.raises(InputError, match=r"question q: no candidate frame lies in its evidence \[\(3.2, 3.7\)\]"):
        evidence_targets(Question("q", "v", "?", evidence=((3.2, 3.7),)), TIMES, 2, np.random.default_rng(0))


def test_the_teacher_draws_as_its_distribution_says() -> None:
    similar = torch.tensor([0.10, 0.30, 0.20, 0.05])
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([draw_by_similarity(similar, 2, 0.1, generator) for _ in range(4000)])
    p = (similar / 0.1).softmax(0)
    for first in range(4):
        assert float((drawn[:, 0] == first).float().mean()) == pytest.approx(float(p[first]), abs=0.035)
        for second in range(4):
            chance = float(p[first] * p[second] / (1 - p[first])) if first != second else 0.0
            seen = float(((drawn[:, 0] == first) & (drawn[:, 1] == second)).float().mean())
            assert seen == pytest.approx(chance, abs=0.035)
    targets = similarity_targets(similar, torch.tensor([1, 2, 0]), 0.1)
    assert torch.allclose(targets[0], p)
    assert targets[2].tolist()[1:3] == [0.0, 0.0]
    assert float(targets[1, 0]) == pytest.approx(float(p[0] / (1 - p[1])), rel=1e-5)
    assert torch.allclose(targets.sum(-1), torch.ones(3))


def test_losses_by_hand() -> None:
    log_probs = torch.tensor([[[0.5, 0.25, 0.25], [0.0, 0.5, 0.5]]]).log().requires_grad_()
    distribution = torch.tensor([[[0.2, 0.8, 0.0], [0.0, 1.0, 0.0]]])
    by_hand = -(0.2 * np.log(0.5) + 0.8 * np.log(0.25) + np.log(0.5)) / 2
    assert imitation_loss(log_probs, distribution).item() == pytest.approx(by_hand)
    right = torch.tensor([[[True, False, True], [False, False, False]]])  # the second pick is free
    loss = imitation_loss(log_probs, right)
    assert loss.item() == pytest.approx(-np.log(0.75))
    loss.backward()
    assert log_probs.grad is not None
    assert bool(log_probs.grad.isfinite().all())


# -- in a run ---------------------------------------------------------------------------------------


def first_picks(policy: VectorPolicy, world: World) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Log-probabilities of the first pick, and cosines."""
    held_out = QuestionSet(world, world, "held out", listed=False)
    comparison = Comparison(policy, RewardModel([Answerer(world)], "correct"), held_out, ProcessGroup("cpu"))
    comparison.outcomes([1])
    found = comparison.first_picks
    items = [load_item(policy, held_out, i) for i in range(len(world))]
    return [(found[i.question.id], cosines(policy.reader, i.question, i.clip)) for i in items]  # type: ignore[union-attr]


def divergence(policy: VectorPolicy, world: World) -> float:
    """KL of the teacher from the policy's first pick."""
    rows = []
    for log_probs, similar in first_picks(policy, world):
        teacher = (similar / 0.2).log_softmax(0)
        rows.append(float((teacher.exp() * (teacher - log_probs)).sum()))
    return float(np.mean(rows))


def test_distilling_similarity_comes_near_the_teacher(tmp_path: Path) -> None:
    policy, world = small_policy(d=24), World(40, 9)
    with torch.no_grad():
        policy.model.similarity_scale.fill_(-1.0)  # begins with the contrary
    before = divergence(policy, world)
    small_run(
        tmp_path, "stages=[{num_frames: [1, 3], steps: 40, method: similarity, temperature: 0.2}]",
        "validation.every=100", "optimiser.batch=8", "optimiser.lr=0.05", policy=policy,
    )  # fmt: skip
    losses = [row["imitation_loss"] for row in rows_of(tmp_path, "train")]
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    # The result is the best on rewards; the last weights are what the teacher made.
    load_checkpoint(numbered(tmp_path / "checkpoints")[-1], policy, None)
    assert divergence(policy, world) < 0.25 * before
    assert not rows_of(tmp_path, "drift")  # measured from the start of RL only


def test_imitating_evidence_reaches_it(tmp_path: Path) -> None:
    result = small_run(
        tmp_path, "stages=[{num_frames: [1, 2], steps: 50, method: evidence}]", "optimiser.batch=12",
        "validation.every=60", policy=small_policy(d=32), train=World(2000, 1), validation=World(100, 2),
        reference=Both([World(2000, 1), World(100, 2)]),
    )  # fmt: skip
    for row in result.report["accuracy"]:
        assert row["policy"]["mean"] >= 0.95


def test_questions_without_evidence_are_left_to_other_stages(tmp_path: Path) -> None:
    world, other = World(30, 1), World(2000, 2)
    rows = [replace(q, evidence=()) for q in (*(world[i] for i in range(30)), *(other[i] for i in range(1000, 1020)))]
    known, blind, held_out = [world[i] for i in range(3)], rows[3:30], rows[30:]

    def run(name: str, questions: list[Question]) -> None:
        small_run(
            tmp_path / name, "stages=[{num_frames: [1], steps: 3, method: evidence}]", train=questions,
            validation=held_out, clips=lambda video: (other if int(video) >= 1000 else world)(video),
        )  # fmt: skip

    run("some", [*known, *blind])
    assert [row["questions"] for row in rows_of(tmp_path / "some", "train")] == [4] * 3  # the known ones, repeated
    with pytest.raises(InputError, match="imitates evidence, but no question of train tells where it is"):
        run("none", blind)
    with pytest.raises(TrainingError, match="no question of the batch can be taught by evidence"):
        run("outside", [replace(q, evidence=((2.5, 2.6),)) for q in known])
