"""OpenCLIP on a real model of a small configuration, whose weights are random."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file

from refocus_select import FrameSelector, open_video
from refocus_select.encoders import load_encoder
from refocus_select.errors import InputError, MissingDependencyError, SelectorLoadError
from tests.brightness import ramp

open_clip = pytest.importorskip("open_clip")

CONFIG = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 16, "layers": 2, "width": 16, "head_width": 8, "patch_size": 4},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of weights of the model "tiny-clip", which OpenCLIP knows from here on."""
    folder = tmp_path_factory.mktemp("open_clip")
    (folder / "tiny-clip.json").write_text(json.dumps(CONFIG))
    open_clip.add_model_config(folder / "tiny-clip.json")
    torch.manual_seed(0)
    save_file(open_clip.create_model("tiny-clip").state_dict(), folder / "weights.safetensors")
    return folder / "weights.safetensors"


@pytest.fixture(scope="module")
def encoder(weights):
    return load_encoder(f"open_clip:tiny-clip/{weights}", device="cpu", batch=3)


def pictures(count=5):
    return np.random.default_rng(0).integers(0, 256, (count, 24, 40, 3), dtype=np.uint8)


@torch.inference_mode()
def test_frames_and_texts_agree_with_the_library(encoder, weights):
    model, _, preprocess = open_clip.create_model_and_transforms("tiny-clip", pretrained=str(weights))
    model.eval()
    images = torch.stack([preprocess(Image.fromarray(picture)) for picture in pictures()])
    np.testing.assert_allclose(
        encoder.encode_frames(pictures()), F.normalize(model.encode_image(images), dim=-1), atol=1e-5
    )
    texts = ["a dog", "who scores first"]
    tokens = open_clip.get_tokenizer("tiny-clip")(texts)
    np.testing.assert_allclose(encoder.encode_text(texts), F.normalize(model.encode_text(tokens), dim=-1), atol=1e-5)
    assert encoder.logit_scale == pytest.approx(model.logit_scale.exp().item())


def test_what_it_says_of_itself(encoder, weights):
    assert encoder.name == "open_clip:tiny-clip/weights.safetensors"
    assert encoder.max_text_tokens == 12
    assert encoder.count_tokens(["a dog", ""]) == [4, 2]
    assert encoder.decode_size(720, 1280) == (16, 28)
    assert encoder.decode_size(12, 12) is None
    assert encoder.encode_text([]).shape == encoder.encode_frames(np.zeros((0, 8, 8, 3), np.uint8)).shape == (0, 8)
    assert load_encoder(f"open_clip:tiny-clip/{weights}", device="cpu").fingerprint == encoder.fingerprint
    with pytest.raises(InputError, match="uint8"):
        encoder.encode_frames(np.zeros((1, 8, 8, 3)))


def test_other_weights_have_another_fingerprint(encoder, tmp_path):
    torch.manual_seed(1)
    save_file(open_clip.create_model("tiny-clip").state_dict(), tmp_path / "other.safetensors")
    other = load_encoder(f"open_clip:tiny-clip/{tmp_path / 'other.safetensors'}", device="cpu")
    assert other.fingerprint != encoder.fingerprint


def test_an_algorithm_takes_it_and_warns_of_a_long_question(weights):
    selector = FrameSelector.from_pretrained("mmr", encoder=f"open_clip:tiny-clip/{weights}", device="cpu")
    encoding = selector.encode(open_video(ramp(12), fps=2.0))
    assert selector.select(encoding, "a dog", num_frames=4).warnings == ()
    (warning,) = selector.select(encoding, "where is the dog " * 5, num_frames=4).warnings
    assert "the question has 22 tokens, more than the 12 that" in warning


def test_what_cannot_be_loaded_is_named(tmp_path, weights, monkeypatch):
    for name, message in (
        ("open_clip:tiny-clip", "names no weights"),
        ("open_clip:no-such-model/tag", "no model 'no-such-model'"),
        ("open_clip:ViT-B-32/no-such-tag", "no weights 'ViT-B-32/no-such-tag'"),
    ):
        with pytest.raises(SelectorLoadError, match=message):
            load_encoder(name)
    torch.save(open_clip.create_model("tiny-clip").state_dict(), tmp_path / "weights.pt")
    with pytest.raises(SelectorLoadError, match="not a safetensors file"):
        load_encoder(f"open_clip:tiny-clip/{tmp_path / 'weights.pt'}")
    (tmp_path / "broken.safetensors").write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(SelectorLoadError, match="cannot load the encoder"):
        load_encoder(f"open_clip:tiny-clip/{tmp_path / 'broken.safetensors'}")
    with pytest.raises(SelectorLoadError, match="takes no dtype"):
        load_encoder(f"open_clip:tiny-clip/{weights}", dtype="float16")
    # A tag without a repository has no safetensors, and is refused before anything is downloaded.
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda *_: {"url": "https://example.com/w.pt", "hf_hub": ""})
    with pytest.raises(SelectorLoadError, match="published as pickles only"):
        load_encoder("open_clip:RN50/yfcc15m")
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(MissingDependencyError, match=r"refocus-select\[open_clip\]"):
        load_encoder("open_clip:ViT-B-32/laion2b_s34b_b79k")
