"""Questions: everything wrong is told before anything starts; what breaks later costs only itself."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from refocus_select.errors import InputError
from refocus_select.questions import Question, as_row, check_choices, read_questions
from refocus_select.train_selector import ReferenceModel, Request, TrainConfig, train_selector
from refocus_select.train_selector.config import DataConfig
from refocus_select.train_selector.data import evenly, load_questions
from refocus_select.train_selector.run import TrainResult

from ..video.clips import encode
from .planted import World, train_world
from .small_run import rows_of

GOOD = {"id": "a", "video": "v.mp4", "question": "Who?", "options": ["x", "y"], "answer": "B"}
FAULTS: dict[str, dict[str, Any]] = {
    "answer 7 is out of range for 2 options": {"answer": 7},
    "answer -1 is out of range": {"answer": -1},
    "no answer is given": {"answer": None},
    "one of the options": {"answer": "zebra"},
    "an option is empty": {"options": ["x", " "]},
    "the option 'x' occurs twice": {"options": ["x", "X "]},
    "fewer than two options; an open question needs distractors": {"options": ["x"], "answer": 0},
    "question is missing": {"question": None},
    "video must be text": {"video": 3},
    "evidence must be a list of": {"evidence": [[1]]},
    "must have 0 <= start <= end": {"evidence": [[5, 2]]},
    "options must be a list of texts": {"options": [1, 2]},
    "several questions have this id": {"id": "b"},
    "id must be text or a number": {"id": ["x"]},
}


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_json(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text(json.dumps(rows))


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, sorted({name for row in rows for name in row}))
        writer.writeheader()
        writer.writerows({k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()} for row in rows)


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def write_dataset(path: Path, rows: list[dict[str, Any]]) -> None:
    import datasets

    datasets.disable_progress_bars()
    datasets.Dataset.from_list(rows).save_to_disk(str(path))


WRITERS: dict[str, Callable[[Path, list[dict[str, Any]]], None]] = {
    "q.jsonl": write_jsonl, "q.json": write_json, "q.csv": write_csv, "q.parquet": write_parquet, "q": write_dataset,
}  # fmt: skip


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encode(tmp_path_factory.mktemp("video") / "v.mp4", 16, fps=8, width=64, height=48)


def load(path: Path, **fields: Any) -> Any:
    return load_questions(str(path), "train", DataConfig(**fields), path.parent / "features")


@pytest.mark.parametrize("name", list(WRITERS))
def test_every_format_gives_the_questions_and_the_table_of_faults(tmp_path: Path, video: Path, name: str) -> None:
    shutil.copy(video, tmp_path / "v.mp4")
    rows = [{**GOOD, "evidence": [[0.5, 1.0]], "category": "who"}, {**GOOD, "id": "b", "answer": "x"}]
    WRITERS[name](tmp_path / name, rows)
    found = load(tmp_path / name)
    assert [q.answer for q in found.questions] == [1, 0]
    assert found.questions[0].evidence == ((0.5, 1.0),)
    assert found.questions[0].category == "who"
    assert len(found.clips(found.questions[0].video)) > 1  # beside the file
    bad = [{**rows[0], "id": "c", "answer": "Q"}, {**rows[0], "id": "d", "options": ["same", "same"], "answer": "A"},
           {**rows[0], "id": "e", "video": "missing.mp4"}, {**rows[0], "id": "a"}]  # fmt: skip
    WRITERS[name](tmp_path / f"bad-{name}", rows + bad)
    with pytest.raises(InputError) as caught:
        load(tmp_path / f"bad-{name}")
    text = str(caught.value)
    assert f"wrong with {tmp_path / f'bad-{name}'}; nothing was started" in text
    for part in ("answer 16 is out of range for 2 options", "'same' occurs twice", "missing.mp4", "several questions"):
        assert part in text


@pytest.mark.parametrize("fault", list(FAULTS))
def test_each_fault_is_told(tmp_path: Path, fault: str) -> None:
    rows = [{**GOOD, "id": "b"}, {**GOOD, **FAULTS[fault]}]
    questions, problems = read_questions(rows)
    told = [p.what for p in [*problems, *(p for q in questions for p in check_choices(q))]]
    assert len(told) == 1
    assert fault in told[0]
    assert not [p for q in read_questions([{**GOOD}])[0] for p in check_choices(q)]


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    for name, content, message in (
        ("none.jsonl", None, "no questions at"),
        ("a.json", "{}", "must hold a list"),
        ("b.json", "[{", "cannot be read"),
        ("c.parquet", "words", "damaged or not a Parquet"),
        ("d.txt", "words", "questions are read from"),
        ("e.jsonl", "", "holds no questions"),
        ("f.jsonl", "{broken\n", "must be an object"),
    ):
        path = tmp_path / name
        if content is not None:
            path.write_text(content)
        with pytest.raises(InputError, match=message):
            load(path)
    with pytest.raises(InputError, match="not a saved dataset"):
        load(tmp_path)


def test_unreadable_videos_stop_everything(tmp_path: Path, video: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "cut.mp4").write_bytes(video.read_bytes()[:200])
    names = ["text.mp4", "cut.mp4", "gone.mp4"]
    write_jsonl(tmp_path / "q.jsonl", [{**GOOD, "id": str(i), "video": name} for i, name in enumerate(names)])
    with pytest.raises(InputError) as caught:
        load(tmp_path / "q.jsonl")
    assert "3 things are wrong" in str(caught.value)
    assert all(name in str(caught.value) for name in names)
    assert len(load(tmp_path / "q.jsonl", check_videos=False)) == 3  # if one wants so
    run = TrainConfig.load(None, [f"output={tmp_path / 'run'}", f"data.train={tmp_path / 'q.jsonl'}",
                                  f"data.validation={tmp_path / 'q.jsonl'}", "device=cpu"])  # fmt: skip
    with pytest.raises(InputError, match="3 things are wrong"):
        train_selector(run, reference=Bright())
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]


def test_relative_paths(tmp_path: Path, video: Path) -> None:
    (tmp_path / "videos").mkdir()
    shutil.copy(video, tmp_path / "videos" / "v.mp4")
    (tmp_path / "tables").mkdir()
    path = tmp_path / "tables" / "q.jsonl"
    write_jsonl(path, [GOOD, {**GOOD, "id": "b", "video": str(video)}])
    assert [q.video for q in load(path, root=str(tmp_path / "videos")).questions] == [
        str(tmp_path / "videos" / "v.mp4"), str(video),
    ]  # fmt: skip
    with pytest.raises(InputError, match=r"tables.v\.mp4"):
        load(path)


def test_sets_of_a_module(tmp_path: Path) -> None:
    found = load_questions("tests.train_selector.planted:train_world", "train", DataConfig(arguments={"count": 7}),
                           tmp_path)  # fmt: skip
    assert len(found) == 7
    assert found.fingerprint == train_world("train", 7).fingerprint
    assert len(found.clips("3")) == 12
    assert not found.listed
    assert found.positions(["odd"]).tolist() == [1, 3, 5]
    write_jsonl(tmp_path / "q.jsonl", [as_row(train_world("train")[i]) for i in range(5)])
    config = DataConfig(clips="tests.train_selector.planted:train_world")
    stored = load_questions(str(tmp_path / "q.jsonl"), "train", config, tmp_path)
    assert len(stored.clips(stored.questions[2].video)) == 12
    planted = "tests.train_selector.planted"
    for spec, message in (
        ("tests.nowhere:x", "cannot be imported"),
        (f"{planted}:nothing", "cannot be imported"),
        (f"{planted}:WIDTH", "is a int; a function or class is needed"),
    ):
        with pytest.raises(InputError, match=message):
            load_questions(spec, "train", DataConfig(), tmp_path)


def bad_world(split: str) -> list[Question]:
    """For "module:attribute": a list with a question that cannot be scored."""
    return [World(3, 1)[0], Question("open", "1", "why?")]


def test_sets_of_a_module_are_checked_too(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="fewer than two options"):
        load_questions(f"{__name__}:bad_world", "train", DataConfig(), tmp_path)


def test_spread_and_fingerprints(tmp_path: Path) -> None:
    assert evenly(10, 3).tolist() == [0, 4, 9]
    assert evenly(2, 5).tolist() == [0, 1]
    write_jsonl(tmp_path / "q.jsonl", [GOOD])
    one = load(tmp_path / "q.jsonl", check_videos=False).fingerprint
    for change in ({"answer": "A"}, {"question": "Where?"}, {"evidence": [[0, 1]]}, {"category": "c"}):
        write_jsonl(tmp_path / "q.jsonl", [{**GOOD, **change}])
        assert load(tmp_path / "q.jsonl", check_videos=False).fingerprint != one


# -- videos that break later ------------------------------------------------------------------------


class Bright(ReferenceModel):
    """Sure of the first option where pictures are bright; it looks at the pictures."""

    name = fingerprint = "bright"

    def option_logits(self, requests: list[Request]) -> list[Tensor]:  # type: ignore[override]
        found = []
        for request in requests:
            light = [request.clip.pictures(subset.numpy(), size=(12, 16)).mean() for subset in request.subsets]
            worth = torch.tensor(np.array(light, dtype=np.float32) / 64)
            found.append(torch.stack([worth, torch.full_like(worth, 2.0)], 1))
        return found


def run(folder: Path, reference: ReferenceModel) -> TrainResult:
    words = [
        f"output={folder / 'run'}", f"data.train={folder / 'train.jsonl'}", f"data.validation={folder / 'held.jsonl'}",
        "device=cpu", "data.fps=4", "policy.d_model=16", "policy.n_layer=1", "policy.d_state=4", "policy.headdim=8",
        "stages=[{num_frames: [2], steps: 4, rollouts: 2}]", "optimiser.batch=3", "validation.every=2",
    ]  # fmt: skip
    return train_selector(TrainConfig.load(None, words), reference=reference)


@pytest.mark.parametrize("cached", [False, True])
def test_videos_that_break_after_the_check_are_skipped(tmp_path: Path, video: Path, cached: bool) -> None:
    """Files go away behind the check: before their features are read, or after, when pictures are asked for."""
    for i in range(6):
        shutil.copy(video, tmp_path / f"v{i}.mp4")
        with (tmp_path / f"v{i}.mp4").open("ab") as file:
            file.write(b"\0" * (8 + i))  # so that they differ
    rows = [{**GOOD, "id": f"q{i}", "video": f"v{i}.mp4"} for i in range(6)]
    write_jsonl(tmp_path / "train.jsonl", rows[:3])
    write_jsonl(tmp_path / "held.jsonl", rows[3:])

    class Removing(Bright):
        calls = 0

        def option_logits(self, requests: list[Request]) -> list[Tensor]:  # type: ignore[override]
            self.calls += 1
            if self.calls == (5 if cached else 1):
                (tmp_path / "v1.mp4").unlink()
                (tmp_path / "v4.mp4").unlink()
            return super().option_logits(requests)

    result = run(tmp_path, Removing())
    skipped = json.loads((tmp_path / "run" / "skipped.json").read_text())
    assert set(skipped) == {"q1", "q4"}
    assert all("v" in reason for reason in skipped.values())
    assert result.report["skipped"] == 2
    assert "2 questions could not be used" in (result.folder / "README.md").read_text()
    assert result.report["accuracy"][0]["policy"]["count"] == 2
    assert len(rows_of(tmp_path / "run", "train")) == 4
