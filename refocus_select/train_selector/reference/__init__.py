"""Reference models: video models of transformers, small readers, or your own (see `ReferenceModel`)."""

from .base import ReferenceModel, Request

__all__ = ["ReferenceModel", "Request"]
