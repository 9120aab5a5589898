"""Selectors: one interface, several ways to choose."""

from __future__ import annotations

from .algorithms import complete_picks
from .base import Choice, FrameSelector
from .registry import load_selector
from .uniform import UniformSelector

__all__ = ["Choice", "FrameSelector", "UniformSelector", "complete_picks", "load_selector"]
