"""Ask a selector about many (video, question) pairs: one reading per video, errors that name the place."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from refocus_select.errors import InputError, RefocusError
from refocus_select.locations import local_path
from refocus_select.selection import Selection

from .media import name_of
from .questions import Question


@dataclass(frozen=True)
class Request:
    """One video of a chat that frames are to be chosen from.

    Attributes:
        video: a path, URL, bytes, open `Video` or `VideoEncoding`.
        question: what is asked of it.
        num_frames: how many frames; under a token budget None if it decides, or "auto" if the question does.
        where: its place for errors, e.g. "conversation 2, video 1".
        arguments: more arguments of `FrameSelector.select`, e.g. `start`, `end`.
        conversation: which one it belongs to; videos of one share a token budget.
    """

    video: Any
    question: Question
    num_frames: Any
    where: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    conversation: int = 0


def load(selector: Any, encoder: Any = None) -> Any:
    """A selector from a selector or its name; the encoder is for names of those that read vectors.

    Raises:
        InputError: if the selector is none, or has an encoder already.
        SelectorLoadError, EncoderError: see `FrameSelector.from_pretrained`.
    """
    if isinstance(selector, str | os.PathLike):
        from refocus_select.selectors import FrameSelector

        return FrameSelector.from_pretrained(selector, **({} if encoder is None else {"encoder": encoder}))
    if encoder is not None:
        raise InputError("encoder: this selector is loaded already; give its name, or load it with that encoder")
    if not callable(getattr(selector, "select", None)):
        raise InputError(
            f"selector must be a FrameSelector or the name of one, not {type(selector).__name__}; "
            'try selector="mini-policy" or FrameSelector.from_pretrained(...)'
        )
    return selector


def video_key(video: Any) -> Hashable:
    """Identity of a video within a process: its absolute path, URL, content fingerprint, or the object itself."""
    if isinstance(video, str | os.PathLike):
        path = local_path(video)
        return os.fspath(video) if path is None else os.path.abspath(path)
    if isinstance(video, bytes):
        return video
    fingerprint = getattr(video, "video_fingerprint", None) or getattr(video, "fingerprint", None)
    return fingerprint if isinstance(fingerprint, str) else id(video)


def choose(selector: Any, requests: Sequence[Request]) -> list[Selection]:
    """The selection for each request. A video that is asked about several times is read once.

    Raises:
        RefocusError: of the kind that the selector raised; the message begins with the place and the video.
    """
    groups: dict[Hashable, list[int]] = {}
    for position, request in enumerate(requests):
        settings = tuple(sorted((name, _comparable(value)) for name, value in request.arguments.items()))
        key = (video_key(request.video), request.num_frames, settings)
        groups.setdefault(key, []).append(position)
    chosen: dict[int, Selection] = {}
    for positions in groups.values():
        chosen.update(zip(positions, _ask(selector, [requests[p] for p in positions]), strict=True))
    return [chosen[p] for p in range(len(requests))]


def _comparable(value: Any) -> Hashable:
    """The value, or what tells it from others: a list of lines has no hash."""
    return value if isinstance(value, Hashable) else f"{type(value).__name__} {id(value)}"


def _ask(selector: Any, requests: list[Request]) -> list[Selection]:
    first = requests[0]
    options = [None if r.question.options is None else list(r.question.options) for r in requests]
    kwargs: dict[str, Any] = {**first.arguments, "num_frames": first.num_frames}
    with located(first.where, first.video):
        if len(requests) == 1:
            if options[0] is not None:
                kwargs["options"] = options[0]
            return [selector.select(first.video, first.question.text, **kwargs)]
        if any(o is not None for o in options):
            kwargs["options"] = options
        return list(selector.select(first.video, [r.question.text for r in requests], **kwargs))


@contextmanager
def located(where: str, video: Any) -> Iterator[None]:
    """Errors of the block begin with the place and the name of the video."""
    try:
        yield
    except RefocusError as error:
        raise type(error)(f"{where} ({name_of(video)}): {error}") from error
