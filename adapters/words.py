"""What is said and written at the chosen moments, as text for the model beside the frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from refocus_select.encoding import VideoEncoding
from refocus_select.errors import InputError
from refocus_select.selection import Quote, Selection

WORDS_IN_PROMPT = ("chosen", "all", False)


def check_words(words_in_prompt: Any) -> Any:
    """Refuse what is none of `WORDS_IN_PROMPT`.

    Raises:
        InputError: naming what there is.
    """
    if words_in_prompt is None:
        return False
    if isinstance(words_in_prompt, str | bool) and words_in_prompt in WORDS_IN_PROMPT:
        return words_in_prompt
    raise InputError(f"words_in_prompt must be 'chosen', 'all' or False, not {words_in_prompt!r}")


def asking_for_words(arguments: Mapping[str, Any], video: Any, words_in_prompt: str | bool) -> dict[str, Any]:
    """Arguments of `FrameSelector.select`: words are looked for where they are to stand in the prompt.

    What an encoding holds was decided when it was made.
    """
    if not words_in_prompt or isinstance(video, VideoEncoding):
        return dict(arguments)
    return {"words": "auto", **arguments}


def prompt_lines(selection: Selection, words_in_prompt: str | bool) -> tuple[Quote, ...]:
    """The lines for a prompt, in the order of time.

    Args:
        selection: what was chosen.
        words_in_prompt: "chosen" for the lines that decided the choice, "all" for all lines of the chosen moments, too.
    """
    if not words_in_prompt:
        return ()
    further = selection.lines if words_in_prompt == "all" else ()
    distinct = {(line.start, line.end, line.text): line for line in (*further, *selection.quotes)}
    return tuple(distinct[key] for key in sorted(distinct))


def line_text(line: Quote) -> str:
    """A line with its time, written as the time of a frame is."""
    return f"<{line.start:.1f} seconds> {'text on the screen' if line.source == 'written' else 'said'}: {line.text}"


def words_text(lines: Sequence[Quote]) -> str:
    """Lines as text that stands behind the frames; "" for none."""
    return "\n".join(["What is said and written at these moments:", *map(line_text, lines)]) if lines else ""


def between_frames(seconds: Sequence[float], lines: Sequence[Quote]) -> tuple[list[str], str]:
    """Lines in the order of time among frames.

    Args:
        seconds: when the frames are shown, rising.
        lines: in the order of time.

    Returns:
        What stands in front of each frame, and what stands behind the last; texts end with a line break, or are "".
    """
    rest = list(lines)
    front = []
    for shown in seconds:
        count = sum(line.start < shown for line in rest)
        front.append("".join(f"{line_text(line)}\n" for line in rest[:count]))
        rest = rest[count:]
    return front, "".join(f"{line_text(line)}\n" for line in rest)
