"""The trained policy over the vectors of any encoder: loading, one encoding for all, numbers of frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from refocus_select import weights
from refocus_select.encoding import VideoEncoding
from refocus_select.errors import InputError, SelectorLoadError
from refocus_select.models.mini import MiniEncoder
from refocus_select.models.portable import Choices, PortableConfig, PortablePolicy
from refocus_select.models.sentences import read_questions
from refocus_select.selectors import FrameSelector
from refocus_select.selectors.algorithms import farthest_first, uniform
from refocus_select.selectors.policy import PolicySelector
from refocus_select.selectors.vector_policy import VectorPolicySelector

from ..models.tiny import selector_folder
from ..video.clips import encode

QUESTIONS = ["When does the bow appear?", "Who opens the red door?", "What lies on the table?"]


class OtherEncoder:
    """Vectors of another length, in which nothing is like in the embedded encoder's."""

    fingerprint = "other-1"
    frame_size = (8, 8)

    def encode_frames(self, frames: np.ndarray) -> torch.Tensor:
        flat = torch.from_numpy(frames.reshape(len(frames), -1).astype(np.float32)) / 255
        return flat @ torch.randn(flat.shape[1], 24, generator=torch.Generator().manual_seed(1))

    def encode_text(self, texts: list[str]) -> torch.Tensor:
        return torch.stack(
            [torch.randn(24, generator=torch.Generator().manual_seed(sum(map(ord, text)))) for text in texts]
        )


def network(seed: int = 0, **fields: Any) -> PortablePolicy:
    torch.manual_seed(seed)
    values: dict[str, Any] = {"d_model": 16, "d_state": 4, "headdim": 8, "max_fps": 4.0, "max_num_frames": 12, **fields}
    policy = PortablePolicy(PortableConfig(**values)).eval()
    with torch.no_grad():
        policy.stop.weight.normal_(std=0.3)
        policy.pick_scale.weight.normal_(std=0.3)
    return policy


@pytest.fixture(scope="module")
def encoder() -> MiniEncoder:
    return MiniEncoder.from_pretrained(weights.resolve("mini"), device="cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, encoder: MiniEncoder) -> Path:
    target = tmp_path_factory.mktemp("policy") / "own"
    VectorPolicySelector(network(4), encoder, name="own").save_pretrained(target)
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


def test_any_encoder_with_one_argument(folder: Path, film: Path) -> None:
    other = FrameSelector.from_pretrained(folder, encoder=OtherEncoder(), device="cpu")
    encoding = other.encode(str(film))
    assert encoding.tensors["embeddings"].shape == (12, 24)
    chosen = other.select(encoding, QUESTIONS, num_frames=5)
    assert all(len(set(c.indices.tolist())) == 5 for c in chosen)
    assert FrameSelector.from_pretrained("topk", encoder=OtherEncoder()).select(encoding, QUESTIONS[0]).indices.size


def test_policies_of_earlier_releases_and_of_pictures_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SelectorLoadError, match="load it with FrameSelector"):
        PolicySelector.from_pretrained(folder)
    pictures = selector_folder(tmp_path / "pictures")
    with pytest.raises(SelectorLoadError, match="reads pictures and text"):
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
    mine = selector.select(encoding, QUESTIONS, num_frames=4)
    many = selector.select(encoding, QUESTIONS * 30, num_frames=4)  # more than one batch
    for place, question in enumerate(QUESTIONS):
        alone = selector.select(encoding, question, num_frames=4)
        assert alone.indices.tolist() == mine[place].indices.tolist() == many[87 + place].indices.tolist()
        assert np.allclose(alone.scores, mine[place].scores, atol=1e-4)
    assert len({tuple(s.indices.tolist()) for s in mine}) > 1  # the question matters


def test_what_is_not_recognised_is_spread_over_the_video(encoder: MiniEncoder, film: Path) -> None:
    plain = VectorPolicySelector(network(3), encoder, name="plain")
    careful = VectorPolicySelector(network(3, min_rank=1e3), encoder, name="careful")
    encoding = plain.encode(str(film))
    questions = ["When does the bow appear?", "What happens at the end?"]  # the second names nothing
    chosen = careful.select(encoding, questions, num_frames=3)
    usual = plain.select(encoding, questions, num_frames=3)
    assert [c.strategy for c in chosen] == ["uniform_fallback", "selected"]
    assert [c.strategy for c in usual] == ["selected", "selected"]
    assert chosen[0].indices.tolist() == encoding.indices[uniform(encoding.timestamps, 3)].tolist()
    assert any("what this question names" in warning for warning in chosen[0].warnings)
    assert chosen[1].indices.tolist() == usual[1].indices.tolist()


def picked(selector: VectorPolicySelector, encoding: Any, count: int) -> list[int]:
    chosen = selector.select(encoding, QUESTIONS[0], num_frames=count)
    return np.searchsorted(encoding.indices, chosen.indices).tolist()


def test_what_the_policy_does_not_pick_covers_the_rest(encoder: MiniEncoder, film: Path) -> None:
    plain = VectorPolicySelector(network(3), encoder, name="plain")
    short = VectorPolicySelector(network(3, max_picks=3), encoder, name="short")
    encoding = plain.encode(str(film))
    assert picked(short, encoding, 3) == picked(plain, encoding, 3)
    first = _decided(short, encoder, encoding)
    covered = farthest_first(encoding.tensors["embeddings"], 8, first.picks[0, 0].numpy())
    assert picked(short, encoding, 8) == sorted(covered.tolist())


def _decided(selector: VectorPolicySelector, encoder: MiniEncoder, encoding: VideoEncoding) -> Choices:
    """What the network decides about the first question."""
    asked = read_questions(encoder, encoder.text, QUESTIONS[:1], selector.model.config.entities)
    frames = encoding.tensors["embeddings"]
    video = selector._video_cues(encoding, frames)
    return selector._decide(frames, video, selector.unrelated, *asked, False, 1.0, None)[0]


def test_it_tells_how_many_frames_are_enough(encoder: MiniEncoder, film: Path) -> None:
    never = VectorPolicySelector(network(3), encoder, name="never")
    encoding = never.encode(str(film))
    plain = _decided(never, encoder, encoding)
    expected = plain.remaining[0, 0, 1:]
    least = float(expected.min()) + 1e-4  # reached once, somewhere on the way
    careful = VectorPolicySelector(network(3, min_gain=least), encoder, name="careful")
    enough = int(expected.argmin()) + 1
    for count in (3, 6, 11):
        chosen = careful.select(encoding, QUESTIONS[0], num_frames=count)
        assert chosen.enough == enough
        assert chosen.to_dict()["enough"] == enough
        assert picked(careful, encoding, count) == picked(never, encoding, count)  # it changes no frame
    assert never.select(encoding, QUESTIONS[0], num_frames=6).enough is None

    alone = careful.select(encoding, QUESTIONS[0], num_frames="auto")
    first = sorted(plain.picks[0, 0, :enough].tolist())
    assert np.searchsorted(encoding.indices, alone.indices).tolist() == first
    assert len(careful.select(encoding, QUESTIONS[0], num_frames="auto", at_least=enough + 2)) == enough + 2
    assert len(careful.select(encoding, QUESTIONS[0], num_frames="auto", at_most=1)) == 1
    assert len(never.select(encoding, QUESTIONS[0], num_frames="auto", at_most=5)) == 5


def test_impossible_numbers_are_refused(encoder: MiniEncoder, film: Path) -> None:
    selector = VectorPolicySelector(network(3), encoder, name="own")
    encoding = selector.encode(str(film))
    with pytest.raises(InputError, match="at_least=4 is above at_most=2"):
        selector.select(encoding, QUESTIONS[0], num_frames="auto", at_least=4, at_most=2)
    with pytest.raises(InputError, match='at_most: only with num_frames="auto"'):
        selector.select(encoding, QUESTIONS[0], num_frames=4, at_most=2)
    with pytest.raises(InputError, match="num_frames must be a whole number, not 'many'"):
        selector.select(encoding, QUESTIONS[0], num_frames="many")  # type: ignore[call-overload]
    with pytest.raises(InputError, match="'uniform' cannot tell how many frames a question needs"):
        FrameSelector.from_pretrained("uniform").select(str(film), QUESTIONS[0], num_frames="auto")
