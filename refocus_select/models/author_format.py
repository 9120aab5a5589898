"""The authors' format: writing a policy in it, and reading networks of that architecture that are no policies yet."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..files import remove_leftovers, replacing, write_text
from ..hub import CONFIG_FILE, VISION_CONFIG_FILE, WEIGHTS_FILE
from .config import RefocusConfig, VisionConfig
from .refocus import RefocusModel

TOWER = "mm_model.vision_tower.vision_tower.vision_model."
RENAMED = {TOWER: "vision.", "mm_model.mm_projector.": "projector."}
"""Beginnings of the authors' names of tensors, and of ours; the tensors of the pointer have none in theirs."""
HEADS = ("key_head.", "query_head.", "value_head.", "value_head_scale", "logit_scale", "rank_head.")
UNUSED = ("lm_head.weight", f"{TOWER}post_layernorm.weight", f"{TOWER}post_layernorm.bias")
SIGLIP = "google/siglip-so400m-patch14-384"


def renamed(name: str) -> str:
    """Our name of one of the authors' tensors."""
    for old, new in RENAMED.items():
        if name.startswith(old):
            return new + name[len(old) :]
    return f"pointer.{name}" if name.startswith(HEADS) else name


def original(name: str) -> str:
    """The authors' name of one of our tensors."""
    for old, new in RENAMED.items():
        if name.startswith(new):
            return old + name[len(new) :]
    return name.removeprefix("pointer.")


def author_config(config: RefocusConfig) -> dict[str, Any]:
    """The authors' `config.json`.

    It has no field for the answer options and the candidates; we add them, and the authors' loader keeps what it does
    not know as plain attributes.

    Raises:
        InputError: for a network that their code does not compute.
    """
    ours = {
        "frame_encoder": config.frame_encoder != "siglip", "question_hidden_size": bool(config.question_hidden_size),
        "similarity_residual": config.similarity_residual,
        "mm_spatial_pool_mode": config.mm_spatial_pool_mode not in ("bilinear", "average", "max"),
    }  # fmt: skip
    if any(ours.values()):
        used = ", ".join(name for name, is_ours in ours.items() if is_ours)
        raise InputError(f"the authors' format has no room for this network ({used}); write it in ours only")
    same = (
        "d_model", "n_layer", "vocab_size", "rms_norm", "residual_in_fp32", "pad_vocab_size_multiple", "query_frames",
        "start_of_frame_token_id", "score_head_norm", "value_head_norm", "logit_scale_fn", "logit_scale_type",
        "attention_scaling", "frame_replacement", "use_rank_head", "mm_hidden_size", "mm_projector_type",
        "mm_spatial_pool_mode", "vision_encode_chunk_size", "answer_options", "max_fps", "max_num_frames",
        "candidate_method",
    )  # fmt: skip
    return {
        "architectures": ["RefocusForFrameSelection"], "model_type": "refocus", "attn_cfg": {}, "attn_layer_idx": [],
        "d_intermediate": 0, "frame_generation_method": "autoregressive", "fused_add_norm": True,
        "tie_embeddings": True, "mm_patch_merge_type": "flat", "mm_spatial_pool_stride": 2,
        "mm_vision_select_feature": "patch", "mm_vision_select_layer": -2,
        "mm_vision_tower": SIGLIP if config.vision == VisionConfig() else "siglip",
        **{name: getattr(config, name) for name in same},
        "ssm_cfg": {"layer": "Mamba2", **asdict(config.ssm)},
    }  # fmt: skip


def save_author_model(model: RefocusModel, folder: str | os.PathLike[str]) -> None:
    """Write `config.json`, `vision_config.json` and `model.safetensors` in the authors' format.

    `lm_head.weight`, a tied copy that their loader does without, is left out; the post-layernorm of the tower, which
    nothing reads but their loader expects, is the identity. Their loader takes the tower's geometry from the code, and
    ours from `vision_config.json`, which counts the dropped last block.

    Raises:
        InputError: for a network that their code does not compute.
    """
    from safetensors.torch import save_file

    target = Path(folder)
    content = author_config(model.config)
    body = {original(name): t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    kind = body["backbone.embedding.weight"].dtype
    body[UNUSED[1]] = torch.ones(model.config.vision.hidden_size, dtype=kind)
    body[UNUSED[2]] = torch.zeros(model.config.vision.hidden_size, dtype=kind)
    content["dtype"] = str(kind).removeprefix("torch.")
    vision = asdict(model.config.vision)
    vision["num_hidden_layers"] += 1
    vision |= {"model_type": "siglip_vision_model", "hidden_act": "gelu_pytorch_tanh", "num_channels": 3}
    target.mkdir(parents=True, exist_ok=True)
    remove_leftovers(target)
    with replacing(target / WEIGHTS_FILE) as temporary:
        save_file(body, temporary, metadata={"format": "pt"})
        for name, table in ((VISION_CONFIG_FILE, vision), (CONFIG_FILE, content)):
            write_text(target / name, json.dumps(table, indent=2, sort_keys=True) + "\n")


def completed(raw: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Configuration and tensors of a network that is no policy yet, such as Video-Ma2mba, as those of a policy.

    The start of the picking gets the first row of the embedding that no token uses, or a new one; the parts of the
    vision tower that the policy leaves out are dropped. Heads are still missing: see `RefocusModel`.

    Args:
        raw: `config.json`.
        tensors: by our names.
    """
    config, kept = dict(raw), dict(tensors)
    config["frame_generation_method"] = "autoregressive"
    embedding = kept.get("backbone.embedding.weight")
    if embedding is not None and config.get("start_of_frame_token_id") is None and "vocab_size" in config:
        used = int(config["vocab_size"])
        if len(embedding) <= used:
            kept["backbone.embedding.weight"] = torch.cat([embedding, embedding.new_zeros(1, embedding.shape[1])])
        config["start_of_frame_token_id"] = used
        config["vocab_size"], config["pad_vocab_size_multiple"] = len(kept["backbone.embedding.weight"]), 1
    return config, kept


def without_unused_blocks(tensors: Mapping[str, Tensor], vision: VisionConfig) -> dict[str, Tensor]:
    """The tensors of a SigLIP tower as the policy has it: no pooling head, and no blocks behind the last one used."""

    def used(name: str) -> bool:
        if name.startswith(("vision.head.", "vision.post_layernorm.")):
            return False
        place = name.removeprefix("vision.encoder.layers.").split(".")[0]
        return not (name.startswith("vision.encoder.layers.") and int(place) >= vision.num_hidden_layers)

    return {name: tensor for name, tensor in tensors.items() if used(name)}


def with_vocabulary(config: RefocusConfig, tokens: int) -> RefocusConfig:
    """The configuration for a tokenizer of so many entries, with a row behind them that starts the picking."""
    return replace(config, vocab_size=tokens + 1, pad_vocab_size_multiple=16, start_of_frame_token_id=tokens)
