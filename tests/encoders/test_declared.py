"""What encoders declare of themselves, and what happens to questions and vectors that do not fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from refocus_select import FrameSelector, open_video, select_frames
from refocus_select.encoders import load_encoder
from refocus_select.encoders.hf import HFEncoder
from refocus_select.encoders.languages import SCRIPTS, foreign_script
from refocus_select.errors import EncoderError, InputError, SelectorLoadError
from tests.brightness import ramp
from tests.models.tiny_encoders import tiny_clip, tiny_siglip


class Plain:
    """The least that an encoder is."""

    fingerprint = "plain-1"

    def encode_frames(self, frames):
        return torch.from_numpy(frames.mean(axis=(1, 2))).float()

    def encode_text(self, texts):
        return torch.ones(len(texts), 3)


def film(count=8):
    return open_video(ramp(count), fps=2.0)


@pytest.mark.parametrize(
    ("text", "languages", "script"),
    [
        ("Who scores first?", ("en",), None),
        ("Wer schießt das erste Tor?", ("en",), None),  # in the same letters: nobody can tell cheaply
        ("Кто забил первым?", ("en",), "Cyrillic"),
        ("谁先进球？", ("en",), "Chinese"),
        ("谁先进球？", ("en", "zh"), None),
        ("谁先进球？", None, None),
        ("谁先进球？", ("tlh",), None),
        ("最初得点者は？", ("zh",), None),  # most letters are Chinese ones
        ("だれがさいしょ？", ("zh",), "Hiragana"),
        ("Who says „Привет“ first?", ("en",), None),
        ("Who scores?", ("ru",), "Latin"),
        ("12 : 3 ?", ("en",), None),
        ("", ("en",), None),
    ],
)
def test_scripts(text, languages, script):
    assert foreign_script(text, languages) == script


def test_languages_have_scripts_that_unicode_names():
    import unicodedata

    names = {unicodedata.name(chr(n), "").split(" ")[0] for n in range(0x20000)}
    assert set().union(*SCRIPTS.values()) <= names


def test_the_embedded_encoder_warns_of_questions_that_it_does_not_read():
    selector = FrameSelector.from_pretrained("topk", device="cpu")
    encoding = selector.encode(film())
    plain, russian, long = selector.select(encoding, ["a dog", "Где собака?", "a dog and a cat " * 80], num_frames=4)
    assert plain.warnings == ()
    assert any("written in Cyrillic letters, but mini reads en only" in warning for warning in russian.warnings)
    (warning,) = long.warnings
    assert "the question has 402 tokens, more than the 256 that mini reads at once" in warning
    assert selector.encoder.count_tokens(["a dog", ""]) == [4, 2]


def test_models_of_transformers_declare_what_they_read(tmp_path):
    clip = HFEncoder.from_pretrained(tiny_clip(tmp_path / "clip"), device="cpu")
    assert (clip.max_text_tokens, clip.languages) == (12, None)  # no vocabulary of OpenAI's
    (tmp_path / "clip" / "README.md").write_text("---\nlanguage:\n- en\n---\n")
    clip = HFEncoder.from_pretrained(tmp_path / "clip", device="cpu")
    assert clip.languages == ("en",)
    selector = FrameSelector.from_pretrained("topk", encoder=clip)
    encoding = selector.encode(film())
    script, length = selector.select(encoding, ["кто", "who scores first " * 6], num_frames=2)
    assert any("Cyrillic" in warning for warning in script.warnings)
    assert any("20 tokens, more than the 12" in warning for warning in length.warnings)
    assert HFEncoder.from_pretrained(tiny_siglip(tmp_path / "siglip"), device="cpu").frame_size == (16, 16)


def test_an_encoder_need_not_declare_anything():
    selector = FrameSelector.from_pretrained("topk", encoder=Plain())
    assert not any("tokens" in w for w in selector.select(film(), "谁 " * 500, num_frames=2).warnings)
    assert selector.encode(film()).encoder == "Plain"


def test_an_encoder_without_a_side_or_a_fingerprint_is_refused():
    class Blind(Plain):
        encode_text = None

    class Nameless(Plain):
        fingerprint = ""

    for encoder, message in ((Blind(), "no encode_text: it sees frames but"), (Nameless(), "has no fingerprint")):
        with pytest.raises(EncoderError, match=message):
            FrameSelector.from_pretrained("topk", encoder=encoder)
    with pytest.raises(EncoderError, match="is not an encoder"):
        FrameSelector.from_pretrained("topk", encoder=object())


@pytest.mark.parametrize(
    ("side", "given", "message"),
    [
        ("encode_text", lambda texts: torch.ones(len(texts), 5), "5 numbers for text and of 3 for frames"),
        ("encode_text", lambda texts: torch.full((len(texts), 3), torch.nan), "vectors of text that hold NaN"),
        ("encode_text", lambda texts: torch.ones(3), r"gives \[3\] for 1 text"),
        ("encode_text", lambda texts: "a vector", "no vectors of text but str"),
        ("encode_frames", lambda frames: np.full((len(frames), 3), np.inf), "vectors of frames that hold NaN or inf"),
        ("encode_frames", lambda frames: torch.ones(1, 3), r"gives \[1, 3\] for 8 frames"),
    ],
)
@pytest.mark.parametrize("selector", ["topk", "mdp3"])
def test_vectors_that_cannot_be_used_are_refused(selector, side, given, message):
    encoder = Plain()
    setattr(encoder, side, given)
    chooser = FrameSelector.from_pretrained(selector, encoder=encoder)
    with pytest.raises(EncoderError, match=message):
        chooser.select(film(), "who", num_frames=2)


def test_selectors_without_vectors_take_no_encoder():
    with pytest.raises(SelectorLoadError, match="'uniform' takes no encoder"):
        FrameSelector.from_pretrained("uniform", encoder="mini")
    loaded = FrameSelector.from_pretrained("uniform")
    with pytest.raises(InputError, match="encoder: this selector is loaded already"):
        select_frames(film(), "who", 2, selector=loaded, encoder="mini")


def test_an_attribute_may_be_an_encoder_or_make_one():
    assert load_encoder("tests.encoders.test_declared:Plain").fingerprint == "plain-1"
    assert load_encoder("tests.encoders.test_declared:PLAIN") is PLAIN
    with pytest.raises(SelectorLoadError, match="takes no device"):
        load_encoder("tests.encoders.test_declared:Plain", device="cpu")
    with pytest.raises(SelectorLoadError, match="is a str: give an encoder"):
        load_encoder("tests.encoders.test_declared:NO_ENCODER")


PLAIN = Plain()
NO_ENCODER = "text"
