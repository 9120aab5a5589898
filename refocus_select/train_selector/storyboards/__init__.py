"""Storyboards: composed videos with questions whose answers and evidence are known, to train and measure selectors."""

from .bank import Bank, Concept
from .layout import NOTHING, Layout, Scene
from .source import Storyboards, storyboards

__all__ = ["NOTHING", "Bank", "Concept", "Layout", "Scene", "Storyboards", "storyboards"]
