"""Selectors: one interface, several ways to choose."""

from __future__ import annotations

from .algorithms import complete_picks
from .base import Choice, FrameSelector
from .baselines import UniformSelector
from .registry import load_selector, register_selector, selector_names

__all__ = [
    "Choice",
    "FrameSelector",
    "UniformSelector",
    "complete_picks",
    "load_selector",
    "register_selector",
    "selector_names",
]
