"""The benchmark's own measuring instruments: the burnt-in number, the table and the verdicts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import _videos, decode


@pytest.mark.parametrize(("width", "height"), [(640, 360), (1920, 1080)])
def test_burnt_in_numbers_survive_scaling(width: int, height: int) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    for number in (0, 1, 1799, 107_999):
        picture = noise.copy()
        _videos._burn(picture, number)
        small = np.asarray(Image.fromarray(picture).resize((224, 224), Image.Resampling.BILINEAR))
        assert _videos.read_number(picture) == number
        assert _videos.read_number(small) == number
    assert _videos.read_number(noise) == -1


def test_pictures_move_and_scenes_change() -> None:
    scenes = _videos._Scenes(160, 96)
    first, next_, later = scenes.draw(0), scenes.draw(1), scenes.draw(4 * _videos.FPS)
    steady = np.abs(first[20:].astype(int) - next_[20:]).mean()
    assert 0 < steady < np.abs(first[20:].astype(int) - later[20:]).mean()


def test_measurements_in_processes_of_their_own(clip: Callable[[str], Path]) -> None:
    task = {"path": str(clip("long_gop12.mp4")), "frames": 530, "candidates": 40, "period": None}
    ours = decode.in_a_process({**task, "method": "ours"})
    assert ours["wall"] > 0
    assert ours["memory"] > 0
    bound = decode.in_a_process({**task, "method": "bound"})
    assert bound["bound"] > 0
    assert 40 <= bound["pictures"] <= 530
    broken = decode.in_a_process({**task, "path": "missing.mp4", "method": "ours"})
    assert "no such file" in broken["error"]


def test_table_and_summary() -> None:
    methods = {
        "ours": {"wall": 1.0, "cpu": 2.0, "memory": 2**27, "exact": 1.0},
        "decord, scaled": {"wall": 2.5, "cpu": 5.0, "memory": 2**28, "exact": 1.0},
        "process pool": {"wall": 3.0, "cpu": 6.0, "memory": 2**30, "exact": 0.5},
        "OpenCV": {"error": "cannot open"},
    }
    rows = [{"file": "360p_gop30_10min.mp4", "candidates": 512, "bound": 1.6, "pictures": 9, "methods": methods}]
    table = decode.table(rows)
    assert "| 360p_gop30_10min.mp4 | 512 | process pool | 3.00 | 6.00 | 3.00x | 3.75 | 1024 | 50.0% |" in table
    assert "cannot open" in table
    summary = decode.summary(rows)
    assert "process pool, 512 candidates of 10 minutes or more: worst 3.00, median 3.00" in summary
    assert "decord with scaling, 512 candidates of 10 minutes or more: worst 2.50, median 2.50" in summary
    assert "bound: worst 1.25" in summary
