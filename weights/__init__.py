"""The weights that the package ships, and the way from a name to their folder."""

from __future__ import annotations

from pathlib import Path

EMBEDDED = ("mini-policy", "mini")

DEFAULT_SELECTOR = "mini-policy"
"""What chooses frames where the user names no selector."""


def resolve(name: str) -> Path:
    """The folder of an embedded selector's weights.

    Raises:
        KeyError: if no weights of that name are shipped.
    """
    if name not in EMBEDDED:
        raise KeyError(name)
    return Path(__file__).resolve().parent / name
