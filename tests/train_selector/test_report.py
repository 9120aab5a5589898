"""The result of a run: its folder, its report, and what happens when the command is given again."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from refocus_select.errors import InputError
from refocus_select.selectors.card import model_card
from refocus_select.train_selector.report import training_section, verdict

from ..hub.server import FakeHub
from ..hub.test_hub import run
from ..leftovers import name_of_a_dead_process
from ..models.tiny import feature_model
from .planted import World
from .small_run import Both, small_policy, small_run, weights

WORDS = ("stages=[{num_frames: [1, 2], steps: 4, rollouts: 4}]",)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("done")
    small_run(folder, *WORDS)
    return folder


def row(low: float, high: float, num_frames: int = 4) -> dict[str, Any]:
    cell = {"mean": (low + high) / 2, "low": low, "high": high, "count": 10, "groups": 10, "level": 0.95}
    return {"num_frames": num_frames, "policy_minus_uniform": cell, "policy_minus_top-k": cell,
            **dict.fromkeys(("uniform", "top-k", "policy"), cell)}  # fmt: skip


def test_the_verdict_says_what_the_intervals_say() -> None:
    better, unclear, worse = row(0.1, 0.2), row(-0.1, 0.1, 8), row(-0.3, -0.1, 16)
    assert verdict({"accuracy": [better]}) == "**Better than uniform sampling** at 4 frames."
    assert verdict({"accuracy": [better, unclear]}).endswith("at 4 frames; elsewhere no difference can be told.")
    assert verdict({"accuracy": [unclear]}).startswith("**No better than uniform sampling**")
    assert verdict({"accuracy": [row(0.0, 0.2)]}).startswith("**No better")
    assert verdict({"accuracy": [row(math.nan, math.nan)]}).startswith("**No better")
    assert verdict({"accuracy": [better, worse]}) == "**Worse than uniform sampling** at 16 frames."


def test_the_folder(done: Path) -> None:
    folder = done / "selector"
    assert {p.name for p in folder.iterdir()} >= {
        "config.json", "model.safetensors", "README.md", "report.json", "training.yaml", "curves.png"
    }  # fmt: skip
    assert not [p for p in folder.iterdir() if p.name.startswith(".")]
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    report = json.loads((folder / "report.json").read_text())
    for part in ("accuracy", "reward"):
        assert [entry["num_frames"] for entry in report[part]] == [1, 2]
        for entry in report[part]:
            for name in ("uniform", "top-k", "policy", "policy_minus_uniform", "policy_minus_top-k"):
                cell = entry[name]
                assert cell["low"] <= cell["mean"] <= cell["high"]
                assert cell["count"] == 20
                assert cell["groups"] == 20
            difference = entry["policy"]["mean"] - entry["uniform"]["mean"]
            assert entry["policy_minus_uniform"]["mean"] == pytest.approx(difference)
    assert {entry["category"] for entry in report["categories"]} == {"even", "odd"}
    assert report["steps"] == 4
    assert report["reference"] == [{"name": "answerer", "fingerprint": "answerer-1"}]
    assert report["questions"]["also_chose_the_checkpoint"] is False
    assert report["questions"]["train"]["fingerprint"] == World(400, 1).fingerprint


def test_the_card(done: Path) -> None:
    card = (done / "selector" / "README.md").read_text()
    report = json.loads((done / "selector" / "report.json").read_text())
    assert verdict(report) in card
    assert "![learning curves](curves.png)" in card
    assert "rollouts: 4" in card
    assert "advantage: batch" in card
    assert "| 2 | " in card
    assert "None of these questions took part in training" in card
    report["questions"]["also_chose_the_checkpoint"] = True
    assert "a little optimistic" in training_section(report, "seed: 0")


def test_few_held_out_questions_are_used_twice_and_said_so(tmp_path: Path) -> None:
    result = small_run(tmp_path, "stages=[{num_frames: [2], steps: 1, rollouts: 2}]", validation=World(10, 2))
    assert result.report["questions"]["also_chose_the_checkpoint"] is True
    assert result.report["questions"]["test"]["count"] == 10


def test_tensorboard_has_the_curves(done: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(done / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("train/reward")] == [1, 2, 3, 4]
    assert {"held_out/2 frames/accuracy", "held_out/2 frames/uniform_accuracy", "train/entropy"} <= set(
        events.Tags()["scalars"]
    )


def test_a_run_that_is_over_gives_its_result_again(done: Path) -> None:
    before, log = weights(done), (done / "log.jsonl").read_bytes()
    stored = {p: p.stat().st_mtime_ns for p in (done / "checkpoints").rglob("*.safetensors")}
    report = json.loads((done / "selector" / "report.json").read_text())
    result = small_run(done, *WORDS, policy=small_policy(9))
    assert weights(done) == before
    assert (done / "log.jsonl").read_bytes() == log
    assert json.loads(json.dumps(result.report)) == report
    assert stored == {p: p.stat().st_mtime_ns for p in (done / "checkpoints").rglob("*.safetensors")}


def test_other_settings_in_the_same_folder_are_refused(done: Path) -> None:
    with pytest.raises(InputError, match=r"other settings: seed was 0 and is 1; optimiser\.lr was 0\.005 and is 0\.1"):
        small_run(done, *WORDS, "seed=1", "optimiser.lr=0.1")
    with pytest.raises(InputError, match=r"stages\[0\]\.num_frames was .* Give another output folder"):
        small_run(done, "stages=[{num_frames: [1], steps: 4, rollouts: 4}]")
    with pytest.raises(InputError, match="the training questions are others"):
        small_run(done, *WORDS, train=World(401, 1))
    other = Both([World(400, 1), World(48, 2)])
    other.fingerprint = "answerer-2"
    with pytest.raises(InputError, match="the reference model is another"):
        small_run(done, *WORDS, reference=other)
    small_run(done, *WORDS, "checkpoint_every=3", "test_questions=10")  # decides nothing about the weights


def test_a_run_of_an_older_release_is_refused(tmp_path: Path) -> None:
    (tmp_path / "identity.json").write_text(json.dumps({"config": {"watch": {"every": 5}}}))
    with pytest.raises(InputError, match=r"older release .*'watch' is called 'validation' now.* cannot be resumed"):
        small_run(tmp_path, *WORDS)


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    left = tmp_path / name_of_a_dead_process(tmp_path)
    left.write_text("half")
    small_run(tmp_path, "stages=[{num_frames: [1], steps: 1, rollouts: 2}]")
    assert not left.exists()


def test_a_second_process_in_the_folder_is_refused(tmp_path: Path) -> None:
    code = (
        "import sys; from filelock import FileLock; lock = FileLock(sys.argv[1]); lock.acquire(); "
        "print('locked', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / ".lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == b"locked\n"
        with pytest.raises(InputError, match=r"another process is training in .*wait for it"):
            small_run(tmp_path, *WORDS)
        other.kill()
    with FileLock(tmp_path / ".lock", timeout=10):
        pass  # the lock went with the process


def test_an_output_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot write to the output folder"):
        small_run(tmp_path / "file" / "run", *WORDS)


PUSH = """
import json, sys
from tests.train_selector.small_run import small_run
folder = json.loads(sys.stdin.read())
small_run(folder, "stages=[{num_frames: [1], steps: 1, rollouts: 2}]", "push_to_hub=me/trained")
print(json.dumps(True))
"""


def test_the_result_is_uploaded(tmp_path: Path) -> None:
    with FakeHub().running() as hub:
        run(hub, tmp_path / "cache", PUSH, str(tmp_path / "run"))
        files = hub.repos["me/trained"].files
    assert {"config.json", "model.safetensors", "README.md", "report.json", "curves.png"} <= set(files)
    assert files["model.safetensors"] == weights(tmp_path / "run")
    assert b'from_pretrained("me/trained")' in files["README.md"]


def test_names_of_others_do_not_mark_up_the_page() -> None:
    evil = "a|b `c` <img src=x> # d"
    questions = {"name": evil, "count": 3, "fingerprint": "f`"}
    report = {
        "accuracy": [row(0.1, 0.2)],
        "categories": [{"category": evil, **row(0.1, 0.2)}, {"category": "b", **row(0, 1)}],
        "questions": {"test": questions, "train": questions, "also_chose_the_checkpoint": False},
        "reference": [{"name": "x`<b>"}], "step": 1, "steps": 2, "skipped": 0, "seed": 0, "versions": {},
    }  # fmt: skip
    text = training_section(report, "a: |\n  ```\n  # heading\n")
    assert r"| a\|b \`c\` \<img src=x> # d |" in text
    assert "`` x`<b> ``" in text
    assert "<img" not in text.replace(r"\<img", "")
    assert "````yaml\na: |\n  ```\n  # heading\n````" in text
    card = model_card(feature_model(question_hidden_size=6), 'x" `<b>')
    assert 'from_pretrained("x\\" `<b>")' in card
    assert '# x" \\`\\<b>\n' in card
