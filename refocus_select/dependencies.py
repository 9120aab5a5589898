"""Whether the installed packages are releases that this package works with, asked once at the first use."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, requires, version

from .errors import MissingDependencyError


@cache
def check_dependencies() -> None:
    """Compare what is installed with the ranges that this package was installed with.

    Only the metadata of the packages is read; none is imported. One that is not there is left to its own import,
    since another may stand in for it (opencv-python for opencv-python-headless).

    Raises:
        MissingDependencyError: if a release is older or newer than the range; the message holds the `pip install` line.
    """
    from packaging.requirements import Requirement

    try:
        ranges = [Requirement(line) for line in requires("refocus-select") or ()]
    except PackageNotFoundError:  # the folder of the sources, not installed
        return
    wrong = []
    for wanted in ranges:
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            found = version(wanted.name)
        except PackageNotFoundError:
            continue
        if not wanted.specifier.contains(found, prereleases=True):
            limits = ",".join(sorted(map(str, wanted.specifier), reverse=True))  # >=15.0,<20
            wrong.append((f"{wanted.name} {found}", f"{wanted.name}{limits}"))
    if wrong:
        installed, needed = zip(*wrong, strict=True)
        install = " ".join(f"'{line}'" for line in needed)
        raise MissingDependencyError(
            f"{', '.join(installed)}: not the release that refocus-select needs; run: pip install {install}"
        )
