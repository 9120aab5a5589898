"""From a name, a folder or a Hub id to an encoder."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import SelectorLoadError
from ..hub import HubOptions, has_modules
from ..registry import Registry, accepts, check_arguments, load_attribute
from .protocol import DualEncoder, check_encoder

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ..arguments import EncoderArguments

_OPEN_CLIP, _SENTENCE_TRANSFORMERS = "open_clip:", "st:"  # what a name may begin with
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
        encoder: one of
            - None or "mini": the one that the package ships;
            - a registered name;
            - a folder or Hub id of a dual encoder of transformers (CLIP, SigLIP, …), or of a multimodal model of
              sentence-transformers, which has a `modules.json` (extra `st`; "st:" in front insists on it);
            - "open_clip:NAME/TAG" (extra `open_clip`), e.g. "open_clip:ViT-B-32/laion2b_s34b_b79k";
            - "module:attribute" of an encoder, or of a class or function that gives one;
            - an object with the methods of `DualEncoder`.
        **arguments: `device`; for models also `dtype`, `batch`, `revision`, `token`, `cache_dir`, `local_files_only`.

    Raises:
        SelectorLoadError: if it cannot be loaded, or has no such arguments.
        EncoderError: if it is not a dual encoder.
        MissingDependencyError: without the package that it needs.
    """
    given: dict[str, Any] = dict(arguments)
    if not isinstance(encoder, str | os.PathLike | None):
        if given:
            raise SelectorLoadError(f"{', '.join(sorted(given))}: this encoder is loaded already")
        return check_encoder(encoder)
    name = "mini" if encoder is None else os.fspath(encoder)
    loader = _loader(encoder, given)
    check_arguments(repr(name), loader, given)
    return check_encoder(loader(**given))


def load_encoder_for(encoder: str | os.PathLike[str] | DualEncoder | None, **arguments: Any) -> DualEncoder:
    """Load an encoder with those of the arguments that it takes: for callers whose arguments are not all meant for it.

    Raises:
        As `load_encoder`.
    """
    if not isinstance(encoder, str | os.PathLike | None):
        return check_encoder(encoder)
    loader = _loader(encoder, arguments)
    return check_encoder(
        loader(**{name: value for name, value in arguments.items() if value is not None and accepts(loader, name)})
    )


def _loader(encoder: str | os.PathLike[str] | None, given: Mapping[str, Any]) -> Callable[..., Any]:
    """Who loads an encoder of this name."""
    name = "mini" if encoder is None else os.fspath(encoder)
    if "/" not in name and os.sep not in name and (known := _ENCODERS.find(name)) is not None:
        return known
    if name.startswith(_OPEN_CLIP):
        return partial(load_attribute("refocus_select.encoders.open_clip:OpenCLIPEncoder").from_pretrained, name)
    if not name.startswith(_SENTENCE_TRANSFORMERS) and _ATTRIBUTE.fullmatch(name):
        return _attribute(name)
    cache = given.get("cache_dir")
    options = HubOptions(
        given.get("revision"),
        given.get("token"),
        None if cache is None else Path(cache),
        bool(given.get("local_files_only")),
    )
    if name.startswith(_SENTENCE_TRANSFORMERS) or has_modules(encoder or name, options):
        kind = "refocus_select.encoders.sentence_transformers:SentenceTransformersEncoder"
    else:
        kind = "refocus_select.encoders.hf:HFEncoder"
    return partial(load_attribute(kind).from_pretrained, encoder)


def _attribute(name: str) -> Callable[..., Any]:
    """Who loads the encoder that "module:attribute" names.

    Raises:
        SelectorLoadError: if there is nothing of that name, or nothing that gives an encoder.
    """
    found = load_attribute(name)
    if callable(getattr(found, "encode_text", None)) and not isinstance(found, type):
        return lambda: found
    if not callable(found):
        raise SelectorLoadError(f"{name} is a {type(found).__name__}: give an encoder, or a class or function of one")
    return found
