"""Reference models: video models of transformers, small readers, or your own (see `ReferenceModel`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .base import ReferenceModel, Request
from .loading import load_reference

if TYPE_CHECKING:
    from .transformers_model import TransformersReference as TransformersReference

__all__ = ["ReferenceModel", "Request", "TransformersReference", "load_reference"]


def __getattr__(name: str) -> Any:
    if name == "TransformersReference":
        from .transformers_model import TransformersReference

        return TransformersReference
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
