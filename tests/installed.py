"""What the installed transformers is and has: tests of what an older one lacks are skipped through `needs`."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest
import transformers
from packaging.version import Version

TRANSFORMERS = Version(transformers.__version__)
VERSION_5 = Version("5") <= TRANSFORMERS


def needs(present: bool, lack: str) -> None:
    """Skip a test of something that the installed transformers lacks.

    Args:
        present: whether it is there.
        lack: what is skipped and why, behind the version: "has no Gemma 4".
    """
    if not present:
        pytest.skip(f"transformers {TRANSFORMERS} {lack}")


def has_type(model_type: str) -> bool:
    """Whether there is a model of this type."""
    return find_spec(f"transformers.models.{model_type}") is not None


def nested(**kwargs: Any) -> dict[str, Any]:
    """Arguments of the processor as a stock `apply_chat_template` takes them."""
    return {"processor_kwargs": kwargs} if VERSION_5 else kwargs
