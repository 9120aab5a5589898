"""Beside lmms-eval in one environment (`make test-engines`): its PyAV is older than what this package gets alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points, requires, version
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from refocus_select import open_video, select_frames
from refocus_select.dependencies import check_dependencies
from refocus_select.errors import MissingDependencyError
from tests.adapters.film import DURATION, QUESTION, write_film

pytest.importorskip("lmms_eval", reason="lmms-eval is installed by `make test-engines` only")
FILM = Path(__file__).parents[2] / "examples/film/big_buck_bunny.mp4"
SELECTORS = ("uniform", "mini-policy", "aks")
QUESTIONS = ("When does the rabbit look at an apple?\nA. Early.\nB. Late.", QUESTION, "What is grey?")

TASK = """task: three_videos
dataset_path: json
dataset_kwargs:
  data_files:
    test: {questions}
test_split: test
output_type: generate_until
doc_to_visual: !function three_videos.doc_to_visual
doc_to_text: !function three_videos.doc_to_text
doc_to_messages: !function three_videos.doc_to_messages
doc_to_target: answer
generation_kwargs:
  max_new_tokens: 2
process_results: !function three_videos.process_results
metric_list:
  - metric: answered
    aggregation: mean
    higher_is_better: true
"""
FUNCTIONS = """
def doc_to_visual(doc):
    return [doc["video"]]


def doc_to_text(doc, lmms_eval_specific_kwargs=None):
    return doc["question"]


def doc_to_messages(doc, lmms_eval_specific_kwargs=None):
    content = [{"type": "video", "url": doc["video"]}, {"type": "text", "text": doc["question"]}]
    return [{"role": "user", "content": content}]


def process_results(doc, results):
    return {"answered": float(isinstance(results[0], str))}
"""


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


def test_what_lmms_eval_cannot_start_with_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from refocus_select.adapters.lmms_eval import _check_filelock

    _check_filelock()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # as with filelock 4
    with pytest.raises(MissingDependencyError, match="pip install 'filelock<4'"):
        _check_filelock()


# -- its own command line -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory, film: str) -> Path:
    """A folder with a local task about three videos."""
    folder = tmp_path_factory.mktemp("task")
    other = write_film(folder / "other.mp4", times=[k * k / 8 for k in range(12)])
    with (folder / "questions.json").open("w") as file:
        for video, question in zip((FILM, film, other), QUESTIONS, strict=True):
            file.write(json.dumps({"video": str(video), "question": question, "answer": "A"}) + "\n")
    (folder / "three_videos.yaml").write_text(TASK.format(questions=folder / "questions.json"))
    (folder / "three_videos.py").write_text(FUNCTIONS)
    return folder


def evaluate(task: Path, checkpoint: str, out: Path, selector: str, *launcher: str) -> tuple[list[Any], list[Any]]:
    """Run lmms-eval: the records of this package, and the samples that lmms-eval logged."""
    arguments = f"pretrained={checkpoint},selector={selector},num_frames=4,dtype=float32,device=cpu"
    command = [
        *(launcher or (sys.executable,)),
        *("-m", "lmms_eval", "--model", "refocus_select", "--tasks", "three_videos", "--include_path", str(task)),
        *("--model_args", f"{arguments},record={out / 'record.jsonl'}", "--batch_size", "1"),
        *("--log_samples", "--output_path", str(out)),
    ]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(out / "cache"), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    records = [json.loads(line) for path in sorted(out.glob("record*.jsonl")) for line in path.open()]
    found = list(out.rglob("*samples_three_videos.jsonl"))
    assert len(found) == 1, done.stdout[-3000:] + done.stderr[-3000:]
    (logged,) = found
    return records, [json.loads(line) for line in logged.open()]


@pytest.fixture(scope="module")
def runs(task: Path, checkpoint: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("runs")
    return {s: evaluate(task, checkpoint("qwen2_5_vl"), folder / s, s) for s in SELECTORS}


def test_its_command_line_evaluates_three_local_videos(runs: dict[str, Any], tell: Callable[..., None]) -> None:
    for selector, (records, samples) in runs.items():
        assert len(records) == len(samples) == 3
        for record, sample in zip(records, sorted(samples, key=lambda s: s["doc_id"]), strict=True):
            (selection,) = record["selections"]
            assert selection["selector"] == selector
            assert len(selection["timestamps"]) == 4
            assert selection["question"] == QUESTIONS[sample["doc_id"]].split("\n")[0]
            assert record["answers"] == [sample["filtered_resps"]]
            tell(
                engine="lmms-eval",
                version=version("lmms-eval"),
                model="qwen2_5_vl",
                route=f"--model refocus_select, selector={selector}",
                asked=selection["question"],
                told=", ".join(f"{t:.2f}" for t in selection["timestamps"]),
            )


def test_selectors_differ_in_frames_only(runs: dict[str, Any]) -> None:
    logged = [
        [(s["doc_id"], s["target"], s["input"]) for s in sorted(samples, key=lambda s: s["doc_id"])]
        for _, samples in runs.values()
    ]
    assert logged[0] == logged[1] == logged[2]
    chosen = {s: [r["selections"][0]["timestamps"] for r in records] for s, (records, _) in runs.items()}
    assert chosen["uniform"] != chosen["mini-policy"]
    assert chosen["uniform"] != chosen["aks"]
    assert all(0 <= t <= DURATION for t in chosen["mini-policy"][1])


def test_two_processes_share_the_questions(
    runs: dict[str, Any], task: Path, checkpoint: Callable[[str], str], tmp_path: Path, tell: Callable[..., None]
) -> None:
    """What `accelerate launch` does on two GPUs, on a CPU."""
    launcher = (sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2")
    launcher = (*launcher, "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no")
    records, samples = evaluate(task, checkpoint("qwen2_5_vl"), tmp_path / "out", "uniform", *launcher)
    assert len(list((tmp_path / "out").glob("record*.jsonl"))) == 2
    assert len(samples) == 3
    alone = {r["selections"][0]["question"]: r for r in runs["uniform"][0]}
    for record in records:  # lmms-eval repeats a question where the number is odd
        assert record == alone[record["selections"][0]["question"]]
    tell(
        engine="lmms-eval",
        version=version("lmms-eval"),
        model="qwen2_5_vl",
        route="accelerate launch --num_processes 2",
        asked="three questions",
        told="as with one process",
    )
