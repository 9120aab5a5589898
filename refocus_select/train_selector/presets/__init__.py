"""Settings to start from: the training of the paper and its ablations, each a YAML file here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...errors import InputError

_FOLDER = Path(__file__).parent


def preset_names() -> list[str]:
    """All presets."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def read_preset(name: str) -> dict[str, Any]:
    """The settings of a preset; one that `extends` another holds only what differs from it.

    Raises:
        InputError: if there is no such preset.
    """
    from ..settings import merged, read_mapping

    if name not in preset_names():
        raise InputError(f"there is no preset {name!r}; there are {', '.join(preset_names())}")
    content = read_mapping(_FOLDER / f"{name}.yaml")
    below = content.pop("extends", None)
    return merged(read_preset(below), content) if below else content
