"""What is done with results: other forms, the evaluation, and the databases of the authors' release."""

from __future__ import annotations

import json
import shelve

import datasets
import numpy as np
import pytest

from refocus_select.corpus import convert_results, load_results, read_results, select_batch
from refocus_select.errors import InputError
from refocus_select.evaluation.selections import read_selections
from refocus_select.questions import Question
from tests.brightness import BrightnessSelector
from tests.corpus.clips import write_clips

BENCHMARK_ROW = {
    "question": "Is it light?", "options": ["A. yes", "B. no"], "answer": "A", "duration": "short", "task_type": "t",
}  # fmt: skip


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Three questions of a benchmark; the video of the last is missing."""
    folder = tmp_path_factory.mktemp("results")
    clips = write_clips(folder, 2, seconds=1.0)
    rows = [
        {"id": f"00{i}-1", "video": str(video), "question": "Is it light?", "options": ["yes", "no"], "answer": 0}
        for i, video in enumerate([*clips, folder / "clip999.mp4"])
    ]
    select_batch(rows, folder / "out.jsonl", selector=BrightnessSelector(), num_frames=4)
    return folder / "out.jsonl"


def test_other_forms_hold_the_same(results, tmp_path):
    rows = list(read_results(results))
    assert [row["error"] is None for row in rows] == [True, True, False]
    assert convert_results(results, tmp_path / "out.parquet") == 3
    assert list(read_results(tmp_path / "out.parquet")) == rows
    assert convert_results(tmp_path / "out.parquet", tmp_path / "out.jsonl") == 3
    assert (tmp_path / "out.jsonl").read_bytes() == results.read_bytes()
    assert convert_results(results, tmp_path / "dataset") == 3
    assert datasets.load_from_disk(str(tmp_path / "dataset")).to_list() == load_results(results).to_list()
    assert load_results(tmp_path / "dataset")[0]["indices"] == rows[0]["indices"]
    with pytest.raises(InputError, match="exists already"):
        convert_results(results, tmp_path / "out.parquet")
    with pytest.raises(InputError, match=r"become \.jsonl"):
        convert_results(results, tmp_path / "out.txt")


def test_the_evaluation_reads_them(results):
    questions = [Question(f"00{i}-1", "any", "any") for i in range(3)]
    stored = read_selections(results, questions)
    rows = list(read_results(results))
    assert [item.id for item in stored] == ["000-1", "001-1"]
    assert [list(item.indices or ()) for item in stored] == [row["indices"] for row in rows[:2]]
    assert {item.num_frames for item in stored} == {4}


def test_a_database_of_the_release_takes_them(results, tmp_path):
    keys = []
    with shelve.open(str(tmp_path / "theirs"), "n") as database:
        for i in range(3):
            row = {**BENCHMARK_ROW, "question_id": f"00{i}-1", "videoID": f"clip{i:03d}"}
            keys.append(json.dumps(["a prompt", row]))
            database[keys[-1]] = np.arange(32)
    count = convert_results(results, tmp_path / "ours", like=tmp_path / "theirs", benchmark="videomme")
    assert count == 2
    rows = list(read_results(results))
    with shelve.open(str(tmp_path / "ours"), "r") as database:
        assert sorted(database) == sorted(keys[:2])
        for key, row in zip(keys, rows[:2], strict=False):
            assert database[key].tolist() == row["indices"]


def test_files_of_another_kind_are_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"id": 1}\n')
    datasets.Dataset.from_list([{"id": 1}]).to_parquet(str(tmp_path / "a.parquet"))
    for name in ("a.jsonl", "a.parquet", "nothing.jsonl"):
        with pytest.raises(InputError, match=r"not a result|no results"):
            list(read_results(tmp_path / name))
