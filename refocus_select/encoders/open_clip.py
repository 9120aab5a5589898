"""`OpenCLIPEncoder`: frames and text in one space, by the models of OpenCLIP.

They need the extra `open_clip`: `pip install "refocus-select[open_clip]"`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import MissingDependencyError, SelectorLoadError
from ..hub import HubOptions, hub_file
from .common import add_weights, checked_frames, choose_device

PREFIX = "open_clip:"
_WEIGHTS = "open_clip_model.safetensors"  # as OpenCLIP names them in repositories of one model


class OpenCLIPEncoder:
    """Vectors of frames and of text of an OpenCLIP model, of unit length.

    Attributes:
        name: "open_clip:NAME/TAG".
        dimensions: length D of the vectors.
        frame_size: None: the model's own preprocessing resizes and crops.
        fingerprint: identity of weights and preprocessing.
        logit_scale: what the model multiplies cosines with.
        languages: None, since OpenCLIP does not say.
        max_text_tokens: longer texts are cut.
    """

    frame_size: tuple[int, int] | None = None
    languages: tuple[str, ...] | None = None

    def __init__(self, model: nn.Module, preprocess: Any, tokenizer: Any, *, name: str, batch: int = 32) -> None:
        self.name = name
        self.model: Any = model.requires_grad_(False).eval()
        self.preprocess = preprocess
        self.tokenizer = tokenizer
        self.batch = batch
        self.fingerprint = _fingerprint(model)
        scale: Any = model.logit_scale
        self.logit_scale = float(scale.detach().float().exp())
        self.max_text_tokens = int(tokenizer.context_length)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str,
        *,
        device: str | torch.device | None = None,
        batch: int = 32,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
    ) -> OpenCLIPEncoder:
        """Load a model by its name and the tag of its weights. Only safetensors are read.

        Args:
            name_or_path: "open_clip:ViT-B-32/laion2b_s34b_b79k"; in place of the tag also a file of weights, as in
                "open_clip:ViT-B-32/weights.safetensors".
            device: "cpu", "cuda", …; by default the GPU if there is one.
            batch: how many frames go through the model at once.
            token, cache_dir, local_files_only: as in huggingface_hub.

        Raises:
            MissingDependencyError: without OpenCLIP.
            SelectorLoadError: for a name or a tag that OpenCLIP does not have, or weights that cannot be loaded.
        """
        from safetensors import SafetensorError

        try:
            import open_clip
        except ImportError as error:
            raise MissingDependencyError(
                "models of OpenCLIP need open_clip: pip install 'refocus-select[open_clip]'"
            ) from error

        name = name_or_path.removeprefix(PREFIX)
        architecture, _, tag = name.partition("/")
        if not architecture or not tag:
            raise SelectorLoadError(
                f"{name_or_path!r} names no weights: write open_clip:NAME/TAG, e.g. "
                "open_clip:ViT-B-32/laion2b_s34b_b79k (open_clip.list_pretrained() lists them)"
            )
        if architecture not in open_clip.list_models():
            raise SelectorLoadError(f"OpenCLIP has no model {architecture!r}; open_clip.list_models() lists them")
        facts = open_clip.get_pretrained_cfg(architecture, tag)
        cache = None if cache_dir is None else Path(cache_dir)
        weights = _weights(name, tag, facts, HubOptions(None, token, cache, local_files_only))
        try:
            model, _, preprocess = open_clip.create_model_and_transforms(
                architecture,
                pretrained=str(weights),
                device=choose_device(device),
                # What the table of OpenCLIP says of weights that are loaded by their tag.
                force_quick_gelu=bool(facts.get("quick_gelu")),
                image_mean=facts.get("mean"),
                image_std=facts.get("std"),
                image_interpolation=facts.get("interpolation"),
                image_resize_mode=facts.get("resize_mode"),
                cache_dir=cache,
            )
            tokenizer = open_clip.get_tokenizer(architecture, cache_dir=cache)
        except (OSError, ValueError, KeyError, RuntimeError, AssertionError, SafetensorError) as error:
            raise SelectorLoadError(f"cannot load the encoder {PREFIX}{name}: {error}") from error
        return cls(model, preprocess, tokenizer, name=f"{PREFIX}{architecture}/{Path(tag).name}", batch=batch)

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        device: torch.device = next(self.model.parameters()).device
        return device

    @cached_property
    def dimensions(self) -> int:
        """Length D of the vectors."""
        return int(self.encode_text(["a"]).shape[1])

    def decode_size(self, height: int, width: int) -> tuple[int, int] | None:
        """The size at which frames of a video of this height and width are best decoded, None for their own."""
        size = self.model.visual.image_size
        short = max(size) if isinstance(size, Sequence) else int(size)
        scale = short / min(height, width)
        return (round(height * scale), round(width * scale)) if scale < 1 else None

    @torch.inference_mode()
    def encode_frames(self, frames: np.ndarray | Tensor) -> Tensor:
        """Frame vectors.

        Args:
            frames: uint8 RGB `[N, H, W, 3]`.

        Returns:
            float32 `[N, D]` on the CPU, unit length.

        Raises:
            InputError: if `frames` has another type or shape.
        """
        from PIL import Image

        pixels = checked_frames(frames)
        vectors = []
        for at in range(0, len(pixels), self.batch):
            images = [self.preprocess(Image.fromarray(frame)) for frame in pixels[at : at + self.batch]]
            vectors.append(self.model.encode_image(torch.stack(images).to(self.device), normalize=True).float().cpu())
        return torch.cat(vectors) if vectors else torch.zeros(0, self.dimensions)

    @torch.inference_mode()
    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Text vectors, float32 `[len(texts), D]` on the CPU, unit length; what is too long is cut."""
        vectors = []
        for at in range(0, len(texts), self.batch):
            tokens = self.tokenizer(list(texts[at : at + self.batch])).to(self.device)
            vectors.append(F.normalize(self.model.encode_text(tokens).float(), dim=-1).cpu())
        return torch.cat(vectors) if vectors else torch.zeros(0, self.dimensions)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text has, begin and end included, before anything is cut."""
        inner = getattr(self.tokenizer, "tokenizer", None)  # of transformers
        if inner is not None:
            return [len(ids) for ids in inner(list(texts), truncation=False, verbose=False)["input_ids"]]
        return [len(self.tokenizer.encode(text)) + 2 for text in texts]


def _weights(name: str, tag: str, facts: Mapping[str, Any], options: HubOptions) -> Path:
    """The file of weights that a tag means.

    Raises:
        SelectorLoadError: if there is no such tag, or nothing but pickles for it.
    """
    if os.path.isfile(tag) and tag.endswith(".safetensors"):
        return Path(tag)
    if os.path.isfile(tag):
        raise SelectorLoadError(f"{tag} is not a safetensors file; pickles can run code when loaded: convert it first")
    if not facts:
        raise SelectorLoadError(
            f"OpenCLIP has no weights {name!r} and there is no such file; open_clip.list_pretrained() lists them"
        )
    repo, _, filename = str(facts.get("hf_hub", "")).rpartition("/")
    found = (
        hub_file(repo, Path(filename).stem + ".safetensors" if filename else _WEIGHTS, options=options)
        if repo
        else None
    )
    if found is None:
        raise SelectorLoadError(
            f"the weights of {PREFIX}{name} are published as pickles only, which can run code when loaded and are "
            "refused; convert them to safetensors (on a machine you trust) and give open_clip:NAME/FILE.safetensors"
        )
    return found


def _fingerprint(model: nn.Module) -> str:
    """Identity of what decides the vectors: the weights, and what is done to pictures."""
    settings: Any = getattr(model.visual, "preprocess_cfg", {})
    digest = hashlib.sha256(repr(sorted((key, str(value)) for key, value in dict(settings).items())).encode())
    add_weights(digest, model)
    return f"open_clip-{digest.hexdigest()[:32]}"
