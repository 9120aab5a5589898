"""`MiniEncoder`: frames and text in one space, from weights that the package ships.

An object-level bridge, not a CLIP. Two ways lead from a frame to the space of the sentence encoder (MiniLM-L6), and a
frame's vector is their sum:

- *named*: the classes that an ImageNet classifier (EfficientNet-Lite2) sees, each with the sentence vector of its
  name, averaged by probability (ConSE: Norouzi et al., "Zero-Shot Learning by Convex Combination of Semantic
  Embeddings", 2014);
- *learned*: a linear map of the image features, trained on pictures with titles (see weights/mini/README.md).

A third part is added: *detected*, the things that a detector finds (NanoDet, COCO's 80 classes; models/nanodet.py),
each with its sentence vector; above all people, whom ImageNet has no class for.

The sum is scaled so that its dot product with the vectors of many unrelated texts has mean 0 and deviation 1: some
frames are a little similar to everything, and would otherwise come first for every question.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError, SelectorLoadError
from ..parsing import content_phrase
from ..plain_text import parse_json, shown
from ..weights import resolve
from .efficientnet_lite import FEATURES, LITE_VARIANTS, EfficientNetLite
from .nanodet import CLASSES, NanoDet
from .onnx_network import OnnxNetwork, onnxruntime_installed, onnxruntime_works
from .skeleton import unfilled
from .text_encoder import MAX_TOKENS, WIDTH, TextEncoder, unpack_rows
from .workers import FEW, workers

FORMAT = "refocus-select/mini"
FORMAT_VERSION = 2
DIMENSIONS = WIDTH
_ONNX_BATCH = 4  # frames; as fast as more, which would need more memory

_HASHED = frozenset({"image.safetensors", "text.safetensors", "vocab.txt"})


class MiniEncoder(nn.Module):
    """Vectors of frames and of text whose dot product says how well they match.

    Attributes:
        name: "mini".
        dimensions: length D of its vectors.
        frame_size: (height, width) that frames are best decoded at; other sizes are resized.
        fingerprint: sha256 of weights and configuration.
        runtime: what computes the image network: "onnxruntime" or "torch".
        languages: of the sentence encoder: English.
        max_text_tokens: longer texts are cut.
        earlier: fingerprints of earlier versions, whose frame vectors lie in the same space: the texts' vectors are the
            same.
    """

    name = "mini"
    dimensions = DIMENSIONS
    languages = ("en",)
    max_text_tokens = MAX_TOKENS

    class_vectors: Tensor  # unit sentence vectors of the class names, [classes, 384]
    detected_vectors: Tensor  # unit sentence vectors of the detector's classes, [80, 384]
    text_mean: Tensor  # of many texts' sentence vectors, [384]
    text_spread: Tensor  # square root of their covariance, [384, 384]

    def __init__(self, config: dict[str, Any], vocabulary: Path) -> None:
        super().__init__()
        self.config = config
        self.frame_size: tuple[int, int] = (config["frame_size"][0], config["frame_size"][1])
        self.fingerprint = ""
        self.runtime = "torch"
        self.earlier: tuple[str, ...] = tuple(config["earlier"])
        self.image = EfficientNetLite(config["image_variant"], classes=config["classes"])
        self.detector = NanoDet()
        self.text = TextEncoder(vocabulary)
        self._onnx_image = OnnxNetwork(partial(self.image.to_onnx, self.frame_size))
        self._onnx_detector = OnnxNetwork(partial(self.detector.to_onnx, self.frame_size))
        self.learned = nn.Linear(FEATURES, WIDTH)
        self.register_buffer("class_vectors", torch.zeros(config["classes"], WIDTH))
        self.register_buffer("detected_vectors", torch.zeros(CLASSES, WIDTH))
        self.register_buffer("text_mean", torch.zeros(WIDTH))
        self.register_buffer("text_spread", torch.eye(WIDTH))

    @classmethod
    def from_pretrained(
        cls,
        folder: str | os.PathLike[str],
        *,
        device: str | torch.device | None = None,
        runtime: str | None = None,
    ) -> MiniEncoder:
        """Load the weights in `folder` (config.json, image.safetensors, text.safetensors, vocab.txt).

        Args:
            folder: where the files lie.
            device: "cpu", "cuda", …; by default the GPU if there is one.
            runtime: what computes the image network, "onnxruntime" (on a CPU only) or "torch"; by default the first
                where it can. Their features agree in float32; PyTorch computes in half precision where the hardware
                does.

        Raises:
            InputError: if the runtime is unknown, or cannot be used.
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
            with unfilled():
                encoder = cls(config, folder / "vocab.txt")
            encoder.load_state_dict(_unpack(packed), assign=True)
        except (SafetensorError, RuntimeError, KeyError) as error:
            raise SelectorLoadError(
                f"{folder}: the weights do not fit this version ({error}); reinstall refocus-select"
            ) from error
        digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
        encoder.fingerprint = f"mini-{digest.hexdigest()[:32]}"
        encoder.requires_grad_(False).eval()
        chosen = torch.device(device) if device is not None else _default_device()
        encoder.runtime = _image_runtime(runtime, chosen)
        # The detector is faster in PyTorch where the processor multiplies in bfloat16, and exact enough.
        for tower in (encoder.detector, *([encoder.image] if encoder.runtime == "torch" else [])):
            tower.to(dtype=_image_dtype(chosen), memory_format=torch.channels_last)  # type: ignore[call-overload]
        return encoder.to(chosen)

    @property
    def _by_onnx(self) -> bool:
        return self.runtime == "onnxruntime" and self.device.type == "cpu" and onnxruntime_works()

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.class_vectors.device

    def encode_frames(self, frames: np.ndarray | Tensor, *, batch: int = 8) -> Tensor:
        """Frame vectors.

        Args:
            frames: uint8 RGB `[N, H, W, 3]`.
            batch: how many frames go through the network at once; on a CPU at most, and one batch per core, which
                takes a fifth less time than all cores on one batch, since the network's layers are small.

        Returns:
            float32 `[N, D]` on the CPU.

        Raises:
            InputError: if `frames` has another type or shape.
        """
        pixels = torch.as_tensor(frames)
        if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3:
            raise InputError(f"frames must be uint8 [N, H, W, 3], not {pixels.dtype} {list(pixels.shape)}")
        if self._by_onnx:
            batch = min(batch, _ONNX_BATCH, max(1, -(-len(pixels) // torch.get_num_threads())))
        batches = pixels.split(batch) if len(pixels) else []
        spread = workers().map if self.device.type == "cpu" and len(batches) > 1 else map
        return torch.cat([torch.zeros(0, DIMENSIONS), *spread(self._frame_vectors, batches)])

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Text vectors, float32 `[len(texts), D]` on the CPU; their dot product with a frame's is in deviations.

        Each is the mean of the text as it is and of the words in it that name something (`content_phrase`).
        """
        if self.device.type == "cpu" and len(texts) <= FEW:
            return workers().submit(self._text_vectors, texts).result()
        return self._text_vectors(texts)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text has, begin and end included."""
        return self.text.count_tokens(texts)

    @torch.inference_mode()
    def _text_vectors(self, texts: Sequence[str]) -> Tensor:
        phrases = [content_phrase(text) for text in texts]
        distinct = {text: row for row, text in enumerate(dict.fromkeys([*texts, *phrases]))}  # a name is its own phrase
        vectors = self.text.encode(list(distinct))
        both = vectors[[distinct[text] for text in texts]] + vectors[[distinct[phrase] for phrase in phrases]]
        return (F.normalize(both, dim=-1) - self.text_mean).cpu()

    @torch.inference_mode()
    def _frame_vectors(self, frames: Tensor) -> Tensor:  # uint8 [N, H, W, 3] -> [N, D]
        # A permuted view of [N, H, W, 3] is already channels-last: the layout that CPUs and GPUs are fastest with.
        pixels = frames.to(self.device).permute(0, 3, 1, 2).float()
        if tuple(pixels.shape[2:]) != self.frame_size:
            pixels = F.interpolate(pixels, size=self.frame_size, mode="bilinear", antialias=True)
        found = self._found(pixels)
        features = self._features(pixels.div_(127.5).sub_(1))
        posterior = self.image.classifier(features).float().softmax(dim=-1)  # [N, classes]
        best, which = posterior.topk(self.config["top_classes"], dim=-1)
        kept = torch.zeros_like(posterior).scatter_(1, which, best)
        named = F.normalize(kept @ self.class_vectors, dim=-1)
        # The square root tames the few channels that dominate a ReLU feature.
        shape = F.normalize(features.float().clamp_min(0).sqrt(), dim=-1)
        learned = F.normalize(self.learned(shape), dim=-1)
        vectors = learned + named + self.config["detector"]["weight"] * (found @ self.detected_vectors)
        return (vectors / (vectors @ self.text_spread).norm(dim=-1, keepdim=True)).cpu()

    def _features(self, pixels: Tensor) -> Tensor:  # -1 to 1, [N, 3, H, W] -> [N, 1280]
        if self._by_onnx:
            return self._onnx_image(pixels)
        return self.image(pixels.to(self.image.stem.weight.dtype, memory_format=torch.channels_last))

    def _found(self, pixels: Tensor) -> Tensor:
        """How surely the detector sees each of its classes, `[N, 80]`: 0 up to the least score that counts, 1 at 1."""
        pixels = self.detector.normalised(pixels)
        in_full = self.detector.stem.weight.dtype == torch.float32
        scores = self._onnx_detector(pixels) if self._by_onnx and in_full else self.detector(pixels)
        least = self.config["detector"]["least"]
        return ((scores - least) / (1 - least)).clamp_min(0)


def load_mini(name: str = "mini", *, device: str | torch.device | None = None) -> MiniEncoder:
    """The encoder that the package ships; for the registry."""
    return MiniEncoder.from_pretrained(resolve(name), device=device)


def load_text_encoder(folder: str | os.PathLike[str]) -> TextEncoder:
    """The sentence encoder in a folder of `MiniEncoder` alone, on the CPU.

    Raises:
        SelectorLoadError: if a file is missing, damaged, or of another version.
    """
    folder = Path(folder)
    name = "text.safetensors"
    _check_hash(folder / name, _read_config(folder)["sha256"][name])
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        packed = load_file(folder / name)
        with unfilled():
            encoder = TextEncoder(folder / "vocab.txt")
        state = unpack_rows({k.removeprefix("text."): t for k, t in packed.items() if k.startswith("text.")})
        encoder.load_state_dict(state, assign=True)
    except (SafetensorError, RuntimeError) as error:
        raise SelectorLoadError(
            f"{folder}: the weights do not fit this version ({error}); reinstall refocus-select"
        ) from error
    return encoder.requires_grad_(False).eval()


def _unpack(packed: dict[str, Tensor]) -> dict[str, Tensor]:
    """Stored tensors (fp16, int8 with scales) to the state of a `MiniEncoder`."""
    seen = {name: t for name, t in packed.items() if not name.startswith("text.")}
    scales = {name: seen.pop(name) for name in list(seen) if name.endswith("_scale")}
    state = {name: t.float() for name, t in seen.items()}
    for name, scale in scales.items():
        weight = state[name.removesuffix("_scale")]
        weight.mul_(scale.view(-1, *[1] * (weight.ndim - 1)))
    text = unpack_rows({name.removeprefix("text."): t for name, t in packed.items() if name.startswith("text.")})
    return state | {f"text.{name}": t for name, t in text.items()}


def _default_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _image_runtime(name: str | None, device: torch.device) -> str:
    if name not in (None, "onnxruntime", "torch"):
        raise InputError(f"runtime must be 'onnxruntime' or 'torch', not {name!r}")
    if name == "onnxruntime" and device.type != "cpu":
        raise InputError(f"ONNX Runtime computes on the CPU here, not on {device}; give runtime='torch'")
    if name == "onnxruntime" and not onnxruntime_installed():
        raise InputError("runtime='onnxruntime': it is not installed; run: pip install onnxruntime")
    return name or ("onnxruntime" if device.type == "cpu" and onnxruntime_installed() else "torch")


def _image_dtype(device: torch.device) -> torch.dtype:
    """Half precision where the hardware multiplies in it: half the time, and vectors that differ by less than 1 %."""
    if device.type == "cuda":
        return torch.float16
    has_bf16 = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return torch.bfloat16 if device.type == "cpu" and has_bf16 is not None and has_bf16() else torch.float32


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config = parse_json(path.read_bytes())
    except OSError as error:
        raise SelectorLoadError(f"cannot read {path} ({error.strerror}); reinstall refocus-select") from error
    except ValueError as error:
        raise SelectorLoadError(f"{path} is not JSON ({error}); reinstall refocus-select") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT or config.get("version") != FORMAT_VERSION:
        raise SelectorLoadError(
            f"{path} does not describe '{FORMAT}' version {FORMAT_VERSION}; reinstall refocus-select"
        )
    for name, right in _FIELDS.items():
        if not right(config.get(name)):
            raise SelectorLoadError(f"{path}: {name} is {shown(config.get(name))}; reinstall refocus-select")
    return config


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**16


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


_FIELDS: dict[str, Callable[[Any], bool]] = {
    "frame_size": lambda value: isinstance(value, list) and len(value) == 2 and all(map(_is_count, value)),
    "image_variant": lambda value: isinstance(value, str) and value in LITE_VARIANTS,
    "classes": _is_count,
    "top_classes": _is_count,
    "detector": lambda value: (
        isinstance(value, dict) and _is_share(value.get("weight")) and _is_share(value.get("least"))
    ),
    "earlier": lambda value: isinstance(value, list) and all(isinstance(text, str) for text in value),
    "sha256": lambda value: (
        isinstance(value, dict)
        and value.keys() >= _HASHED
        and all(isinstance(text, str) and Path(name).name == name for name, text in value.items())
    ),
}


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
