"""Scores of KFS-Bench, by hand for small cases, and their command line.

The whole tables of the authors gave the figures of their own evaluation (UKSS 0.2691 and 0.3176 for their example
selections); the files are for research only, so they are not kept here.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from refocus_select.errors import InputError
from refocus_select.evaluation.kfs_bench import read_chosen, read_scenes, score_scenes, summarise_scenes

TABLE = """id,segment_id,scene_id,start,end
003-2,0,0,0:10,0:19
003-2,1,0,0:50,0:59
003-2,2,1,1:40,1:44
VL_0,0,4,0:00:12,1:00:13.5
VL_1,0,0,0:01,0:02
"""


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    path = tmp_path / "anno.csv"
    path.write_text(TABLE)
    return path


def test_scenes_have_segments_and_whole_last_seconds(scenes: Path) -> None:
    assert read_scenes(scenes) == {
        "003-2": [((10, 20), (50, 60)), ((100, 105),)],
        "VL_0": [((12, 3614.5),)],
        "VL_1": [((1, 3),)],
    }


def test_scores_by_hand(scenes: Path) -> None:
    needed = read_scenes(scenes)["003-2"]  # 20 s and 5 s
    # Four of five frames lie in scenes, all in the first: its due is min(0.8, 0.5) * 4 = 2, the second's 1 at least.
    one_sided = score_scenes([10, 20, 50, 60, 61], needed)
    assert one_sided.key_frame_rate == pytest.approx(4 / 5)
    assert one_sided.scene_hit_rate == pytest.approx(1 / 2)
    assert one_sided.balanced_recall == pytest.approx(1 / 2)
    assert one_sided.balance == pytest.approx(20 / math.hypot(20, 5))  # by length comes nearest
    assert one_sided.ukss == pytest.approx((4 / 5 * 1 / 2 * 20 / math.hypot(20, 5)) ** (1 / 3))
    even = score_scenes([15, 55, 102, 103], needed)
    assert (even.key_frame_rate, even.scene_hit_rate, even.balanced_recall) == (1, 1, 1)
    assert even.balance == pytest.approx(1)
    # One of six in the second scene: its due is floor(min(0.2, 0.5) * 6) = 1.
    assert score_scenes([11, 12, 13, 14, 15, 101], needed).balanced_recall == 1
    # One of ten: its due is floor(2) = 2.
    assert score_scenes([11, 12, 13, 14, 15, 16, 17, 18, 19, 101], needed).balanced_recall == pytest.approx(1 / 2)
    missed = score_scenes([0, 30], needed)
    assert (missed.key_frame_rate, missed.balance, missed.ukss) == (0, 0, 0)


def test_a_missed_question_counts_a_hundredth(scenes: Path) -> None:
    needed = read_scenes(scenes)
    summary = summarise_scenes({"003-2": [15, 55, 102, 103], "VL_1": [7.0], "another": [1.0]}, needed)
    assert (summary.questions, summary.missing) == (2, 1)
    assert summary.ukss == pytest.approx(math.sqrt(1 * 0.01))
    assert summary.key_frame_rate == summary.scene_hit_rate == pytest.approx(1 / 2)


def test_bad_files_say_what_is_wrong(scenes: Path, tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("id,start,end\n")
    with pytest.raises(InputError, match="no column scene_id"):
        read_scenes(tmp_path / "other.csv")
    (tmp_path / "bad.csv").write_text(TABLE + "x,0,0,soon,0:02\n")
    with pytest.raises(InputError, match="'soon' is not a time"):
        read_scenes(tmp_path / "bad.csv")
    with pytest.raises(InputError, match="cannot be read"):
        read_scenes(tmp_path / "gone.csv")
    with pytest.raises(InputError, match="no chosen frames belong to a question"):
        summarise_scenes({"x": [1.0]}, read_scenes(scenes))
    (tmp_path / "list.json").write_text("[[1, 2]]")
    with pytest.raises(InputError, match="no list of objects with id and frame_timestamps"):
        read_chosen(tmp_path / "list.json", ["x"])
    rows = [{"id": "VL_1", "num_frames": k, "indices": [1], "timestamps": [1.0], "selector": "s"} for k in (1, 2)]
    (tmp_path / "two.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InputError, match="one number of frames at a time"):
        read_chosen(tmp_path / "two.jsonl", ["VL_1"])


def test_the_command_line(scenes: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs.json").write_text(json.dumps([{"id": "003-2", "frame_timestamps": [15, 55, 102, 103]}]))
    row = {"id": "003-2", "num_frames": 1, "indices": [7], "timestamps": [15.0], "selector": "mini"}
    (tmp_path / "ours.jsonl").write_text(json.dumps(row) + "\n")
    command = [sys.executable, "-m", "refocus_select", "evaluate", "scenes", scenes, "--selections"]
    done = subprocess.run(
        [*command, f"{tmp_path / 'theirs.json'}=theirs", tmp_path / "ours.jsonl"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[2] == "| theirs | 1 | 1.0000 | 1.0000 | 1.0000 | 2 |"
    assert done.stdout.splitlines()[3].startswith("| ours | 1 | ")
    assert done.stdout.splitlines()[3].endswith(" | 1.0000 | 0.5000 | 2 |")
