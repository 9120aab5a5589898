"""Every algorithm behind `FrameSelector`, with the embedded encoder, with transformers, and with one's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from refocus_select import FrameSelector, VideoEncoding, open_video
from refocus_select.errors import EncodingError, InputError, SelectorLoadError
from refocus_select.selectors.algorithms import SCORED, aks, qframe, random, uniform
from refocus_select.selectors.baselines import RandomSelector
from refocus_select.selectors.training_free import AlgorithmSelector
from tests.brightness import ramp
from tests.models.tiny_encoders import TINY, tiny_clip, tiny_siglip


class LightEncoder:
    """Frames as (brightness, rest) on the unit circle; "light" is the first axis, "dark" the second."""

    fingerprint = "light-1"
    frame_size = (8, 8)
    logit_scale = 50.0

    def __init__(self):
        self.words = {"light": [1.0, 0.0], "dark": [0.0, 1.0], "nothing": [0.0, 0.0]}
        self.texts = []

    def encode_frames(self, frames):
        light = torch.from_numpy(frames.mean(axis=(1, 2, 3)) / 255).float()
        return F.normalize(torch.stack([light, 1 - light], dim=1), dim=1)

    def encode_text(self, texts):
        self.texts += texts
        return torch.tensor([self.words[text] for text in texts])


def video(count=25):
    return open_video(ramp(count), fps=2.0)


def load(algorithm, **kwargs):
    return FrameSelector.from_pretrained(algorithm, encoder=LightEncoder(), **kwargs)


@pytest.mark.parametrize("algorithm", SCORED)
@pytest.mark.parametrize("count", [1, 5, 25])
def test_every_algorithm_holds_the_contract_of_selectors(algorithm, count):
    selector = load(algorithm)
    assert isinstance(selector, AlgorithmSelector)
    selection = selector.select(video(count), "light", num_frames=6)
    assert len(selection) == min(6, count)
    assert (np.diff(selection.indices) > 0).all()
    assert selection.selector == f"{algorithm} (LightEncoder)"
    assert selection.frames.shape[0] == len(selection)


@pytest.mark.parametrize("algorithm", ["topk", "bolt", "mdp3", "gift"])
def test_the_question_decides(algorithm):
    selector = load(algorithm)
    encoding = selector.encode(video())
    light, dark = selector.select(encoding, ["light", "dark"], num_frames=4)
    assert light.indices.mean() > dark.indices.mean() + 4
    assert light.strategy == "selected"


def test_scores_are_the_cosines():
    selector = load("topk")
    selection = selector.select(video(), "light", num_frames=3)
    light = np.arange(25) * 10 / 255
    np.testing.assert_allclose(selection.scores, light / np.hypot(light, 1 - light), atol=1e-3)
    assert selection.indices.tolist() == [22, 23, 24]


def test_only_the_question_is_compared():
    selector = load("topk")
    selector.select(video(), "light", num_frames=3, options=["dark", "nothing"])
    assert selector.encoder.texts == ["light"]


def test_one_encoding_serves_all_algorithms_of_an_encoder(tmp_path):
    encoding = load("topk").encode(video())
    saved = VideoEncoding.load(encoding.save(tmp_path / "film.safetensors"))
    for algorithm in SCORED:
        assert len(load(algorithm).select(saved, "light", num_frames=4)) == 4
    other = FrameSelector.from_pretrained("topk", encoder=tiny_clip(tmp_path / "clip"), device="cpu")
    with pytest.raises(EncodingError, match="made by 'LightEncoder'"):
        other.select(saved, "light")


def test_equal_scores_are_spread_and_said():
    selection = load("mdp3").select(video(), "nothing", num_frames=5)
    assert selection.strategy == "uniform_fallback"
    assert selection.indices.tolist() == uniform(selection.candidate_timestamps, 5).tolist()
    assert any("spread over the video" in warning for warning in selection.warnings)


def test_settings_are_given_at_loading_or_at_selection():
    by_default = load("qframe")
    encoding = by_default.encode(video())
    scores = by_default.select(encoding, "light", num_frames=4).scores
    expected = qframe(scores, 4, timestamps=encoding.timestamps, logit_scale=50.0, seed=7).tolist()
    assert by_default.select(encoding, "light", num_frames=4, seed=7).indices.tolist() == expected
    assert load("qframe", seed=7).select(encoding, "light", num_frames=4).indices.tolist() == expected
    hot = load("qframe", seed=7, logit_scale=1.0).select(encoding, "light", num_frames=4)
    assert hot.indices.tolist() == qframe(scores, 4, timestamps=encoding.timestamps, logit_scale=1.0, seed=7).tolist()


def test_a_faithful_answer_is_filled_and_says_so():
    selector = load("aks", faithful=True)
    selection = selector.select(video(), "light", num_frames=6)
    assert aks(selection.scores, 6, timestamps=selection.candidate_timestamps, faithful=True).tolist() == []
    assert selection.indices.tolist() == [19, 20, 21, 22, 23, 24]
    assert any("gave 0 of 6 frames" in warning for warning in selection.warnings)
    assert selector.select(video(), "light", num_frames=6, faithful=False).warnings == ()


@pytest.mark.parametrize("algorithm", ["topk", "aks"])
def test_a_setting_of_another_algorithm_is_refused(algorithm):
    with pytest.raises(InputError, match=rf"'{algorithm}' has no setting alpha"):
        load(algorithm, alpha=2.0)
    selector = load(algorithm)
    with pytest.raises(InputError, match=rf"'{algorithm}' has no setting gamma"):
        selector.select(video(), "light", gamma=2.0)
    with pytest.raises(InputError, match="no argument colour"):
        selector.select(video(), "light", colour=2.0)


def test_unknown_arguments_and_names_are_named(tmp_path):
    with pytest.raises(SelectorLoadError, match="colour: this encoder is loaded already"):
        load("aks", colour=1)
    with pytest.raises(SelectorLoadError, match="takes no colour; it takes batch"):
        FrameSelector.from_pretrained("aks", encoder=tmp_path, colour=1)
    with pytest.raises(SelectorLoadError, match="'mini' takes no dtype"):
        FrameSelector.from_pretrained("aks", dtype="float16")
    with pytest.raises(SelectorLoadError, match="'mdp3'"):
        FrameSelector.from_pretrained("mpd3")
    with pytest.raises(InputError, match="no algorithm 'best'"):
        AlgorithmSelector("best", LightEncoder())
    with pytest.raises(SelectorLoadError, match="no folder"):
        FrameSelector.from_pretrained("aks", encoder=tmp_path / "nothing")


@pytest.mark.parametrize("kind", TINY)
def test_a_transformers_encoder_from_a_folder(tmp_path, kind):
    folder = TINY[kind](tmp_path / kind)
    selector = FrameSelector.from_pretrained("mmr", encoder=folder, device="cpu", batch=4, balance=0.7)
    assert selector.name == f"mmr ({kind})"
    encoding = selector.encode(video())
    assert len(encoding) == 25
    for selection in selector.select(encoding, ["who scores first", "dark"], num_frames=5):
        assert len(selection) == 5
    frames = video().get_frames(np.arange(25)).data
    np.testing.assert_allclose(encoding.tensors["embeddings"], selector.encoder.encode_frames(frames), atol=0.05)


def test_frames_are_decoded_at_the_encoders_size(tmp_path):
    seen = []

    class Watching(LightEncoder):
        def encode_frames(self, frames):
            seen.append(frames.shape[1:3])
            return super().encode_frames(frames)

    FrameSelector.from_pretrained("topk", encoder=Watching()).encode(video())
    assert set(seen) == {(8, 8)}
    clip = FrameSelector.from_pretrained("topk", encoder=tiny_clip(tmp_path / "clip"), device="cpu")
    siglip = FrameSelector.from_pretrained("topk", encoder=tiny_siglip(tmp_path / "siglip"), device="cpu")
    metadata = video().metadata  # 40 x 24
    assert clip.decode_size(metadata) == (16, 27)
    assert siglip.decode_size(metadata) == (16, 16)


def test_the_embedded_encoder_is_the_default():
    selector = FrameSelector.from_pretrained("adaq", device="cpu")
    assert selector.name == "adaq"
    assert len(selector.select(video(6), "a dog", num_frames=3)) == 3
    aks = FrameSelector.from_pretrained("aks", encoder="mini", device="cpu")
    assert aks.encoding_fingerprint == selector.encoding_fingerprint
    assert aks.fingerprint != selector.fingerprint


def test_random_needs_no_picture_and_follows_its_seed():
    selector = FrameSelector.from_pretrained("random", seed=3)
    assert isinstance(selector, RandomSelector)
    selection = selector.select(video(), "anything", num_frames=5)
    assert selection.indices.tolist() == random(np.arange(25), 5, seed=3).tolist()
    assert selection.strategy == "uniform_fallback"
    other = selector.select(video(), "anything", num_frames=5, seed=4)
    assert other.indices.tolist() != selection.indices.tolist()
    with pytest.raises(SelectorLoadError, match="takes no colour"):
        FrameSelector.from_pretrained("random", colour=1)
