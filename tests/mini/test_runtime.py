"""The image network by ONNX Runtime: the same features, the same frames chosen, and PyTorch where it is missing."""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

from refocus_select import weights
from refocus_select.errors import InputError
from refocus_select.models import mini
from refocus_select.models.efficientnet_lite import EfficientNetLite
from refocus_select.models.mini import MiniEncoder
from refocus_select.models.onnx_network import OnnxNetwork
from refocus_select.selectors.similarity import SimilaritySelector
from refocus_select.video import open_video

from ..test_package import ROOT
from .test_encoder import FOLDER, some_frames

FILM = ROOT / "examples/film/big_buck_bunny.mp4"
onnxruntime = pytest.importorskip("onnxruntime")


def in_full_precision(runtime: str) -> MiniEncoder:
    """In float32 on every machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mini, "_image_dtype", lambda device: torch.float32)
        return MiniEncoder.from_pretrained(FOLDER, device="cpu", runtime=runtime)


@pytest.fixture(scope="module")
def by_torch() -> MiniEncoder:
    return in_full_precision("torch")


@pytest.fixture(scope="module")
def by_onnx() -> MiniEncoder:
    return in_full_precision("onnxruntime")


@torch.inference_mode()
@pytest.mark.parametrize("size", [(225, 225), (64, 97), (50, 33)])
@pytest.mark.parametrize("variant", ["lite0", "lite2"])
def test_the_model_computes_what_the_network_does(variant, size):
    torch.manual_seed(0)
    network = EfficientNetLite(variant, classes=3).eval()
    for parameter in network.parameters():  # features of ordinary size in every layer
        parameter.normal_(std=(2 / parameter[0].numel()) ** 0.5 if parameter.ndim > 1 else 0.3)
    pixels = torch.rand(3, 3, *size) * 2 - 1
    expected = network(pixels)
    assert expected.std() > 0
    torch.testing.assert_close(OnnxNetwork(lambda: network.to_onnx(size))(pixels), expected, atol=1e-3, rtol=1e-3)


def test_frames_have_the_same_vectors_and_identity(by_onnx, by_torch):
    with open_video(str(FILM)) as video:
        frames = np.asarray(video.get_frames(range(0, len(video), len(video) // 24)).data)
    frames = np.concatenate([frames[:, :225, :225], some_frames(4)])
    one, other = by_onnx.encode_frames(frames), by_torch.encode_frames(frames)
    assert torch.nn.functional.cosine_similarity(one, other).min() > 0.9999
    assert by_onnx.fingerprint == by_torch.fingerprint


def test_the_same_frames_are_chosen(by_onnx, by_torch):
    picks = []
    for encoder in (by_onnx, by_torch):
        selector = SimilaritySelector(encoder)
        encoding = selector.encode(FILM, max_frames=40)
        questions = ["When is the rabbit seen?", "Where is a tree?", "the closing credits", "Is there a bird?"]
        picks.append([selector.select(encoding, q, num_frames=6).indices.tolist() for q in questions])
    assert picks[0] == picks[1]


def test_every_number_of_frames_and_threads_gives_the_same(by_onnx):
    frames = some_frames(9)
    whole = by_onnx.encode_frames(frames)
    for count in (1, 2, 5):
        torch.testing.assert_close(by_onnx.encode_frames(frames[:count]), whole[:count], atol=1e-4, rtol=1e-3)


def test_an_encoder_can_be_sent_to_another_process(by_onnx):
    frames = some_frames(2)
    by_onnx.encode_frames(frames)
    sent = pickle.loads(pickle.dumps(by_onnx))
    assert torch.equal(sent.encode_frames(frames), by_onnx.encode_frames(frames))


@pytest.mark.parametrize(("spoil", "runtime"), [("None", "torch"), ("types.ModuleType('broken')", "onnxruntime")])
def test_torch_computes_where_it_is_missing_or_broken(spoil, runtime):
    code = f"""
import builtins, importlib.machinery, sys, types
import numpy as np
sys.modules["onnxruntime"] = {spoil}
if sys.modules["onnxruntime"]:  # found, but its library cannot be loaded
    sys.modules["onnxruntime"].__spec__ = importlib.machinery.ModuleSpec("onnxruntime", None)
    usual = builtins.__import__
    def broken(name, *rest):
        if name == "onnxruntime":
            raise ImportError("DLL load failed")
        return usual(name, *rest)
    builtins.__import__ = broken
from refocus_select.models.mini import load_mini
encoder = load_mini(device="cpu")
assert encoder.runtime == {runtime!r}, encoder.runtime
assert encoder.encode_frames(np.zeros((1, 225, 225, 3), np.uint8)).shape == (1, 384)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert ("frames are encoded by PyTorch" in done.stderr) == (runtime == "onnxruntime")


def test_a_question_alone_starts_no_session():
    code = """
import sys
from refocus_select.models.mini import load_mini
load_mini(device="cpu").encode_text(["a dog"])
sys.exit("onnxruntime.capi" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_an_unknown_runtime_is_refused():
    with pytest.raises(InputError, match="'onnxruntime' or 'torch'"):
        MiniEncoder.from_pretrained(weights.resolve("mini"), device="cpu", runtime="tensorrt")
