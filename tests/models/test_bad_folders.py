"""Model folders of strangers: whatever is in them, a model or a `SelectorLoadError`, and nothing large is built."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import refocus_select.weights
from refocus_select import FrameSelector
from refocus_select.errors import SelectorLoadError
from refocus_select.hub import find_checkpoint
from refocus_select.models.checkpoint import load_model
from refocus_select.models.config import RefocusConfig

from .reference import random_checkpoint
from .tiny import write_checkpoint

OURS = Path(refocus_select.weights.__file__).parent / "mini-policy"


@pytest.fixture(params=["ours", "the authors'"])
def folder(request: Any, tmp_path: Path) -> Path:
    if request.param == "ours":
        return Path(shutil.copytree(OURS, tmp_path / "model"))
    return write_checkpoint(tmp_path / "model", *random_checkpoint(4, use_rank_head=True, value_head_norm="rmsnorm"))


def load(folder: Path, **kwargs: Any) -> Any:
    return load_model(find_checkpoint(folder), device="cpu", **kwargs)


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_one_weight_that_is_not_finite(folder: Path, value: float) -> None:
    load(folder)

    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        name = sorted(tensors)[len(tensors) // 2]
        tensors[name].view(-1)[-1] = value

    change_weights(folder, spoil)
    with pytest.raises(SelectorLoadError, match="not finite in float32"):
        load(folder)


def test_a_weight_that_half_precision_cannot_hold(folder: Path) -> None:
    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        tensors["backbone.embedding.weight"] = tensors["backbone.embedding.weight"].float()
        tensors["backbone.embedding.weight"][0, 0] = 1e6

    change_weights(folder, spoil)
    load(folder)
    with pytest.raises(SelectorLoadError, match="not finite in float16"):
        load(folder, dtype="float16")


@pytest.mark.parametrize("field", ["d_model", "n_layer", "vocab_size", "mm_hidden_size", "question_hidden_size"])
@pytest.mark.parametrize("size", [4000, 10**9, 10**30])
def test_absurd_sizes_are_refused_before_anything_is_built(
    folder: Path, field: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = json.loads((folder / "config.json").read_text())
    if field.startswith("question") and not config.get("question_hidden_size"):
        config["question_hidden_size"] = 8
    config[field] = size
    (folder / "config.json").write_text(json.dumps(config))

    def built(config: RefocusConfig) -> None:
        raise AssertionError("the network was built")

    monkeypatch.setattr("refocus_select.models.checkpoint.RefocusModel", built)
    with pytest.raises(SelectorLoadError):
        load(folder)


@pytest.mark.parametrize("field", ["d_state", "d_conv", "expand", "ngroups", "headdim"])
def test_absurd_sizes_of_the_recurrence(tmp_path: Path, field: str) -> None:
    config, vision, weights = random_checkpoint(4)
    config["ssm_cfg"] = {**config["ssm_cfg"], field: 2**20}
    with pytest.raises(SelectorLoadError):
        load(write_checkpoint(tmp_path, config, vision, weights))


@pytest.mark.parametrize("field", ["hidden_size", "intermediate_size", "num_hidden_layers", "image_size", "patch_size"])
def test_absurd_sizes_of_the_tower(tmp_path: Path, field: str) -> None:
    config, vision, weights = random_checkpoint(4)
    with pytest.raises(SelectorLoadError):
        load(write_checkpoint(tmp_path, config, {**vision, field: 2**20}, weights))


WRONG = [None, True, -1, 0, 1.5, 10**400, float("nan"), float("inf"), "", "text", "\ud800", [], [1, 2], {}, {"a": []}]


def test_fields_of_wrong_types(folder: Path) -> None:
    """Every field with every wrong value: a model that computes the same sizes, or our error."""
    whole = json.loads((folder / "config.json").read_text())
    refused = 0
    for field in whole:
        for value in WRONG:
            (folder / "config.json").write_text(json.dumps({**whole, field: value}))
            try:
                load(folder)
            except SelectorLoadError:
                refused += 1
    assert refused > 8 * len(whole)


@pytest.mark.parametrize(
    "content", ["[" * 100_000, "[]", "null", "1", "", "{", '{"model_type": ' + "9" * 5000 + "}", b"\xff"]
)
@pytest.mark.parametrize("file", ["config.json", "model.safetensors.index.json"])
def test_json_that_is_none(folder: Path, content: str | bytes, file: str) -> None:
    if file != "config.json":
        (folder / "model.safetensors").unlink()
    (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SelectorLoadError):
        load(folder)


def test_a_file_that_is_no_configuration_is_not_read(folder: Path) -> None:
    with (folder / "config.json").open("wb") as file:
        file.truncate(2**36)  # takes no room on the disk, but would in memory
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(SelectorLoadError, match="bytes"):
        load(folder)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 2**20  # kB


def test_tensors_without_sides(folder: Path) -> None:
    change_weights(folder, lambda tensors: tensors.update({"backbone.embedding.weight": torch.tensor(1.0)}))
    with pytest.raises(SelectorLoadError):
        load(folder)


def test_damaged_files_give_our_errors_only(folder: Path) -> None:
    rng = np.random.default_rng(5)
    for name in ("config.json", "model.safetensors"):
        whole = (folder / name).read_bytes()
        for turn in range(60):
            content = bytearray(whole)
            if turn % 3:
                for place in rng.integers(8 * min(len(content), 4096), size=3).tolist():  # headers are in front
                    content[place // 8] ^= 1 << place % 8
            else:
                del content[int(rng.integers(len(content))) :]
            (folder / name).write_bytes(content)
            try:
                load(folder)
            except SelectorLoadError:
                continue
        (folder / name).write_bytes(whole)
    load(folder)


@pytest.mark.parametrize(
    "name", ["x" * 5000, "a/" + "x" * 5000, "a\0b", "a/b\0", "\ud800", "a/\ud800", "", " ", 5, None, b"x"]
)
def test_names_that_are_none(name: Any) -> None:
    with pytest.raises(SelectorLoadError):
        FrameSelector.from_pretrained(name)
