"""Typed settings from YAML, mappings and `key=value`: strict about names and types, every default with its source."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, Union

import yaml

from ..errors import InputError
from ..plain_text import check_depth

T = TypeVar("T")

_RENAMED = {
    "watch": "validation",
    "policy.wording_noise": "policy.sentence_noise",
    "policy.question_mentions": "policy.entities",
}
"""Settings of release 0.1 that have another name now."""


def setting(default: Any, help: str, source: str = "ours") -> Any:
    """A dataclass field that knows what it means and where its default comes from.

    Args:
        default: the value, or a type whose call gives it.
        help: one line for people.
        source: "ours", or where the value is published.
    """
    metadata = {"help": help, "source": source}
    if isinstance(default, type):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def read_settings(
    kind: type[T], path: str | Path | None, overrides: Sequence[str] = (), *, base: Mapping[str, Any] | None = None
) -> T:
    """Settings from a YAML file and `key=value` words; "optimiser.lr=1e-4" reaches into sections.

    `base` holds what the file need not say again; sections are merged, lists replaced.

    Raises:
        InputError: for a missing or broken file, an unknown key, or a value of the wrong type.
    """
    content = merged(base or {}, {} if path is None else read_mapping(path))
    for word in overrides:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise InputError(f"{word!r} is no setting; write name=value, e.g. seed=1 or optimiser.lr=1e-4")
        try:
            _put(content, key.split("."), _scientific(parse_yaml(value)), word)
        except ValueError as error:
            raise InputError(f"{word!r}: the value is no YAML") from error
    return from_mapping(kind, content)


def read_mapping(path: str | Path) -> dict[str, Any]:
    """The 'name: value' pairs of a YAML file.

    Raises:
        InputError: if it is missing, broken or something else.
    """
    try:
        content = parse_yaml(Path(path).read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    except ValueError as error:
        raise InputError(f"{path} is no YAML: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} must hold settings as 'name: value'")
    return content


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Both mappings in one; where both have a section it is merged, elsewhere `above` counts."""
    both = dict(below)
    for name, value in above.items():
        old = both.get(name)
        both[name] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return both


def parse_yaml(text: str) -> Any:
    """Plain values from YAML.

    Raises:
        ValueError: if it is no YAML, holds what is no date though it looks so, or nests too deeply.
    """
    try:
        content = yaml.safe_load(text)
        check_depth(content)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
    except RecursionError:
        raise ValueError("lists or mappings nest too deeply") from None
    return content


def from_mapping(kind: type[T], content: Mapping[str, Any], where: str = "") -> T:
    """Build settings from plain values.

    Raises:
        InputError: for an unknown key or a value of the wrong type.
    """
    if not isinstance(content, Mapping):
        raise InputError(f"{where or 'the settings'} must be 'name: value' pairs, not {content!r}")
    hints = typing.get_type_hints(kind)
    known = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    values = {}
    for key, value in content.items():
        name = f"{where}.{key}" if where else str(key)
        if key not in known:
            if name in _RENAMED:
                raise InputError(f"the setting {name!r} is called {_RENAMED[name]!r} now")
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(sorted(known))}"
            raise InputError(f"there is no setting {name!r}{hint}")
        values[key] = _convert(hints[key], value, name)
    return kind(**values)


def to_mapping(settings: Any) -> dict[str, Any]:
    """Plain values that `from_mapping` turns back into equal settings, and YAML and JSON can hold."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        if isinstance(value, tuple | list):
            return [plain(item) for item in value]
        if isinstance(value, Mapping):
            return {key: plain(item) for key, item in value.items()}
        return value

    result: dict[str, Any] = plain(settings)
    return result


def describe(kind: type, prefix: str = "") -> Iterator[tuple[str, str, str, str]]:
    """(name, default, meaning, source) of every setting, sections unfolded."""
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            yield from describe(typing.cast(type, hint), f"{prefix}{field.name}.")
            continue
        factory = field.default_factory
        default = field.default if factory is dataclasses.MISSING else factory()
        shown = "" if default is dataclasses.MISSING or default is None else str(default)
        yield f"{prefix}{field.name}", shown, field.metadata.get("help", ""), field.metadata.get("source", "")
        arguments = typing.get_args(hint)
        if arguments and dataclasses.is_dataclass(arguments[0]):
            yield from describe(typing.cast(type, arguments[0]), f"{prefix}{field.name}[].")


def _put(content: dict[str, Any], keys: list[str], value: Any, word: str) -> None:
    for key in keys[:-1]:
        content = content.setdefault(key, {})
        if not isinstance(content, dict):
            raise InputError(f"{word!r}: {key!r} is no section")
    content[keys[-1]] = value


def _scientific(value: Any) -> Any:
    """YAML takes 1e-4 for text (it wants 1.0e-4); people mean the number."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _convert(hint: Any, value: Any, name: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return _convert_union(arguments, value, name)
    if origin is typing.Literal:
        if value is False and "no" in arguments:  # YAML takes a plain no for false
            return "no"
        if value not in arguments or isinstance(value, bool):
            raise InputError(f"{name} must be one of {', '.join(map(str, arguments))}, not {value!r}")
        return value
    if origin is tuple:
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise InputError(f"{name} must be a list, not {value!r}")
        item = arguments[0]
        return tuple(_convert(item, entry, f"{name}[{i}]") for i, entry in enumerate(value))
    if origin is dict:
        if not isinstance(value, Mapping):
            raise InputError(f"{name} must be 'name: value' pairs, not {value!r}")
        return dict(value)
    if dataclasses.is_dataclass(hint):
        if isinstance(value, typing.cast(type, hint)):
            return value
        return from_mapping(typing.cast(type, hint), value, name)
    return _convert_plain(hint, value, name)


def _convert_union(choices: tuple[Any, ...], value: Any, name: str) -> Any:
    if value is None:
        if types.NoneType in choices:
            return None
        raise InputError(f"{name} must have a value")
    errors = []
    for choice in choices:
        if choice is types.NoneType:
            continue
        try:
            return _convert(choice, value, name)
        except InputError as error:
            errors.append(error)
    raise errors[0]


def _convert_plain(hint: Any, value: Any, name: str) -> Any:
    value = _scientific(value) if hint in (float, int) else value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        words = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
        raise InputError(f"{name} must be {words.get(hint, hint)}, not {value!r}")
    return value
