"""`MiniEncoder`: frames and text in one space, from weights that the package ships.

An object-level bridge, not a CLIP: an ImageNet classifier (EfficientNet-Lite2) names what a frame shows, and a sentence
encoder (MiniLM-L6) places those names, and the question, in one space of meaning. The joint vector follows ConSE
(Norouzi et al., "Zero-Shot Learning by Convex Combination of Semantic Embeddings", 2014).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError, SelectorLoadError
from .efficientnet_lite import EfficientNetLite
from .text_encoder import TextEncoder, unpack_rows

FORMAT = "refocus-select/mini"
FORMAT_VERSION = 1


class MiniEncoder(nn.Module):
    """Vectors of frames and of text whose dot product says how well they match.

    Attributes:
        frame_size: (height, width) that frames are best decoded at; other sizes are resized.
        fingerprint: sha256 of weights and configuration.
    """

    class_vectors: Tensor

    def __init__(self, config: dict[str, Any], vocabulary: Path) -> None:
        super().__init__()
        self.config = config
        self.frame_size: tuple[int, int] = (config["frame_size"][0], config["frame_size"][1])
        self.fingerprint = ""
        self.image = EfficientNetLite(config["image_variant"], classes=config["classes"])
        self.text = TextEncoder(vocabulary)
        self.register_buffer("class_vectors", torch.zeros(config["classes"], config["width"]))

    @classmethod
    def from_pretrained(
        cls, folder: str | os.PathLike[str], *, device: str | torch.device | None = None
    ) -> MiniEncoder:
        """Load the weights in `folder` (config.json, image.safetensors, text.safetensors, vocab.txt).

        Args:
            folder: where the files lie.
            device: "cpu", "cuda", …; by default the GPU if there is one.

        Raises:
            SelectorLoadError: if a file is missing, damaged, or of another version.
        """
        folder = Path(folder)
        config = _read_config(folder)
        for name, expected in config["sha256"].items():
            _check_hash(folder / name, expected)
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            packed = load_file(folder / "image.safetensors") | load_file(folder / "text.safetensors")
            # Built without memory first, so that no time goes into random initial weights.
            with torch.device("meta"):
                encoder = cls(config, folder / "vocab.txt")
            encoder.load_state_dict(_unpack(packed), assign=True)
        except (SafetensorError, RuntimeError, KeyError) as error:
            raise SelectorLoadError(
                f"{folder}: the weights do not fit this version ({error}); reinstall refocus-select"
            ) from error
        digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
        encoder.fingerprint = f"mini-{digest.hexdigest()[:32]}"
        encoder.requires_grad_(False).eval()
        encoder.image.to(memory_format=torch.channels_last)
        chosen = torch.device(device) if device is not None else _default_device()
        if chosen.type == "cuda":
            encoder.image.half()
        return encoder.to(chosen)

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.class_vectors.device

    @torch.inference_mode()
    def encode_frames(self, frames: np.ndarray | Tensor, *, batch: int = 16) -> Tensor:
        """Frame vectors.

        Args:
            frames: uint8 RGB `[N, H, W, 3]`.
            batch: how many frames go through the network at once.

        Returns:
            float32 `[N, D]` on the CPU, unit length.

        Raises:
            InputError: if `frames` has another type or shape.
        """
        pixels = torch.as_tensor(frames)
        if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3:
            raise InputError(f"frames must be uint8 [N, H, W, 3], not {pixels.dtype} {list(pixels.shape)}")
        vectors = [self._frame_vectors(pixels[at : at + batch]) for at in range(0, len(pixels), batch)]
        return torch.cat(vectors) if vectors else torch.zeros(0, self.config["width"])

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Text vectors, float32 `[len(texts), D]` on the CPU, unit length."""
        return self.text.encode(texts).cpu()

    def _frame_vectors(self, frames: Tensor) -> Tensor:  # uint8 [N, H, W, 3] -> [N, D]
        weight = self.image.stem.weight
        # A permuted view of [N, H, W, 3] is already channels-last: the layout that CPUs and GPUs are fastest with.
        pixels = frames.to(self.device).permute(0, 3, 1, 2).to(weight.dtype).div_(127.5).sub_(1)
        if tuple(pixels.shape[2:]) != self.frame_size:
            pixels = F.interpolate(pixels.float(), size=self.frame_size, mode="bilinear", antialias=True).to(
                weight.dtype
            )
        features = self.image(pixels)
        posterior = self.image.classifier(features).float().softmax(dim=-1)  # [N, classes]
        best, which = posterior.topk(self.config["top_classes"], dim=-1)
        kept = torch.zeros_like(posterior).scatter_(1, which, best)
        return F.normalize(kept @ self.class_vectors, dim=-1).cpu()


def _unpack(packed: dict[str, Tensor]) -> dict[str, Tensor]:
    """Stored tensors (fp16, int8 with scales) to the state of a `MiniEncoder`."""
    state = {name: t.float() for name, t in packed.items() if not name.startswith("text.")}
    text = unpack_rows({name.removeprefix("text."): t for name, t in packed.items() if name.startswith("text.")})
    return state | {f"text.{name}": t for name, t in text.items()}


def _default_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SelectorLoadError(f"cannot read {path} ({error.strerror}); reinstall refocus-select") from error
    except ValueError as error:
        raise SelectorLoadError(f"{path} is no JSON ({error}); reinstall refocus-select") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT or config.get("version") != FORMAT_VERSION:
        raise SelectorLoadError(
            f"{path} does not describe '{FORMAT}' version {FORMAT_VERSION}; reinstall refocus-select"
        )
    return config


def _check_hash(path: Path, expected: str) -> None:
    try:
        with path.open("rb") as file:
            found = hashlib.sha256()
            while piece := file.read(1 << 20):
                found.update(piece)
    except OSError as error:
        raise SelectorLoadError(f"cannot read {path} ({error.strerror}); reinstall refocus-select") from error
    if found.hexdigest() != expected:
        raise SelectorLoadError(
            f"{path} is damaged or changed (sha256 {found.hexdigest()[:12]}…, expected {expected[:12]}…); "
            "reinstall refocus-select"
        )
