"""Measuring selectors: all of them on the same candidates, with the same number of frames."""

from __future__ import annotations
