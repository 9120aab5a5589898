"""What the options of a question list, and the numbers among them."""

from __future__ import annotations

import re
from functools import lru_cache

from ..models.wording import MENTIONS, Wording, take_apart

__all__ = ["MENTIONS", "Wording", "number_in", "parts_of", "take_apart"]

_NUMBERS = {
    "zero": 0, "never": 0, "none": 0, "once": 1, "one": 1, "twice": 2, "two": 2, "thrice": 3, "three": 3, "four": 4,
    "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
}  # fmt: skip


@lru_cache(maxsize=65536)
def parts_of(option: str) -> tuple[str, ...]:
    """What an option lists: the parts between commas."""
    return tuple(part.strip() for part in option.split(",") if part.strip()) or (option,)


def number_in(option: str) -> int | None:
    """The number that an option says ("twice", "3", "four times"), or None."""
    words = re.sub(r"\b(times|scenes|time|scene)\b", " ", option.lower()).split()
    if len(words) != 1:
        return None
    word = words[0].strip(".")
    return int(word) if word.isascii() and word.isdecimal() and len(word) < 3 else _NUMBERS.get(word)
