"""What the encoders of pretrained models share: checks of frames, sizes of pictures, devices, fingerprints."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import InputError

_SAMPLES = 64  # values of each weight that enter a fingerprint


def checked_frames(frames: np.ndarray | Tensor) -> np.ndarray:
    """Frames as an array.

    Raises:
        InputError: unless they are uint8 RGB [N, H, W, 3].
    """
    pixels = np.asarray(frames)
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3:
        raise InputError(f"frames must be uint8 [N, H, W, 3], not {pixels.dtype} {list(pixels.shape)}")
    return pixels


def choose_device(device: str | torch.device | None) -> torch.device:
    """The device that is asked for, or the GPU if there is one."""
    return torch.device(device if device is not None else "cuda" if torch.cuda.is_available() else "cpu")


def choose_dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    """The type that is asked for; by default float16 on a GPU and float32 elsewhere.

    Raises:
        InputError: if it is not a type of real numbers.
    """
    if dtype is None:
        return torch.float16 if device.type == "cuda" else torch.float32
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise InputError(f"dtype must be 'float32', 'float16' or 'bfloat16', not {dtype!r}")
    return found


def add_weights(digest: hashlib._Hash, model: nn.Module) -> None:
    """Add shapes and sampled values of all weights to a digest.

    Sampled, because hashing gigabytes would take longer than encoding a video; a fine-tuned copy differs everywhere.
    """
    for name, tensor in sorted(model.state_dict().items()):
        flat = tensor.detach().flatten()
        step = max(1, flat.numel() // _SAMPLES)
        digest.update(f"{name}{list(tensor.shape)}".encode())
        digest.update(flat[::step][: _SAMPLES + 1].double().cpu().numpy().tobytes())


def preprocessing(image_processor: Any) -> dict[str, Any]:
    """What an image processor of transformers does to pictures, without names that change with the version."""
    passing = ("_processor_class", "processor_class", "transformers_version", "image_processor_type")
    facts = json.loads(image_processor.to_json_string())
    return {key: value for key, value in facts.items() if key not in passing}


def target_sizes(image_processor: Any) -> dict[str, int]:
    """The target size of an image processor as a plain dictionary, without what is not set."""
    size = getattr(image_processor, "size", None)
    if not size:
        return {}
    keys = ("height", "width", "shortest_edge", "longest_edge")
    found = {key: size.get(key) if isinstance(size, Mapping) else getattr(size, key, None) for key in keys}
    return {key: int(value) for key, value in found.items() if value}


def fixed_size(image_processor: Any) -> tuple[int, int] | None:
    """(height, width) if every picture is brought to one size and nothing is cropped."""
    size = target_sizes(image_processor)
    if getattr(image_processor, "do_center_crop", False) or "height" not in size or "width" not in size:
        return None
    return size["height"], size["width"]


def smaller_size(image_processor: Any, height: int, width: int) -> tuple[int, int] | None:
    """The size that pictures of this height and width may be decoded at without loss, None for their own.

    Smaller pictures are decoded and carried faster; the image processor still does its own resizing and cropping.
    """
    size = target_sizes(image_processor)
    patches = getattr(image_processor, "max_num_patches", None)
    if "height" in size and "width" in size and not getattr(image_processor, "do_center_crop", False):
        return size["height"], size["width"]
    if hasattr(image_processor, "merge_size"):  # of the Qwen family: its "edges" are numbers of pixels
        most = size.get("longest_edge") or getattr(image_processor, "max_pixels", None)
        scale = math.sqrt(most / (height * width)) if most else 1.0
    elif size.get("shortest_edge"):
        scale = size["shortest_edge"] / min(height, width)
    elif patches:
        scale = math.sqrt(patches * image_processor.patch_size**2 / (height * width))
    else:
        return None
    return (round(height * scale), round(width * scale)) if scale < 1 else None


def languages_of(folder: Path) -> tuple[str, ...] | None:
    """The languages that the card (README.md) in the folder of a model declares; None if it says nothing of use."""
    import yaml

    try:
        text = (folder / "README.md").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    parts = text.split("---", 2)
    if len(parts) < 3 or parts[0].strip():
        return None
    try:
        card = yaml.safe_load(parts[1])
    except yaml.YAMLError:
        return None
    found = card.get("language") if isinstance(card, dict) else None
    names = [found] if isinstance(found, str) else found if isinstance(found, list) else []
    codes = tuple(name for name in names if isinstance(name, str) and 2 <= len(name) <= 3)
    return codes if codes and len(codes) == len(names) else None
