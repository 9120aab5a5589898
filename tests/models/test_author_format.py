"""The authors' format: written key by key as they lay it out, and read back; networks that are no policies yet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from refocus_select.errors import InputError, SelectorLoadError
from refocus_select.hub import find_checkpoint
from refocus_select.models.author_format import author_config, save_author_model
from refocus_select.models.checkpoint import load_model, read_siglip
from refocus_select.models.refocus import RefocusModel
from tests.golden import check_case

from .tiny import feature_model, video_model

GOLDEN = Path(__file__).parents[1] / "data" / "golden"
CASES = ("a_ar_scalar", "b_ar_vector_rank_groups", "f_geometry384")
NORM = "mm_model.vision_tower.vision_tower.vision_model.post_layernorm."


def loaded(folder: Path, **how: Any) -> RefocusModel:
    model = load_model(find_checkpoint(folder), device="cpu", **how)
    assert isinstance(model, RefocusModel)
    return model


@pytest.mark.parametrize("case", CASES)
def test_every_key_of_the_recorded_layouts_comes_back(case: str, tmp_path: Path) -> None:
    """Written from the network that was read: the same names, shapes, types and values."""
    save_author_model(loaded(GOLDEN / case), tmp_path)
    before, after = (load_file(folder / "model.safetensors") for folder in (GOLDEN / case, tmp_path))
    before.pop("lm_head.weight", None)  # the tied copy, which their loader does without
    assert after.keys() == before.keys()
    for name, tensor in before.items():
        assert (after[name].shape, after[name].dtype) == (tensor.shape, tensor.dtype), name
        if name.startswith(NORM):  # nothing reads it
            assert np.array_equal(after[name], np.full_like(tensor, float(name.endswith("weight"))))
        else:
            assert np.array_equal(after[name], tensor), name


@pytest.mark.parametrize("case", CASES)
def test_every_field_of_the_recorded_configurations_comes_back(case: str, tmp_path: Path) -> None:
    save_author_model(loaded(GOLDEN / case), tmp_path)
    before, after = (json.loads((folder / "config.json").read_text()) for folder in (GOLDEN / case, tmp_path))
    assert "hidden_size" not in after  # a property of theirs that cannot be set
    for name in before.keys() - {"ssm_cfg", "mm_vision_tower", "transformers_version"}:
        if name in ("vocab_size", "pad_vocab_size_multiple"):
            continue
        if name == "fused_add_norm":  # how it is computed, not what
            continue
        assert after[name] == before[name], name
    assert "siglip" in after["mm_vision_tower"]
    assert before["ssm_cfg"].items() <= after["ssm_cfg"].items()
    rows = [-(-c["vocab_size"] // c["pad_vocab_size_multiple"]) * c["pad_vocab_size_multiple"] for c in (before, after)]
    assert rows[0] == rows[1]
    vision = [json.loads((folder / "vision_config.json").read_text()) for folder in (GOLDEN / case, tmp_path)]
    for name in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size",
                 "patch_size"):  # fmt: skip
        assert vision[0][name] == vision[1][name]


def test_what_is_written_computes_the_recorded_outputs(tmp_path: Path) -> None:
    """The goldens of the authors' code, from the files that we wrote."""
    case = GOLDEN / CASES[0]
    save_author_model(loaded(case), tmp_path)
    for name in ("inputs.safetensors", "outputs.safetensors"):
        (tmp_path / name).write_bytes((case / name).read_bytes())
    rows = list(check_case(tmp_path))
    assert len(rows) > 5
    assert not [row for row in rows if not row.holds]


def test_whether_options_are_read_is_part_of_it(tmp_path: Path) -> None:
    from dataclasses import replace

    model = loaded(GOLDEN / CASES[0])
    for read in (True, False):
        model.config = replace(model.config, answer_options=read, max_fps=2.0)
        save_author_model(model, tmp_path / str(read))
        assert loaded(tmp_path / str(read)).config.answer_options is read
        assert loaded(tmp_path / str(read)).config.max_fps == 2.0


def test_networks_that_their_code_does_not_compute_are_refused() -> None:
    with pytest.raises(InputError, match="frame_encoder"):
        author_config(feature_model().config)


# -- networks that are no policies yet --------------------------------------------------------------


@pytest.mark.parametrize("spare", [True, False])
def test_a_network_without_heads_gets_new_ones(tmp_path: Path, spare: bool) -> None:
    folder = video_model(tmp_path, spare=spare)
    with pytest.raises(SelectorLoadError, match=r"autoregressive|start_of_frame"):
        loaded(folder)  # it is no selector
    model = loaded(folder, new_heads=True)
    stored = load_file(folder / "model.safetensors")
    assert model.config.start_of_frame_token_id == 257
    assert model.config.embedding_rows == (272 if spare else 258)
    embedding = model.backbone.embedding.weight
    assert torch.equal(embedding[:257], torch.from_numpy(stored["backbone.embedding.weight"][:257]))
    for i in range(model.config.n_layer):
        name = f"backbone.layers.{i}.mixer.in_proj.weight"
        assert torch.equal(model.state_dict()[name], torch.from_numpy(stored[name]))
    assert float(model.pointer.key_head.weight.std()) > 0


def test_a_siglip_of_transformers_becomes_the_tower(tmp_path: Path) -> None:
    from transformers import SiglipVisionConfig, SiglipVisionModel

    torch.manual_seed(0)
    config = SiglipVisionConfig(hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=2,
                                image_size=28, patch_size=14)  # fmt: skip
    model = SiglipVisionModel(config).eval()
    model.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    if not any(name.startswith("vision_model.") for name in stored):  # names of newer releases in memory only
        save_file({f"vision_model.{name}": value for name, value in stored.items()}, tmp_path / "model.safetensors")
    from refocus_select.models.vision import SiglipTower

    vision, tensors = read_siglip(str(tmp_path))
    assert vision.num_hidden_layers == 2
    tower = SiglipTower(vision)
    tower.load_state_dict(tensors)
    pixels = torch.randn(2, 3, 28, 28)
    with torch.no_grad():
        hidden = model(pixels, output_hidden_states=True).hidden_states[2]  # behind the last block but one
        assert torch.allclose(tower.eval()(pixels), hidden, atol=1e-5)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip"}))
    with pytest.raises(SelectorLoadError, match="is no SigLIP"):
        read_siglip(str(tmp_path))
