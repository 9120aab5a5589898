"""The detector of the embedded encoder: the published network, unchanged frames, and what it adds to vectors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from refocus_select.models.mini import load_mini
from refocus_select.models.nanodet import COCO, NanoDet, changed_frames

from .test_encoder import reference_pictures, some_frames

# Of the published network in float32 on the pictures of `reference_pictures`, computed from its own graph's weights.
PUBLISHED = ({"tv": 0.2591, "apple": 0.2534, "bowl": 0.1993}, {"tv": 0.2914, "train": 0.2371, "apple": 0.2146})


@pytest.fixture(scope="module")
def encoder():
    return load_mini(device="cpu")


@torch.inference_mode()
def test_stored_weights_give_the_published_scores(encoder):
    network = NanoDet().eval()
    network.load_state_dict({name: tensor.float() for name, tensor in encoder.detector.state_dict().items()})
    scores = network((reference_pictures() + 1) * 127.5)
    assert scores.shape == (2, len(COCO))
    for row, expected in zip(scores, PUBLISHED, strict=True):
        found = [row[COCO.index(name)].item() for name in expected]
        np.testing.assert_allclose(found, list(expected.values()), atol=0.02)


def test_a_frame_that_looks_like_the_one_before_is_not_examined():
    frames = torch.from_numpy(some_frames(1)).permute(0, 3, 1, 2).float().repeat(5, 1, 1, 1)
    frames[1] += 1  # noise of a camera
    frames[2, :, 30:45, 60:75] += 80  # something small appears
    frames[3] = frames[2]
    assert changed_frames(frames).tolist() == [0, 0, 2, 2, 4]


def test_slow_changes_add_up():
    frames = torch.arange(12.0)[:, None, None, None].expand(12, 3, 64, 64)
    source = changed_frames(frames)
    assert (frames[source] - frames).abs().max() <= 3
    assert len(source.unique()) > 2


@torch.inference_mode()
def test_a_person_brings_a_frame_nearer_to_the_words_for_persons(encoder, monkeypatch):
    frames = some_frames(4)
    before = encoder.encode_frames(frames)

    def seen(pixels):
        scores = torch.zeros(len(pixels), len(COCO))
        scores[:, COCO.index("person")] = 0.9
        return scores

    monkeypatch.setattr(encoder.detector, "forward", seen)
    after = encoder.encode_frames(frames)
    words = encoder.encode_text(["a woman", "people walking", "someone, a person", "a child"])
    others = encoder.encode_text(["a pizza", "the map of a city", "a waterfall", "an old car"])
    assert ((after - before) @ words.T > 0).all()
    assert ((after - before) @ words.T).mean() > 3 * ((after - before) @ others.T).abs().mean()


def test_vectors_of_the_version_before_are_read(encoder):
    from refocus_select import FrameSelector

    selector = FrameSelector.from_pretrained("mini")
    assert encoder.earlier
    assert all(selector.reads(fingerprint) for fingerprint in (encoder.fingerprint, *encoder.earlier))
    assert not selector.reads("mini-another")
