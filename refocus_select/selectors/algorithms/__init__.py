"""Selection algorithms: pure functions of scores, embeddings, times and K."""

from __future__ import annotations

from .uniform import uniform

__all__ = ["uniform"]
