"""Reading a selector's weights in the authors' format or ours, strictly; writing ours."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import SelectorLoadError
from ..files import remove_leftovers, replacing, write_text
from ..hub import (
    CONFIG_FILE,
    VISION_CONFIG_FILE,
    WEIGHTS_FILE,
    CheckpointFiles,
    HubOptions,
    find_checkpoint,
    read_json,
)
from .author_format import UNUSED, completed, original, renamed, without_unused_blocks
from .config import MODEL_TYPE, RefocusConfig, VisionConfig, projector_depth
from .pointer import PointerHead
from .portable import MODEL_TYPE as PORTABLE_TYPE
from .portable import PortableConfig, PortablePolicy
from .refocus import RefocusModel
from .skeleton import unfilled
from .vision import SiglipTower

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_FINGERPRINT_SAMPLE = 65536


def load_model(
    files: CheckpointFiles,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    new_heads: bool = False,
) -> RefocusModel | PortablePolicy:
    """Build the network described by a checkpoint and fill it.

    Args:
        files: what `refocus_select.hub.find_checkpoint` found.
        device: where to; by default the GPU if there is one.
        dtype: float32, bfloat16 or float16; by default float32 on a CPU and the stored type elsewhere. `A_log` stays
            in float32, as in the authors' code.
        new_heads: accept a network of the authors' architecture that is no policy yet, such as Video-Ma2mba. The heads
            that choose frames are then new, and chosen at random.

    Raises:
        SelectorLoadError: naming the damaged file, or the field or key that is missing, unexpected or not supported.
    """
    target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    wanted = _checked_dtype(dtype, target)
    raw = read_json(files.config)
    portable = raw.get("model_type") == PORTABLE_TYPE
    own = portable or raw.get("model_type") == MODEL_TYPE
    tensors = _read_tensors(files)
    if not own:
        tensors = {renamed(name): t for name, t in tensors.items() if name not in UNUSED}
    config: RefocusConfig | PortableConfig
    if new_heads and not own and not any(name.startswith("pointer.") for name in tensors):
        raw, tensors = completed(raw, tensors)
        tensors = without_unused_blocks(tensors, _author_vision(files, tensors))
    if portable:
        config = PortableConfig.from_dict(raw)
    else:
        config = RefocusConfig.from_dict(raw) if own else _author_config(raw, files, tensors)
    _check_sizes(config, tensors, files.name)
    if new_heads and isinstance(config, RefocusConfig) and not any(name.startswith("pointer.") for name in tensors):
        tensors |= {f"pointer.{name}": t for name, t in PointerHead(config).state_dict().items()}
    try:
        with unfilled():
            model = PortablePolicy(config) if isinstance(config, PortableConfig) else RefocusModel(config)
    except (RuntimeError, ValueError, TypeError, OverflowError) as error:
        raise SelectorLoadError(f"{files.name}: no network can be built from config.json ({error})") from error
    _check_keys(model, tensors, files.name, own=own)
    stored = tensors["backbone.embedding.weight"].dtype
    ready = {}
    for name in list(tensors):
        tensor = tensors.pop(name)
        ready[name] = tensor.to(target, torch.float32 if name.endswith(".A_log") else wanted or stored)
        if not is_finite(ready[name]):
            kind = str(ready[name].dtype).removeprefix("torch.")
            raise SelectorLoadError(
                f"{files.name}: {name if own else original(name)} holds values that are not finite in {kind}; "
                "download the checkpoint again, or choose another dtype"
            )
    model.load_state_dict(ready, assign=True)
    return model.eval().requires_grad_(False)


def save_model(model: RefocusModel | PortablePolicy, folder: str | os.PathLike[str]) -> None:
    """Write `config.json` and `model.safetensors` in our format; each file appears only when it is complete."""
    from safetensors.torch import save_file

    target = Path(folder)
    remove_leftovers(target)
    body = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    with replacing(target / WEIGHTS_FILE) as temporary:
        save_file(body, temporary, metadata={"format": "pt"})
        write_text(target / CONFIG_FILE, json.dumps(model.config.to_dict(), indent=2, sort_keys=True) + "\n")


def read_siglip(name_or_path: str) -> tuple[VisionConfig, dict[str, Tensor]]:
    """Geometry and tensors of a SigLIP tower as `SiglipTower` has it, without the last block.

    Args:
        name_or_path: folder or Hub id of a SigLIP model of transformers, with or without its text tower.

    Raises:
        SelectorLoadError: if it is missing, damaged, or no SigLIP.
    """
    files = find_checkpoint(name_or_path, HubOptions())
    raw = read_json(files.config)
    raw = raw.get("vision_config", raw)
    layers = raw.get("num_hidden_layers", 12)
    if raw.get("model_type") != "siglip_vision_model" or not isinstance(layers, int) or layers < 2:
        raise SelectorLoadError(f"{files.name} is no SigLIP model (model_type {raw.get('model_type')!r})")
    defaults = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "image_size": 224,
                "patch_size": 16}  # fmt: skip
    config = VisionConfig.from_dict({**defaults, **raw, "num_hidden_layers": layers - 1})
    prefix = "vision_model."
    found = {f"vision.{n.removeprefix(prefix)}": t for n, t in _read_tensors(files).items() if n.startswith(prefix)}
    kept = {name.removeprefix("vision."): t.float() for name, t in without_unused_blocks(found, config).items()}
    with unfilled():
        expected = {name: tuple(t.shape) for name, t in SiglipTower(config).state_dict().items()}
    wrong = sorted(name for name in expected.keys() | kept.keys()
                   if name not in kept or tuple(kept[name].shape) != expected.get(name))  # fmt: skip
    if wrong:
        raise SelectorLoadError(f"{files.name}: the vision tower is not what config.json says ({_some(wrong)})")
    return config, kept


def fingerprint(
    model: RefocusModel | PortablePolicy, *, part: str = "", settings: Mapping[str, Any] | None = None
) -> str:
    """Identity of configuration and weights: sha256 over the settings and up to 65,536 spread values of each tensor.

    `part` restricts it to the weights whose names start so, `settings` to those settings.
    """
    counted = model.config.to_dict() if settings is None else settings
    digest = hashlib.sha256(json.dumps(counted, sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        if not name.startswith(part):
            continue
        flat = tensor.detach().flatten()
        flat = flat[:: max(1, len(flat) // _FINGERPRINT_SAMPLE)].float().cpu().contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(flat.numpy().tobytes())
    return digest.hexdigest()


def _author_config(raw: dict[str, Any], files: CheckpointFiles, tensors: Mapping[str, Tensor]) -> RefocusConfig:
    """The authors' configuration, completed by what only the tensors and the file beside it tell."""
    raw = dict(raw)
    if "pointer.logit_scale" in tensors and "logit_scale_type" not in raw:
        raw["logit_scale_type"] = "vector" if tensors["pointer.logit_scale"].ndim else "scalar"
    if "use_rank_head" not in raw:
        raw["use_rank_head"] = "pointer.rank_head.weight" in tensors
    embedding = tensors.get("backbone.embedding.weight")
    rows = embedding.shape[0] if embedding is not None and embedding.ndim else 0
    if isinstance(raw.get("vocab_size"), int) and rows > raw["vocab_size"]:
        raw["vocab_size"], raw["pad_vocab_size_multiple"] = rows, 1
    return RefocusConfig.from_dict(raw, vision=_author_vision(files, tensors))


def _author_vision(files: CheckpointFiles, tensors: Mapping[str, Tensor]) -> VisionConfig:
    """Geometry of the tower: a `vision_config.json` beside the weights, else the constants of so400m/14-384."""
    if files.vision_config is not None:
        raw = read_json(files.vision_config)
        layers = raw.get("num_hidden_layers")
        if not isinstance(layers, int) or layers < 2:
            raise SelectorLoadError(f"{files.vision_config}: num_hidden_layers must be 2 or more, not {layers!r}")
        return VisionConfig.from_dict({**raw, "num_hidden_layers": layers - 1})  # the file counts the dropped block
    default = VisionConfig()
    found = tensors.get("vision.embeddings.patch_embedding.weight")
    positions = tensors.get("vision.embeddings.position_embedding.weight")
    if found is not None and positions is not None:
        expected = (default.hidden_size, 3, default.patch_size, default.patch_size)
        if tuple(found.shape) != expected or positions.shape[:1] != (default.grid**2,):
            # Heads and picture size cannot be read from shapes, and a guess could be wrong without notice.
            raise SelectorLoadError(
                f"{files.name}: the vision tower (patch kernel {list(found.shape)}, positions "
                f"{list(positions.shape)}) is not SigLIP so400m/14 at 384 px; put a {VISION_CONFIG_FILE} (a "
                "SiglipVisionConfig, counting the dropped last block) beside config.json"
            )
    return default


def _read_tensors(files: CheckpointFiles) -> dict[str, Tensor]:
    from safetensors import SafetensorError, safe_open

    tensors: dict[str, Tensor] = {}
    for path in files.weights:
        try:
            with safe_open(str(path), framework="pt") as shard:
                for name in shard.keys():  # noqa: SIM118
                    tensors[name] = shard.get_tensor(name)
        # The last ones: types that this torch does not have.
        except (SafetensorError, OSError, RuntimeError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise SelectorLoadError(
                f"{path} is damaged or incomplete ({error}); delete it and download it again"
            ) from error
    for name, tensor in tensors.items():
        if tensor.dtype not in (*_DTYPES.values(), torch.float64):
            raise SelectorLoadError(
                f"{files.name}: {name} is stored as {tensor.dtype}; quantised or integer weights are not supported: "
                "use a float32, bfloat16 or float16 checkpoint"
            )
    return tensors


def _check_sizes(config: RefocusConfig | PortableConfig, tensors: Mapping[str, Tensor], source: str) -> None:
    """Refuse a network much larger than its weights before anything of it is built.

    Every width of the network is a side of one of its tensors, and every layer has a tensor of its own.
    """
    side = max((size for tensor in tensors.values() for size in tensor.shape), default=0)
    config = config.stack if isinstance(config, PortableConfig) else config
    vision, ssm = config.vision, config.ssm
    widths = {
        "d_model": config.d_model,
        "vocab_size": config.embedding_rows,
        "question_hidden_size": config.question_hidden_size,
        "mm_hidden_size": config.mm_hidden_size,
    }
    layers = {"n_layer": config.n_layer, "mm_projector_type": projector_depth(config.mm_projector_type)}
    widths |= {"ssm_cfg.expand": ssm.expand * config.d_model, "ssm_cfg.d_state": ssm.d_state * ssm.ngroups,
               "ssm_cfg.d_conv": ssm.d_conv}  # fmt: skip
    if config.frame_encoder == "siglip":
        widths |= {"vision hidden_size": vision.hidden_size, "vision intermediate_size": vision.intermediate_size,
                   "vision patch_size": vision.patch_size, "vision image_size": vision.grid**2}  # fmt: skip
        layers["vision num_hidden_layers"] = vision.num_hidden_layers
    too_large = [name for name, size in widths.items() if size > side]
    too_large += [name for name, count in layers.items() if count > len(tensors)]
    if too_large:
        raise SelectorLoadError(
            f"{source}: weights and config.json do not belong together: {', '.join(too_large)} of config.json means a "
            f"larger network than the {len(tensors)} tensors of the weights; download the checkpoint again, or correct "
            "config.json"
        )


def is_finite(tensor: Tensor) -> bool:
    """Without a copy: least and greatest value are not a number if any value is."""
    return not tensor.numel() or bool(torch.stack(tensor.aminmax()).isfinite().all())


def _check_keys(model: RefocusModel | PortablePolicy, tensors: Mapping[str, Tensor], source: str, *, own: bool) -> None:
    expected = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    shown = str if own else original
    problems = []
    missing = sorted(expected.keys() - tensors.keys())
    if missing:
        problems.append(f"missing: {_some([shown(n) for n in missing])}")
    unexpected = sorted(tensors.keys() - expected.keys())
    if unexpected:
        problems.append(f"unexpected: {_some([shown(n) for n in unexpected])}")
    wrong = [
        f"{shown(n)} is {list(tensors[n].shape)} but config.json means {list(expected[n])}"
        for n in sorted(expected.keys() & tensors.keys())
        if tuple(tensors[n].shape) != expected[n]
    ]
    if wrong:
        problems.append(f"wrong shape: {_some(wrong)}")
    if problems:
        raise SelectorLoadError(
            f"{source}: weights and config.json do not belong together ({'; '.join(problems)}); "
            "download the checkpoint again, or correct config.json"
        )


def _some(names: list[str], limit: int = 8) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _checked_dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype | None:
    """The type to convert to; None keeps the stored one."""
    if dtype is None:
        return torch.float32 if device.type == "cpu" else None
    if dtype == "auto":
        return None
    found = _DTYPES.get(str(dtype).removeprefix("torch."))
    if found is None:
        raise SelectorLoadError(f"dtype {dtype!r} is not supported; choose one of {', '.join(_DTYPES)} or 'auto'")
    return found
