"""`load_reference`: a reference model from one line of a configuration."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any

from ..errors import InputError, SelectorLoadError
from ..hub import CONFIG_FILE, HubOptions, hub_file, read_json
from .base import ReferenceModel

READER_TYPE = "refocus-select-reader"
_ATTRIBUTE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def load_reference(spec: str, **kwargs: Any) -> ReferenceModel:
    """Load a reference model.

    Args:
        spec: a folder or Hub id of a video chat model of transformers ("OpenGVLab/InternVL3-2B-hf") or of a small
            reader, or "module:attribute", which names a `ReferenceModel`, a class of them, or a function that returns
            one.
        **kwargs: what `TransformersReference.from_pretrained`, `ReaderReference.from_pretrained`, or your own class
            takes, such as `device` and `dtype`.

    Raises:
        InputError: if there is no such module or attribute, it is not a reference model, or an argument is unknown.
        SelectorLoadError: if the model is missing, gated, damaged, or has no safetensors weights.
    """
    if _ATTRIBUTE.fullmatch(spec) and not Path(spec).exists():
        return _own(spec, kwargs)
    if _model_type(spec, kwargs) == READER_TYPE:
        from .reader import ReaderReference

        reader: ReferenceModel = ReaderReference.from_pretrained(spec, **kwargs)
        return reader
    from .transformers_model import TransformersReference

    return TransformersReference.from_pretrained(spec, **kwargs)


def _own(spec: str, kwargs: dict[str, Any]) -> ReferenceModel:
    module, _, path = spec.partition(":")
    try:
        found: Any = import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except ModuleNotFoundError as error:
        raise InputError(f"reference {spec!r}: there is no module {error.name!r}; is it on the Python path?") from error
    except AttributeError as error:
        raise InputError(f"reference {spec!r}: {error}") from error
    if isinstance(found, ReferenceModel):
        if kwargs:
            raise InputError(f"reference {spec!r} is made already; it takes no {', '.join(sorted(kwargs))}")
        return found
    if not callable(found):
        raise InputError(f"reference {spec!r} is a {type(found).__name__}, neither a ReferenceModel nor a function")
    made = found(**kwargs)
    if not isinstance(made, ReferenceModel):
        raise InputError(
            f"reference {spec!r} gives an object of type {type(made).__name__}, which is not a ReferenceModel"
        )
    return made


def _model_type(spec: str, kwargs: dict[str, Any]) -> str:
    """`model_type` of the configuration, "" if that is for the loader to report."""
    folder = Path(spec)
    if folder.is_dir():
        config = folder / CONFIG_FILE
        if not config.is_file():
            raise SelectorLoadError(f"{spec} has no {CONFIG_FILE}, so it is not a model; check the path")
        return str(read_json(config).get("model_type", ""))
    if spec.count("/") != 1 or spec.startswith((".", "/", "~")):
        raise SelectorLoadError(
            f"there is no folder {spec}; check the path, or give a Hub id 'owner/name' or 'module:attribute'"
        )
    names = ("revision", "token", "cache_dir", "local_files_only")
    found = hub_file(spec, CONFIG_FILE, options=HubOptions(**{k: kwargs[k] for k in names if k in kwargs}))
    return "" if found is None else str(read_json(found).get("model_type", ""))
