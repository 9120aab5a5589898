"""Loading is strict, its errors name what is wrong, and saving loses nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from refocus_select.errors import SelectorLoadError
from refocus_select.hub import CheckpointFiles, find_checkpoint
from refocus_select.models.checkpoint import _author_vision, fingerprint, load_model, save_model
from refocus_select.models.config import RefocusConfig, VisionConfig
from refocus_select.models.refocus import RefocusModel

from .reference import random_checkpoint
from .tiny import feature_model, write_checkpoint

TOWER = "mm_model.vision_tower.vision_tower.vision_model."


def load(folder: Path, **kwargs: Any) -> RefocusModel:
    return load_model(find_checkpoint(folder), device="cpu", **kwargs)


def same_weights(one: RefocusModel, other: RefocusModel) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def shard(folder: Path, parts: int) -> None:
    weights = load_file(folder / "model.safetensors")
    names, where = sorted(weights), {}
    for i in range(parts):
        file = f"model-{i + 1:05d}-of-{parts:05d}.safetensors"
        mine = names[i::parts]
        save_file({n: weights[n] for n in mine}, folder / file)
        where |= dict.fromkeys(mine, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    (folder / "model.safetensors").unlink()


@pytest.fixture
def parts() -> tuple[dict, dict, dict[str, np.ndarray]]:
    return random_checkpoint(4, use_rank_head=True, value_head_norm="rmsnorm")


def test_shards_and_a_duplicated_head_load_alike(tmp_path: Path, parts: Any) -> None:
    config, vision, weights = parts
    plain = load(write_checkpoint(tmp_path / "a", config, vision, weights))
    weights["lm_head.weight"] = weights["backbone.embedding.weight"].copy()
    folder = write_checkpoint(tmp_path / "b", config, vision, weights)
    shard(folder, 3)
    assert same_weights(plain, load(folder))
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(SelectorLoadError, match=r"lacks model-00002-of-00003\.safetensors"):
        load(folder)


@pytest.mark.parametrize("model_type", ["refocus", "mamba2", "llava_mamba"])
def test_model_types_of_the_authors(tmp_path: Path, parts: Any, model_type: str) -> None:
    config, vision, weights = parts
    load(write_checkpoint(tmp_path, {**config, "model_type": model_type}, vision, weights))


@pytest.mark.parametrize(
    "name",
    ["backbone.embedding.weight", "backbone.layers.1.mixer.A_log", "key_head.weight", "value_head_scale",
     "rank_head.weight", "logit_scale", "mm_model.mm_projector.2.bias", f"{TOWER}encoder.layers.0.mlp.fc1.weight"],
)  # fmt: skip
def test_a_missing_key_is_named(tmp_path: Path, parts: Any, name: str) -> None:
    config, vision, weights = parts
    del weights[name]
    with pytest.raises(SelectorLoadError, match=f"missing: {name}".replace(".", r"\.")):
        load(write_checkpoint(tmp_path, config, vision, weights))


@pytest.mark.parametrize(
    "name",
    ["value_embedding", "backbone.layers.2.norm.weight", f"{TOWER}head.probe", f"{TOWER}encoder.layers.1.x", "extra"],
)
def test_an_unexpected_key_is_named(tmp_path: Path, parts: Any, name: str) -> None:
    config, vision, weights = parts
    weights[name] = np.zeros(3, np.float32)
    with pytest.raises(SelectorLoadError, match=f"unexpected: {name}".replace(".", r"\.")):
        load(write_checkpoint(tmp_path, config, vision, weights))


def test_a_wrong_shape_is_named(tmp_path: Path, parts: Any) -> None:
    config, vision, weights = parts
    weights["key_head.weight"] = weights["key_head.weight"][:, :-1].copy()
    with pytest.raises(SelectorLoadError, match=r"key_head\.weight is \[24, 23\] but config\.json means \[24, 24\]"):
        load(write_checkpoint(tmp_path, config, vision, weights))


def test_a_scale_of_another_kind_is_refused_or_read_from_its_shape(tmp_path: Path, parts: Any) -> None:
    config, vision, weights = parts
    weights["logit_scale"] = np.zeros(24, np.float32)
    model = load(write_checkpoint(tmp_path / "a", config, vision, weights))  # the field is absent: the tensor tells
    assert model.pointer.scale().shape == (24,)
    with pytest.raises(SelectorLoadError, match="logit_scale is"):
        load(write_checkpoint(tmp_path / "b", {**config, "logit_scale_type": "scalar"}, vision, weights))


def test_truncated_and_damaged_files(tmp_path: Path, parts: Any) -> None:
    folder = write_checkpoint(tmp_path, *parts)
    weights, config = folder / "model.safetensors", folder / "config.json"
    good, text = weights.read_bytes(), config.read_text()
    for damaged in (good[:-100], good[:50], b"", b"not a safetensors file at all"):
        weights.write_bytes(damaged)
        with pytest.raises(SelectorLoadError, match=r"model\.safetensors is damaged or incomplete"):
            load(folder)
    weights.write_bytes(good)
    for damaged in (text[:-10], "[1, 2]", ""):
        config.write_text(damaged)
        with pytest.raises(SelectorLoadError, match=r"config\.json"):
            load(folder)


def test_integer_weights_are_refused(tmp_path: Path, parts: Any) -> None:
    config, vision, weights = parts
    weights["key_head.weight"] = weights["key_head.weight"].astype(np.int8)
    with pytest.raises(SelectorLoadError, match=r"key_head\.weight is stored as torch\.int8"):
        load(write_checkpoint(tmp_path, config, vision, weights))


def test_dtypes(tmp_path: Path, parts: Any) -> None:
    folder = write_checkpoint(tmp_path, *parts)
    assert load(folder).dtype == torch.float32
    for dtype in ("bfloat16", torch.bfloat16):
        model = load(folder, dtype=dtype)
        kinds = {name: p.dtype for name, p in model.named_parameters()}
        assert kinds.pop("backbone.layers.0.mixer.A_log") == torch.float32
        assert kinds["backbone.layers.0.mixer.dt_bias"] == torch.bfloat16
        assert model.dtype == torch.bfloat16
    assert load(folder, dtype="auto").dtype == torch.float32
    for wrong in ("int8", "float64", "double precision"):
        with pytest.raises(SelectorLoadError, match="dtype"):
            load(folder, dtype=wrong)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "block generation": ({"frame_generation_method": "block"}, "frame_generation_method is 'block'"),
    "block by default": ({"frame_generation_method": None}, "frame_generation_method"),
    "mlp blocks": ({"d_intermediate": 64}, "d_intermediate=64"),
    "attention": ({"attn_layer_idx": [1]}, "attn_layer_idx"),
    "mamba-1": ({"ssm_cfg": {"layer": "Mamba1"}}, "ssm_cfg.layer"),
    "mamba-1 by default": ({"ssm_cfg": {}}, "ssm_cfg.layer"),
    "no ssm_cfg": ({"ssm_cfg": None}, "ssm_cfg"),
    "wide D": ({"ssm_cfg": {"layer": "Mamba2", "headdim": 8, "D_has_hdim": True}}, "D_has_hdim"),
    "time limit": ({"ssm_cfg": {"layer": "Mamba2", "headdim": 8, "dt_limit": [0.0, 0.1]}}, "dt_limit"),
    "partial ssm": ({"ssm_cfg": {"layer": "Mamba2", "headdim": 8, "d_ssm": 24}}, "d_ssm"),
    "unknown ssm setting": ({"ssm_cfg": {"layer": "Mamba2", "headdim": 8, "swirl": 1}}, "swirl"),
    "groups": ({"ssm_cfg": {"layer": "Mamba2", "headdim": 8, "ngroups": 4}}, "ngroups=4"),
    "heads": ({"ssm_cfg": {"layer": "Mamba2", "headdim": 7}}, "headdim 7"),
    "short kernel": ({"ssm_cfg": {"layer": "Mamba2", "headdim": 8, "d_conv": 1}}, "d_conv"),
    "score norm": ({"score_head_norm": "layernorm"}, "score_head_norm 'layernorm'"),
    "value norm": ({"value_head_norm": "batch"}, "value_head_norm 'batch'"),
    "scale function": ({"logit_scale_fn": "relu"}, "logit_scale_fn 'relu'"),
    "pooling": ({"mm_spatial_pool_mode": "mean"}, "mm_spatial_pool_mode 'mean'"),
    "no pooling": ({"mm_spatial_pool_mode": None}, "mm_spatial_pool_mode"),
    "residual projector": ({"mm_projector_type": "mlp2x_res2x_gelu"}, "mm_projector_type 'mlp2x_res2x_gelu'"),
    "pooler": ({"mm_projector_type": "pooler"}, "mm_projector_type 'pooler'"),
    "identity of another width": ({"mm_projector_type": "identity"}, "identity"),
    "merge": ({"mm_patch_merge_type": "spatial"}, "mm_patch_merge_type"),
    "tower": ({"mm_vision_tower": "openai/clip"}, "SigLIP"),
    "no tower": ({"mm_vision_tower": None}, "mm_vision_tower"),
    "no start token": ({"start_of_frame_token_id": None}, "start_of_frame_token_id"),
    "start token outside": ({"start_of_frame_token_id": 48}, "start_of_frame_token_id 48"),
    "width": ({"d_model": "big"}, "d_model"),
    "tower width": ({"mm_hidden_size": 9}, "mm_hidden_size 9"),
    "other model": ({"model_type": "llama"}, "model_type 'llama'"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_supported_is_refused_by_name(name: str, tmp_path: Path) -> None:
    config, vision, weights = random_checkpoint()
    change, message = REFUSED[name]
    config = {k: v for k, v in {**config, **change}.items() if v is not None}
    with pytest.raises(SelectorLoadError) as caught:
        load(write_checkpoint(tmp_path, config, vision, weights))
    assert message in str(caught.value)


def test_settings_that_change_nothing_are_accepted(tmp_path: Path) -> None:
    config, vision, weights = random_checkpoint()
    ssm = {
        **config["ssm_cfg"],
        "dt_limit": [0.0, float("inf")],
        "A_init_range": [1, 16],
        "D_has_hdim": False,
        "d_ssm": 48,
    }
    extra = {
        "mm_vision_select_layer": -2,
        "image_aspect_ratio": "square",
        "tokenizer_model_max_length": 1,
        "delay_load": True,
    }
    load(write_checkpoint(tmp_path, {**config, **extra, "ssm_cfg": ssm}, vision, weights))


def test_vision_geometry_without_its_file(tmp_path: Path, parts: Any) -> None:
    config, _, weights = parts
    with pytest.raises(SelectorLoadError, match=r"put a vision_config\.json"):
        load(write_checkpoint(tmp_path, config, None, weights))
    so400m = {
        "vision.embeddings.patch_embedding.weight": torch.empty(1152, 3, 14, 14, device="meta"),
        "vision.embeddings.position_embedding.weight": torch.empty(729, 1152, device="meta"),
    }
    assert _author_vision(CheckpointFiles("x", Path("config.json"), ()), so400m) == VisionConfig()


def test_the_default_shape_is_the_published_one() -> None:
    """Parameter counts of the 1.3B selector, computed from the shapes in the specification."""
    from refocus_select.models.config import SSMConfig

    config = RefocusConfig(
        d_model=2048, n_layer=48, vocab_size=50277, pad_vocab_size_multiple=16, start_of_frame_token_id=50277,
        mm_projector_type="mlp2x_gelu", ssm=SSMConfig(),
    )  # fmt: skip
    with torch.device("meta"):
        model = RefocusModel(config)
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    assert model.backbone.embedding.weight.shape == (50288, 2048)
    assert sum(p.numel() for p in model.backbone.layers[0].parameters()) == 25_849_280
    blocks = sum(p.numel() for p in model.vision.encoder.parameters())
    assert round(blocks / 1e6) == 396
    assert round(sum(count.values()) / 1e9, 2) == 1.76


def test_our_format_round_trips(tmp_path: Path, parts: Any) -> None:
    model = load(write_checkpoint(tmp_path / "a", *parts))
    save_model(model, tmp_path / "b")
    again = load(tmp_path / "b")
    assert again.config == model.config
    assert same_weights(model, again)
    assert fingerprint(model) == fingerprint(again)
    assert sorted(p.name for p in (tmp_path / "b").iterdir()) == ["config.json", "model.safetensors"]
    config = json.loads((tmp_path / "b" / "config.json").read_text())
    assert config["model_type"] == "refocus-select-policy"

    for change, message in (({"swirl": 1}, "swirl"), ({"format_version": 2}, "format_version 2")):
        (tmp_path / "b" / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(SelectorLoadError, match=message):
            load(tmp_path / "b")


def test_networks_without_a_tower_round_trip(tmp_path: Path) -> None:
    model = feature_model(question_hidden_size=7, similarity_residual=True)
    save_model(model, tmp_path)
    assert same_weights(model, load(tmp_path))


def test_fingerprints_tell_networks_apart(tmp_path: Path, parts: Any) -> None:
    model = load(write_checkpoint(tmp_path, *parts))
    before = fingerprint(model)
    model.pointer.key_head.weight[3, 3] += 1e-3
    assert fingerprint(model) != before
