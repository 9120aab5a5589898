"""Selections as files, ours and those of others."""

from __future__ import annotations

import dbm.dumb
import json
import pickle
import shelve

import numpy as np
import pytest

from refocus_select.errors import InputError
from refocus_select.evaluation.selections import StoredSelection, read_selections, write_database, write_selections
from refocus_select.questions import Question

from .test_benchmarks import MLVU, VIDEOMME

QUESTIONS = [
    Question("001-1", "data/fFjv93ACGo8.mp4", "How many candles burn?"),
    Question("001-2", "data/fFjv93ACGo8.mp4", "Who blows them out?"),
]


def key(row, context="Select the best answer …"):
    """As the authors' evaluation makes it."""
    return json.dumps((context, row))


def test_ours(tmp_path):
    chosen = [
        StoredSelection("001-1", 3, (5, 9), (0.5, 0.9), "aks"),  # one frame repeats
        StoredSelection("001-2", 1, (7,), (0.7,), "aks"),
    ]
    path = write_selections(tmp_path / "out" / "aks.jsonl", chosen)
    assert read_selections(path, QUESTIONS) == chosen
    assert read_selections(path, QUESTIONS[1:]) == chosen[1:]


def test_lines_of_the_select_command(tmp_path):
    rows = [
        {"video": "elsewhere/fFjv93ACGo8.mp4", "question": "how many  CANDLES burn?", "indices": [9, 4],
         "timestamps": [0.9, 0.4], "num_frames": 2, "selector": "mini"},
        {"id": "001-2", "timestamps": [3.5, 1.0]},
        {"id": "other", "indices": [1]},
    ]  # fmt: skip
    path = tmp_path / "lines.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"id": "001-')
    assert read_selections(path, QUESTIONS) == [
        StoredSelection("001-1", 2, (4, 9), (0.4, 0.9), "mini"),
        StoredSelection("001-2", 2, None, (1.0, 3.5)),
    ]


def test_lists_in_the_order_of_the_benchmark(tmp_path):
    """As AKS and FOCUS write them."""
    path = tmp_path / "selected_frames.json"
    path.write_text(json.dumps([[1, 2], [30, 10, 10], [5]]))
    order = ["000", "001-2", "001-1"]
    assert read_selections(path, QUESTIONS, order=order) == [
        StoredSelection("001-2", 3, (10, 30)),
        StoredSelection("001-1", 1, (5,)),
    ]
    with pytest.raises(InputError, match="3 selections, but the benchmark 2 questions"):
        read_selections(path, QUESTIONS)


def test_the_database_of_the_release(tmp_path):
    frames = np.linspace(0, 300, 32, dtype=int)
    with shelve.open(str(tmp_path / "frames"), "n") as database:
        database[key(VIDEOMME)] = frames
        database[key({**VIDEOMME, "question_id": "999-1", "videoID": "x"})] = frames
    (found,) = read_selections(tmp_path / "frames", QUESTIONS, benchmark="videomme")
    assert found == StoredSelection("001-1", 32, tuple(frames.tolist()))


def test_a_database_of_another_kind_of_dbm(tmp_path):
    with dbm.dumb.open(str(tmp_path / "frames"), "n") as database:
        database[key(VIDEOMME)] = pickle.dumps(np.array([3, 1, 3]), protocol=4)
        database[key({**VIDEOMME, "question_id": "001-2"})] = pickle.dumps([8, 2])
    first, second = read_selections(tmp_path / "frames", QUESTIONS, benchmark="videomme")
    assert {first, second} == {StoredSelection("001-1", 3, (1, 3)), StoredSelection("001-2", 2, (2, 8))}
    # the name with its ending is understood too
    assert len(read_selections(tmp_path / "frames.dat", QUESTIONS, benchmark="videomme")) == 2


def test_questions_without_a_name_are_found_by_their_words(tmp_path):
    row = {"video_name": "movie101_66.mp4", "candidates": MLVU["candidates"], "answer": "A", "task_type": "renamed",
           "question": MLVU["question"] + "\n(A) Yellow\n(B) Red\n(C) Green\n(D) Blue"}  # fmt: skip
    with shelve.open(str(tmp_path / "frames"), "n") as database:
        database[key(row)] = np.array([3, 4])
    question = Question("plotQA-movie101_66-0", "video/1_plotQA/movie101_66.mp4", MLVU["question"])
    (found,) = read_selections(tmp_path / "frames", [question], benchmark="mlvu")
    assert found == StoredSelection(question.id, 2, (3, 4))


class Harm:
    def __reduce__(self):
        return (print, ("this must not run",))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (pickle.dumps(Harm()), "not allowed"),
        (pickle.dumps(np.array([Harm()], dtype=object)), "not allowed"),
        (b"nothing", "something other"),
        (pickle.dumps({"frame_idx": [1], "candidates": None}), "not a list of frame numbers"),
        (pickle.dumps(np.array([0.5])), "float64"),
    ],
)
def test_a_pickle_from_elsewhere_can_do_no_harm(tmp_path, capsys, value, words):
    with dbm.dumb.open(str(tmp_path / "frames"), "n") as database:
        database[key(VIDEOMME)] = value
    with pytest.raises(InputError, match=words):
        read_selections(tmp_path / "frames", QUESTIONS, benchmark="videomme")
    assert capsys.readouterr().out == ""


def test_a_database_for_the_release(tmp_path):
    with shelve.open(str(tmp_path / "theirs"), "n") as database:
        database[key(VIDEOMME)] = np.arange(4)
        database[key({**VIDEOMME, "question_id": "777-1", "videoID": "x"})] = np.arange(4)
    chosen = [StoredSelection("001-1", 2, (5, 9)), StoredSelection("001-2", 2, (1, 2))]
    count = write_database(
        tmp_path / "new" / "mine", chosen, like=tmp_path / "theirs", questions=QUESTIONS, benchmark="videomme"
    )
    assert count == 1
    with shelve.open(str(tmp_path / "new" / "mine"), "r") as database:
        assert list(database) == [key(VIDEOMME)]
        assert database[key(VIDEOMME)].tolist() == [5, 9]
    assert read_selections(tmp_path / "new" / "mine", QUESTIONS, benchmark="videomme") == chosen[:1]
    for path, message in ((tmp_path / "new" / "mine", "exists already"), (tmp_path / "newer", "no entry")):
        with pytest.raises(InputError, match=message):
            write_database(path, [], like=tmp_path / "theirs", questions=QUESTIONS, benchmark="videomme")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.jsonl", None, "no selections at"),
        ("none", None, "no selections at"),
        ("a.jsonl", '{"id": "other", "indices": [1]}\n', "no selection for any of the 2 questions"),
        ("a.jsonl", '{"id": "001-1"}\n', "needs indices or timestamps"),
        ("a.jsonl", '{"id": "001-1", "indices": [-1]}\n', "negative"),
        ("a.jsonl", '{"id": "001-1", "indices": ["x"]}\n', "whole numbers"),
        ("a.jsonl", "{}}\n", "not JSON"),
        ("a.json", "{}", "list of frame numbers"),
        ("a.txt", "text", "neither a database"),
    ],
)
def test_wrong_files_are_named(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        read_selections(tmp_path / name, QUESTIONS, benchmark="videomme")
