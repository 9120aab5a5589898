"""Two processes: the same gradient, one result, and nobody waits for ever."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from refocus_select.train_selector.checkpoints import numbered

from .distributed_run import IMITATE, LENGTHS
from .small_run import rows_of, small_run

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("distributed")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "0",
         "--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0",
         "-m", "tests.train_selector.distributed_run", str(folder)],
        env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


def test_all_processes_have_the_same_weights_and_gradients(runs: Path) -> None:
    (mine, report), (theirs, other) = json.loads((runs / "agreement.json").read_text())
    assert len(mine) == 5
    assert mine == theirs
    assert len({weights for weights, _ in mine[:4]}) == 4  # and these are not untouched ones
    assert report == other


def test_one_result_is_written(runs: Path) -> None:
    for name in ("imitate", "reward", "passes", "absent"):
        assert (runs / name / "selector" / "model.safetensors").exists()
        steps = [row["step"] for row in rows_of(runs / name, "train")]
        assert steps == [1, 2, 3, 4]  # told once, not once per process
        assert all(row["questions"] == (2 if name == "absent" else 3) for row in rows_of(runs / name, "train"))
        assert (runs / name / "log.jsonl").read_text().count('"held_out"') == len(rows_of(runs / name, "held_out"))


def test_two_processes_do_what_one_does(runs: Path, tmp_path: Path) -> None:
    """The teacher's picks depend on no process, so the gradient of both together must be that of one alone."""
    small_run(tmp_path, *IMITATE, lengths=LENGTHS)
    for alone, together in zip(rows_of(tmp_path, "train"), rows_of(runs / "imitate", "train"), strict=True):
        assert together["imitation_loss"] == pytest.approx(alone["imitation_loss"], rel=1e-4)
        assert together["gradient_norm"] == pytest.approx(alone["gradient_norm"], rel=1e-3)
    one = load_file(numbered(tmp_path / "checkpoints")[-1] / "model.safetensors")
    two = load_file(numbered(runs / "imitate" / "checkpoints")[-1] / "model.safetensors")
    assert all(float((one[name] - two[name]).abs().max()) < 2e-3 for name in one)
    for alone, together in zip(rows_of(tmp_path, "held_out"), rows_of(runs / "imitate", "held_out"), strict=True):
        assert together["uniform_accuracy"] == alone["uniform_accuracy"]


def test_who_reads_nothing_is_told(runs: Path) -> None:
    skipped = json.loads((runs / "absent" / "skipped.json").read_text())
    assert len(skipped) >= 4
    assert all("out of reach" in reason for reason in skipped.values())
