"""refocus-select: from a video and a question to the few frames that answer it, with their true times.

    from refocus_select import select_frames
    selection = select_frames("match.mp4", "Who scores the second goal?", num_frames=8)
    selection.timestamps, selection.frames

The names below are imported on first use, so that `import refocus_select` loads neither torch nor a decoder.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "select_frames": "api",
    "FrameSelector": "selectors",
    "VideoEncoding": "encoding",
    "Selection": "selection",
    "open_video": "video",
    "sample_candidates": "video",
    "CandidateRule": "video",
    "RefocusError": "errors",
}

__all__ = [
    "CandidateRule",
    "FrameSelector",
    "RefocusError",
    "Selection",
    "VideoEncoding",
    "__version__",
    "open_video",
    "sample_candidates",
    "select_frames",
]

if TYPE_CHECKING:
    from .api import select_frames
    from .encoding import VideoEncoding
    from .errors import RefocusError
    from .selection import Selection
    from .selectors import FrameSelector
    from .video import CandidateRule, open_video, sample_candidates


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name != "RefocusError":
        from .dependencies import check_dependencies

        check_dependencies()
    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
