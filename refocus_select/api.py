"""`select_frames`: the whole product in one call."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, overload

from .selection import Selection
from .selectors import FrameSelector
from .weights import DEFAULT_SELECTOR


@overload
def select_frames(
    video: Any, question: str, num_frames: int = ..., *, selector: str | FrameSelector = ..., **kwargs: Any
) -> Selection: ...
@overload
def select_frames(
    video: Any, question: Sequence[str], num_frames: int = ..., *, selector: str | FrameSelector = ..., **kwargs: Any
) -> list[Selection]: ...
def select_frames(
    video: Any,
    question: str | Sequence[str],
    num_frames: int = 8,
    *,
    selector: str | FrameSelector = DEFAULT_SELECTOR,
    device: str | None = None,
    **kwargs: Any,
) -> Selection | list[Selection]:
    """Choose the frames of a video that answer a question.

        selection = select_frames("match.mp4", "Who scores the second goal?", num_frames=8)
        selection.timestamps        # seconds
        selection.frames            # uint8 RGB [8, H, W, 3]

    Args:
        video: a path, a URL, bytes, a file object, a folder of images, an animated picture, PIL images or arrays.
        question: what is asked; a list of questions reads the video once and gives a list.
        num_frames: how many frames K.
        selector: a name or Hub id for `FrameSelector.from_pretrained`, or a selector that is loaded already.
        device: where the selector runs, e.g. "cuda" (default: chosen by the selector).
        **kwargs: `start`, `end` (seconds), `fps`, `max_frames`, `exact`, `workers`, `backend`, `progress`, `options`:
            see `FrameSelector.encode` and `FrameSelector.select`.

    Returns:
        Exactly min(num_frames, candidates) distinct frames, sorted in time, with their true timestamps.

    Raises:
        VideoError: if the video cannot be read; the message names the file and the remedy.
        InputError: if an argument is out of range.
        SelectorLoadError: if the selector cannot be loaded.
    """
    chooser = selector if isinstance(selector, FrameSelector) else _loaded(selector, device)
    return chooser.select(video, question, num_frames=num_frames, **kwargs)


@lru_cache(maxsize=2)
def _loaded(name: str, device: str | None) -> FrameSelector:
    return FrameSelector.from_pretrained(name, **({} if device is None else {"device": device}))
