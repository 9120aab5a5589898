"""`HFEncoder`: frames and text in one space, by any dual encoder of transformers (CLIP, SigLIP, SigLIP 2, …)."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import SelectorLoadError
from ..hub import CheckpointFiles, HubOptions, find_checkpoint, read_json
from ..models.checkpoint import is_finite
from .common import (
    add_weights,
    checked_frames,
    choose_device,
    choose_dtype,
    fixed_size,
    languages_of,
    preprocessing,
    smaller_size,
)

DEFAULT_LOGIT_SCALE = 100.0  # CLIP's, for models that have none of their own
_OF_MODELS = {"clip": ("en",), "align": ("en",), "chinese_clip": ("zh",)}  # where the card says nothing
_CLIP_VOCABULARY = 49_408  # of OpenAI's English tokenizer; multilingual CLIPs have others
_ROOM = 4  # how much larger a network may be than its weights until it is refused unbuilt; a little is told later
_MOST_TOKENS = 100_000  # tokenizers write a huge number where no limit is set


class HFEncoder:
    """Vectors of frames and of text whose dot product says how well they match.

    Attributes:
        name: the folder or Hub id.
        frame_size: (height, width) that frames may be decoded at without loss; None where the shape must be kept.
        fingerprint: identity of weights and preprocessing, the same on every machine and for every dtype.
        logit_scale: what the model multiplies cosines with.
        dimensions: length D of the vectors.
        max_text_tokens: longer texts are encoded in pieces whose vectors are averaged.
        languages: codes of the languages that the model reads; None where it is not known.
    """

    def __init__(self, model: nn.Module, image_processor: Any, tokenizer: Any, *, name: str, batch: int = 32) -> None:
        for method in ("get_image_features", "get_text_features"):
            if not hasattr(model, method):
                raise SelectorLoadError(
                    f"{name} is a {type(model).__name__}, which does not encode pictures and text into one space; "
                    "give a dual encoder such as 'google/siglip2-base-patch16-224'"
                )
        self.name = name
        self.model: Any = model.requires_grad_(False).eval()
        self.image_processor = image_processor
        self.tokenizer = tokenizer
        self.batch = batch
        self.frame_size = fixed_size(image_processor)
        self.fingerprint = _fingerprint(model, image_processor)
        self.logit_scale = _logit_scale(model)
        self.max_text_tokens = _max_text_tokens(model, tokenizer)
        self.languages = languages_of(Path(name)) or _languages(model)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        batch: int = 32,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
    ) -> HFEncoder:
        """Load model, image processor and tokenizer. Only safetensors are read, and no code of the repository is run.

        Args:
            name_or_path: a Hub id such as "google/siglip2-base-patch16-224", or a folder.
            device: "cpu", "cuda", …; by default the GPU if there is one.
            dtype: by default float16 on a GPU and float32 elsewhere.
            batch: how many frames go through the model at once.
            revision, token, cache_dir, local_files_only: as in huggingface_hub.

        Raises:
            SelectorLoadError: if the model is missing, gated, damaged, no dual encoder, or has no safetensors weights.
        """
        from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

        name = os.fspath(name_or_path)
        options = HubOptions(revision, token, Path(cache_dir) if cache_dir is not None else None, local_files_only)
        files = find_checkpoint(name_or_path, options)  # downloads the weights, or says what stands in the way
        shared: dict[str, Any] = {
            "revision": revision or "main",
            "token": token,
            "cache_dir": cache_dir,
            "local_files_only": local_files_only or Path(name).is_dir(),
            "trust_remote_code": False,
        }
        chosen = choose_device(device)
        kind = choose_dtype(dtype, chosen)
        try:
            _check_size(files, shared)
            model, report = AutoModel.from_pretrained(
                name, use_safetensors=True, dtype="auto", output_loading_info=True, **shared
            )
            image_processor = AutoImageProcessor.from_pretrained(name, **shared)
            tokenizer = AutoTokenizer.from_pretrained(name, **shared)
            encoder = cls(model, image_processor, tokenizer, name=name, batch=batch)
        except SelectorLoadError:
            raise
        except Exception as error:  # whatever transformers makes of files that are not what it expects
            raise SelectorLoadError(f"cannot load the encoder {name}: {error}") from error
        missing = sorted(key for key in report["missing_keys"] if not key.endswith("position_ids"))
        if missing:
            raise SelectorLoadError(
                f"the weights of {name} lack {len(missing)} tensors, first {missing[0]}; they would be random: "
                "download the checkpoint again, or give another"
            )
        wrong = sorted(key for key, tensor in model.state_dict().items() if not is_finite(tensor))
        if wrong:
            raise SelectorLoadError(
                f"{name}: {wrong[0]} holds values that are not finite; download the checkpoint again, or give another"
            )
        encoder.model.to(device=chosen, dtype=kind)
        try:
            assert encoder.dimensions  # reads a text: tokenizers of other models load, and fail later
        except Exception as error:
            raise SelectorLoadError(f"the encoder {name} cannot read a text: {error}") from error
        return encoder

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        device: torch.device = next(self.model.parameters()).device
        return device

    @cached_property
    def dimensions(self) -> int:
        """Length D of the vectors."""
        return int(self.encode_text(["a"]).shape[1])

    @property
    def dtype(self) -> torch.dtype:
        """In what the model computes."""
        dtype: torch.dtype = next(self.model.parameters()).dtype
        return dtype

    def decode_size(self, height: int, width: int) -> tuple[int, int] | None:
        """The size at which frames of a video of this height and width are best decoded, None for their own."""
        return smaller_size(self.image_processor, height, width)

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
        pixels = checked_frames(frames)
        vectors = []
        for at in range(0, len(pixels), self.batch):
            inputs = self.image_processor(
                images=list(pixels[at : at + self.batch]), input_data_format="channels_last", return_tensors="pt"
            )
            vectors.append(_unit(self.model.get_image_features(**self._placed(inputs))))
        return torch.cat(vectors) if vectors else torch.zeros(0, self.dimensions)

    @torch.inference_mode()
    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Text vectors, float32 `[len(texts), D]` on the CPU, unit length.

        A text that is longer than the model reads is cut between words into equal pieces; their vectors are averaged
        (as MDP3 does, there at 64 tokens).
        """
        pieces = [self._pieces(text) for text in texts]
        flat = [piece for text in pieces for piece in text]
        vectors = []
        for at in range(0, len(flat), self.batch):
            inputs = self.tokenizer(
                flat[at : at + self.batch],
                # SigLIP was trained with texts filled up to full length; elsewhere a mask hides what fills up.
                padding="max_length" if self._model_type.startswith("siglip") else True,
                truncation=True,
                max_length=self.max_text_tokens,
                return_tensors="pt",
            )
            vectors.append(_unit(self.model.get_text_features(**self._placed(inputs))))
        if not vectors:
            return torch.zeros(0, self.dimensions)
        owner = torch.repeat_interleave(torch.arange(len(pieces)), torch.tensor([len(text) for text in pieces]))
        sums = torch.zeros(len(pieces), vectors[0].shape[1]).index_add_(0, owner, torch.cat(vectors))
        return F.normalize(sums, dim=-1)

    @property
    def _model_type(self) -> str:
        return str(self.model.config.model_type)

    def _pieces(self, text: str) -> list[str]:
        """The text, or as few equal pieces of it as the model can read."""
        pieces = [text]
        while max(lengths := self.count_tokens(pieces)) > self.max_text_tokens and len(pieces) < len(text):
            count = max(len(pieces) + 1, math.ceil(sum(lengths) / self.max_text_tokens))
            pieces = _cut(text, min(count, len(text)))
        return pieces

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text has for the model, `max_text_tokens` or not."""
        return [len(ids) for ids in self.tokenizer(list(texts), truncation=False, verbose=False)["input_ids"]]

    def _placed(self, inputs: Mapping[str, Any]) -> dict[str, Tensor]:
        """Inputs on the model's device, real numbers in its dtype."""
        return {
            name: value.to(self.device, self.dtype if value.is_floating_point() else None)
            for name, value in inputs.items()
        }


def _check_size(files: CheckpointFiles, shared: Mapping[str, Any]) -> None:
    """Refuse a network that is larger than its weights before anything of it takes memory.

    Raises:
        SelectorLoadError: naming both sizes.
    """
    from safetensors import safe_open
    from transformers import AutoConfig, AutoModel

    held: list[int] = []
    for path in files.weights:
        with safe_open(str(path), framework="pt") as file:
            held += [math.prod(file.get_slice(key).get_shape()) for key in file.keys()]  # noqa: SIM118
    layers = max(_layers(read_json(files.config)), default=0)
    if layers <= len(held):  # every layer has a tensor of its own
        config = AutoConfig.from_pretrained(files.name, **shared)
        with torch.device("meta"):
            wanted = sum(tensor.numel() for tensor in AutoModel.from_config(config).parameters())
        if wanted <= _ROOM * sum(held):
            return
    raise SelectorLoadError(
        f"{files.name}: config.json means a larger network than the {len(held)} tensors of the weights "
        f"({sum(held)} numbers); download the checkpoint again, or correct config.json"
    )


def _layers(config: Any) -> Iterator[int]:
    """All numbers of layers that a configuration names, in its parts as well."""
    for key, value in config.items() if isinstance(config, dict) else ():
        if isinstance(value, dict):
            yield from _layers(value)
        elif isinstance(value, int) and ("layers" in str(key) or key == "depth"):
            yield value


def _cut(text: str, count: int) -> list[str]:
    """`count` pieces of about equal length, cut between words, or anywhere if there are too few words."""
    words = text.split()
    joint, units = (" ", words) if len(words) >= count else ("", list(text))
    edges = np.linspace(0, len(units), count + 1).round().astype(int)
    return [joint.join(units[begin:end]) for begin, end in pairwise(edges)]


def _unit(output: Any) -> Tensor:
    """Vectors of unit length, float32 on the CPU; transformers 5 wraps them in an output object."""
    features: Tensor = output if isinstance(output, Tensor) else output.pooler_output
    return F.normalize(features.float(), dim=-1).cpu()


def _logit_scale(model: nn.Module) -> float:
    scale, temperature = getattr(model, "logit_scale", None), getattr(model, "temperature", None)
    if isinstance(scale, Tensor):
        return float(scale.detach().float().exp())
    if isinstance(temperature, Tensor):  # ALIGN divides by it
        return 1 / float(temperature.detach().float())
    return DEFAULT_LOGIT_SCALE


def _max_text_tokens(model: nn.Module, tokenizer: Any) -> int:
    config = getattr(model.config, "text_config", model.config)
    limits = [getattr(config, "max_position_embeddings", None), getattr(tokenizer, "model_max_length", None)]
    usable = [int(limit) for limit in limits if limit and limit < _MOST_TOKENS]
    return min(usable) if usable else 512


def _languages(model: nn.Module) -> tuple[str, ...] | None:
    config: Any = model.config
    kind = str(config.model_type)
    vocabulary = getattr(getattr(config, "text_config", None), "vocab_size", None)
    return None if kind == "clip" and vocabulary != _CLIP_VOCABULARY else _OF_MODELS.get(kind)


def _fingerprint(model: nn.Module, image_processor: Any) -> str:
    """Identity of what decides the vectors: the weights, and what is done to pictures."""
    digest = hashlib.sha256()
    digest.update(json.dumps(preprocessing(image_processor), sort_keys=True).encode())
    digest.update(type(model).__name__.encode())
    add_weights(digest, model)
    return f"hf-{digest.hexdigest()[:32]}"
