"""A run that is interrupted at any moment ends as if it had not been."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from refocus_select.errors import InputError, VideoDecodeError
from refocus_select.train_selector.checkpoints import numbered

from ..leftovers import name_of_a_dead_process
from .planted import World
from .small_run import GRAIN, killed_run, log, rows_of, small_run, weights

# A warm start, two stages of rewards with a mix of K, and a policy that is taken back again and again: whatever is not
# better than the best is drift here. Looks are rarer than checkpoints on purpose, and once they coincide.
WORDS = (
    "stages=[{num_frames: [2], steps: 4, method: similarity}, {num_frames: [1, 2], steps: 9, rollouts: 4, "
    "entropy_bonus: 0.05, entropy_bonus_end: 0.0}, {num_frames: [2], steps: 5, rollouts: 4, categories: [even]}]",
    "validation.every=2", "validation.max_drop=-1.0", "validation.patience=2", "validation.max_rollbacks=99",
    "validation.max_kl=5.0", "checkpoint_every=7", "validation.questions=32", "optimiser.lr=0.02",
    "test_questions=8",
)  # fmt: skip
LENGTHS = (10, 12)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nobody interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    small_run(folder, *WORDS, lengths=LENGTHS, grain=GRAIN)
    return folder


def assert_same(folder: Path, whole: Path) -> None:
    assert weights(folder) == weights(whole)
    assert log(folder) == log(whole)
    mine, theirs = numbered(folder / "checkpoints")[-1], numbered(whole / "checkpoints")[-1]
    assert mine.name == theirs.name
    for name in ("model.safetensors", "optimiser.safetensors"):
        assert (mine / name).read_bytes() == (theirs / name).read_bytes()
    assert not list((folder / "checkpoints").glob(".*"))


def test_the_undisturbed_run_has_what_makes_resuming_hard(whole: Path) -> None:
    steps = rows_of(whole, "train")
    assert [row["step"] for row in steps] == list(range(1, 19))
    assert [row["stage"] for row in steps] == [0] * 4 + [1] * 9 + [2] * 5
    assert {row["num_frames"] for row in steps if row["stage"] == 1} == {1, 2}
    rates = [row["lr"] for row in steps]
    assert min(rates[5:12]) < 0.02  # it went back and lowered the rate
    assert {row["step"] for row in rows_of(whole, "drift")} >= {4, 6, 13, 18}
    best = {json.loads((path / "state.json").read_text())["best_step"] for path in numbered(whole / "checkpoints")}
    assert max(best) > 5  # the result is of a stage with rewards


class Stopped(Exception):
    pass


@pytest.mark.parametrize("number", [0, 5, 9, 14, 23])
def test_an_error_at_any_call_of_the_reference_model(whole: Path, tmp_path: Path, number: int) -> None:
    def stop(call: int) -> None:
        if call == number:
            raise Stopped

    with pytest.raises(Stopped):
        small_run(tmp_path, *WORDS, before=stop, lengths=LENGTHS, grain=GRAIN)
    assert not (tmp_path / "selector").exists()
    small_run(tmp_path, *WORDS, lengths=LENGTHS, grain=GRAIN)
    assert_same(tmp_path, whole)


# -- killed from outside ----------------------------------------------------------------------------

needs_kill = pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")


@pytest.fixture(scope="module")
def start() -> Callable[..., multiprocessing.Process]:
    """Starts processes that have imported everything already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.train_selector.small_run", "refocus_select.train_selector.run",
                                    "refocus_select.train_selector.trainer", "refocus_select.train_selector.report",
                                    "torch.utils.tensorboard"])  # fmt: skip

    def begin(folder: Path, name: str, number: int) -> multiprocessing.Process:
        process = context.Process(target=killed_run, args=(str(folder), WORDS, name, number, LENGTHS))
        process.start()
        return process  # type: ignore[return-value]

    return begin


@needs_kill
@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("", 20),  # in the last stage
        ("fsync", 10),  # while a checkpoint is written
        ("replace", 2),  # a checkpoint is complete but not in its place
        ("replace", 8),
    ],
)
def test_sigkill(whole: Path, tmp_path: Path, start: Callable, name: str, number: int) -> None:
    process = start(tmp_path, name, number)
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    again = start(tmp_path, name, number + 7)  # and again, further on or in the middle of going on
    again.join(120)
    assert again.exitcode in (-signal.SIGKILL, 0)
    small_run(tmp_path, *WORDS, lengths=LENGTHS, grain=GRAIN)
    assert_same(tmp_path, whole)


@needs_kill
@pytest.mark.parametrize("after", [11])
def test_sigkill_at_a_moment_that_nobody_chose(whole: Path, tmp_path: Path, start: Callable, after: int) -> None:
    """Killed by another process once some lines of the log are there."""
    process = start(tmp_path, "", -1)
    path, deadline = tmp_path / "log.jsonl", time.monotonic() + 120
    while (not path.exists() or path.read_text().count("\n") < after) and time.monotonic() < deadline:
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    small_run(tmp_path, *WORDS, lengths=LENGTHS, grain=GRAIN)
    assert_same(tmp_path, whole)


# -- what may lie in the folder ---------------------------------------------------------------------


def test_a_half_line_and_scraps_of_checkpoints_are_cleared_away(whole: Path, tmp_path: Path) -> None:
    def stop(call: int) -> None:
        if call == 16:
            raise Stopped

    with pytest.raises(Stopped):
        small_run(tmp_path, *WORDS, before=stop, lengths=LENGTHS, grain=GRAIN)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"kind": "train", "st')
    scrap = tmp_path / "checkpoints" / name_of_a_dead_process(tmp_path)
    scrap.mkdir()
    (scrap / "model.safetensors").write_bytes(b"half")
    small_run(tmp_path, *WORDS, lengths=LENGTHS, grain=GRAIN)
    assert not scrap.exists()
    assert_same(tmp_path, whole)


def test_a_damaged_checkpoint_is_named_and_the_one_before_goes_on(whole: Path, tmp_path: Path) -> None:
    def stop(call: int) -> None:
        if call == 20:
            raise Stopped

    with pytest.raises(Stopped):
        small_run(tmp_path, *WORDS, before=stop, lengths=LENGTHS, grain=GRAIN)
    last = numbered(tmp_path / "checkpoints")[-1]
    content = (last / "model.safetensors").read_bytes()
    (last / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=f"{last.name} is damaged or of another model.*remove it"):
        small_run(tmp_path, *WORDS, lengths=LENGTHS, grain=GRAIN)
    for path in last.iterdir():
        path.unlink()
    last.rmdir()
    small_run(tmp_path, *WORDS, lengths=LENGTHS, grain=GRAIN)
    assert_same(tmp_path, whole)


def test_a_run_from_before_a_setting_existed_goes_on(whole: Path, tmp_path: Path) -> None:
    def stop(call: int) -> None:
        if call == 16:
            raise Stopped

    with pytest.raises(Stopped):
        small_run(tmp_path, *WORDS, before=stop, lengths=LENGTHS, grain=GRAIN)
    identity = json.loads((tmp_path / "identity.json").read_text())
    assert identity["config"]["policy"].pop("attention_heads") == 4
    (tmp_path / "identity.json").write_text(json.dumps(identity))
    with pytest.raises(InputError, match=r"policy\.attention_heads was 4 and is 2"):
        small_run(tmp_path, *WORDS, "policy.attention_heads=2", lengths=LENGTHS, grain=GRAIN)
    small_run(tmp_path, *WORDS, lengths=LENGTHS, grain=GRAIN)
    assert_same(tmp_path, whole)


def test_skipped_questions_survive(tmp_path: Path) -> None:
    """A question left out before the break is still listed after it."""

    def stop(call: int) -> None:
        if call == 2:
            raise VideoDecodeError("the tape is torn")  # the whole group, and then the first of its questions
        if call == 3:
            raise VideoDecodeError("the tape is torn")
        if call == 12:
            raise Stopped

    words = ("stages=[{num_frames: [2], steps: 8, rollouts: 4}]", "checkpoint_every=1")
    with pytest.raises(Stopped):
        small_run(tmp_path, *words, before=stop)
    result = small_run(tmp_path, *words)
    assert result.report["skipped"] == 1
    assert "the tape is torn" in (tmp_path / "skipped.json").read_text()
    assert rows_of(tmp_path, "train")[-1]["skipped"] == 1


# -- a run that goes on in another way --------------------------------------------------------------

SHORT = ("validation.every=4", "validation.max_drop=null")


def stages(*steps: int) -> str:
    parts = [f"{{num_frames: [{2 - i % 2}], steps: {n}, rollouts: 4}}" for i, n in enumerate(steps)]
    return f"stages=[{', '.join(parts)}]"


def test_a_finished_run_takes_more_steps_and_more_stages(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    small_run(tmp_path, *SHORT, stages(3, 4))
    with caplog.at_level("WARNING"):
        small_run(tmp_path, *SHORT, stages(3, 6))
    assert "stage 1 goes on from its step 4: it has 6 steps now" in caplog.text
    small_run(tmp_path, *SHORT, stages(3, 6, 2))
    found = rows_of(tmp_path, "train")
    assert [row["step"] for row in found] == list(range(1, 12))
    assert [row["stage"] for row in found] == [0] * 3 + [1] * 6 + [2] * 2
    assert len((tmp_path / "selector" / "report.json").read_text()) > 100
    for words, told in (
        (stages(5, 6, 2), r"stages\[0\]\.steps was 3 and is 5, but those are behind"),
        (stages(3, 6, 1), r"stages\[2\]\.steps was 2 and is 1"),
        (stages(3, 6), r"stages\[2\] is missing"),
    ):
        with pytest.raises(InputError, match=told):
            small_run(tmp_path, *SHORT, words)


def test_another_validation_chooses_the_best_policy_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    small_run(tmp_path, *SHORT, stages(4))
    before = rows_of(tmp_path, "held_out")
    with caplog.at_level("WARNING"):
        small_run(tmp_path, *SHORT, stages(4), "validation.num_frames=[1, 3]", validation=World(40, 2))
    assert "validation is another than before" in caplog.text
    state = json.loads((numbered(tmp_path / "checkpoints")[-1] / "state.json").read_text())
    assert state["best_step"] == 4  # the only one that was looked at
    after = rows_of(tmp_path, "held_out")[len(before) :]
    assert [(row["step"], row["num_frames"]) for row in after] == [(4, 1), (4, 3)]


def test_another_number_of_processes_goes_on_and_says_what_changes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small_run(tmp_path, *SHORT, stages(3))
    path = numbered(tmp_path / "checkpoints")[-1] / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "processes": 8}))
    with caplog.at_level("WARNING"):
        small_run(tmp_path, *SHORT, stages(5))
    assert "1 processes go on where 8 were: the questions of every step stay the same" in caplog.text
    assert [row["step"] for row in rows_of(tmp_path, "train")] == [1, 2, 3, 4, 5]


def test_the_report_tells_what_later_stages_forget(tmp_path: Path) -> None:
    from refocus_select.train_selector.report import _forgetting, by_stage

    result = small_run(tmp_path, *SHORT, stages(3, 4))
    told = result.report["stages"]
    assert [(end["stage"], end["step"]) for end in told] == [(0, 3), (1, 7)]
    by_hand = {row["step"]: row["reward"] for row in rows_of(tmp_path, "held_out") if row["num_frames"] == 2}
    assert told[0]["reward"]["2"] == by_hand[3]
    assert told == by_stage(log(tmp_path))
    told[0]["reward"]["2"] = told[1]["reward"]["2"] + 0.1
    assert any("0.100 at 2 frames since stage 0" in line for line in _forgetting(told))
    assert "Held-out reward at the end of each stage" in (result.folder / "README.md").read_text()
