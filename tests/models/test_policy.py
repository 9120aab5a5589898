"""The policy behind the selector interface: video in, frames out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from refocus_select import FrameSelector, VideoEncoding
from refocus_select.errors import EncodingError, InputError, SelectorLoadError
from refocus_select.models.preprocess import prepare_frames
from refocus_select.models.prompt import PromptTokenizer
from refocus_select.selectors.policy import PolicySelector
from refocus_select.selectors.protocol import marginal_log_probs, released_frames
from refocus_select.video import Video, open_video
from refocus_select.video.candidates import paper_indices

from .tiny import byte_tokenizer, feature_model, selector_folder

QUESTIONS = ["What happens?", "Who is it?", "Why?", "Who is she?"]


def video(frames: int = 40, fps: float = 4.0, seed: int = 0) -> Video:
    pictures = np.random.default_rng(seed).integers(0, 255, (frames, 18, 26, 3), dtype=np.uint8)
    return open_video(pictures, fps=fps)


@pytest.fixture(scope="module")
def selector(tmp_path_factory: pytest.TempPathFactory) -> PolicySelector:
    folder = selector_folder(tmp_path_factory.mktemp("policy"), use_rank_head=True, value_head_norm="rmsnorm")
    loaded = FrameSelector.from_pretrained(folder, device="cpu")
    assert isinstance(loaded, PolicySelector)
    return loaded


@pytest.fixture(scope="module")
def encoding(selector: PolicySelector) -> VideoEncoding:
    return selector.encode(video())


def test_encoding_holds_keys_values_and_one_state(selector: PolicySelector, encoding: VideoEncoding) -> None:
    shapes = {name: tuple(t.shape) for name, t in encoding.tensors.items()}
    assert shapes == {"keys": (40, 24), "values": (40, 24), "conv_state": (2, 3, 56), "ssm_state": (2, 6, 8, 4)}
    longer = selector.encode(video(120))
    grown = {name for name, t in longer.tensors.items() if t.shape != encoding.tensors[name].shape}
    assert grown == {"keys", "values"}


def test_encoding_once_equals_the_whole_prompt_at_once(selector: PolicySelector, encoding: VideoEncoding) -> None:
    model, source = selector.model, video()
    ids = selector.tokenizer.encode(QUESTIONS[0])
    place = ids.index(-200)
    with torch.no_grad():
        pixels = prepare_frames(source.get_frames(np.arange(40)).data, model.config.vision)
        tokens = model.embed_frames(pixels)
        embed = model.backbone.embedding
        before, after = torch.tensor(ids[:place]), torch.tensor(ids[place + 1 :])
        hidden, state = model.backbone(torch.cat([embed(before), tokens.flatten(0, 1), embed(after)])[None])
        tails = hidden[0, place + (torch.arange(40) + 1) * tokens.shape[1] - 1]
        whole = model.decode(model.pointer.keys(tails), model.pointer.values(tails), state, steps=6)
    selection = selector.select(encoding, QUESTIONS[0], num_frames=6)
    assert selection.indices.tolist() == sorted(whole.picks[0, 0].tolist())
    torch.testing.assert_close(encoding.tensors["keys"], model.pointer.keys(tails), atol=1e-5, rtol=1e-4)


def test_many_questions_at_once_equal_one_at_a_time(selector: PolicySelector, encoding: VideoEncoding) -> None:
    together = selector.select(encoding, QUESTIONS * 6, num_frames=5)  # more than one batch
    for question, selection in zip(QUESTIONS * 6, together, strict=True):
        alone = selector.select(encoding, question, num_frames=5)
        assert selection.question == question
        assert selection.indices.tolist() == alone.indices.tolist()
        np.testing.assert_allclose(selection.scores, alone.scores, atol=1e-4)
    assert len({tuple(s.indices) for s in together}) > 1  # the question matters


def test_more_frames_extend_the_greedy_choice(selector: PolicySelector, encoding: VideoEncoding) -> None:
    few = set(selector.select(encoding, "Why?", num_frames=4).indices.tolist())
    many = selector.select(encoding, "Why?", num_frames=12).indices.tolist()
    assert few < set(many)
    assert len(many) == 12


def test_save_load_and_foreign_encodings(selector: PolicySelector, encoding: VideoEncoding, tmp_path: Path) -> None:
    file = encoding.save(tmp_path / "video.safetensors")
    again = selector.select(VideoEncoding.load(file), QUESTIONS[1], num_frames=5)
    assert again.indices.tolist() == selector.select(encoding, QUESTIONS[1], num_frames=5).indices.tolist()
    selector.save_pretrained(tmp_path / "mine")
    mine = FrameSelector.from_pretrained(tmp_path / "mine", device="cpu")
    assert mine.select(VideoEncoding.load(file), QUESTIONS[1], num_frames=5).indices.tolist() == again.indices.tolist()
    other = FrameSelector.from_pretrained(selector_folder(tmp_path / "other", seed=9), device="cpu")
    with pytest.raises(EncodingError, match="encode the video again with this selector"):
        other.select(encoding, "Why?", num_frames=5)
    card = (tmp_path / "mine" / "README.md").read_text()
    assert "rank head | yes" in card
    (tmp_path / "mine" / "README.md").write_text("my own words")
    selector.save_pretrained(tmp_path / "mine")
    assert (tmp_path / "mine" / "README.md").read_text() == "my own words"


def test_sampling(selector: PolicySelector, encoding: VideoEncoding) -> None:
    def draw(question: str | list[str] = "Why?", **kwargs):
        return selector.select(encoding, question, num_frames=6, sample=True, **kwargs)

    assert draw(seed=1).indices.tolist() == draw(seed=1).indices.tolist()
    assert len({tuple(draw(seed=s).indices) for s in range(6)}) > 1
    alone = draw(seed=5).indices.tolist()
    assert draw(["Who is it?", "Why?"], seed=5)[1].indices.tolist() == alone  # other questions do not matter
    greedy = selector.select(encoding, "Why?", num_frames=6).indices.tolist()
    assert draw(seed=3, temperature=1e-4).indices.tolist() == greedy
    assert len(draw(seed=2, num_samples=16)) == 6
    # The best of many samples is at least as likely as the first of them, and ranks are the rank head's.
    result = selector._decode(
        encoding, [selector.tokenizer.suffix("Why?")], steps=6, num_samples=16, seed=2, sample=True
    )[0]
    likeliest = int(result.pick_log_probs.sum(-1).argmax())
    ranked = int(result.rank_logits.argmax())
    assert draw(seed=2, num_samples=16).indices.tolist() == sorted(result.picks[likeliest].tolist())
    by_rank = draw(seed=2, num_samples=16, choose_by="rank")
    assert by_rank.indices.tolist() == sorted(result.picks[ranked].tolist())


def test_few_candidates(selector: PolicySelector) -> None:
    for frames in (1, 3):
        selection = selector.select(video(frames), "Why?", num_frames=8)
        assert selection.indices.tolist() == list(range(frames))
        assert any("only" in w for w in selection.warnings)
        assert np.isfinite(selection.scores).all()


def test_a_slow_video_repeats_candidates_but_not_frames(selector: PolicySelector) -> None:
    slow = video(20, fps=1.0)
    encoding = selector.encode(slow)
    assert encoding.indices.tolist() == paper_indices(20, 1.0).tolist()
    assert len(encoding) == 80
    selection = selector.select(encoding, "Why?", num_frames=12)
    assert len(set(selection.indices.tolist())) == 12


def test_the_released_protocol(selector: PolicySelector) -> None:
    long = selector.encode(video(160))
    assert long.indices.tolist() == list(range(160))
    selection = selector.select(long, "Why?", num_frames=32, protocol="paper", seed=7)
    suffix = selector.tokenizer.suffix("Why?")
    state_of = selector._read_questions
    # Step for step: 64 draws without replacement from one stream of random numbers, the first 32, sorted.
    torch.manual_seed(7)
    with torch.no_grad():
        from refocus_select.models.backbone import BackboneState

        video_state = BackboneState.unstacked(long.tensors["conv_state"][:, None], long.tensors["ssm_state"][:, None])
        drawn = selector.model.decode(
            long.tensors["keys"], long.tensors["values"], state_of([suffix], video_state), steps=64, sample=True
        )
    assert selection.indices.tolist() == sorted(drawn.picks[0, 0, :32].tolist())
    assert selection.indices.tolist() == released_frames(long.indices, drawn.picks[0, 0].numpy()).tolist()
    assert selection.strategy == "selected"
    np.testing.assert_allclose(selection.scores, marginal_log_probs(drawn.log_probs.numpy()), atol=1e-5)  # all 64 steps

    # Up to 128 candidates: evenly spaced frame numbers, which need not be candidates, with their true times.
    short = video(384, fps=12.0)  # 32 s, 128 candidates of 384 frames
    encoding = selector.encode(short)
    assert len(encoding) == 128
    spaced = selector.select(encoding, "Why?", num_frames=32, protocol="paper")
    assert spaced.indices.tolist() == np.linspace(0, 383, 32, dtype=int).tolist()
    assert not set(spaced.indices.tolist()) <= set(encoding.indices.tolist())
    np.testing.assert_allclose(spaced.timestamps, spaced.indices / 12.0, atol=1e-6)
    assert spaced.strategy == "uniform_fallback"
    assert any("evenly" in w for w in spaced.warnings)

    tiny = selector.select(video(9), "Why?", num_frames=32, protocol="paper")
    assert tiny.indices.tolist() == list(range(9))
    assert any("with repeats" in w for w in tiny.warnings)


def test_the_released_protocol_needs_the_video_for_other_frames(selector: PolicySelector, tmp_path: Path) -> None:
    file = selector.encode(video(384, fps=12.0)).save(tmp_path / "e.safetensors")
    with pytest.raises(EncodingError, match="give the video instead"):
        selector.select(VideoEncoding.load(file), "Why?", num_frames=32, protocol="paper")


def test_answer_options_reach_the_policy(selector: PolicySelector, encoding: VideoEncoding) -> None:
    plain = selector.select(encoding, "Which?", num_frames=6)
    asked = selector.select(encoding, "Which?", num_frames=6, options=["a red cat", "a blue dog"])
    assert not np.allclose(plain.scores, asked.scores)
    assert asked.question == "Which?"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"protocol": "mine"}, "protocol must be"),
        ({"num_samples": 0}, "num_samples must be"),
        ({"num_samples": 4}, "needs sample=True"),
        ({"choose_by": "taste"}, "choose_by must be"),
        ({"sample": True, "temperature": 0.0}, "temperature must be above 0"),
        ({"protocol": "paper", "num_frames": 65}, "at most 64"),
        ({"swirl": 1}, "no argument swirl"),
    ],
)
def test_wrong_choice_arguments(
    selector: PolicySelector, encoding: VideoEncoding, arguments: dict, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        selector.select(encoding, "Why?", **{"num_frames": 4, **arguments})


def test_markers_in_the_question(selector: PolicySelector, encoding: VideoEncoding) -> None:
    leading = selector.select(encoding, "<image>\nWhy?", num_frames=5)
    assert leading.indices.tolist() == selector.select(encoding, "Why?", num_frames=5).indices.tolist()
    with pytest.raises(InputError, match="would move the frames"):
        selector.select(encoding, "What does <image> mean?", num_frames=5)


def test_networks_and_tokenizers_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(SelectorLoadError, match="features that are computed outside"):
        PolicySelector(feature_model(), PromptTokenizer(byte_tokenizer()), name="x")
    folder = selector_folder(tmp_path / "small", vocab_size=45, start_of_frame_token_id=46)
    with pytest.raises(SelectorLoadError, match="the network knows 48"):
        FrameSelector.from_pretrained(folder, device="cpu")
    folder = selector_folder(tmp_path / "plain")
    plain = FrameSelector.from_pretrained(folder, device="cpu")
    with pytest.raises(InputError, match="no rank head"):
        plain.select(video(9), "Why?", num_frames=3, sample=True, num_samples=2, choose_by="rank")


def test_frames_are_computed_in_bounded_segments(selector: PolicySelector, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    embed = selector.model.embed_frames
    monkeypatch.setattr(selector.model, "embed_frames", lambda pixels: sizes.append(len(pixels)) or embed(pixels))
    monkeypatch.setattr(selector, "_segment", lambda: 7)
    encoding = selector.encode(video(100))
    assert max(sizes) <= 7
    assert sum(sizes) == len(encoding) == 100
