"""What a call of `FrameSelector.select` asks for: a question that is one, and how many frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from ..errors import InputError
from .algorithms.contract import check_num_frames

if TYPE_CHECKING:
    from .base import FrameSelector

AUTO_MOST = 16  # frames at most where the selector decides how many


def frames_asked_for(
    selector: FrameSelector, num_frames: int | Literal["auto"], given: dict[str, Any]
) -> tuple[int | None, int]:
    """Fewest frames (None: exactly as many as asked for) and most frames; takes them out of the arguments.

    Raises:
        InputError: for an impossible number, or "auto" where the selector cannot tell.
    """
    if num_frames != "auto":
        check_num_frames(num_frames)
        unused = sorted({"at_least", "at_most"} & given.keys())
        if unused:
            raise InputError(f'{", ".join(unused)}: only with num_frames="auto"')
        return None, int(num_frames)
    if not selector.decides_number:
        raise InputError(
            f"{selector.name!r} cannot tell how many frames a question needs; give num_frames as a number, or use "
            "'mini-policy'"
        )
    least, most = given.pop("at_least", 1), given.pop("at_most", AUTO_MOST)
    check_num_frames(least)
    check_num_frames(most)
    if least > most:
        raise InputError(f"at_least={least} is above at_most={most}")
    return least, most


def least_candidates(num_frames: int, choice: Mapping[str, Any]) -> int:
    """How many candidates a video must give for K frames; `choice` holds the arguments of the selector's choice."""
    return 1 if choice.get("protocol") == "paper" else num_frames  # the released evaluation has candidates of its own


def checked_question(question: Any) -> str:
    """The question without blanks around it.

    Raises:
        InputError: if it is no text, or empty.
    """
    if not isinstance(question, str):
        raise InputError(f"a question must be text, not {type(question).__name__}")
    if not question.strip():
        raise InputError("the question is empty; ask something, or use selector 'uniform' to sample without a question")
    return question.strip()
