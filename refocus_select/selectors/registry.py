"""From a name, a folder or a Hub id to a selector. Nothing of a selector is imported before it is asked for."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors import SelectorLoadError
from ..registry import Registry, accepts, check_arguments, load_attribute
from .algorithms import SCORED

if TYPE_CHECKING:
    from .base import FrameSelector

_HERE = "refocus_select.selectors"

_SELECTORS = Registry(
    "selector",
    "refocus_select.selectors",
    {
        "mini": f"{_HERE}.similarity:SimilaritySelector.from_pretrained",
        "mini-policy": f"{_HERE}.checkpoints:load_embedded_policy",
        "uniform": f"{_HERE}.baselines:load_uniform",
        "random": f"{_HERE}.baselines:load_random",
        **dict.fromkeys(SCORED, f"{_HERE}.training_free:AlgorithmSelector.from_pretrained"),
    },
)


def register_selector(name: str, loader: Callable[..., FrameSelector], *, replace: bool = False) -> None:
    """Make a selector of your own known by a name, in this process: to `select_frames`, batches and the command line.

        register_selector("middle", MiddleSelector)
        select_frames("match.mp4", "Who scores first?", selector="middle")

    A package announces its selectors as entry points of the group "refocus_select.selectors" instead.

    Args:
        name: a word without "/" and ":".
        loader: a class or a function, called with the keyword arguments of `FrameSelector.from_pretrained`.
        replace: whether a name that was registered before may be given away again.

    Raises:
        InputError: if the name cannot be used, or is taken.
    """
    _SELECTORS.register(name, loader, replace=replace)


def selector_names() -> list[str]:
    """Names of all selectors that can be loaded by name, those of the package first."""
    return _SELECTORS.names()


def load_selector(name_or_path: str | os.PathLike[str], **kwargs: Any) -> FrameSelector:
    """Load a selector; see `FrameSelector.from_pretrained`.

    Names come first; write "./mini" for a folder of your own with such a name.

    Raises:
        SelectorLoadError: if nothing of that name can be loaded.
    """
    if not isinstance(name_or_path, str | os.PathLike):
        raise SelectorLoadError(f"a selector is named by a text or a path, not by {type(name_or_path).__name__}")
    name = os.fspath(name_or_path)
    if _is_checkpoint(name):
        load_policy = load_attribute(f"{_HERE}.checkpoints:load_policy")
        check_arguments(name, load_policy, kwargs)
        return load_policy(name, **kwargs)
    return _SELECTORS.load(name, kwargs)


def offline_arguments(selector: Any, encoder: Any = None) -> dict[str, Any]:
    """Arguments for `load_selector` that keep it away from the network: the local cache of the Hub may be used.

    Args:
        selector: its name; one that is loaded already needs none.
        encoder: the argument of that name, if there is one.
    """
    named = [os.fspath(given) for given in (selector, encoder) if isinstance(given, str | os.PathLike)]
    files = [name for name in named if "/" in name or os.sep in name]  # folders and Hub ids; the rest is installed
    return {"local_files_only": True} if files and isinstance(selector, str | os.PathLike) else {}


def takes_encoder(name_or_path: str | os.PathLike[str]) -> bool:
    """Whether a selector can be loaded with an `encoder` of your choice; a folder or Hub id is looked at.

    Raises:
        SelectorLoadError: if nothing of that name can be loaded.
    """
    name = os.fspath(name_or_path)
    if _is_checkpoint(name):
        return bool(load_attribute(f"{_HERE}.checkpoints:reads_vectors")(name))
    loader = _SELECTORS.find(name)
    return loader is not None and accepts(loader, "encoder")


def _is_checkpoint(name: str) -> bool:
    """Whether a name means a folder or a Hub id."""
    if "/" in name or os.sep in name:
        return True
    if _SELECTORS.find(name) is not None:
        return False
    if os.path.exists(name):
        return True
    known = ", ".join(map(repr, selector_names()))
    raise SelectorLoadError(
        f"no selector {name!r}: known are {known}; otherwise give a folder or a Hub id 'owner/name'"
    )
