"""Beside lmms-eval in one environment (`make test-engines`): its PyAV is older than what this package gets alone."""

from __future__ import annotations

from importlib.metadata import entry_points, requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from refocus_select import open_video, select_frames
from refocus_select.dependencies import check_dependencies

pytest.importorskip("lmms_eval", reason="lmms-eval is installed by `make test-engines` only")
FILM = Path(__file__).parents[2] / "examples/film/big_buck_bunny.mp4"


def test_both_packages_accept_what_is_installed() -> None:
    check_dependencies()
    ranges = [Requirement(line) for line in requires("lmms-eval") or ()]
    (av,) = (r for r in ranges if r.name == "av" and r.marker is None)
    assert av.specifier.contains(version("av"))
    assert Version(version("av")) < Version("16")


def test_frames_are_selected_and_shown_at_their_times() -> None:
    selection = select_frames(FILM, "When does the rabbit look at an apple?", num_frames=4)
    assert len(selection) == len(selection.frames) == 4
    with open_video(FILM) as video:
        assert selection.timestamps.tolist() == [video.timestamps[i] for i in selection.indices]


def test_lmms_eval_finds_the_model() -> None:
    (found,) = (e for e in entry_points(group="lmms_eval.models") if e.name == "refocus_select")
    assert callable(found.load())
