"""What a text that stands for a video means: a path, a file: address, a data: URL, or an address on the web."""

from __future__ import annotations

import base64
import binascii
import os
import re
from typing import Any

from refocus_select.errors import InputError, VideoOpenError

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_FILE = re.compile(r"file:/", re.IGNORECASE)
_LONGEST_NAME = 300  # characters: what is longer is not a name, but content in the wrong place


def is_web(text: str) -> bool:
    """Whether a text is an http or https address."""
    return text[:8].lower().startswith(("http://", "https://"))


def is_data(text: str) -> bool:
    """Whether a text is a `data:` URL (RFC 2397), which holds the content itself."""
    return text[:5].lower() == "data:"


def split_data_url(text: str) -> tuple[str, str]:
    """What stands before the content of a `data:` URL, and the content; browsers write commas among the parameters.

    The content is empty if there is none.
    """
    end = text[:_LONGEST_NAME].lower().find(";base64,")
    if end >= 0:
        return text[: end + 7], text[end + 8 :]
    head, _, body = text.partition(",")
    return head, body


def is_address(text: str) -> bool:
    """Whether a text is not a path: with a scheme in front, as in `https://`, `file:/` or `data:`."""
    return bool(is_data(text) or _FILE.match(text) or _SCHEME.match(text))


def local_path(source: Any) -> str | None:
    """The path that a path or a `file:` address means; None for anything else.

    Raises:
        VideoOpenError: an address of a file on another host.
    """
    if not isinstance(source, str | os.PathLike):
        return None
    text = os.fsdecode(os.fspath(source))
    if is_web(text) or is_data(text):
        return None
    if not _FILE.match(text):
        return None if _SCHEME.match(text) and not os.path.exists(text) else text
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    parts = urlsplit(text)
    path = url2pathname(parts.path)
    plain = text[7:] if text[5:7] == "//" else text[5:]  # as many programs write it: "file://" and the path as it is
    if not _exists(path) and _exists(plain):
        return plain
    if parts.netloc.lower() not in ("", "localhost"):
        raise VideoOpenError(f"{short_name(text)}: a file on another host ({parts.netloc}); copy it here, or use http")
    return path


def is_here(source: Any) -> bool:
    """Whether a local file or folder is there to be opened (again)."""
    try:
        path = local_path(source)
    except VideoOpenError:
        return False
    return bool(path) and _exists(str(path))


def check_offline(source: Any) -> None:
    """Refuse an address on the web, where the network may not be used.

    Raises:
        InputError: naming the address.
    """
    if isinstance(source, str) and is_address(source) and not is_data(source) and not _FILE.match(source):
        if _exists(source):
            return
        raise InputError(
            f"{short_name(source)} is a URL, and the network may not be used; download it, and give the path"
        )


def short_name(text: str) -> str:
    """How messages name a text: never by content that it may hold."""
    if is_data(text):
        head, body = split_data_url(text)
        return head if body and len(head) <= 80 else "data: URL"
    return text if len(text) <= _LONGEST_NAME else f"{text[:40]}… ({len(text)} characters)"


def read_data_url(text: str) -> list[bytes]:
    """The content of a `data:` URL; several, separated by commas, where it is a sequence of pictures as vLLM takes it.

    Raises:
        VideoOpenError: it has no content, or it is damaged; the message does not quote it.
    """
    head, body = split_data_url(text)
    if not body.strip():
        raise VideoOpenError(f"{short_name(text)}: holds no content; it is written data:video/mp4;base64,CONTENT")
    if "base64" not in head.lower().split(";")[1:]:
        from urllib.parse import unquote_to_bytes

        return [unquote_to_bytes(body)]
    return [_decoded(part, short_name(text)) for part in body.split(",")]


def _decoded(text: str, name: str) -> bytes:
    if "%" in text:
        from urllib.parse import unquote

        text = unquote(text)
    text = "".join(text.split()).replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise VideoOpenError(f"{name}: the base64 text is damaged; encode the file again") from None


def _exists(path: str) -> bool:
    try:
        return os.path.exists(path)
    except ValueError:  # a NUL in the name
        return False
