"""The detector of the embedded encoder: the published network, and what it adds to vectors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from refocus_select.models.mini import load_mini
from refocus_select.models.nanodet import COCO, NanoDet
from refocus_select.models.onnx_network import OnnxNetwork

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
    scores = network(network.normalised((reference_pictures() + 1) * 127.5))
    assert scores.shape == (2, len(COCO))
    for row, expected in zip(scores, PUBLISHED, strict=True):
        found = [row[COCO.index(name)].item() for name in expected]
        np.testing.assert_allclose(found, list(expected.values()), atol=0.02)


@torch.inference_mode()
@pytest.mark.parametrize("size", [(225, 225), (64, 97)])
def test_the_model_computes_what_the_network_does(encoder, size):
    pytest.importorskip("onnxruntime")
    network = NanoDet().eval()
    network.load_state_dict({name: tensor.float() for name, tensor in encoder.detector.state_dict().items()})
    pixels = network.normalised(torch.from_numpy(some_frames(3, size=size)).permute(0, 3, 1, 2))
    assert pixels.shape[2:] == (size[0] // 32 * 32, size[1] // 32 * 32)
    torch.testing.assert_close(
        OnnxNetwork(lambda: network.to_onnx(size))(pixels), network(pixels), atol=1e-4, rtol=1e-3
    )


@torch.inference_mode()
def test_a_person_brings_a_frame_nearer_to_the_words_for_persons(encoder, monkeypatch):
    frames = some_frames(4)
    before = encoder.encode_frames(frames)

    def seen(pixels):
        scores = torch.zeros(len(pixels), len(COCO))
        scores[:, COCO.index("person")] = 0.9
        return scores

    monkeypatch.setattr(encoder, "runtime", "torch")
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
