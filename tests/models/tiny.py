"""Tiny checkpoints and a byte tokenizer for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from refocus_select.models.config import RefocusConfig, SSMConfig
from refocus_select.models.refocus import RefocusModel

from .reference import random_checkpoint


def byte_tokenizer() -> Tokenizer:
    """Every byte is a token (ids 1 to 256), "<|endoftext|>" is id 0."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<|endoftext|>": 0} | {letter: i + 1 for i, letter in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<|endoftext|>", special=True)])
    return tokenizer


def write_checkpoint(folder: Path, config: dict, vision: dict | None, weights: dict[str, np.ndarray]) -> Path:
    """A folder in the authors' format."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    if vision is not None:
        (folder / "vision_config.json").write_text(json.dumps(vision))
    save_file(weights, folder / "model.safetensors")
    return folder


def selector_folder(folder: Path, seed: int = 0, **fields: Any) -> Path:
    """A complete tiny selector in the authors' format, tokenizer included."""
    fields = {"vocab_size": 257, "start_of_frame_token_id": 258, **fields}
    write_checkpoint(folder, *random_checkpoint(seed, **fields))
    byte_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def video_model(folder: Path, *, spare: bool = True) -> Path:
    """A checkpoint of the architecture without heads, with the whole SigLIP and a language head."""
    config, vision, weights = random_checkpoint(3, vocab_size=257, pad_vocab_size_multiple=16 if spare else 1)
    heads = ("key_head", "query_head", "value_head", "logit_scale", "rank_head")
    weights = {name: w for name, w in weights.items() if not name.startswith(heads)}
    weights["lm_head.weight"] = weights["backbone.embedding.weight"].copy()
    last = vision["num_hidden_layers"] - 1
    tower = "mm_model.vision_tower.vision_tower.vision_model."
    for name in [name for name in weights if name.startswith(f"{tower}encoder.layers.0.")]:
        weights[name.replace("layers.0.", f"layers.{last}.")] = weights[name].copy()
    weights[f"{tower}head.probe"] = np.zeros((1, 1, 4), np.float32)
    config["model_type"] = "llava_mamba"
    for name in ("frame_generation_method", "start_of_frame_token_id"):
        config.pop(name)
    byte_tokenizer().save(str(write_checkpoint(folder, config, vision, weights) / "tokenizer.json"))
    return folder


def feature_model(d: int = 32, layers: int = 2, seed: int = 0, **fields: Any) -> RefocusModel:
    """A network that is given frame features, with one token per frame."""
    torch.manual_seed(seed)
    ssm = SSMConfig(d_state=8, headdim=16, ngroups=fields.pop("ngroups", 1))
    values: dict[str, Any] = {
        "vocab_size": 20, "start_of_frame_token_id": 1, "mm_hidden_size": 6, "mm_spatial_pool_mode": "none",
        "frame_encoder": "none", **fields,
    }  # fmt: skip
    return RefocusModel(RefocusConfig(d_model=d, n_layer=layers, ssm=ssm, **values))
