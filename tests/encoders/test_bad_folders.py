"""Folders of encoders that are damaged or made up: a `SelectorLoadError`, and nothing large is built."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from refocus_select import FrameSelector, open_video
from refocus_select.encoders.hf import HFEncoder
from refocus_select.errors import EncodingError, SelectorLoadError
from refocus_select.models.mini import MiniEncoder
from refocus_select.weights import resolve
from tests.brightness import ramp
from tests.models.tiny_encoders import tiny_clip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_clip(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "encoder"))


def change(path: Path, edit: Callable[[Any], Any]) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(folder: Path, value: float) -> None:
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    name = sorted(tensors)[len(tensors) // 2]
    tensors[name].view(-1)[-1] = value
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(SelectorLoadError, match=rf"{name} holds values that are not finite"):
        HFEncoder.from_pretrained(folder, device="cpu")


SIZES = {
    "layers": lambda c: c["text_config"].update(num_hidden_layers=10**6),
    "more layers than anybody counts": lambda c: c["vision_config"].update(num_hidden_layers=10**40),
    "width": lambda c: c["text_config"].update(hidden_size=10**6, intermediate_size=10**6),
    "vocabulary": lambda c: c["text_config"].update(vocab_size=10**10),
    "positions": lambda c: c["text_config"].update(max_position_embeddings=10**10),
    "projection": lambda c: c.update(projection_dim=10**9),
    "picture": lambda c: c["vision_config"].update(image_size=10**6),
}


@pytest.mark.parametrize("wrong", SIZES)
def test_absurd_sizes_are_refused_before_anything_is_built(folder: Path, wrong: str) -> None:
    change(folder / "config.json", SIZES[wrong])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(SelectorLoadError, match=str(folder)):
        HFEncoder.from_pretrained(folder, device="cpu")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB


CONTENT = [
    "",
    "[" * 100_000,
    "[]",
    "null",
    "{}",
    '{"model_type": 5}',
    '{"model_type": "clip", "text_config": 7}',
    "\xff",
]


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "tokenizer_config.json", "tokenizer.json"])
def test_json_that_is_none_or_nests_deeply(folder: Path, name: str) -> None:
    for content in CONTENT:
        (folder / name).write_bytes(content.encode("latin-1"))
        try:
            encoder = HFEncoder.from_pretrained(folder, device="cpu")
        except SelectorLoadError:
            continue
        # transformers does without some of what these files say
        assert name != "config.json", content
        assert encoder.encode_text(["a b"]).isfinite().all()


@pytest.mark.parametrize("edit", [
    lambda c: c.update(size="wide"), lambda c: c.update(size={"shortest_edge": "x"}),
])  # fmt: skip
def test_a_size_of_pictures_that_is_none(folder: Path, edit: Callable[[Any], Any]) -> None:
    for path in folder.glob("*processor_config.json"):
        change(path, edit)
    with pytest.raises(SelectorLoadError, match="cannot load the encoder"):
        HFEncoder.from_pretrained(folder, device="cpu")


def test_an_encoding_of_another_length_is_noticed(folder: Path) -> None:
    from dataclasses import replace

    selector = FrameSelector.from_pretrained("topk", encoder=str(folder), device="cpu")
    encoding = selector.encode(open_video(ramp(4), fps=2.0))
    wrong = replace(encoding, tensors={"embeddings": torch.zeros(4, 5)})
    with pytest.raises(EncodingError, match=r"holds embeddings \[4, 5\], not \[4, 8\]"):
        selector.select(wrong, "a b", num_frames=2)


# -- the encoder of the package -------------------------------------------------------------------


@pytest.mark.parametrize("edit", [
    lambda c: c.pop("frame_size"), lambda c: c.update(frame_size=[225]), lambda c: c.update(frame_size=[10**9, 225]),
    lambda c: c.update(image_variant="lite99"), lambda c: c.update(classes=10**12), lambda c: c.update(classes="many"),
    lambda c: c.update(top_classes=0), lambda c: c.update(top_classes=True), lambda c: c.update(sha256=None),
    lambda c: c["sha256"].pop("vocab.txt"), lambda c: c["sha256"].update({"vocab.txt": 7}),
    lambda c: c["sha256"].update({"../other": "0"}),
])  # fmt: skip
def test_fields_of_mini(tmp_path: Path, edit: Callable[[Any], Any]) -> None:
    config = json.loads((resolve("mini") / "config.json").read_text())
    edit(config)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        SelectorLoadError, match=r"config\.json: (frame_size|image_variant|classes|top_classes|sha256) is"
    ):
        MiniEncoder.from_pretrained(tmp_path)


@pytest.mark.parametrize("content", [b"", b"[]", b"[" * 100_000, b"\xff", b'{"format": ' + b"9" * 5000 + b"}"])
def test_json_of_mini(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(SelectorLoadError, match=r"config\.json"):
        MiniEncoder.from_pretrained(tmp_path)
