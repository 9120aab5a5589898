"""The assembled network: encode once, decode many, train through the state."""

from __future__ import annotations

import pytest
import torch

from refocus_select.errors import InputError
from refocus_select.models.backbone import BackboneState
from refocus_select.models.refocus import RefocusModel

from .tiny import feature_model

FRAMES = 9


@pytest.fixture(scope="module")
def model() -> RefocusModel:
    return feature_model(ngroups=2, use_rank_head=True).eval()


@pytest.fixture(scope="module")
def features() -> torch.Tensor:
    return torch.randn(FRAMES, 1, 6, generator=torch.Generator().manual_seed(5))


def read(model: RefocusModel, features: torch.Tensor, segment: int = FRAMES):
    state = model.start(torch.tensor([3, 4]))
    keys, values = [], []
    for piece in model.embed_frames(features).split(segment):
        k, v, state = model.read_frames(piece, state)
        keys.append(k)
        values.append(v)
    return torch.cat(keys), torch.cat(values), state


@torch.no_grad()
def test_segments_do_not_change_the_reading(model: RefocusModel, features: torch.Tensor) -> None:
    whole = read(model, features)
    for segment in (1, 2, 4):
        keys, values, state = read(model, features, segment)
        torch.testing.assert_close(keys, whole[0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(values, whole[1], atol=1e-5, rtol=1e-4)
        for ours, theirs in zip(state.layers, whole[2].layers, strict=True):
            torch.testing.assert_close(ours.ssm, theirs.ssm, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(ours.conv, theirs.conv, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_encode_once_equals_the_whole_prompt(model: RefocusModel, features: torch.Tensor) -> None:
    keys, values, state = read(model, features)
    question = torch.tensor([[7, 2, 2, 9]])
    embed = model.backbone.embedding
    prompt = torch.cat([embed(torch.tensor([3, 4])), model.embed_frames(features)[:, 0], embed(question[0])])
    hidden, full = model.backbone(prompt[None])
    torch.testing.assert_close(model.pointer.keys(hidden[0, 2 : 2 + FRAMES]), keys, atol=1e-5, rtol=1e-4)
    picks = model.decode(keys, values, model.read_text(question, state), steps=5)
    again = model.decode(keys, values, full, steps=5)
    assert torch.equal(picks.picks, again.picks)
    torch.testing.assert_close(picks.log_probs, again.log_probs, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_questions_and_candidates_in_one_batch_equal_single_runs(model: RefocusModel, features: torch.Tensor) -> None:
    keys, values, state = read(model, features)
    questions = torch.tensor([[7, 2, 2, 9], [1, 1, 8, 3], [5, 0, 5, 0]])
    together = model.read_text(questions, state)
    forced = torch.randint(0, FRAMES, (3, 4, 6), generator=torch.Generator().manual_seed(1))
    batch = model.decode(keys, values, together, steps=6, num_samples=4, forced=forced, replace=True)
    scored = model.score(keys, values, together, forced, replace=True)
    torch.testing.assert_close(scored.log_probs, batch.log_probs, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(scored.rank_logits, batch.rank_logits, atol=1e-4, rtol=1e-4)
    for i, question in enumerate(questions):
        alone = model.read_text(question[None], state)
        for j in range(4):
            one = model.decode(keys, values, alone, steps=6, forced=forced[i : i + 1, j : j + 1], replace=True)
            torch.testing.assert_close(one.log_probs[0, 0], batch.log_probs[i, j], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(one.rank_logits[0, 0], batch.rank_logits[i, j], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_long_texts_are_read_in_pieces(model: RefocusModel, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = torch.randint(0, 20, (2, 50), generator=torch.Generator().manual_seed(0))
    whole = model.read_text(ids, model.start(torch.tensor([1])))
    monkeypatch.setattr("refocus_select.models.refocus.TEXT_SEGMENT", 7)
    pieces = model.read_text(ids, model.start(torch.tensor([1])))
    torch.testing.assert_close(pieces.layers[1].ssm, whole.layers[1].ssm, atol=1e-5, rtol=1e-4)
    assert pieces.rows == 2


@torch.no_grad()
def test_steps_equal_a_plain_recurrence(model: RefocusModel) -> None:
    """The shared-state decoding against feeding tokens one by one with a carried state."""
    g = torch.Generator().manual_seed(2)
    _, state = model.backbone(torch.randn(2, 70, 32, generator=g))
    tokens = torch.randn(6, 5, 32, generator=g)  # 2 states, 3 rows each, 5 steps
    caches = model.backbone.start_decoding(state, 3, 5)
    stepped = torch.stack([model.backbone.step(tokens[:, t], caches) for t in range(5)], 1)
    carried: BackboneState = state.select_rows(torch.tensor([0, 0, 0, 1, 1, 1]))
    for t in range(5):
        out, carried = model.backbone(tokens[:, t : t + 1], carried)
        torch.testing.assert_close(stepped[:, t], out[:, 0], atol=1e-5, rtol=1e-4)
    with pytest.raises(IndexError, match="more decoding steps"):
        model.backbone.step(tokens[:, 0], caches)


@torch.no_grad()
def test_few_frames(model: RefocusModel, features: torch.Tensor) -> None:
    for count in (1, 3):
        keys, values, state = read(model, features[:count])
        result = model.decode(keys, values, state, steps=8)
        assert sorted(result.picks[0, 0].tolist()) == list(range(count))  # clamped to a permutation
        assert torch.isfinite(result.pick_log_probs).all()
        repeated = model.decode(keys, values, state, steps=8, replace=True)
        assert repeated.picks.shape == (1, 1, 8)
        assert torch.isfinite(repeated.log_probs).all()


@torch.no_grad()
def test_a_forced_frame_that_is_masked_has_no_probability(model: RefocusModel, features: torch.Tensor) -> None:
    keys, values, state = read(model, features)
    forced = torch.tensor([[[4, 4, -1, 4]]])
    result = model.decode(keys, values, state, steps=4, forced=forced)
    scored = model.score(keys, values, state, result.picks)
    for one in (result, scored):
        assert one.pick_log_probs[0, 0].isneginf().tolist() == [False, True, False, True]
        assert one.log_probs[0, 0].isneginf().sum(-1).tolist() == [0, 1, 1, 2]
    assert int(result.picks[0, 0, 2]) != 4


@torch.no_grad()
def test_sampling_follows_the_distribution_and_the_seed(model: RefocusModel, features: torch.Tensor) -> None:
    keys, values, state = read(model, features)

    def draw(seed: int, temperature: float = 1.0):
        generator = torch.Generator().manual_seed(seed)
        return model.decode(
            keys, values, state, steps=2, num_samples=4000, sample=True, temperature=temperature, generator=generator
        )

    result = draw(3)
    assert torch.equal(result.picks, draw(3).picks)
    assert not torch.equal(result.picks, draw(4).picks)
    counted = torch.bincount(result.picks[0, :, 0], minlength=FRAMES) / 4000
    expected = result.log_probs[0, 0, 0].exp()
    # 4 standard deviations of a frequency over 4000 draws
    assert ((counted - expected).abs() <= 4 * (expected * (1 - expected) / 4000).sqrt() + 1e-3).all()
    sharp = draw(3, temperature=0.01)
    greedy = model.decode(keys, values, state, steps=1)
    assert (sharp.picks[0, :, 0] == greedy.picks[0, 0, 0]).float().mean() > 0.9


def test_gradients_flow_through_the_state_into_the_reading(features: torch.Tensor) -> None:
    """The gradient of the two-part evaluation equals that of one pass over prompt and picks."""
    model = feature_model(use_rank_head=True)
    picks = torch.tensor([[[2, 7, 0], [5, 5, 1]]])

    def parts() -> torch.Tensor:
        keys, values, state = read(model, features, segment=4)
        scored = model.score(keys, values, model.read_text(torch.tensor([[6, 1]]), state), picks, replace=True)
        return scored.pick_log_probs.sum() + scored.rank_logits.sum()

    def whole() -> torch.Tensor:
        embed = model.backbone.embedding
        head = torch.cat([embed(torch.tensor([3, 4])), model.embed_frames(features)[:, 0], embed(torch.tensor([6, 1]))])
        hidden, _ = model.backbone(head[None])
        tails = hidden[0, 2 : 2 + FRAMES]
        keys, values = model.pointer.keys(tails), model.pointer.values(tails)
        total = torch.zeros(())
        for row in picks[0]:
            first = embed.weight[1:2]
            out, _ = model.backbone(torch.cat([head, first, values[row]])[None])
            decode = out[0, len(head) :]
            logits = model.pointer.logits(model.pointer.queries(decode[:-1]), keys, 1.0, None)
            total = total + logits.log_softmax(-1).gather(1, row[:, None]).sum() + model.pointer.rank(decode[-1])
        return total

    one, other = parts(), whole()
    torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    names, parameters = zip(*model.named_parameters(), strict=True)
    for name, mine, its in zip(
        names, torch.autograd.grad(one, parameters), torch.autograd.grad(other, parameters), strict=True
    ):
        assert its.abs().sum() > 0, name
        torch.testing.assert_close(mine, its, atol=2e-4 * float(its.abs().max()) + 1e-6, rtol=1e-3, msg=name)


@torch.no_grad()
def test_question_vectors_and_similarity(features: torch.Tensor) -> None:
    model = feature_model(question_hidden_size=5, similarity_residual=True)
    keys, values, state = read(model, features)
    asked = model.read_question_vectors(torch.randn(2, 5), state)
    similarity = torch.zeros(2, FRAMES)
    plain = model.decode(keys, values, asked, steps=3, similarity=similarity, num_samples=2)
    similarity[1, 6] = 100.0
    pushed = model.decode(keys, values, asked, steps=3, similarity=similarity, num_samples=2)
    assert torch.equal(pushed.picks[0], plain.picks[0])
    assert pushed.picks[1, :, 0].tolist() == [6, 6]
    scored = model.score(keys, values, asked, pushed.picks, similarity=similarity)
    torch.testing.assert_close(scored.log_probs, pushed.log_probs, atol=1e-3, rtol=1e-4)


@torch.no_grad()
def test_half_precision_stays_near_float32(features: torch.Tensor) -> None:
    model = feature_model(layers=3).eval()
    keys, values, state = read(model, features)
    picks = model.decode(keys, values, state, steps=4).picks
    exact = model.score(keys, values, state, picks)
    for name, parameter in model.named_parameters():
        if not name.endswith("A_log"):
            parameter.data = parameter.data.bfloat16()
    keys, values, state = read(model, features, segment=2)
    assert keys.dtype == torch.bfloat16
    assert state.layers[0].ssm.dtype == torch.float32
    assert state.layers[0].conv.dtype == torch.bfloat16
    rough = model.score(keys, values, state, picks)
    stepped = model.decode(keys, values, state, steps=4, forced=picks)
    finite = exact.log_probs.isfinite()
    assert torch.equal(finite, rough.log_probs.isfinite())
    assert float((exact.log_probs - rough.log_probs)[finite].abs().mean()) < 0.05
    assert float((stepped.log_probs - rough.log_probs)[finite].abs().mean()) < 0.05


@torch.no_grad()
def test_wrong_arguments_are_refused(model: RefocusModel, features: torch.Tensor) -> None:
    keys, values, state = read(model, features)
    for wrong in ({"steps": 0}, {"num_samples": 0}, {"temperature": 0.0}, {"temperature": -1.0}):
        with pytest.raises(InputError):
            model.decode(keys, values, state, **wrong)
    with pytest.raises(InputError, match=r"positions 0\.\.8"):
        model.score(keys, values, state, torch.tensor([[[0, 9]]]))
    for wrong in (
        torch.tensor([[[9, 0]]]),
        torch.tensor([[[0, -2]]]),
        torch.tensor([[[1]]]),
        torch.tensor([[[1, 1], [1, 1]]]),
    ):
        with pytest.raises(InputError, match="forced picks must be"):
            model.decode(keys, values, state, steps=2, forced=wrong)
    with pytest.raises(InputError, match="states of 1"):
        model.score(keys, values, state, torch.zeros(2, 1, 1, dtype=torch.int64))
    with pytest.raises(InputError, match="text tokens"):
        model.read_question_vectors(torch.zeros(1, 5), state)
