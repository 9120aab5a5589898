"""The one-liner: a processor of transformers that chooses frames by itself."""

from __future__ import annotations

import functools
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from refocus_select.budget import TokenBudget
from refocus_select.errors import InputError
from refocus_select.selection import Selection
from refocus_select.weights import DEFAULT_SELECTOR

from .budget import frames_or_budget
from .calls import call_processor, keys_of, render_chat
from .choose import load
from .input_format import InputFormat
from .questions import Query, check_query
from .state import DISABLED, PINNED, State, state_of

P = TypeVar("P")

# Processors with a video processor that do not chat.
_NOT_CHAT = {"PeAudioVideoProcessor", "PeVideoProcessor", "Sam2VideoProcessor", "VideoPrismProcessor"}


def with_frame_selection(
    processor: P,
    selector: Any = DEFAULT_SELECTOR,
    *,
    num_frames: int | str | None = None,
    token_budget: int | TokenBudget | None = None,
    timestamps: str = "auto",
    temporal_merge: str = "auto",
    query: Query = "last_user",
    words_in_prompt: str | bool = False,
    encoder: Any = None,
    **select_kwargs: Any,
) -> P:
    """Make a processor choose the frames that the question needs, and tell the model when they are shown.

        processor = with_frame_selection(AutoProcessor.from_pretrained(name), num_frames=32)
        inputs = processor.apply_chat_template(messages, tokenize=True, return_dict=True, return_tensors="pt")

    Videos given as a path, URL, bytes, `Video` or `VideoEncoding` are selected from; frames that the caller chose
    (arrays, or anything with its own `video_metadata`) pass through untouched. It works in `__call__`, so chats in
    one step, chats in two steps (render, then process), plain prompts, pipelines and data collators all choose
    alike. The processor remains an instance of its own class, and is saved as such.

    Args:
        processor: a processor of a video model. It is changed in place and returned.
        selector: a `FrameSelector`, or the name of one.
        num_frames: how many frames K per video (default: 8, or what a budget allows); `num_frames=` in a call overrides
            it.
        token_budget: how many tokens the videos of a prompt may cost: number and size of the frames are chosen so that
            they fit. A `TokenBudget` has the limits, and counts the whole prompt on request. With `num_frames` it
            decides the size alone; with `num_frames="auto"` the frames end where the question needs no more.
        timestamps: "auto" (what the model needs), "metadata", "text", or "interleave" (one short video per frame).
        temporal_merge: for models that merge neighbouring frames: "auto" or "near" (chosen frames within a second of
            each other share a group, all others are given twice, or four times), "duplicate" (all are given twice, or
            four times), "pairs" (K frames as pairs of neighbours), "ignore" (distant frames are merged).
        query: what counts as the question: "last_user", "first_user", "all", or a function of the conversation (see
            `questions.questions_of`).
        words_in_prompt: "chosen" writes the lines that decided the choice into the prompt, "all" all lines that are
            said or written at the chosen moments, too: see `select_messages`.
        encoder: whose vectors the selector compares, for those that read vectors: see `refocus_select.encoders`.
        **select_kwargs: more arguments of `FrameSelector.select`: `start`, `end`, `fps`, `max_frames`, `exact`, ….

    Returns:
        The same processor.

    Raises:
        InputError: if the processor takes no video, or an argument is not usable.
    """
    check_query(query)
    number, budget = frames_or_budget(num_frames, token_budget)
    base = _base_of(processor)
    _check_processor(processor, base)
    input_format = InputFormat.of(processor, timestamps, temporal_merge, words_in_prompt)
    if isinstance(number, int):
        input_format.frames_to_choose(number)
    state = State(load(selector, encoder), number, input_format, query, dict(select_kwargs), budget)
    processor.__class__ = _selecting_class(base)
    processor.__dict__["_refocus"] = state
    return processor


def without_frame_selection(processor: P) -> P:
    """Take the selection off a processor again; it is changed in place and returned."""
    base = getattr(type(processor), "_refocus_base", None)
    if base is not None:
        processor.__class__ = base
        processor.__dict__.pop("_refocus", None)
    return processor


@contextmanager
def disable_selection(processor: Any) -> Iterator[Any]:
    """Within the block the processor does what it did before, for baselines.

    It holds for the current thread or task, and for data loader workers started within the block.
    """
    token = DISABLED.set(DISABLED.get() | {state_of(processor).key})
    try:
        yield processor
    finally:
        DISABLED.reset(token)


@contextmanager
def pinned_selection(processor: Any, *selections: Selection) -> Iterator[Any]:
    """Within the block every video keeps the frames it got first, so that a chat can continue with its cache.

    A later turn asks another question; frames chosen anew would change the beginning of the prompt, and the cached keys
    and values of it would no longer fit.

    Args:
        processor: a processor with frame selection.
        *selections: what to begin with; by default the first call in the block chooses.
    """
    pins: dict[Hashable, Selection] = {key: s for s in selections for key in keys_of(s)}
    token = PINNED.set({**PINNED.get(), state_of(processor).key: pins})
    try:
        yield processor
    finally:
        PINNED.reset(token)


def last_selections(processor: Any) -> list[Selection | None]:
    """What the last call chose, one entry per video in order; None for frames that the caller had chosen."""
    return list(state_of(processor).last)


def last_selection(processor: Any, video: int = 0) -> Selection:
    """What the last call chose for one video.

    Args:
        processor: a processor with frame selection.
        video: its place among the videos of the call.

    Raises:
        InputError: if nothing was chosen for that video.
    """
    last = state_of(processor).last
    chosen = last[video] if -len(last) <= video < len(last) else None
    if chosen is None:
        raise InputError(f"nothing was selected for video {video}: the last call had {len(last)} videos")
    return chosen


# -- the class that a processor becomes ---------------------------------------------------------------


@functools.cache
def _selecting_class(base: type) -> type:
    """A subclass under the name of its base: transformers writes class names into saved files."""

    @functools.wraps(base.__call__)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        return call_processor(self, base, args, kwargs)

    @functools.wraps(base.apply_chat_template)  # type: ignore[attr-defined]
    def apply_chat_template(self: Any, conversation: Any, *args: Any, **kwargs: Any) -> Any:
        return render_chat(self, base, conversation, args, kwargs)

    @functools.wraps(base.from_pretrained.__func__)  # type: ignore[attr-defined]
    def from_pretrained(cls: type, *args: Any, **kwargs: Any) -> Any:
        return base.from_pretrained(*args, **kwargs)  # type: ignore[attr-defined]

    def reduce_ex(self: Any, protocol: int) -> tuple[Any, ...]:
        return _rebuild, (base,), dict(self.__dict__)

    members = {
        "__call__": call,
        "apply_chat_template": apply_chat_template,
        "from_pretrained": classmethod(from_pretrained),
        "__reduce_ex__": reduce_ex,
        "__module__": base.__module__,
        "__qualname__": base.__qualname__,
        "__doc__": base.__doc__,
        "_refocus_base": base,
    }
    return type(base.__name__, (base,), members)


def _rebuild(base: type) -> Any:
    return object.__new__(_selecting_class(base))


def _base_of(processor: Any) -> Any:
    return getattr(type(processor), "_refocus_base", type(processor))


def _check_processor(processor: Any, base: type) -> None:
    name = base.__name__
    if callable(getattr(processor, "fetch_videos", None)) and not hasattr(processor, "apply_chat_template"):
        raise InputError(
            f"{name} is only the part of a processor that handles videos: it sees no question to choose frames for; "
            "pass the whole processor, AutoProcessor.from_pretrained(...)"
        )
    if name in _NOT_CHAT:
        raise InputError(
            f"{name} does not chat about videos: there is no question to choose frames for; use select_frames"
        )
    if getattr(processor, "video_processor", None) is None:
        raise InputError(
            f"{name} takes no video. For a model that reads several pictures, send the frames as pictures: "
            "refocus_select.adapters.openai.image_messages(...) or select_frames(...).images"
        )
    if not (callable(processor) and hasattr(processor, "apply_chat_template")):
        raise InputError(f"{name} is not a processor of transformers; pass what AutoProcessor.from_pretrained gave")
