"""Names of selectors and encoders: those of the package, of installed packages, and of the running program.

An outside package announces what it has as an entry point, and needs no import of ours for that:

    [project.entry-points."refocus_select.selectors"]
    middle = "their_package:MiddleSelector"

    [project.entry-points."refocus_select.encoders"]
    colours = "their_package:ColourEncoder"

Whatever the entry point names is called with the keyword arguments of `from_pretrained`, and gives the selector or the
encoder. A program registers its own by `register_selector` and `register_encoder`, without a package.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from .errors import InputError, SelectorLoadError

logger = logging.getLogger(__name__)

Loader = Callable[..., Any]


class Registry:
    """Names and who loads them. Those of the program come first, then ours, then those of installed packages."""

    def __init__(self, kind: str, group: str, built_in: Mapping[str, str]) -> None:
        """Describe one kind of thing.

        Args:
            kind: for messages, e.g. "selector".
            group: of entry points.
            built_in: from a name to "module:attribute"; the attribute is called with the name and the arguments.
        """
        self.kind = kind
        self.group = group
        self._built_in = dict(built_in)
        self._registered: dict[str, Loader] = {}

    def register(self, name: str, loader: Loader, *, replace: bool = False) -> None:
        """Give a name to whatever loads a selector or an encoder.

        Args:
            name: without "/" and ":", which are for Hub ids and `module:attribute`.
            loader: a class or function that is called with the keyword arguments of `from_pretrained`.
            replace: whether a name that was registered before may be given away again.

        Raises:
            InputError: if the name cannot be used, or is taken.
        """
        if not isinstance(name, str) or not name.strip() or set(name) & set("/:\\"):
            raise InputError(f"{name!r} cannot be the name of a {self.kind}: use a word without '/', '\\' and ':'")
        if not callable(loader):
            raise InputError(f"the loader of {name!r} must be a class or a function, not {type(loader).__name__}")
        if name in self._built_in:
            raise InputError(f"{name!r} is the name of a {self.kind} of refocus-select; choose another")
        if name in self._registered and not replace:
            raise InputError(f"a {self.kind} {name!r} is registered already; give replace=True to put another in place")
        self._registered[name] = loader

    def names(self) -> list[str]:
        """All names, those of the package first."""
        return list(dict.fromkeys([*self._built_in, *self._registered, *self._installed()]))

    def find(self, name: str) -> Loader | None:
        """Who loads this name, or None.

        Raises:
            SelectorLoadError: if an installed package announces the name but fails to be imported.
        """
        if name in self._registered:
            return self._registered[name]
        if name in self._built_in:
            module, attribute = self._built_in[name].split(":")
            return partial(_attribute(import_module(module), attribute), name)
        announced = self._installed().get(name)
        if announced is None:
            return None
        try:
            return announced.load()
        except Exception as error:  # whatever another package raises when it is imported
            raise SelectorLoadError(
                f"the {self.kind} {name!r} of the installed package {_package(announced)} cannot be imported "
                f"({type(error).__name__}: {error}); update or uninstall that package"
            ) from error

    def load(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """Load what has this name.

        Raises:
            SelectorLoadError: if nothing has the name, or an argument is not known to its loader.
        """
        loader = self.find(name)
        if loader is None:
            raise SelectorLoadError(f"no {self.kind} {name!r}; known are {', '.join(map(repr, self.names()))}")
        check_arguments(repr(name), loader, arguments)
        return loader(**arguments)

    def _installed(self) -> dict[str, EntryPoint]:
        found: dict[str, EntryPoint] = {}
        for announced in entry_points(group=self.group):
            if announced.name in self._built_in:
                logger.warning(
                    "%s announces a %s %r, but that is a name of refocus-select: it is not used",
                    _package(announced), self.kind, announced.name,
                )  # fmt: skip
                continue
            found.setdefault(announced.name, announced)
        return found


def accepts(loader: Loader, argument: str) -> bool:
    """Whether a loader has a keyword argument of this name."""
    known, anything = _keywords(loader)
    return anything or argument in known


def check_arguments(whose: str, loader: Loader, arguments: Mapping[str, Any]) -> None:
    """Refuse arguments that a loader does not have.

    Raises:
        SelectorLoadError: naming them, and those that there are.
    """
    known, anything = _keywords(loader)
    unknown = sorted(arguments.keys() - known)
    if unknown and not anything:
        there = f"it takes {', '.join(sorted(known))}" if known else "it takes no arguments"
        raise SelectorLoadError(f"{whose} takes no {', '.join(unknown)}; {there}")


def _keywords(loader: Loader) -> tuple[set[str], bool]:
    """Names of the keyword arguments, and whether any other is taken as well."""
    try:
        parameters = inspect.signature(loader).parameters.values()
    except (TypeError, ValueError):  # a class written in C has no signature
        return set(), True
    named = {p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}
    return named, any(p.kind is p.VAR_KEYWORD for p in parameters)


def _attribute(module: Any, path: str) -> Any:
    found = module
    for part in path.split("."):
        found = getattr(found, part)
    return found


def load_attribute(spec: str) -> Any:
    """The object that "module:attribute" names.

    Raises:
        SelectorLoadError: if the module cannot be imported, or has no such attribute.
    """
    module, _, attribute = spec.partition(":")
    try:
        return _attribute(import_module(module), attribute)
    except ImportError as error:
        raise SelectorLoadError(
            f"{spec}: the module {module!r} cannot be imported ({error}); install it, or put its folder on PYTHONPATH"
        ) from error
    except AttributeError as error:
        raise SelectorLoadError(f"{spec}: the module {module!r} has no {attribute!r}") from error


def _package(announced: EntryPoint) -> str:
    return announced.dist.name if announced.dist is not None else announced.value
