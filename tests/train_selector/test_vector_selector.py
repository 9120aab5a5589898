"""Policies over the vectors of a dual encoder: one encoding for all, and decoding equal to scoring."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from refocus_select import weights
from refocus_select.errors import InputError, SelectorLoadError
from refocus_select.models.config import RefocusConfig, SSMConfig
from refocus_select.models.cues import entity_similarity
from refocus_select.models.mini import DIMENSIONS, MiniEncoder
from refocus_select.models.refocus import RefocusModel
from refocus_select.models.vectors import question_parts, read_vectors
from refocus_select.selectors import FrameSelector
from refocus_select.selectors.algorithms import farthest_first, uniform
from refocus_select.selectors.algorithms.contract import minmax
from refocus_select.selectors.policy import PolicySelector
from refocus_select.selectors.vector_policy import RELEVANCE, VectorPolicySelector, recognised

from ..models.tiny import selector_folder
from ..video.clips import encode

QUESTIONS = ["When does the bow appear?", "Who opens the red door?", "What lies on the table?"]
VARIANTS: list[dict[str, Any]] = [
    {}, {"question_fusion": "before"}, {"bidirectional": True}, {"frame_cues": True},
    {"question_fusion": "before", "frame_cues": True, "bidirectional": True, "similarity_residual": True},
    {"question_fusion": "before", "frame_cues": True, "question_mentions": 2, "similarity_residual": True},
    {"backbone": "gru"}, {"backbone": "gru", "question_fusion": "before", "frame_cues": True, "bidirectional": True},
]  # fmt: skip


def network(seed: int = 0, width: int = 6, **fields: Any) -> RefocusModel:
    torch.manual_seed(seed)
    values: dict[str, Any] = {
        "d_model": 16, "n_layer": 2, "vocab_size": 1, "ssm": SSMConfig(d_state=4, headdim=8), "mm_hidden_size": width,
        "mm_spatial_pool_mode": "none", "frame_encoder": "none", "question_hidden_size": width,
        "feature_encoder": "mini", "answer_options": False, **fields,
    }  # fmt: skip
    return RefocusModel(RefocusConfig(**values)).eval()


def some(model: RefocusModel, rows: int = 3, frames: int = 9, seed: int = 1) -> tuple[torch.Tensor, ...]:
    draw = torch.Generator().manual_seed(seed)
    parts = 1 + model.config.question_mentions
    times = torch.rand(rows, frames, generator=draw).cumsum(1)
    return torch.randn(rows, frames, 6, generator=draw), torch.randn(rows, parts, 6, generator=draw), times


@pytest.mark.parametrize("fields", VARIANTS, ids=lambda f: ",".join(f) or "plain")
@torch.no_grad()
def test_decoding_is_scoring_and_a_batch_is_its_rows(fields: dict[str, Any]) -> None:
    model = network(2, **fields)
    features, questions, times = some(model)
    reading = read_vectors(model, features, questions, times)
    assert reading.keys.shape == reading.values.shape == (3, 9, 16)
    assert reading.finite
    decoded = model.decode(
        reading.keys, reading.values, reading.state, steps=5, num_samples=4, sample=True, rank=False,
        generator=torch.Generator().manual_seed(0), similarity=reading.similarity,
    )  # fmt: skip
    assert all(len(set(picks)) == 5 for picks in decoded.picks.flatten(0, 1).tolist())
    scored = model.score(
        reading.keys, reading.values, reading.state, decoded.picks, similarity=reading.similarity
    )  # fmt: skip
    assert torch.allclose(decoded.pick_log_probs, scored.pick_log_probs, atol=1e-4)
    finite = decoded.log_probs.isfinite()
    assert torch.equal(finite, scored.log_probs.isfinite())
    assert torch.allclose(decoded.log_probs[finite], scored.log_probs[finite], atol=1e-4)
    for row in range(3):
        alone = read_vectors(model, *(t[row : row + 1] for t in (features, questions, times)))
        assert torch.allclose(alone.keys[0], reading.keys[row], atol=1e-5)
        assert torch.allclose(alone.values[0], reading.values[row], atol=1e-5)
        for one, all_rows in zip(alone.state.stacked(), reading.state.stacked(), strict=True):
            assert torch.allclose(one[:, 0], all_rows[:, row], atol=1e-5)


@pytest.mark.parametrize("bidirectional", [False, True])
@torch.no_grad()
def test_what_depends_on_the_question(bidirectional: bool) -> None:
    for fusion in ("after", "before"):
        model = network(3, question_fusion=fusion, bidirectional=bidirectional, frame_cues=True)
        features, questions, times = some(model, 1)
        one = read_vectors(model, features, questions, times)
        other = read_vectors(model, features, -questions, times)
        assert torch.equal(one.keys, other.keys) == torch.equal(one.values, other.values) == (fusion == "after")
        assert not torch.allclose(one.state.stacked()[1], other.state.stacked()[1])
        changed = features.clone()
        changed[0, -1] *= -1.0  # keys of earlier frames see it only from both ends (or through cues of the whole)
        plain = network(3, question_fusion=fusion, bidirectional=bidirectional)
        before, after = (read_vectors(plain, f, questions, times).keys[0, 0] for f in (features, changed))
        assert torch.equal(before, after) != bidirectional


@torch.no_grad()
def test_the_length_of_vectors_does_not_matter_and_wrong_ones_are_refused() -> None:
    model = network()
    features, questions, times = some(model)
    one, other = (read_vectors(model, features * s, questions * s, times).keys for s in (1.0, 40.0))
    assert torch.allclose(one, other, atol=1e-3)
    with pytest.raises(InputError, match=r"vectors of 5 \(frames\) and 6 \(question\)"):
        read_vectors(model, features[..., :5], questions, times)
    with pytest.raises(InputError, match="questions of 2 vectors, but the network reads 1"):
        read_vectors(model, features, questions.repeat(1, 2, 1), times)


# -- the selector -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    encoder = MiniEncoder.from_pretrained(weights.resolve("mini"), device="cpu")
    model = network(
        4, DIMENSIONS, question_fusion="before", frame_cues=True, similarity_residual=True, question_mentions=2,
        max_fps=4.0, max_num_frames=12,
    )  # fmt: skip
    target = tmp_path_factory.mktemp("policy") / "own"
    VectorPolicySelector(model, encoder, name="own").save_pretrained(target)
    return target


@pytest.fixture(scope="module")
def selector(folder: Path) -> FrameSelector:
    return FrameSelector.from_pretrained(folder, device="cpu")


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encode(tmp_path_factory.mktemp("film") / "f.mp4", 40, fps=8, width=64, height=48)


def test_a_round_trip(folder: Path, selector: FrameSelector, film: Path) -> None:
    assert isinstance(selector, VectorPolicySelector)
    assert (selector.rule.fps, selector.rule.max_frames) == (4.0, 12)
    again = VectorPolicySelector.from_pretrained(folder, device="cpu")
    for name, tensor in selector.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[name])
    one, other = (s.select(str(film), QUESTIONS[0], num_frames=4) for s in (selector, again))
    assert one.indices.tolist() == other.indices.tolist()
    assert np.array_equal(one.scores, other.scores)
    assert again.fingerprint == selector.fingerprint
    assert "from_pretrained" in (folder / "README.md").read_text()


def test_pictures_and_vectors_are_not_mixed_up(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SelectorLoadError, match="load it with FrameSelector"):
        PolicySelector.from_pretrained(folder)
    pictures = selector_folder(tmp_path / "pictures")
    with pytest.raises(SelectorLoadError, match="load it with PolicySelector"):
        VectorPolicySelector.from_pretrained(pictures)


@pytest.mark.parametrize("num_frames", [1, 5, 12, 30])
def test_exactly_as_many_frames_as_asked_for(selector: FrameSelector, film: Path, num_frames: int) -> None:
    encoding = selector.encode(str(film))
    assert len(encoding) == 12
    for sample in (False, True):
        for chosen in selector.select(encoding, QUESTIONS, num_frames=num_frames, sample=sample, seed=2):
            assert len(chosen.indices) == min(num_frames, 12)
            assert (np.diff(chosen.indices) > 0).all()
            assert np.isin(chosen.indices, encoding.indices).all()
            assert len(chosen.scores) == 12
            assert np.isfinite(chosen.scores).all()


def test_samples_follow_the_seed(selector: FrameSelector, film: Path) -> None:
    encoding = selector.encode(str(film))

    def draw(question: str | list[str], **kwargs: Any) -> Any:
        found = selector.select(encoding, question, num_frames=3, sample=True, **kwargs)
        return [s.indices.tolist() for s in found] if isinstance(question, list) else found.indices.tolist()

    assert draw(QUESTIONS[0], seed=1) == draw(QUESTIONS[0], seed=1)
    assert len({tuple(draw(QUESTIONS[0], seed=seed)) for seed in range(12)}) > 1
    assert draw(QUESTIONS, seed=1)[0] == draw(QUESTIONS[0], seed=1)  # whatever else is asked
    with pytest.raises(InputError, match="temperature must be above 0"):
        draw(QUESTIONS[0], temperature=0.0)
    with pytest.raises(InputError, match="has no argument protocol"):
        draw(QUESTIONS[0], protocol="paper")


def test_one_encoding_serves_algorithms_and_many_questions(selector: FrameSelector, film: Path) -> None:
    topk = FrameSelector.from_pretrained("topk", device="cpu")
    encoding = topk.encode(str(film), fps=4.0, max_frames=12)
    assert encoding.encoder_fingerprint == selector.encoding_fingerprint
    mine = selector.select(encoding, QUESTIONS, num_frames=4)
    other = selector.encode(str(film))  # and the other way round
    best = topk.select(other, QUESTIONS[0], num_frames=4)
    assert sorted(best.scores)[-4:] == sorted(best.scores[np.isin(other.indices, best.indices)])
    many = selector.select(encoding, QUESTIONS * 30, num_frames=4)  # more than one batch
    for place, question in enumerate(QUESTIONS):
        alone = selector.select(encoding, question, num_frames=4)
        assert alone.indices.tolist() == mine[place].indices.tolist() == many[87 + place].indices.tolist()
        assert np.allclose(alone.scores, mine[place].scores, atol=1e-4)
    assert len({tuple(s.indices.tolist()) for s in mine}) > 1  # the question matters


def test_what_is_not_recognised_is_spread_over_the_video(film: Path) -> None:
    encoder = MiniEncoder.from_pretrained(weights.resolve("mini"), device="cpu")
    mentions = {"question_mentions": 2, "width": DIMENSIONS}
    plain = VectorPolicySelector(network(3, **mentions), encoder, name="plain")
    careful = VectorPolicySelector(network(3, **mentions, spread_below=1e3), encoder, name="careful")
    encoding = plain.encode(str(film))
    questions = ["When does the bow appear?", "What happens at the end?"]  # the second names nothing
    chosen = careful.select(encoding, questions, num_frames=3)
    usual = plain.select(encoding, questions, num_frames=3)
    assert [c.strategy for c in chosen] == ["uniform_fallback", "selected"]
    assert [c.strategy for c in usual] == ["selected", "selected"]
    assert chosen[0].indices.tolist() == encoding.indices[uniform(encoding.timestamps, 3)].tolist()
    assert any("what this question names" in warning for warning in chosen[0].warnings)
    assert chosen[1].indices.tolist() == usual[1].indices.tolist()


def test_what_the_policy_does_not_choose_covers_the_rest(film: Path) -> None:
    encoder = MiniEncoder.from_pretrained(weights.resolve("mini"), device="cpu")
    plain = VectorPolicySelector(network(3, width=DIMENSIONS), encoder, name="plain")
    short = VectorPolicySelector(network(3, width=DIMENSIONS, cover_after=3), encoder, name="short")
    encoding = plain.encode(str(film))
    question = "When does the bow appear?"

    def places(selector: VectorPolicySelector, count: int) -> list[int]:
        chosen = selector.select(encoding, question, num_frames=count)
        return np.searchsorted(encoding.indices, chosen.indices).tolist()

    for count in (1, 2, 3):
        assert places(short, count) == places(plain, count)
    embeddings = encoding.tensors["embeddings"]
    assert len(embeddings) > 8
    for count in (4, 8):
        asked = question_parts(encoder, [question], 0)
        bonus = RELEVANCE * minmax(entity_similarity(embeddings[None], asked)[0].double().numpy())
        assert places(short, count) == sorted(farthest_first(embeddings, count, places(plain, 3), bonus).tolist())
        assert places(short, count) != places(plain, count)
    assert places(short, 10**4) == list(range(len(embeddings)))
    with pytest.raises(SelectorLoadError, match="cover_after are for networks that read vectors"):
        RefocusConfig(d_model=8, n_layer=1, vocab_size=4, cover_after=8)
    with pytest.raises(SelectorLoadError, match="must not be negative"):
        network(cover_after=-1)


def test_recognition_asks_for_one_of_the_named_things() -> None:
    frames = torch.zeros(1, 40, 4)
    frames[0, 5, 0] = frames[0, 6, 0] = frames[0, 7, 0] = 2.0  # three frames show the first thing
    frames[0, 20, 1] = 2.0  # one frame shows the second
    first, second, other = torch.eye(4)[:3]
    none = torch.zeros(4)
    questions = torch.stack([torch.stack([other, *named]) for named in
                             ((first, none), (second, none), (other, none), (other, first), (none, none))])  # fmt: skip
    features = frames.expand(5, -1, -1)
    # 40 candidates: the mean of the best three frames counts
    assert recognised(features, questions, 1.5) == [True, False, False, True, True]
    assert recognised(features, questions, 0.5) == [True, True, False, True, True]
    assert recognised(features, questions, 0.0) == [True] * 5
    sentence = torch.stack([first, other, none])[None]  # what is named is not there, but the sentence matches
    assert recognised(frames, sentence, 1.3) == [True]
    assert recognised(frames, sentence, 1.4) == [False]  # less than 1.5 times the threshold
    with pytest.raises(SelectorLoadError, match="spread_below needs question_mentions"):
        network(spread_below=1.0)
