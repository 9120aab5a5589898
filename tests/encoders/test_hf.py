"""Any dual encoder of transformers, on real tiny models made from configurations."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer, BertConfig, BertModel

from refocus_select.encoders.hf import HFEncoder
from refocus_select.errors import InputError, SelectorLoadError
from tests.models.tiny_encoders import TINY, tiny_clip, tiny_siglip


@pytest.fixture(scope="module", params=TINY)
def folder(request, tmp_path_factory):
    return TINY[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def encoder(folder):
    return HFEncoder.from_pretrained(folder, device="cpu", batch=3)


def pictures(count=7, height=24, width=40, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def features(output):
    return output if isinstance(output, torch.Tensor) else output.pooler_output


@torch.inference_mode()
def test_frames_and_texts_agree_with_transformers(encoder, folder):
    model = AutoModel.from_pretrained(folder).eval()
    inputs = AutoImageProcessor.from_pretrained(folder)(images=list(pictures()), return_tensors="pt")
    expected = F.normalize(features(model.get_image_features(**inputs)), dim=-1)
    np.testing.assert_allclose(encoder.encode_frames(pictures()), expected, atol=1e-5)

    texts = ["who scores first", "dark"]
    padding = {"padding": "max_length", "max_length": 9} if "siglip" in model.config.model_type else {"padding": True}
    inputs = AutoTokenizer.from_pretrained(folder)(texts, return_tensors="pt", **padding)
    expected = F.normalize(features(model.get_text_features(**inputs)), dim=-1)
    np.testing.assert_allclose(encoder.encode_text(texts), expected, atol=1e-5)


def test_vectors_have_unit_length_and_do_not_depend_on_the_batch(encoder):
    whole = encoder.encode_frames(pictures())
    assert whole.dtype == torch.float32
    np.testing.assert_allclose(whole.norm(dim=1), 1, atol=1e-5)
    single = torch.cat([encoder.encode_frames(picture[None]) for picture in pictures()])
    np.testing.assert_allclose(whole, single, atol=1e-5)
    texts = ["a", "who scores first", "a b c d"]
    together = encoder.encode_text(texts)
    np.testing.assert_allclose(together, torch.cat([encoder.encode_text([text]) for text in texts]), atol=1e-5)


def test_nothing_in_gives_nothing_of_the_right_width(encoder):
    assert encoder.encode_frames(np.zeros((0, 8, 8, 3), np.uint8)).shape == (0, encoder.encode_text(["a"]).shape[1])
    assert encoder.encode_text([]).shape == encoder.encode_frames(np.zeros((0, 8, 8, 3), np.uint8)).shape


def test_a_long_text_is_the_mean_of_equal_pieces(tmp_path):
    encoder = HFEncoder.from_pretrained(tiny_siglip(tmp_path), device="cpu")
    assert encoder.max_text_tokens == 9  # eight words and the end
    first, second = "a b c d e f g", "a a b b light dark"
    assert encoder._pieces(first) == [first]
    assert encoder._pieces(f"{first} {second}") == ["a b c d e f", "g a a b b light dark"]
    halves = encoder.encode_text(["a b c d e f", "g a a b b light dark"])
    joined = encoder.encode_text(["dark", f"{first} {second}"])
    np.testing.assert_allclose(joined[1], F.normalize(halves.mean(dim=0), dim=0), atol=1e-5)
    np.testing.assert_allclose(joined[0], encoder.encode_text(["dark"])[0], atol=1e-5)
    # Every word counts, also the last one.
    changed = encoder.encode_text([f"{first} {second[:-4]}light"])
    assert (changed[0] - joined[1]).abs().max() > 1e-4


def test_every_piece_fits_and_nothing_is_lost(encoder):
    for text in ("a " * 200, "a" * 50, "", "who scores first", "a b " * 30 + "x" * 40):
        pieces = encoder._pieces(text)
        assert max(encoder.count_tokens(pieces)) <= encoder.max_text_tokens
        assert "".join(pieces).replace(" ", "") == text.replace(" ", "")


@pytest.mark.parametrize(
    ("kind", "height", "width", "expected"),
    [
        ("clip", 720, 1280, (16, 28)),
        ("clip", 1280, 720, (28, 16)),
        ("clip", 12, 12, None),
        ("siglip", 720, 1280, (16, 16)),
        ("naflex", 720, 1280, (12, 21)),
        ("naflex", 8, 8, None),
    ],
)
def test_frames_are_decoded_no_larger_than_the_model_needs(tmp_path, kind, height, width, expected):
    encoder = HFEncoder.from_pretrained(TINY[kind](tmp_path), device="cpu")
    assert encoder.decode_size(height, width) == expected
    assert encoder.frame_size == ((16, 16) if kind == "siglip" else None)


def test_the_logit_scale_is_the_models_own(tmp_path):
    encoder = HFEncoder.from_pretrained(tiny_clip(tmp_path), device="cpu")
    assert encoder.logit_scale == pytest.approx(AutoModel.from_pretrained(tmp_path).logit_scale.exp().item())
    assert encoder.logit_scale == pytest.approx(1 / 0.07, rel=1e-3)


def test_the_fingerprint_follows_weights_and_preprocessing_only(tmp_path):
    one = tiny_clip(tmp_path / "one")
    reference = HFEncoder.from_pretrained(one, device="cpu").fingerprint
    assert HFEncoder.from_pretrained(one, device="cpu", dtype="float16", batch=1).fingerprint == reference
    assert HFEncoder.from_pretrained(tiny_clip(tmp_path / "copy"), device="cpu").fingerprint == reference
    assert HFEncoder.from_pretrained(tiny_clip(tmp_path / "other", seed=1), device="cpu").fingerprint != reference
    settings = json.loads((one / "preprocessor_config.json").read_text())
    (one / "preprocessor_config.json").write_text(json.dumps({**settings, "image_mean": [0.5, 0.5, 0.5]}))
    assert HFEncoder.from_pretrained(one, device="cpu").fingerprint != reference


def test_half_precision_is_close(tmp_path):
    folder = tiny_clip(tmp_path)
    full = HFEncoder.from_pretrained(folder, device="cpu")
    half = HFEncoder.from_pretrained(folder, device="cpu", dtype="bfloat16")
    assert half.dtype == torch.bfloat16
    assert half.encode_frames(pictures()).dtype == torch.float32
    cosines = (full.encode_frames(pictures()) * half.encode_frames(pictures())).sum(dim=1)
    assert cosines.min() > 0.99


@pytest.mark.parametrize("bad", [np.zeros((2, 8, 8, 3)), *(np.zeros(s, np.uint8) for s in ((8, 8, 3), (2, 3, 8, 8)))])
def test_frames_must_be_rgb_pictures(encoder, bad):
    with pytest.raises(InputError, match="uint8"):
        encoder.encode_frames(bad)


def test_a_wrong_dtype_is_named(tmp_path):
    with pytest.raises(InputError, match="int8"):
        HFEncoder.from_pretrained(tiny_clip(tmp_path), device="cpu", dtype="int8")


# -- what cannot be loaded ------------------------------------------------------------------------


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(SelectorLoadError, match="no folder"):
        HFEncoder.from_pretrained(tmp_path / "nothing")


def test_pickle_weights_are_refused(tmp_path):
    folder = tiny_clip(tmp_path)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(SelectorLoadError, match=r"pickle.*safetensors"):
        HFEncoder.from_pretrained(folder)


def test_a_repository_that_wants_to_run_code_is_refused(tmp_path):
    folder = tiny_clip(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own-clip", "auto_map": {"AutoConfig": "code.Config", "AutoModel": "code.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text("from pathlib import Path\nPath(__file__).with_name('ran').touch()\n")
    with pytest.raises(SelectorLoadError, match="cannot load the encoder"):
        HFEncoder.from_pretrained(folder)
    assert not (folder / "ran").exists()


def test_missing_weights_are_not_made_up(tmp_path):
    folder = tiny_clip(tmp_path)
    weights = load_file(folder / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SelectorLoadError, match=r"lack 1 tensors, first visual_projection\.weight"):
        HFEncoder.from_pretrained(folder)


def test_damaged_weights_are_refused(tmp_path):
    folder = tiny_clip(tmp_path)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SelectorLoadError, match="cannot load the encoder"):
        HFEncoder.from_pretrained(folder)


def test_a_model_of_text_alone_is_refused(tmp_path):
    tiny_clip(tmp_path)
    BertModel(BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=20)).save_pretrained(
        tmp_path
    )
    with pytest.raises(SelectorLoadError, match="BertModel, which does not encode pictures"):
        HFEncoder.from_pretrained(tmp_path)
