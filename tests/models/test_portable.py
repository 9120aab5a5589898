"""The portable policy: cues that any encoder gives, decoding equal to scoring, and filling up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from refocus_select.errors import SelectorLoadError
from refocus_select.hub import HubOptions, find_checkpoint
from refocus_select.models.checkpoint import fingerprint, load_model, save_model
from refocus_select.models.cues import (
    VideoCues,
    entity_cues,
    frame_similarity,
    relative_texts,
    similarities,
    video_cues,
)
from refocus_select.models.portable import PortableConfig, PortablePolicy, PortableReading, beside

WIDTH = 12


def network(seed: int = 0, **fields: Any) -> PortablePolicy:
    """A small network whose optional parts do something."""
    torch.manual_seed(seed)
    values: dict[str, Any] = {"d_model": 16, "d_state": 4, "headdim": 8, "entities": 2, "sentence_size": 6, **fields}
    policy = PortablePolicy(PortableConfig(**values)).eval()
    with torch.no_grad():
        for linear in (policy.stop, policy.pick_scale, *([policy.attention.out] if policy.attention else [])):
            linear.weight.normal_(std=0.5)
    return policy


def some(rows: int = 3, frames: int = 20, seed: int = 1) -> tuple[torch.Tensor, ...]:
    """Frames, texts (the last question names one thing only), sentences, times."""
    draw = torch.Generator().manual_seed(seed)
    vectors, texts = torch.randn(rows, frames, WIDTH, generator=draw), torch.randn(rows, 2, WIDTH, generator=draw)
    vectors[:, -4:] = vectors[:, -4:-3] + 0.2 * torch.randn(rows, 4, WIDTH, generator=draw)  # a scene
    texts[-1, 1] = 0
    sentences = torch.nn.functional.normalize(torch.randn(rows, 6, generator=draw), dim=-1)
    return vectors, texts, sentences, torch.rand(rows, frames, generator=draw).cumsum(1)


def read(policy: PortablePolicy, frames: torch.Tensor, texts: torch.Tensor, sentences: torch.Tensor,
         times: torch.Tensor) -> PortableReading:  # fmt: skip
    matches = similarities(frames, relative_texts(texts, torch.zeros(WIDTH)))
    return policy.read(video_cues(frames, times), matches, sentences)


# -- cues -------------------------------------------------------------------------------------------


def test_cues_do_not_depend_on_axes_dimensions_or_scale() -> None:
    frames, texts, _, times = some()
    turned, _ = torch.linalg.qr(torch.randn(30, 30, generator=torch.Generator().manual_seed(2)))
    other_frames, other_texts = (7 * part @ turned[:WIDTH] for part in (frames, texts))  # 30 dimensions
    one, other = video_cues(frames, times), video_cues(other_frames, times)
    for name in ("frames", "alike", "nearby", "next_scene"):
        assert torch.allclose(getattr(one, name), getattr(other, name), atol=1e-4)
    asked = [
        entity_cues(similarities(f, relative_texts(t, torch.zeros(f.shape[-1]))), v)
        for f, t, v in ((frames, texts, one), (other_frames, other_texts, other))
    ]
    assert torch.allclose(*asked, atol=1e-4)
    assert (asked[0][-1, :, 9:] == 0).all()  # a thing that is not there has no cues
    assert float(asked[0][0].std(0).min()) > 0


def test_a_gap_between_modalities_cancels() -> None:
    frames, texts, _, _ = some()
    unrelated = torch.randn(40, WIDTH, generator=torch.Generator().manual_seed(3))
    gap = 3 * torch.randn(WIDTH, generator=torch.Generator().manual_seed(4))
    plain = similarities(frames, relative_texts(texts, unrelated.mean(0)))
    there = texts.abs().sum(-1, keepdim=True) > 0
    moved = similarities(frames, relative_texts((texts + gap) * there, (unrelated + gap).mean(0)))
    assert torch.allclose(plain, moved, atol=1e-4)
    assert not torch.allclose(plain, similarities(frames, (texts + gap) * there), atol=0.1)


def scenes(*lengths: int, noise: float = 0.1) -> torch.Tensor:
    """One video of scenes that share nothing, [1, F, WIDTH]."""
    draw = torch.Generator().manual_seed(5)
    rows = torch.cat([torch.eye(WIDTH)[i].expand(n, -1) for i, n in enumerate(lengths)])
    return (rows + noise * torch.randn(rows.shape, generator=draw) / WIDTH**0.5)[None]


@pytest.mark.parametrize("length", [2, 5, 12])
def test_the_scene_behind_a_thing_is_found_however_long_scenes_are(length: int) -> None:
    frames = scenes(*[length] * 6)
    video = video_cues(frames, torch.arange(frames.shape[1], dtype=torch.float32)[None])
    text = torch.eye(WIDTH)[2].expand(1, 1, -1)
    cues = entity_cues(similarities(frames, text), video)[0]
    number = torch.arange(6).repeat_interleave(length)
    for cue, scene in ((7, 3), (8, 1), (4, 2), (5, 2)):  # behind, before, and the scene itself
        mean = torch.stack([cues[number == i, cue].mean() for i in range(6)])
        assert int(mean.argmax()) == scene, cue


def test_similarity_is_on_the_videos_own_scale() -> None:
    alike = frame_similarity(scenes(4, 4, 4, 4))[0]
    number = torch.arange(4).repeat_interleave(4)
    same = (number[:, None] == number) & ~torch.eye(16, dtype=torch.bool)
    assert 0.8 < float(alike[same].mean()) < 1.2
    assert abs(float(alike[number[:, None] != number].mean())) < 0.2
    still = frame_similarity(scenes(16, noise=0.0) + 1e-7)[0]  # nothing but one picture: no difference is blown up
    assert bool(still.isfinite().all())
    assert float(still.max() - still.min()) < 1e-3 or float(still.abs().max()) <= 2


# -- the network ------------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", [{}, {"attention_heads": 0}, {"n_layer": 2, "entities": 2}], ids=str)
@torch.no_grad()
def test_decoding_is_scoring_and_a_batch_is_its_rows(fields: dict[str, Any]) -> None:
    policy = network(2, **fields)
    frames, texts, sentences, times = some()
    reading = read(policy, frames, texts, sentences, times)
    assert reading.finite
    drawn = policy.decode(reading, 5, rollouts=4, sample=True, generator=torch.Generator().manual_seed(0))
    assert drawn.picks.shape == (3, 4, 5)
    assert all(len(set(picks)) == 5 for picks in drawn.picks.flatten(0, 1).tolist())
    scored = policy.score(reading, drawn.picks)
    finite = drawn.log_probs.isfinite()
    assert torch.equal(finite, scored.log_probs.isfinite())
    assert torch.allclose(drawn.log_probs[finite], scored.log_probs[finite], atol=1e-4)
    assert torch.allclose(drawn.remaining, scored.remaining, atol=1e-4)
    for row in range(3):
        alone = read(policy, *(part[row : row + 1] for part in (frames, texts, sentences, times)))
        assert torch.allclose(alone.keys[0], reading.keys[row], atol=1e-5)
        assert torch.allclose(alone.values[0], reading.values[row], atol=1e-5)


@torch.no_grad()
def test_many_questions_about_one_video_share_its_cues() -> None:
    policy = network(3)
    frames, texts, sentences, times = some()
    shared = read(policy, frames[:1], texts, sentences, times[:1])
    apart = read(policy, frames[:1].expand(3, -1, -1), texts, sentences, times[:1].expand(3, -1))
    assert len(shared.alike) == 1
    one, other = policy.decode(shared, 6), policy.decode(apart, 6)
    assert torch.equal(one.picks, other.picks)
    assert torch.allclose(one.remaining, other.remaining, atol=1e-5)
    assert len({tuple(picks) for picks in one.picks[:, 0].tolist()}) > 1  # the question matters


@torch.no_grad()
def test_samples_have_the_chances_that_are_told() -> None:
    policy, draws = network(4), 4000
    reading = read(policy, *(part[:1] for part in some(frames=6)))
    drawn = policy.decode(reading, 3, rollouts=draws, sample=True, generator=torch.Generator().manual_seed(1))
    first = drawn.log_probs[0, 0, 0].exp()
    seen = torch.bincount(drawn.picks[0, :, 0], minlength=6) / draws
    assert bool(((seen - first).abs() < 4.5 * (first * (1 - first) / draws).sqrt() + 1e-6).all())


@torch.no_grad()
def test_it_has_seen_enough_when_little_is_expected_of_further_picks() -> None:
    policy = network(5)
    plain = policy.decode(read(policy, *some()), 6)
    assert plain.lengths.unique().tolist() == [6]  # without a threshold never
    expected = plain.remaining[:, 0, 1:]
    for least in (-99.0, float(expected.median()), 99.0):
        careful = network(5, min_gain=least)
        found = careful.decode(read(careful, *some()), 6)
        assert torch.equal(found.picks, plain.picks)  # stopping changes no pick
        by_hand = [next((j + 1 for j, x in enumerate(row) if x < least), 6) for row in expected.tolist()]
        assert found.lengths[:, 0].tolist() == by_hand


@pytest.mark.parametrize("frames", [1, 2, 3, 7])
@torch.no_grad()
def test_short_videos_and_one_candidate(frames: int) -> None:
    policy = network(6)
    reading = read(policy, *(part[:, :frames] if part.shape[1] == 20 else part for part in some()))
    assert reading.finite
    picks = policy.decode(reading, 8).picks
    assert picks.shape[-1] == min(8, frames)
    assert sorted(picks[0, 0].tolist()) == sorted(set(picks[0, 0].tolist()))


def test_gradient_reaches_every_parameter() -> None:
    policy = network(7)
    reading = read(policy, *some())
    picks = torch.stack([torch.randperm(20)[:4] for _ in range(6)]).view(3, 2, 4)
    scored = policy.score(reading, picks)
    chosen = scored.log_probs.gather(-1, picks[..., None]).sum()
    (chosen + scored.remaining.sum()).backward()
    without = {name for name, p in policy.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)}
    assert without == {"reverse.embedding.weight"}  # which begins picking; the other direction picks nothing


# -- filling up -------------------------------------------------------------------------------------


def test_frames_beside_the_picks_fill_up() -> None:
    picks = torch.tensor([[9, 2, 5]])
    assert beside(picks, torch.tensor([3]), 3, 12).tolist() == [[9, 2, 5]]
    assert beside(picks, torch.tensor([2]), 6, 12).tolist() == [[9, 2, 1, 3, 8, 10]]  # 5 does not count
    assert beside(picks, torch.tensor([1]), 4, 12).tolist() == [[9, 8, 10, 7]]
    edge = beside(torch.tensor([[0, 11]]), torch.tensor([2]), 12, 12)
    assert sorted(edge[0].tolist()) == list(range(12))
    many = beside(picks.expand(2, 3, 3), torch.tensor([[1, 2, 3]] * 2), 5, 12)
    assert many.shape == (2, 3, 5)
    assert all(len(set(row)) == 5 for row in many.flatten(0, 1).tolist())


# -- files ------------------------------------------------------------------------------------------


def test_a_round_trip_through_files(tmp_path: Path) -> None:
    policy = network(8, min_rank=0.25, max_picks=9)
    save_model(policy, tmp_path)
    again = load_model(find_checkpoint(tmp_path, HubOptions()), device="cpu")
    assert isinstance(again, PortablePolicy)
    assert again.config == policy.config
    assert fingerprint(again) == fingerprint(policy)
    for name, tensor in policy.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(SelectorLoadError, match="d_model must be a positive whole number"):
        PortableConfig(d_model=0)
    with pytest.raises(SelectorLoadError, match="d_model 16 cannot be shared by 3 heads"):
        PortableConfig(d_model=16, attention_heads=3)
    with pytest.raises(SelectorLoadError, match="unknown fields: colour"):
        PortableConfig.from_dict({**PortableConfig().to_dict(), "colour": 1})
    with pytest.raises(SelectorLoadError, match="format_version 9; this release reads 1"):
        PortableConfig.from_dict({**PortableConfig().to_dict(), "format_version": 9})


def test_video_cues_are_a_plain_record() -> None:
    frames, _, _, times = some()
    cues = video_cues(frames, times)
    assert isinstance(cues, VideoCues)
    assert torch.allclose(cues.nearby.sum(-1), torch.ones(3, 20), atol=1e-5)
    assert bool(((cues.next_scene >= 0) & (cues.next_scene <= 1)).all())
