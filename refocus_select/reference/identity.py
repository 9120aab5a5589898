"""Fingerprints of reference models."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from torch import nn

_SAMPLES = 64  # values of each weight that enter the fingerprint
# What transformers writes into configurations without any effect on results.
_IDLE = {"_processor_class", "processor_class", "transformers_version", "_name_or_path", "architectures", "dtype"}


def fingerprint(model: nn.Module, settings: Mapping[str, Any]) -> str:
    """Identity of a model: shapes and sampled values of all weights, and settings.

    Sampled, because hashing gigabytes would take longer than scoring; a fine-tuned copy differs everywhere.

    Args:
        model: its weights, on any device.
        settings: everything else that decides the answers, as plain values.
    """
    digest = hashlib.sha256(json.dumps(_plain(settings), sort_keys=True, default=str).encode())
    digest.update(type(model).__name__.encode())
    for name, tensor in sorted(model.state_dict().items()):
        flat = tensor.detach().flatten()
        step = max(1, flat.numel() // _SAMPLES)
        digest.update(f"{name}{list(tensor.shape)}{tensor.dtype}".encode())
        digest.update(flat[::step][: _SAMPLES + 1].double().cpu().numpy().tobytes())
    return digest.hexdigest()[:32]


def _plain(value: Any) -> Any:
    """Settings without what has no effect."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items() if k not in _IDLE}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value
