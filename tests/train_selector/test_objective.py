"""The gradient against formulas and exact enumeration, and the parts that it is made of."""

from __future__ import annotations

from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from refocus_select.errors import InputError
from refocus_select.questions import Question
from refocus_select.reference import ReferenceModel, Request
from refocus_select.train_selector.objective import (
    advantages,
    entropies,
    prefix_credits,
    remaining_gains,
    surrogate,
)
from refocus_select.train_selector.policy import PolicyInputs
from refocus_select.train_selector.reward import RewardModel, margins, rewards
from refocus_select.train_selector.vector_policy import VectorInputs, VectorPolicy

from .planted import World
from .small_run import Both, rows_of, small_config, small_policy, small_run


def inputs(frames: int, seed: int = 0) -> VectorInputs:
    draw = torch.Generator().manual_seed(seed)
    vectors, sentence, texts, unrelated = (
        torch.randn(*size, generator=draw) for size in ((frames, 8), (4,), (1, 8), (3, 8))
    )
    return VectorInputs(vectors, torch.arange(frames).float(), sentence, texts, unrelated)


def gradients(policy: VectorPolicy, value: Tensor) -> list[Tensor]:
    parameters = [p for p in policy.parameters() if p.requires_grad]
    found = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


def assert_close(one: list[Tensor], other: list[Tensor], tolerance: float = 1e-6) -> None:
    scale = max(float(g.abs().max()) for g in other)
    assert scale > 1e-4  # not a comparison of zeros
    for a, b in zip(one, other, strict=True):
        assert float((a - b).abs().max()) <= tolerance * max(1.0, scale)


@pytest.mark.parametrize("heads", [0, 4])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_gradient_of_two_frames_and_one_pick_is_the_closed_form(heads: int, temperature: float) -> None:
    policy = small_policy(3, attention_heads=heads)
    picks = torch.tensor([[[0], [1], [1]]])  # N = 3 subsets of one pick
    values, beta = torch.tensor([[0.9, -0.4, 0.2]]), 0.3
    rollouts = policy([inputs(2)], picks, temperature=temperature)
    value = surrogate(rollouts.log_probs, rollouts.log_probs.detach(), values, None)
    value = (value + beta * rollouts.entropy.sum(-1).mean(1)).sum()

    # d/dz of (1/N) sum A_j log p(a_j) + beta H, for logits z with p = softmax(z)
    p = rollouts.distributions[0, 0, 0].detach().exp()
    entropy = -(p * p.log()).sum()
    by_hand = sum(a * (torch.eye(2)[int(j)] - p) for a, j in zip(values[0], picks.flatten(), strict=True)) / 3
    by_hand = by_hand - beta * p * (p.log() + entropy)

    # The similarity enters the logits as scale * similarity / temperature: its gradient is known in full.
    similarity = policy.read([inputs(2)]).similarity
    scale = policy.model.similarity_scale
    (found,) = torch.autograd.grad(value, scale, retain_graph=True)
    assert torch.allclose(found, (by_hand * similarity[0]).sum() / temperature, atol=1e-6)
    # All other weights move the logits in their own way, which autograd tells.
    logits = rollouts.distributions[0, 0, 0]  # up to a constant, which the gradient by hand does not see
    assert_close(gradients(policy, value), gradients(policy, (logits * by_hand).sum()))


@pytest.fixture
def enumerated() -> tuple[VectorPolicy, PolicyInputs, Tensor, Tensor]:
    """All ordered pairs of four frames, [12, 2], and a reward for each that knows no order."""
    pairs = torch.tensor(list(permutations(range(4), 2)))
    worth = torch.tensor([[0, 3, -1, 2], [3, 0, 1, 0.5], [-1, 1, 0, -2], [2, 0.5, -2, 0]])
    return small_policy(1), inputs(4, 5), pairs, worth[pairs[:, 0], pairs[:, 1]]


def test_expected_gradient_of_two_picks_is_that_of_the_expected_reward(
    enumerated: tuple[VectorPolicy, PolicyInputs, Tensor, Tensor],
) -> None:
    policy, one, pairs, reward = enumerated
    rollouts = policy([one], pairs[None])
    chance = rollouts.log_probs[0].sum(-1).exp()
    assert float(chance.sum().detach()) == pytest.approx(1.0, abs=1e-5)  # all ordered subsets, none twice
    weighed = (chance.detach() * reward * len(pairs))[None]  # the mean over "rollouts" is then the expectation
    expected = surrogate(rollouts.log_probs, rollouts.log_probs.detach(), weighed, None).sum()
    exact = gradients(policy, (chance * reward).sum())
    assert_close(gradients(policy, expected), exact)
    moved = (chance.detach() * (reward - 7.5) * len(pairs))[None]
    baseline = surrogate(rollouts.log_probs, rollouts.log_probs.detach(), moved, None).sum()
    assert_close(gradients(policy, baseline), exact, 1e-5)  # a baseline changes nothing in expectation


def test_centred_groups_of_two_estimate_half_the_gradient(
    enumerated: tuple[VectorPolicy, PolicyInputs, Tensor, Tensor],
) -> None:
    """A mean that holds the subset itself shrinks the gradient by 1 - 1/N, and nothing else."""
    policy, one, pairs, reward = enumerated
    rollouts = policy([one], pairs[None])
    log_probs = rollouts.log_probs[0]
    chance = log_probs.sum(-1).exp()
    total = torch.zeros(())
    for i, j in product(range(len(pairs)), repeat=2):
        both = torch.tensor([i, j])
        values = advantages(reward[both][None], "none").values
        drawn = log_probs[both][None]
        weight = float(chance[i].detach() * chance[j].detach())
        total = total + weight * surrogate(drawn, drawn.detach(), values, None).sum()
    exact = gradients(policy, (chance * reward).sum() / 2)
    assert_close(gradients(policy, total), exact, 1e-5)


def test_credit_of_what_follows_is_the_gradient_of_the_expected_reward() -> None:
    """Exact, over all groups of two ordered pairs of four frames; the first pick alone may be worth anything."""
    policy, one = small_policy(1), inputs(4, 5)
    worth = torch.tensor([[0, 3, -1, 2], [3, 0, 1, 0.5], [-1, 1, 0, -2], [2, 0.5, -2, 0]])
    alone = torch.tensor([0.4, -1.0, 2.5, 0.0])
    pairs = torch.tensor(list(permutations(range(4), 2)))
    reward, before = worth[pairs[:, 0], pairs[:, 1]], alone[pairs[:, 0]]
    log_probs = policy([one], pairs[None]).log_probs[0]
    chance = log_probs.sum(-1).exp()
    assert float(chance.sum().detach()) == pytest.approx(1.0, abs=1e-5)
    total, biased = torch.zeros(()), torch.zeros(())
    for i, j in product(range(len(pairs)), repeat=2):
        both = torch.tensor([i, j])
        drawn, weight = log_probs[both][None], float(chance[i].detach() * chance[j].detach())
        credits = prefix_credits(reward[both][None], before[both][None, :, None])
        values = advantages(credits, "none").values
        total = total + weight * surrogate(drawn, drawn.detach(), values, None).sum()
        near = prefix_credits(reward[both][None], before[both][None, :, None], decay=0.5)
        biased = biased + weight * (near * drawn).sum(-1).mean(1).sum()
    exact = gradients(policy, (chance * reward).sum())
    assert_close(gradients(policy, total), exact, 1e-5)
    with pytest.raises(AssertionError):
        assert_close(gradients(policy, biased), exact, 1e-2)


def test_credit_of_the_others_baseline_leads_away_and_that_of_the_prefix_does_not() -> None:
    """An example in which a baseline that sees later picks makes the better start look worthless."""
    good, poor, late, other = range(
        4
    )  # `late` alone answers, `good` leads to it; `poor` and `other` together give half
    worth = {(late,): 1.0, (good, late): 1.0, (poor, other): 0.5}
    pairs = torch.tensor(list(permutations(range(4), 2)))
    reward = torch.tensor([worth.get(tuple(sorted(pair)), 0.0) for pair in pairs.tolist()])
    first = torch.tensor([0.0, 0.0, -6.0, -6.0], requires_grad=True)
    second = torch.zeros(4, 4)
    second[good, late] = second[poor, other] = 6.0
    steps = second.masked_fill(torch.eye(4, dtype=torch.bool), -torch.inf).log_softmax(1)
    log_probs = torch.stack([first.log_softmax(0)[pairs[:, 0]], steps[pairs[:, 0], pairs[:, 1]]], 1)
    chance = log_probs.sum(1).exp()
    alone = torch.tensor([worth.get((frame,), 0.0) for frame in range(4)])
    (exact,) = torch.autograd.grad((chance * reward).sum(), first, retain_graph=True)

    def gradient(credits: Tensor) -> Tensor:
        (found,) = torch.autograd.grad((chance.detach()[:, None] * credits * log_probs).sum(), first, retain_graph=True)
        return found

    mean = float((chance * reward).sum().detach())
    prefix = torch.stack([reward - mean, reward - alone[pairs[:, 0]]], 1)
    without = torch.stack([reward - alone[pairs[:, 1]], reward - alone[pairs[:, 0]]], 1)
    assert torch.allclose(gradient(prefix), exact, atol=1e-6)
    assert exact[good] > 0.1 > -0.1 > gradient(without)[good]


def test_prefix_credits_by_hand() -> None:
    rewards, before = torch.tensor([[1.0, 0.0, 0.5]]), torch.tensor([[[0.2, 0.4], [0.3, 0.1], [0.5, 0.5]]])
    whole = prefix_credits(rewards, before)
    assert torch.allclose(whole, torch.tensor([[[0.75, 0.8, 0.6], [-0.75, -0.3, -0.1], [0, 0, 0]]]), atol=1e-6)
    near = prefix_credits(rewards, before, decay=0.5)
    assert torch.allclose(near[0, :, 1], torch.tensor([0.5, -0.25, 0.0]), atol=1e-6)
    assert torch.allclose(near[0, :, 2], whole[0, :, 2])
    left = remaining_gains(rewards, before)
    assert torch.allclose(left, torch.tensor([[[0.8, 0.6], [-0.3, -0.1], [0, 0]]]))
    assert torch.allclose(advantages(whole, "batch").values.square().mean(), torch.tensor(1.0))


def test_drawn_subsets_have_the_chances_that_are_scored() -> None:
    policy, one, draws = small_policy(1), inputs(4, 5), 4000
    with torch.no_grad():
        drawn = policy([one], None, rollouts=draws, steps=2, generator=torch.Generator().manual_seed(1))
        pairs = torch.tensor(list(permutations(range(4), 2)))
        chance = policy([one], pairs[None]).log_probs[0].sum(-1).exp()
    seen = torch.stack([(drawn.picks[0] == pair).all(-1).float().mean() for pair in pairs])
    error = (chance * (1 - chance) / draws).sqrt()
    assert bool(((seen - chance).abs() < 4.5 * error).all())


# -- advantages, clipping, entropy ------------------------------------------------------------------


def test_advantages_by_hand() -> None:
    given = torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.3, 0.3, 0.3, 0.3], [0.0, 0.0, 0.0, 4.0]])
    group = advantages(given, "group")
    deviation = (1 / 3) ** 0.5  # sample deviation of 1, 0, 0, 1
    assert torch.allclose(group.values[0], torch.tensor([0.5, -0.5, -0.5, 0.5]) / deviation)
    assert torch.allclose(group.values[2], torch.tensor([-1.0, -1.0, -1.0, 3.0]) / 2)
    assert group.values[1].tolist() == [0, 0, 0, 0]
    assert group.informative.tolist() == [True, False, True]
    spread = ((4 * 0.25 + 0 + 3 * 1 + 9) / 12) ** 0.5
    assert torch.allclose(advantages(given, "batch").values[0], torch.tensor([0.5, -0.5, -0.5, 0.5]) / spread)
    assert torch.allclose(advantages(given, "none").values[2], torch.tensor([-1.0, -1.0, -1.0, 3.0]))
    whole = advantages(given[:1], "batch", everywhere=[given])  # one process of two
    assert torch.allclose(whole.values, advantages(given, "batch").values[:1])


def test_clipping_by_hand() -> None:
    drawn = torch.zeros(1, 2, 2)
    now = torch.tensor([[[0.5, -0.5], [0.5, -0.5]]], requires_grad=True)  # ratios 1.65 and 0.61
    value = surrogate(now, drawn, torch.tensor([[1.0, -1.0]]), 0.2)
    up, down = float(np.exp(0.5)), float(np.exp(-0.5))
    assert float(value.detach()) == pytest.approx(((1.2 + down) + (-up - 0.8)) / 2)
    value.sum().backward()
    assert now.grad is not None
    # Beyond the clip the gradient is gone where it would go further, and stays where it would come back.
    assert torch.allclose(now.grad, torch.tensor([[[0, down], [-up, 0]]]) / 2)


def test_first_pass_of_clipping_has_the_plain_gradient() -> None:
    policy = small_policy(2)
    rollouts = policy([inputs(5), inputs(5, 1)], None, rollouts=3, steps=2, generator=torch.Generator().manual_seed(0))
    values = torch.randn(2, 3, generator=torch.Generator().manual_seed(1))
    before = rollouts.log_probs.detach()
    plain = gradients(policy, surrogate(rollouts.log_probs, before, values, None).sum())
    assert_close(gradients(policy, surrogate(rollouts.log_probs, before, values, 0.2).sum()), plain)


def test_several_passes_of_a_run(tmp_path: Path) -> None:
    """With passes the weights take several steps per batch, and the first of them is the plain one."""
    words = ["stages=[{num_frames: [2], steps: 1, rollouts: 4}]", "optimiser.warmup_steps=0"]
    small_run(tmp_path / "one", *words)
    small_run(tmp_path / "clipped", *words, "objective.clip=0.2")
    small_run(tmp_path / "two", *words, "objective.clip=0.2", "objective.passes=2")
    norms = [rows_of(tmp_path / name, "train")[0]["gradient_norm"] for name in ("one", "clipped", "two")]
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)
    assert norms[2] != pytest.approx(norms[1], rel=1e-3)  # of the second pass, after a step
    with pytest.raises(InputError, match=r"passes above 1 needs objective.clip"):
        small_config(tmp_path, "objective.passes=2")


def test_entropy_leaves_out_masked_frames() -> None:
    log_probs = torch.tensor([[0.5, 0.5, 0.0], [0.25, 0.75, 0.0], [1.0, 0.0, 0.0]]).log().requires_grad_()
    found = entropies(log_probs)
    expected = [np.log(2), -(0.25 * np.log(0.25) + 0.75 * np.log(0.75)), 0.0]
    assert torch.allclose(found.detach(), torch.tensor(expected).float())
    found.sum().backward()
    assert log_probs.grad is not None
    assert bool(log_probs.grad.isfinite().all())


# -- rewards ----------------------------------------------------------------------------------------


def test_rewards_by_hand() -> None:
    logits = torch.tensor([[2.0, 1.0, -1.0], [0.0, 3.0, 3.0]])
    assert margins(logits, 0).tolist() == [1.0, -3.0]
    assert torch.allclose(rewards(logits, 0, "tanh_margin"), torch.tensor([0.5, -1.5]).tanh())
    p = np.exp([2.0, 1.0, -1.0]) / np.exp([2.0, 1.0, -1.0]).sum()
    assert float(rewards(logits, 0, "probability")[0]) == pytest.approx(p[0])
    assert float(rewards(logits, 0, "probability_margin")[0]) == pytest.approx(p[0] - p[1])
    assert rewards(logits, 0, "correct").tolist() == [1.0, 0.0]
    assert rewards(logits, 1, "correct").tolist() == [0.0, 0.0]  # as large as another is not right
    two = torch.tensor([[0.3, 1.7]])
    assert torch.allclose(rewards(two, 1, "tanh_margin"), rewards(two, 1, "probability_margin"))


class Fixed(ReferenceModel):
    def __init__(self, logits: list[list[float]]) -> None:
        self.name = self.fingerprint = "fixed"
        self._logits = torch.tensor(logits)

    def option_logits(self, requests: list[Request]) -> list[Tensor]:  # type: ignore[override]
        return [self._logits for _ in requests]


def test_judge_averages_models_and_refuses_numbers_that_are_none() -> None:
    world = World(3, 1)
    request = Request(world[0], world("0"), torch.tensor([[0, 1], [2, 3]]))
    one, other = Fixed([[3.0, 0, 0], [0, 0, 1]]), Fixed([[0, 1.0, 0], [5, 0, 0]])
    scored = RewardModel([one, other], "tanh_margin")([request])[0]
    assert scored.margin.tolist() == [1.0, 2.0]
    assert scored.correct.tolist() == [0.5, 0.5]
    assert torch.allclose(scored.value, (torch.tensor([[1.5, -0.5], [-0.5, 2.5]]).tanh()).mean(0))
    with pytest.raises(InputError, match=r"fixed gave \(2, 3\) non-finite logits for question q0"):
        RewardModel([Fixed([[3.0, 0, float("nan")], [0, 0, 1]])], "correct")([request])
    with pytest.raises(InputError, match=r"expected are finite ones of shape \(2, 3\)"):
        RewardModel([Fixed([[3.0, 0], [0, 0]])], "correct")([request])
    with pytest.raises(InputError, match="has no answer"):
        RewardModel([one], "correct")(
            [Request(Question("x", "v", "?", ("a", "b", "c")), request.clip, request.subsets)]
        )
    with pytest.raises(InputError, match="a reference model is needed"):
        RewardModel([], "correct")


@pytest.mark.parametrize("kind", ["group", "batch", "none"])
def test_credits_of_videos_of_different_lengths_share_a_batch(tmp_path: Path, kind: str) -> None:
    """Videos with fewer candidates than K: every question has its own number of picks."""
    small_run(
        tmp_path, "stages=[{num_frames: [4], steps: 6, rollouts: 4, entropy_bonus: 0.01}]", "objective.credit=prefix",
        f"objective.advantage={kind}", "optimiser.micro_batch=2", lengths=(3, 5, 9),
    )  # fmt: skip
    found = rows_of(tmp_path, "train")
    assert [row["step"] for row in found] == [1, 2, 3, 4, 5, 6]
    assert all(np.isfinite(row["gradient_norm"]) for row in found)
    assert max(row["gradient_norm"] for row in found) > 1e-3


def test_the_scale_of_a_batch_counts_every_credit_of_every_length() -> None:
    long, short = torch.tensor([[[3.0, -1.0, 0.5], [1.0, 2.0, -2.0]]]), torch.tensor([[[4.0], [-4.0]]])
    rms = (sum(float(part.square().sum()) for part in (long, short)) / 8) ** 0.5
    for part in (long, short):
        assert torch.allclose(advantages(part, "batch", everywhere=[long, short]).values, part / rms)


def test_names_of_the_objective_can_be_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from refocus_select.train_selector import objective, reward

    monkeypatch.setitem(objective.ADVANTAGES, "sign", lambda values, size, total: values.sign())
    monkeypatch.setitem(reward.REWARDS, "surely", lambda logits, answer: (logits.softmax(-1)[:, answer] > 0.9).float())
    assert advantages(torch.tensor([[2.0, 0.5, 0.5]]), "sign").values.tolist() == [[1.0, -1.0, -1.0]]
    config = small_config(tmp_path, "objective.advantage=sign", "objective.reward=surely")
    assert config.objective.advantage == "sign"
    with pytest.raises(InputError, match=r"objective\.credit must be one of subset, prefix"):
        small_config(tmp_path, "objective.credit=pick")


def test_a_term_is_added_to_the_reward() -> None:
    """As a price of frames would be: it moves what is learned from, and neither margin nor accuracy."""

    class Price:
        fingerprint = "price-0.1"

        def __call__(self, request: Request, reward: object) -> Tensor:
            return torch.full((len(request.subsets),), -0.1 * request.subsets.shape[1])

    world = World(4, 1)
    question = world[0]
    request = Request(question, world(question.video), torch.tensor([[0, 4, 8], [1, 2, 3]]))
    plain, priced = (RewardModel([Both([world])], "probability", terms) for terms in ((), (Price(),)))
    (one,), (other,) = plain([request]), priced([request])
    assert torch.allclose(other.value, one.value - 0.3)
    assert torch.equal(other.margin, one.margin)
    assert priced.fingerprint == f"{plain.fingerprint}+price-0.1"
