"""JSON and text from anywhere, read and written so that nothing but a `ValueError` comes of it."""

from __future__ import annotations

import json
import reprlib
from typing import Any

MAX_DEPTH = 100  # lists and objects inside each other; what nests deeper is no data of ours


def parse_json(text: str | bytes) -> Any:
    """What `json.loads` gives. Integers of more digits than Python converts are kept as text.

    Raises:
        ValueError: if it is no JSON, or nests deeper than `MAX_DEPTH`.
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
    """Content as JSON that can be written as UTF-8, file names that are no UTF-8 included: these are escaped.

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


def shown(value: Any) -> str:
    """A short form of any value, for messages."""
    try:
        return printable(_SHORT.repr(value))
    except Exception:  # a `__repr__` of somebody else, or an integer of too many digits
        return f"a value of type {type(value).__name__}"


def _integer(digits: str) -> int | str:
    return int(digits) if len(digits) < 1000 else digits


_LONG_NUMBERS = json.JSONDecoder(parse_int=_integer)
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80
