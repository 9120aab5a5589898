"""What the selection adds to a processor: settings, what happened last, and what is switched for a block of code."""

from __future__ import annotations

import logging
import threading
import uuid
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from refocus_select.budget import TokenBudget
from refocus_select.errors import InputError
from refocus_select.selection import Selection

from .input_format import InputFormat
from .questions import Query, Question

logger = logging.getLogger(__name__)

_REMEMBERED = 256  # prompts

DISABLED: ContextVar[frozenset[str]] = ContextVar("refocus_disabled", default=frozenset())
PINNED: ContextVar[Mapping[str, dict[Hashable, Selection]]] = ContextVar("refocus_pinned", default={})  # noqa: B039
CHAT: ContextVar[Chat | None] = ContextVar("refocus_chat", default=None)


@dataclass
class Notes:
    """What a conversation says about its videos."""

    questions: list[Question] | InputError
    beside: list[dict[str, Any]]  # what the block of each video says of it


@dataclass
class Chat:
    """The call of `apply_chat_template` in progress."""

    key: str
    notes: list[Notes]
    num_frames: Any


class State:
    """Everything that the selection adds to a processor: its settings, and what happened last."""

    def __init__(
        self,
        selector: Any,
        num_frames: Any,
        input_format: InputFormat,
        query: Query,
        select_kwargs: dict[str, Any],
        budget: TokenBudget | None = None,
        off: bool = False,
    ) -> None:
        self.selector = selector
        self.num_frames = num_frames
        self.input_format = input_format
        self.query = query
        self.select_kwargs = select_kwargs
        self.budget = budget  # then `num_frames` is None where it decides
        self.off = off
        self.key = uuid.uuid4().hex
        self.last: list[Selection | None] = []
        self._lock = threading.Lock()
        self._said = False
        self.rendered: OrderedDict[str, Notes] = OrderedDict()  # prompts that this processor rendered lately

    @property
    def disabled(self) -> bool:
        return self.off or self.key in DISABLED.get()

    def __deepcopy__(self, memo: dict[int, Any]) -> State:
        # Processors are deep-copied on every repr and save; the selector's weights are not.
        copied = State(*self._settings)
        copied.off = self.off
        return copied

    def __reduce__(self) -> tuple[Any, ...]:
        return State, (*self._settings, self.disabled)

    @property
    def _settings(self) -> tuple[Any, ...]:
        return self.selector, self.num_frames, self.input_format, self.query, self.select_kwargs, self.budget

    def say_once(self, message: str) -> None:
        """Warn of frames that pass through, once per processor."""
        if not self._said:
            self._said = True
            logger.warning(message)

    def remember(self, prompt: str, notes: Notes) -> None:
        """Keep what a rendered prompt was made from, for the call that processes it."""
        with self._lock:
            self.rendered[prompt] = notes
            self.rendered.move_to_end(prompt)
            while len(self.rendered) > _REMEMBERED:
                self.rendered.popitem(last=False)


def state_of(processor: Any) -> State:
    state = getattr(processor, "__dict__", {}).get("_refocus")
    if not isinstance(state, State):
        raise InputError(
            f"{type(processor).__name__} has no frame selection; call with_frame_selection(processor) first"
        )
    return state
