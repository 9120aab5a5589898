"""Multimodal models of sentence-transformers, on real tiny ones: like CLIP, and like Qwen3-VL-Embedding."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel

from refocus_select import FrameSelector, open_video
from refocus_select.encoders import load_encoder
from refocus_select.encoders.hf import HFEncoder
from refocus_select.errors import EncoderError, InputError, MissingDependencyError, SelectorLoadError
from tests.brightness import ramp
from tests.models.tiny_encoders import tiny_clip, words_tokenizer

pytest.importorskip("sentence_transformers", minversion="5.4")

from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Transformer

from refocus_select.encoders.sentence_transformers import SentenceTransformersEncoder
from tests.encoders.sentence_models import set_prompts, st_clip, st_qwen

KINDS = {"clip": st_clip, "qwen": st_qwen}


@pytest.fixture(scope="module", params=KINDS)
def folder(request, tmp_path_factory):
    return KINDS[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def encoder(folder):
    return load_encoder(folder, device="cpu", batch=3)


def pictures(count=5, height=24, width=40):
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def test_a_folder_with_modules_is_loaded_by_the_library(encoder, folder):
    assert isinstance(encoder, SentenceTransformersEncoder)
    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    documents = model.encode_document([Image.fromarray(picture) for picture in pictures()], convert_to_tensor=True)
    np.testing.assert_allclose(encoder.encode_frames(pictures()), F.normalize(documents, dim=-1), atol=1e-5)
    texts = ["who scores first", "dark"]
    queries = model.encode_query(texts, convert_to_tensor=True)
    np.testing.assert_allclose(encoder.encode_text(texts), F.normalize(queries, dim=-1), atol=1e-5)
    for vectors in (encoder.encode_frames(pictures()), encoder.encode_text(texts)):
        assert vectors.dtype == torch.float32
        assert not vectors.is_inference()
        np.testing.assert_allclose(vectors.norm(dim=1), 1, atol=1e-5)


def test_nothing_in_gives_nothing_of_the_right_width(encoder):
    width = encoder.encode_text(["a"]).shape[1]
    assert encoder.encode_frames(np.zeros((0, 8, 8, 3), np.uint8)).shape == (0, width)
    assert encoder.encode_text([]).shape == (0, width)
    with pytest.raises(InputError, match="uint8"):
        encoder.encode_frames(np.zeros((1, 8, 8, 3)))


def test_every_selector_takes_it(folder):
    chosen = {}
    encoding = None
    for name in ("topk", "mmr", "aks"):
        selector = FrameSelector.from_pretrained(name, encoder=f"st:{folder}", device="cpu")
        encoding = encoding or selector.encode(open_video(ramp(12), fps=2.0))
        selection = selector.select(encoding, "who scores first", num_frames=4)
        assert selection.strategy == "selected"
        chosen[name] = selection.indices.tolist()
    assert all(len(set(frames)) == 4 for frames in chosen.values())


def test_the_clip_is_the_same_as_by_transformers(tmp_path):
    folder = st_clip(tmp_path)
    ours, plain = load_encoder(folder, device="cpu"), HFEncoder.from_pretrained(tmp_path / "inner", device="cpu")
    np.testing.assert_allclose(ours.encode_frames(pictures()), plain.encode_frames(pictures()), atol=1e-5)
    np.testing.assert_allclose(ours.encode_text(["a b"]), plain.encode_text(["a b"]), atol=1e-5)
    assert ours.decode_size(720, 1280) == plain.decode_size(720, 1280) == (16, 28)
    assert ours.max_text_tokens == plain.max_text_tokens == 12
    assert ours.count_tokens(["a b c"]) == plain.count_tokens(["a b c"]) == [5]
    assert ours.fingerprint != load_encoder(st_clip(tmp_path / "other", seed=1), device="cpu").fingerprint


def test_frames_for_a_vision_language_model_keep_their_shape_up_to_its_limit(tmp_path):
    encoder = load_encoder(st_qwen(tmp_path), device="cpu")
    height, width = encoder.decode_size(720, 1280)  # 64 x 64 pixels at most
    assert height * width <= 64 * 64 * 1.01
    assert width / height == pytest.approx(16 / 9, rel=0.02)
    assert encoder.decode_size(40, 40) is None


def test_questions_and_frames_have_prompts_of_their_own(tmp_path):
    folder = st_qwen(tmp_path)
    plain = load_encoder(folder, device="cpu")
    set_prompts(folder, query="who scores", document="dark")
    prompted = load_encoder(folder, device="cpu")
    assert prompted.fingerprint != plain.fingerprint
    assert (prompted.encode_text(["first"]) - plain.encode_text(["first"])).abs().max() > 1e-3
    assert (prompted.encode_frames(pictures(1)) - plain.encode_frames(pictures(1))).abs().max() > 1e-3
    assert prompted.count_tokens(["first"])[0] > plain.count_tokens(["first"])[0]
    # The same prompt for both would be wrong: a document is no query.
    set_prompts(folder, query="who scores")
    half = load_encoder(folder, device="cpu")
    np.testing.assert_allclose(half.encode_text(["first"]), prompted.encode_text(["first"]), atol=1e-5)
    np.testing.assert_allclose(half.encode_frames(pictures(1)), plain.encode_frames(pictures(1)), atol=1e-5)


def test_the_card_says_which_languages(tmp_path):
    folder = st_clip(tmp_path)
    for card, languages in (("---\nlanguage: de\n---\n", ("de",)), ("---\nlanguage: [en, zh]\n---\n", ("en", "zh"))):
        (folder / "README.md").write_text(card)
        assert load_encoder(folder, device="cpu").languages == languages
    for card in ("no front matter", "---\nlanguage: multilingual\n---\n", "---\n: [\n---\n"):
        (folder / "README.md").write_text(card)
        assert load_encoder(folder, device="cpu").languages is None


# -- what cannot be used --------------------------------------------------------------------------


def test_a_model_of_texts_alone_is_refused(tmp_path):
    BertModel(BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=20)).save_pretrained(
        tmp_path / "inner"
    )
    words_tokenizer(tmp_path / "inner", length=12, begin=True)
    model = SentenceTransformer(modules=[Transformer(str(tmp_path / "inner"))], device="cpu")
    model.save_pretrained(str(tmp_path / "texts"))
    with pytest.raises(EncoderError, match=r"takes text and no image: give a multimodal model"):
        load_encoder(tmp_path / "texts", device="cpu")


def test_a_folder_without_modules_is_refused(tmp_path):
    folder = tiny_clip(tmp_path / "clip")
    assert isinstance(load_encoder(folder, device="cpu"), HFEncoder)
    with pytest.raises(SelectorLoadError, match=r"has no modules\.json.*leave 'st:' out"):
        load_encoder(f"st:{folder}", device="cpu")
    with pytest.raises(SelectorLoadError, match="no folder"):
        load_encoder(f"st:{tmp_path / 'nothing'}")


def test_code_of_the_repository_is_not_run(tmp_path):
    folder = st_clip(tmp_path)
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["type"] = "own_code.Model"
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "own_code.py").write_text("from pathlib import Path\nPath(__file__).with_name('ran').touch()\n")
    with pytest.raises(SelectorLoadError, match=r"wants to run code of its own \(own_code\.Model\)"):
        load_encoder(folder, device="cpu")
    assert not (folder / "ran").exists()


def test_pickled_missing_and_damaged_weights_are_refused(tmp_path):
    folder = st_clip(tmp_path)
    weights = folder / "model.safetensors"
    whole = load_file(weights)
    save_file({k: v for k, v in whole.items() if "visual_projection" not in k}, weights, metadata={"format": "pt"})
    with pytest.raises(SelectorLoadError, match=r"lack 1 tensors, first visual_projection\.weight"):
        load_encoder(folder, device="cpu")
    weights.write_bytes(b"\0" * 100)
    with pytest.raises(SelectorLoadError, match="cannot load the encoder"):
        load_encoder(folder, device="cpu")
    weights.unlink()
    torch.save(whole, folder / "pytorch_model.bin")
    with pytest.raises(SelectorLoadError, match="only pickle weights"):
        load_encoder(folder, device="cpu")
    (folder / "modules.json").write_text("[")
    with pytest.raises(SelectorLoadError, match=r"modules\.json is unreadable"):
        load_encoder(folder, device="cpu")


def test_modules_outside_the_folder_are_refused(tmp_path):
    folder = st_clip(tmp_path)
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["path"] = "../inner"
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(SelectorLoadError, match="lies outside the model"):
        load_encoder(folder, device="cpu")


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch):
    folder = st_clip(tmp_path)
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingDependencyError, match=r"refocus-select\[st\]"):
        load_encoder(folder)
