"""examples/train_tiny.py with fewer steps: filter, train, be killed, go on, report."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from refocus_select import FrameSelector

ROOT = Path(__file__).resolve().parents[2]


def test_the_example_runs_through(tmp_path: Path) -> None:
    out = tmp_path / "run"
    stages = "[{num_frames: [4], steps: 12, rollouts: 4}, {num_frames: [8], steps: 12, rollouts: 4}]"
    settings = [
        f"stages={stages}", "data.arguments.num_questions=80", "data.arguments.validation_num_questions=40",
        "validation.questions=16", "checkpoint_every=4", "filter.threshold=0.05",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "train_tiny.py"), "--out", str(out), *settings],
        capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    kept = (out / "filtered" / "kept.jsonl").read_text().splitlines()
    assert 0 < len(kept) < 80
    steps = [row for row in map(json.loads, (out / "log.jsonl").read_text().splitlines()) if row["kind"] == "train"]
    assert [row["step"] for row in steps] == list(range(1, 25))  # every step once, although the run was killed
    assert {row["stage"] for row in steps} == {0, 1}
    report = json.loads((out / "selector" / "report.json").read_text())
    assert [row["num_frames"] for row in report["accuracy"]] == [4, 8]
    assert (out / "selector" / "curves.png").stat().st_size > 10_000
    assert FrameSelector.from_pretrained(out / "selector").rule.max_frames == 512
