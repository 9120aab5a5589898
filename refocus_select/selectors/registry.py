"""From a name, a folder or a Hub id to a selector."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import SelectorLoadError
from .algorithms import SCORED
from .base import FrameSelector


def load_selector(name_or_path: str | os.PathLike[str], **kwargs: Any) -> FrameSelector:
    """Load a selector; see `FrameSelector.from_pretrained`.

    Built-in names come first; write "./mini" for a folder of your own with such a name.

    Raises:
        SelectorLoadError: if nothing of that name can be loaded.
    """
    if not isinstance(name_or_path, str | os.PathLike):
        raise SelectorLoadError(f"a selector is named by a text or a path, not by {type(name_or_path).__name__}")
    name = os.fspath(name_or_path)
    if name in _BUILT_IN:
        return _BUILT_IN[name](**kwargs)
    if not os.path.exists(name) and "/" not in name:
        known = ", ".join(repr(n) for n in _BUILT_IN)
        raise SelectorLoadError(
            f"no selector {name!r}: built in are {known}; otherwise give a folder or a Hub id 'owner/name'"
        )
    return load_policy(name, **kwargs)


def load_policy(
    name_or_path: str | os.PathLike[str],
    *,
    revision: str | None = None,
    device: Any = None,
    dtype: Any = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> FrameSelector:
    """Load a trained policy; see `PolicySelector.from_pretrained` for the arguments.

    Raises:
        SelectorLoadError: naming what is missing, gated, damaged or not supported, and the remedy.
    """
    from ..hub import HubOptions, find_checkpoint
    from ..models.checkpoint import load_model
    from ..models.prompt import PromptTokenizer
    from .policy import PolicySelector, default_tokenizer
    from .training_free import load_encoder
    from .vector_policy import VectorPolicySelector

    options = HubOptions(revision, token, cache_dir, local_files_only)
    files = find_checkpoint(name_or_path, options)
    model = load_model(files, device=device, dtype=dtype)
    if not model.config.feature_encoder:
        tokenizer = PromptTokenizer.from_file(files.tokenizer or default_tokenizer(files.name, options))
        return PolicySelector(model, tokenizer, name=files.name)
    encoder = model.config.feature_encoder
    arguments: dict[str, Any] = {} if device is None else {"device": device}
    if encoder != "mini":
        arguments |= {"token": token, "cache_dir": cache_dir, "local_files_only": local_files_only}
    return VectorPolicySelector(model, load_encoder(encoder, arguments)[0], name=files.name)


def _mini(**kwargs: Any) -> FrameSelector:
    from .similarity import SimilaritySelector

    return SimilaritySelector.from_pretrained("mini", **kwargs)


def _mini_policy(**kwargs: Any) -> FrameSelector:
    from ..weights import resolve

    if unknown := kwargs.keys() - {"device", "dtype"}:
        raise SelectorLoadError(f"'mini-policy' takes no {', '.join(sorted(unknown))}; it takes device and dtype")
    selector = load_policy(resolve("mini-policy"), **kwargs)
    selector.name = "mini-policy"
    return selector


def _uniform(**kwargs: Any) -> FrameSelector:
    from .uniform import UniformSelector

    kwargs.pop("device", None)
    if kwargs:
        raise SelectorLoadError(f"'uniform' takes no {', '.join(sorted(kwargs))}")
    return UniformSelector()


def _random(**kwargs: Any) -> FrameSelector:
    from .training_free import RandomSelector

    kwargs.pop("device", None)
    if kwargs.keys() - {"seed"}:
        raise SelectorLoadError(f"'random' takes no {', '.join(sorted(kwargs.keys() - {'seed'}))}; it takes seed")
    return RandomSelector(**kwargs)


def _algorithm(name: str) -> Callable[..., FrameSelector]:
    def load(**kwargs: Any) -> FrameSelector:
        from .training_free import AlgorithmSelector

        return AlgorithmSelector.from_pretrained(name, **kwargs)

    return load


_BUILT_IN: dict[str, Callable[..., FrameSelector]] = {
    "mini": _mini,
    "mini-policy": _mini_policy,
    "uniform": _uniform,
    "random": _random,
    **{name: _algorithm(name) for name in SCORED},
}
