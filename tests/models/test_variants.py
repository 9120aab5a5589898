"""Every variant of the authors' configuration against the naive float64 reference, from a saved checkpoint on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from refocus_select.hub import find_checkpoint
from refocus_select.models.checkpoint import load_model

from .reference import Reference, random_checkpoint
from .tiny import write_checkpoint

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "layernorm blocks": {"rms_norm": False},
    "layernorm blocks, no mixer norm": {"rms_norm": False, "ssm": {"rmsnorm": False}},
    "norm before gate, groups": {"ssm": {"norm_before_gate": True, "ngroups": 3}},
    "groups": {"ssm": {"ngroups": 2}},
    "projection biases, no convolution bias": {"ssm": {"bias": True, "conv_bias": False}},
    "short convolution, expand 1": {"ssm": {"d_conv": 2, "expand": 1}},
    "wide convolution, expand 3": {"ssm": {"d_conv": 5, "expand": 3}},
    "deep": {"layers": 5},
    "l2 heads": {"score_head_norm": True, "value_head_norm": True},
    "l2 heads by word": {"score_head_norm": "norm", "value_head_norm": "True"},
    "l2 score by string, rms values": {"score_head_norm": "True", "value_head_norm": "rmsnorm"},
    "rms heads": {"score_head_norm": "rmsnorm", "value_head_norm": "rmsnorm"},
    "string False keeps the value scale": {"score_head_norm": "False", "value_head_norm": "False"},
    "norm values": {"value_head_norm": "norm"},
    "exp scale": {"logit_scale_fn": "exp"},
    "vector softplus, scaled": {"logit_scale_type": "vector", "attention_scaling": True},
    "vector exp": {"logit_scale_type": "vector", "logit_scale_fn": "exp"},
    "odd scale type is a scalar": {"logit_scale_type": "matrix"},
    "rank head": {"use_rank_head": True},
    "max pooling": {"mm_spatial_pool_mode": "max", "grid": 5},
    "average pooling": {"mm_spatial_pool_mode": "average", "grid": 4},
    "bilinear on an even grid": {"grid": 4},
    "linear projector": {"mm_projector_type": "linear"},
    "one layer mlp": {"mm_projector_type": "mlp1x_gelu"},
    "three layer mlp": {"mm_projector_type": "mlp3x_gelu"},
    "identity projector": {"mm_projector_type": "identity", "dv": 24},
    "three vision blocks": {"vision_layers": 3},
    "no fp32 residual": {"residual_in_fp32": False},
    "legacy type": {"model_type": "llava_mamba"},
}
PREFIX, SUFFIX = [3, 7, 1], [5, 2, 9, 4, 0]


@pytest.mark.parametrize("name", VARIANTS)
def test_variant_matches_the_naive_reference(name: str, tmp_path: Path) -> None:
    config, vision, weights = random_checkpoint(len(name), **VARIANTS[name])
    model = load_model(find_checkpoint(write_checkpoint(tmp_path, config, vision, weights)), device="cpu")
    pixels = np.random.default_rng(1).standard_normal((6, 3, vision["image_size"], vision["image_size"]))
    reference = Reference(config, vision, weights)

    state = model.start(torch.tensor(PREFIX))
    tokens = model.embed_frames(torch.from_numpy(pixels).float())
    assert tokens.shape == (6, model.config.tokens_per_frame, model.config.d_model)
    first, second = tokens.split([4, 2])
    k1, v1, state = model.read_frames(first, state)
    k2, v2, state = model.read_frames(second, state)
    keys, values = torch.cat([k1, k2]), torch.cat([v1, v2])
    state = model.read_text(torch.tensor([SUFFIX]), state)

    for replace, temperature, forced in (
        (False, 1.0, [-1] * 4),
        (True, 0.6, [2, 2, -1, 5]),
        (False, 2.0, [4, 0, 4, -1]),
    ):
        want = reference.run(pixels, PREFIX, SUFFIX, forced, temperature=temperature, replace=replace)
        given = torch.tensor(forced)[None, None]
        got = model.decode(keys, values, state, steps=4, temperature=temperature, replace=replace, forced=given)
        assert got.picks[0, 0].tolist() == want["picks"].tolist()
        parallel = model.score(keys, values, state, got.picks, temperature=temperature, replace=replace)
        np.testing.assert_allclose(keys, want["keys"], atol=2e-5)
        np.testing.assert_allclose(values, want["values"], atol=2e-5)
        for result in (got, parallel):
            np.testing.assert_allclose(result.log_probs[0, 0], want["log_probs"], atol=1e-4)
            picked = want["log_probs"][np.arange(4), want["picks"]]
            np.testing.assert_allclose(result.pick_log_probs[0, 0], picked, atol=1e-4)
            if config.get("use_rank_head"):
                np.testing.assert_allclose(result.rank_logits[0, 0], want["rank"], atol=1e-4)
            else:
                assert result.rank_logits is None


def test_recurrent_state_matches_the_naive_reference(tmp_path: Path) -> None:
    config, vision, weights = random_checkpoint(3, layers=3, ssm={"ngroups": 2})
    model = load_model(find_checkpoint(write_checkpoint(tmp_path, config, vision, weights)), device="cpu")
    reference = Reference(config, vision, weights)
    ids = np.random.default_rng(0).integers(0, 45, 150)
    for token in ids:
        last = reference.feed(reference.w["backbone.embedding.weight"][token])
    out, state = model.backbone(model.backbone.embedding(torch.from_numpy(ids)[None]))
    np.testing.assert_allclose(out[0, -1], last, atol=2e-5)
    for layer, conv, ssm in zip(state.layers, reference.conv_state, reference.ssm_state, strict=True):
        np.testing.assert_allclose(layer.conv[0], np.stack(conv), atol=2e-5)
        np.testing.assert_allclose(layer.ssm[0], ssm, atol=2e-5)
