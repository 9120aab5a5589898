"""What every engine is asked about: a film at irregular times, tiny checkpoints, and a file for what was told."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.adapters.film import write_film

from .checkpoints import write_checkpoint

TOLD = "REFOCUS_ENGINES_TOLD"  # a file that gets one line of JSON per proved case, for the report


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_film(tmp_path_factory.mktemp("film") / "film.mp4"))


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """The folder of a tiny checkpoint of a type, written at its first use."""
    folder, written = tmp_path_factory.mktemp("checkpoints"), dict[str, str]()

    def get(model_type: str) -> str:
        if model_type not in written:
            written[model_type] = write_checkpoint(model_type, folder)
        return written[model_type]

    return get


@pytest.fixture(scope="session")
def tell() -> Callable[..., None]:
    """Note what a model was told, for the report; without a file to write it to, nothing is noted."""

    def note(**entry: Any) -> None:
        path = os.environ.get(TOLD)
        if path:
            with Path(path).open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry, ensure_ascii=False) + "\n")

    return note
