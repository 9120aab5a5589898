"""`select_frames`: the whole product in one call."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, overload

from .encoding import VideoEncoding
from .errors import InputError
from .selection import Selection
from .selectors import FrameSelector
from .video.inputs import read_input
from .weights import DEFAULT_SELECTOR

if TYPE_CHECKING:
    import os

    from typing_extensions import Unpack

    from .arguments import SelectArguments, VideoSource
    from .encoders import DualEncoder


@overload
def select_frames(  # type: ignore[overload-overlap]
    video: VideoSource | VideoEncoding,
    question: str,
    num_frames: int | Literal["auto"] = ...,
    *,
    selector: str | os.PathLike[str] | FrameSelector = ...,
    encoder: str | os.PathLike[str] | DualEncoder | None = ...,
    device: str | None = ...,
    options: Sequence[str] | None = ...,
    **kwargs: Unpack[SelectArguments],
) -> Selection: ...
@overload
def select_frames(
    video: VideoSource | VideoEncoding,
    question: Sequence[str],
    num_frames: int | Literal["auto"] = ...,
    *,
    selector: str | os.PathLike[str] | FrameSelector = ...,
    encoder: str | os.PathLike[str] | DualEncoder | None = ...,
    device: str | None = ...,
    options: Sequence[Sequence[str] | None] | None = ...,
    **kwargs: Unpack[SelectArguments],
) -> list[Selection]: ...
def select_frames(
    video: VideoSource | VideoEncoding,
    question: str | Sequence[str],
    num_frames: int | Literal["auto"] = 8,
    *,
    selector: str | os.PathLike[str] | FrameSelector = DEFAULT_SELECTOR,
    encoder: str | os.PathLike[str] | DualEncoder | None = None,
    device: str | None = None,
    options: Sequence[str] | Sequence[Sequence[str] | None] | None = None,
    **kwargs: Unpack[SelectArguments],
) -> Selection | list[Selection]:
    """Choose the frames of a video that answer a question.

        selection = select_frames("match.mp4", "Who scores the second goal?", num_frames=8)
        selection.timestamps        # seconds
        selection.frames            # uint8 RGB [8, H, W, 3]

    Args:
        video: a path, a URL, bytes, a file object, a folder of images, an animated picture, PIL images or arrays.
        question: what is asked; a list of questions reads the video once and gives a list.
        num_frames: how many frames K; "auto" for as many as the question needs, between `at_least` and `at_most`.
        selector: a name or Hub id for `FrameSelector.from_pretrained`, or a selector that is loaded already.
        encoder: whose vectors the selector compares, for algorithms and policies that read vectors: see
            `load_encoder` (default: the one that the package ships).
        device: where the selector runs, e.g. "cuda" (default: chosen by the selector).
        options: answer options, for policies that were trained to see them.
        **kwargs: `start`, `end` (seconds), `candidates`, `fps`, `max_frames`, `exact`, `workers`, `backend`,
            `progress`, `cache`, `words` (here "auto" by default), `ocr`, `transcribe`, `language`: see
            `FrameSelector.encode`; and what decides the choice: see `FrameSelector.select`.

    Returns:
        Exactly min(num_frames, candidates) distinct frames, sorted in time, with their true timestamps.

    Raises:
        VideoError: if the video cannot be read; the message names the file and the remedy.
        InputError: if an argument is out of range.
        SelectorLoadError: if the selector cannot be loaded.
        EncoderError: if the encoder cannot be used with it.
    """
    if isinstance(selector, FrameSelector):
        if encoder is not None:
            raise InputError("encoder: this selector is loaded already; give its name, or load it with that encoder")
        chooser = selector
    else:
        chooser = _loaded(selector, encoder, device)  # type: ignore[arg-type]
    if not isinstance(read_input(video).source, VideoEncoding):
        kwargs.setdefault("words", "auto")
    return chooser.select(video, question, num_frames=num_frames, options=options, **kwargs)


@lru_cache(maxsize=2)
def _loaded(selector: str | os.PathLike[str], encoder: Any, device: str | None) -> FrameSelector:
    arguments = {"encoder": encoder, "device": device}
    return FrameSelector.from_pretrained(selector, **{k: v for k, v in arguments.items() if v is not None})
