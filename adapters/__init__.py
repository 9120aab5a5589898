"""Where a selection enters the stacks of video models (installed as `refocus_select.adapters`).

    from transformers import AutoProcessor
    from refocus_select.adapters import with_frame_selection

    processor = with_frame_selection(AutoProcessor.from_pretrained("Qwen/Qwen2.5-VL-7B-Instruct"), num_frames=32)

Importing this package loads neither torch nor transformers; each name is imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOME = {
    "with_frame_selection": "processor",
    "without_frame_selection": "processor",
    "disable_selection": "processor",
    "last_selection": "processor",
    "last_selections": "processor",
    "pinned_selection": "processor",
    "select_messages": "messages",
    "multiple_choice": "questions",
    "tokens_per_frame": "tokens",
    "family_of": "families",
    "qwen2_5_vl_position_ids": "positions",
}

__all__ = [*_HOME]

if TYPE_CHECKING:
    from .families import family_of as family_of
    from .messages import select_messages as select_messages
    from .positions import qwen2_5_vl_position_ids as qwen2_5_vl_position_ids
    from .processor import disable_selection as disable_selection
    from .processor import last_selection as last_selection
    from .processor import last_selections as last_selections
    from .processor import pinned_selection as pinned_selection
    from .processor import with_frame_selection as with_frame_selection
    from .processor import without_frame_selection as without_frame_selection
    from .questions import multiple_choice as multiple_choice
    from .tokens import tokens_per_frame as tokens_per_frame


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from refocus_select.dependencies import check_dependencies

    check_dependencies()
    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
