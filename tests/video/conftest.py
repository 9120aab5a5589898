from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ.setdefault("SVT_LOG", "1")  # errors only, from the AV1 encoder

from tests.video.kinds import make


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Gives the path of a file by the name of its kind; each is encoded once."""
    folder = tmp_path_factory.mktemp("clips")
    return lambda name: make(name, folder)
