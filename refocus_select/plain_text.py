"""JSON, Markdown, times and text from anywhere, read and written so that nothing but a `ValueError` comes of it."""

from __future__ import annotations

import json
import math
import re
import reprlib
from typing import Any

from .errors import InputError

MAX_DEPTH = 100  # lists and objects inside each other; what nests deeper is not data of ours


def parse_json(text: str | bytes) -> Any:
    """What `json.loads` gives. Integers of more digits than Python converts are kept as text.

    Raises:
        ValueError: if it is not JSON, or nests deeper than `MAX_DEPTH`.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8")
        try:
            content = json.loads(text)
        except json.JSONDecodeError:
            raise
        except ValueError:  # Python's limit on the digits of an integer
            content = _LONG_NUMBERS.decode(text)
    except RecursionError:
        raise ValueError(f"lists or objects nest deeper than {MAX_DEPTH}") from None
    if text.count("[") + text.count("{") > MAX_DEPTH:
        check_depth(content)
    return content


def check_depth(content: Any) -> None:
    """Refuse what functions that call themselves could not walk through.

    Raises:
        ValueError: if lists and mappings nest deeper than `MAX_DEPTH`, or hold themselves.
    """
    level = [content]
    for _ in range(MAX_DEPTH):
        inside: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inside += [value for value in item.values() if isinstance(value, dict | list | tuple)]
            elif isinstance(item, list | tuple):
                inside += [value for value in item if isinstance(value, dict | list | tuple)]
        if not inside:
            return
        level = list({id(item): item for item in inside}.values())
    raise ValueError(f"lists or objects nest deeper than {MAX_DEPTH}")


def json_text(content: Any, *, indent: int | None = None, sort_keys: bool = False) -> str:
    """Content as JSON that can be written as UTF-8, file names that are not UTF-8 included: these are escaped.

    Raises:
        ValueError: for numbers that are not finite.
    """
    text = json.dumps(content, indent=indent, sort_keys=sort_keys, ensure_ascii=False, allow_nan=False)
    return printable(text)  # half a surrogate pair only occurs inside of strings, where JSON knows the same escape


def printable(text: str) -> str:
    r"""The text with lone surrogates, which UTF-8 cannot hold, written as escapes (`\udce9`)."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def is_utf8(text: str) -> bool:
    """Whether the text can be written as UTF-8: it holds no half of a surrogate pair."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def seconds_of(text: str) -> float:
    """Seconds from "90", "1:30", "1:30.5" or "0:01:30".

    Raises:
        InputError: if it is none of these.
    """
    try:
        parts = [float(part) for part in text.split(":")]
    except ValueError:
        parts = []
    if not 1 <= len(parts) <= 3 or not all(0 <= part < math.inf for part in parts):
        raise InputError(f"{shown(text)} is not a time; write seconds, m:ss or h:mm:ss")
    total = 0.0
    for part in parts:
        total = total * 60 + part
    return total


def shown(value: Any) -> str:
    """A short form of any value, for messages."""
    try:
        return printable(_SHORT.repr(value))
    except Exception:  # a `__repr__` of somebody else, or an integer of too many digits
        return f"a value of type {type(value).__name__}"


def markdown_text(text: str) -> str:
    """A text of one line in which Markdown finds nothing to mark up."""
    return _MARKUP.sub(r"\\\g<0>", " ".join(text.split()))


def markdown_paragraph(text: str) -> str:
    """The same as a paragraph of its own: no list, heading or quotation comes of it."""
    return _BEGIN.sub(r"\1\\\2", markdown_text(text))


def markdown_code(text: str) -> str:
    """A text of one line as code inside a sentence."""
    text = " ".join(text.split())
    ticks = _fence(text, 1)
    return f"{ticks} {text} {ticks}" if "`" in text else f"{ticks}{text}{ticks}"


def markdown_block(text: str, language: str = "") -> str:
    """A text of several lines as a block of code."""
    ticks = _fence(text, 3)
    return f"{ticks}{language}\n{text.rstrip()}\n{ticks}"


def _fence(text: str, least: int) -> str:
    """More backticks than stand together in the text."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    return "`" * max(least, longest + 1)


_MARKUP = re.compile(r"[\\`*|$~]|<(?=[A-Za-z/!?])|(?<![0-9A-Za-z])_|_(?![0-9A-Za-z])|(?<=\])[(\[]|&(?=[#0-9A-Za-z]+;)")
_BEGIN = re.compile(r"^(\d*)([-+#>=.):])")  # what makes a list, a heading or a quotation of a paragraph


def _integer(digits: str) -> int | str:
    return int(digits) if len(digits) < 1000 else digits


_LONG_NUMBERS = json.JSONDecoder(parse_int=_integer)
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80
