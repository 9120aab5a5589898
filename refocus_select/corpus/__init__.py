"""Many videos, many questions: batches, indexes of collections, and clusters. See README.md in this folder."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .batch import BatchResult, select_batch
    from .index import Index
    from .results import convert_results, load_results, read_results
    from .search import Hit
    from .training_rows import write_training_rows

__all__ = [
    "BatchResult",
    "Hit",
    "Index",
    "convert_results",
    "load_results",
    "read_results",
    "select_batch",
    "write_training_rows",
]

_HOMES = {
    "BatchResult": "batch",
    "select_batch": "batch",
    "Hit": "search",
    "Index": "index",
    "convert_results": "results",
    "load_results": "results",
    "read_results": "results",
    "write_training_rows": "training_rows",
}


def __getattr__(name: str) -> Any:
    """Public names are imported when they are used: the command line must start quickly."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
