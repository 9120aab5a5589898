"""The film of these tests, written once per run."""

from __future__ import annotations

from typing import Any

import pytest

from .film import QUESTION, NamedFrames, write_film


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_film(tmp_path_factory.mktemp("film") / "film.mp4"))


@pytest.fixture(scope="session")
def sound_film(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_film(tmp_path_factory.mktemp("film") / "sound.mp4", sound=True))


@pytest.fixture
def selector() -> NamedFrames:
    return NamedFrames()


@pytest.fixture
def chat(film: str) -> list[dict[str, Any]]:
    return chat_about(film)


def chat_about(video: Any, question: str = QUESTION) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "video", "video": video}, {"type": "text", "text": question}]}]
