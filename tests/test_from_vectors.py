"""Vectors of frames that exist already, as encodings: every selector with the encoder of the text side takes them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from refocus_select import FrameSelector, VideoEncoding, open_video
from refocus_select.encoders import load_encoder
from refocus_select.errors import EncoderError, EncodingError, InputError, VideoOpenError
from refocus_select.selectors.algorithms import SCORED
from tests.brightness import ramp


class TextSide:
    """Texts only: "light" is the first axis, everything else the second."""

    name, fingerprint = "light-text", "light-1"

    def encode_text(self, texts):
        return torch.tensor([[1.0, 0.0] if text == "light" else [0.0, 1.0] for text in texts])


FILM = {"frames": ramp(12), "fps": 2.0}


def light_vectors(count=12):
    light = torch.linspace(0, 1, count)
    return F.normalize(torch.stack([light, 1 - light], 1), dim=1)


def times(count=12):
    return np.arange(count) * 0.5


def test_every_algorithm_takes_them():
    encoding = VideoEncoding.from_vectors(light_vectors().numpy(), times(), encoder=TextSide())
    assert (encoding.encoder, encoding.encoder_fingerprint, len(encoding)) == ("light-text", "light-1", 12)
    assert encoding.indices.tolist() == list(range(12))
    assert encoding.video.duration == pytest.approx(6.0)
    for algorithm in SCORED:
        selection = FrameSelector.from_pretrained(algorithm, encoder=TextSide()).select(encoding, "light", num_frames=4)
        assert len(selection) == 4
    best = FrameSelector.from_pretrained("topk", encoder=TextSide()).select(encoding, "light", num_frames=3)
    assert best.indices.tolist() == [9, 10, 11]
    assert best.timestamps.tolist() == [4.5, 5.0, 5.5]
    with pytest.raises(VideoOpenError, match="indices and timestamps are still valid"):
        _ = best.frames


def test_they_are_those_of_the_embedded_encoder_and_its_policy():
    frames, encoder = ramp(12), load_encoder("mini", device="cpu")
    made = FrameSelector.from_pretrained("mmr", device="cpu").encode(open_video(frames, fps=2.0))
    given = VideoEncoding.from_vectors(made.tensors["embeddings"], made.timestamps, encoder=encoder)
    for name in ("mmr", "mini", "mini-policy"):
        selector = FrameSelector.from_pretrained(name, device="cpu")
        ours, theirs = (selector.select(e, "a bright picture", num_frames=4) for e in (given, made))
        assert ours.indices.tolist() == theirs.indices.tolist()
        np.testing.assert_array_equal(ours.scores, theirs.scores)


def test_with_a_video_the_frames_can_be_seen(tmp_path):
    frames = ramp(12)
    film = open_video(frames, fps=2.0)
    rounded = times()[2:8] + 0.1
    encoding = VideoEncoding.from_vectors(light_vectors(6), rounded, encoder=TextSide(), video=film)
    assert encoding.indices.tolist() == [2, 3, 4, 5, 6, 7]
    assert encoding.video_fingerprint == film.fingerprint
    selection = FrameSelector.from_pretrained("topk", encoder=TextSide()).select(encoding, "light", num_frames=2)
    np.testing.assert_array_equal(selection.frames, frames[[6, 7]])
    one = VideoEncoding.from_vectors(light_vectors(1), [5.5], encoder=TextSide(), video=film)
    assert one.indices.tolist() == [11]
    still = VideoEncoding.from_vectors(light_vectors(1), [0.0], encoder=TextSide(), video=open_video(ramp(1), fps=1.0))
    assert still.indices.tolist() == [0]


def test_they_are_kept_like_other_encodings(tmp_path):
    encoding = VideoEncoding.from_vectors(light_vectors(), times(), encoder=TextSide(), indices=np.arange(0, 120, 10))
    loaded = VideoEncoding.load(encoding.save(tmp_path / "film.safetensors"))
    assert loaded.indices.tolist() == list(range(0, 120, 10))
    assert loaded.video_fingerprint == encoding.video_fingerprint
    changed = VideoEncoding.from_vectors(light_vectors().flip(1), times(), encoder=TextSide())
    assert changed.video_fingerprint != encoding.video_fingerprint


def test_another_encoder_cannot_read_them():
    encoding = VideoEncoding.from_vectors(light_vectors(), times(), encoder=TextSide())
    with pytest.raises(EncodingError, match="made by 'light-text'"):
        FrameSelector.from_pretrained("topk", device="cpu").select(encoding, "light")


def test_a_text_side_sees_no_frames():
    selector = FrameSelector.from_pretrained("topk", encoder=TextSide())
    with pytest.raises(EncoderError, match=r"reads questions but sees no frames.*from_vectors"):
        selector.encode(open_video(ramp(4), fps=2.0))


def test_vectors_of_another_length_are_refused():
    with pytest.raises(EncoderError, match="2 numbers for text and of 3 for frames"):
        VideoEncoding.from_vectors(torch.ones(4, 3), times(4), encoder=TextSide())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vectors": torch.ones(12)}, r"vectors \[12\] and timestamps \[12\]"),
        ({"vectors": torch.ones(0, 2), "timestamps": []}, r"vectors \[0, 2\]"),
        ({"timestamps": times(11)}, r"vectors \[12, 2\] and timestamps \[11\]"),
        ({"timestamps": times()[::-1]}, "finite and rising"),
        ({"timestamps": np.full(12, np.nan)}, "finite and rising"),
        ({"vectors": torch.full((12, 2), torch.nan)}, "NaN or infinity, first at row 0"),
        ({"indices": np.arange(11)}, "12 whole numbers"),
        ({"indices": np.arange(12) / 2}, "12 whole numbers"),
        ({"indices": np.zeros(12, int)}, "rising from 0 on"),
        ({"indices": np.arange(12) - 1}, "rising from 0 on"),
        ({"indices": np.arange(12) + 1, "video": FILM}, "has 12 frames, and no frame 12"),
        ({"timestamps": times() + 100, "video": FILM}, "lie outside"),
        ({"timestamps": times() / 100, "video": FILM}, "nearest to one frame"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    given = {"vectors": light_vectors(), "timestamps": times(), **change}
    with pytest.raises(InputError, match=message):
        VideoEncoding.from_vectors(given.pop("vectors"), given.pop("timestamps"), encoder=TextSide(), **given)
