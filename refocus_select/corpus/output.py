"""Writing the results of a batch: an error that says how to continue, whatever cannot be written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from ..errors import InputError
from ..files import write_file


class OutputError(InputError):
    """Results cannot be written: the run stops, what is finished stays."""


def cannot_write(path: Path, error: OSError) -> OutputError:
    """The error that stops a run."""
    return OutputError(
        f"cannot write {path}: {error.strerror or error}; what is finished is kept: make room or change the folder's "
        "permissions, and continue with --resume"
    )


def write_output(path: Path, write: Callable[[BinaryIO], object], *, sync: bool = True) -> None:
    """`write_file`, on the disk when it returns.

    Raises:
        OutputError: if it cannot be written.
    """
    try:
        write_file(path, write, sync=sync)
    except OSError as error:
        raise cannot_write(path, error) from error
