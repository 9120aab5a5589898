"""From a name, a folder or a Hub id to an encoder."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors import SelectorLoadError
from ..registry import Registry, check_arguments, load_attribute
from .protocol import DualEncoder, check_encoder

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ..arguments import EncoderArguments

_ATTRIBUTE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
_ENCODERS = Registry("encoder", "refocus_select.encoders", {"mini": "refocus_select.models.mini:load_mini"})


def register_encoder(name: str, loader: Callable[..., DualEncoder], *, replace: bool = False) -> None:
    """Make an encoder of your own known by a name, in this process.

    A package announces its encoders as entry points of the group "refocus_select.encoders" instead.

    Args:
        name: a word without "/" and ":".
        loader: a class or a function, called with the keyword arguments of `load_encoder`.
        replace: whether a name that was registered before may be given away again.

    Raises:
        InputError: if the name cannot be used, or is taken.
    """
    _ENCODERS.register(name, loader, replace=replace)


def encoder_names() -> list[str]:
    """Names of all encoders that can be loaded by name, those of the package first."""
    return _ENCODERS.names()


def load_encoder(
    encoder: str | os.PathLike[str] | DualEncoder | None = None, **arguments: Unpack[EncoderArguments]
) -> DualEncoder:
    """Load an encoder.

    Args:
        encoder: None or "mini" for the one that the package ships; a registered name; a folder or Hub id of a dual
            encoder of transformers; "module:attribute" of an encoder, or of a class or function that gives one; or an
            object with the methods of `DualEncoder`.
        **arguments: `device`; for a folder or Hub id also `dtype`, `batch`, `revision`, `token`, `cache_dir`,
            `local_files_only`.

    Raises:
        SelectorLoadError: if it cannot be loaded, or has no such arguments.
        EncoderError: if it is not a dual encoder.
    """
    given: dict[str, Any] = dict(arguments)
    if encoder is None:
        encoder = "mini"
    if not isinstance(encoder, str | os.PathLike):
        if given:
            raise SelectorLoadError(f"{', '.join(sorted(given))}: this encoder is loaded already")
        return check_encoder(encoder)
    name = os.fspath(encoder)
    if "/" not in name and os.sep not in name and _ENCODERS.find(name) is not None:
        return check_encoder(_ENCODERS.load(name, given))
    if _ATTRIBUTE.fullmatch(name):
        found = load_attribute(name)
        if callable(getattr(found, "encode_frames", None)) and not isinstance(found, type):
            return load_encoder(found, **arguments)
        if not callable(found):
            raise SelectorLoadError(
                f"{name} is a {type(found).__name__}: give an encoder, or a class or function of one"
            )
        check_arguments(f"the encoder {name!r}", found, given)
        return check_encoder(found(**given))
    loader = load_attribute("refocus_select.encoders.hf:HFEncoder").from_pretrained
    check_arguments(f"the encoder {name!r}", loader, given)
    return check_encoder(loader(encoder, **given))
