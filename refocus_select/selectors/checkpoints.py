"""Loading a trained policy from a folder or the Hub: what its configuration says decides the kind of selector."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import EncoderError
from ..hub import CheckpointFiles, HubOptions, find_checkpoint, read_json
from ..models.portable import MODEL_TYPE
from ..weights import resolve
from .policy import PolicySelector
from .vector_policy import VectorPolicySelector

if TYPE_CHECKING:
    import torch

    from ..encoders import DualEncoder


def load_policy(
    name_or_path: str | os.PathLike[str],
    *,
    encoder: str | os.PathLike[str] | DualEncoder | None = None,
    revision: str | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    new_heads: bool = False,
) -> PolicySelector | VectorPolicySelector:
    """Load a trained policy; see `PolicySelector.from_pretrained` for the arguments, `load_model` for `new_heads`.

    Raises:
        SelectorLoadError: naming what is missing, gated, damaged or not supported, and the remedy.
        EncoderError: if an encoder is given that this policy cannot read.
    """
    cache = None if cache_dir is None else Path(cache_dir)
    files = find_checkpoint(name_or_path, HubOptions(revision, token, cache, local_files_only))
    shared: dict[str, Any] = {
        "device": device, "dtype": dtype, "token": token, "cache_dir": cache, "local_files_only": local_files_only,
    }  # fmt: skip
    if _reads_vectors(files):
        return VectorPolicySelector.from_checkpoint(files, encoder=encoder, **shared)
    if encoder is not None:
        raise EncoderError(f"{files.name} reads pictures by itself and takes no encoder; leave encoder= out")
    return PolicySelector.from_checkpoint(files, new_heads=new_heads, **shared)


def load_embedded_policy(
    name: str,
    *,
    encoder: str | os.PathLike[str] | DualEncoder | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
) -> PolicySelector | VectorPolicySelector:
    """Load a policy that the package ships; for the registry."""
    selector = load_policy(resolve(name), encoder=encoder, device=device, dtype=dtype)
    selector.name = name
    return selector


def reads_vectors(name_or_path: str | os.PathLike[str]) -> bool:
    """Whether the policy in a folder or on the Hub reads the vectors of an encoder.

    Raises:
        SelectorLoadError: if it cannot be found.
    """
    return _reads_vectors(find_checkpoint(name_or_path, HubOptions()))


def _reads_vectors(files: CheckpointFiles) -> bool:
    return bool(read_json(files.config).get("model_type") == MODEL_TYPE)
