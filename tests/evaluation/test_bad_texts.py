"""Names and texts of strangers in pictures, reports and results; damaged folders; disks that cannot be written."""

from __future__ import annotations

import json
import os
import re
import sys

import numpy as np
import pytest

from refocus_select import select_frames
from refocus_select.cli import main
from refocus_select.corpus import Index
from refocus_select.errors import InputError, RefocusError
from refocus_select.evaluation import figures
from refocus_select.evaluation.benchmarks import read_benchmark
from refocus_select.evaluation.pages import Code, Heading, Table, Text, to_html, to_markdown
from refocus_select.evaluation.records import RecordWriter, write_json, write_text
from refocus_select.evaluation.report import build_report
from refocus_select.evaluation.selections import read_selections
from refocus_select.questions import Question

from .videos import write_videos

ODD = ("Costs it $100_ or $50^?", "$\\frac{$", "50% of $x and {y}$", "\udcff", "a\0b\x1b[31m", "\n\n", "w" * 200_000)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    write_videos(folder, "v.mp4", seconds=1)
    return folder / "v.mp4"


@pytest.mark.parametrize("question", [text for text in ODD if text.strip()])
def test_pictures_of_odd_questions(video, tmp_path, question):
    selection = select_frames(str(video), question, 2, selector="uniform", workers=1)
    assert selection.plot(tmp_path / "p.png").stat().st_size > 1000
    selection.save(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "selection.json").read_bytes())["question"] == question.strip()
    strip = figures.Strip(question[:999], [0, 1], [0.0, 0.1], True)
    assert figures.timeline([strip], end=1.0, title=question)
    assert figures.frame_strips(str(video), [strip], title=question)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_files_whose_names_are_no_utf8(video, tmp_path, capsys):
    name = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.mp4")
    os.symlink(video, name)
    selection = select_frames(name, "what", 2, selector="uniform", workers=1)
    assert json.loads(selection.to_json().encode("utf-8"))["video"] == name
    assert main(["select", name, "what", "--selector", "uniform", "--json", "--out", str(tmp_path / "out")]) == 0
    assert json.loads(capsys.readouterr().out)["video"] == name
    index = Index.build([name], tmp_path / "index", selector="uniform", progress=False)
    assert index.videos == [name]
    assert Index(tmp_path / "index").videos == [name]
    assert Index.build([name], tmp_path / "index", selector="uniform", progress=False).last_update.unchanged == 1


def test_markdown_finds_nothing_to_mark_up():
    texts = ["a *b* _c_ `d` ~~e~~ $x^2$ \\f", "<img src=x onerror=alert(1)>", "[here](javascript:x)", "![x][y]", "&lt;",
             "1. first", "- item", "# head", "> said", "two\n\n# heads", "a|b"]  # fmt: skip
    for text in texts:
        shown = to_markdown(text, [Heading(text), Text(text), Table([text], [[text]], text)])
        assert len(re.findall(r"^#", shown, re.M)) == 2
        assert not re.search(r"(?<!\\)[*`~$<]", shown.replace("**", ""))
        assert "](" not in shown
        assert not re.search(r"^(\d+\.|[->+]) ", shown, re.M)
        page = to_html(text, [Heading(text), Text(text), Code(text), Table([text], [[text]], text)])
        assert "<img" not in page
    assert "0.625 [0.500, 0.750]" in to_markdown("x", [Table(["mean"], [["0.625 [0.500, 0.750]"]])])
    assert "snake_case_name" in to_markdown("x", [Text("snake_case_name")])


def evaluation(folder):
    """The folder of an evaluation of two questions."""
    row = {"id": "a", "video": "v.mp4", "selector": "uniform", "num_frames": 2, "indices": [1, 2],
           "timestamps": [0.1, 0.2], "strategy": "selected", "evidence": [[0.0, 1.0]], "recall": 1.0, "precision": 0.5,
           "coverage": 0.5, "categories": ["x"], "length": "short", "question": "What?", "duration": 3.0}  # fmt: skip
    write_json(folder / "setup.json", {"kind": "evidence", "benchmark": "questions", "tolerance": 0.0, "reach": 1.0,
                                       "selectors": {"uniform": {"fingerprint": "u", "settings": {}}}})  # fmt: skip
    write_json(folder / "questions.json", {"questions": 2, "missing": {}, "left_out": {}, "problems": []})
    with RecordWriter(folder / "scores-00000-of-00001.jsonl") as file:
        file.write(row)
        file.write({**row, "id": "b", "recall": 0.0})
    return folder


def test_fields_of_results_are_checked(tmp_path):
    folder = evaluation(tmp_path)
    build_report(folder)
    (path,) = folder.glob("scores-*")
    first, rest = path.read_text().split("\n", 1)
    whole = json.loads(first)
    for name in ("recall", "timestamps", "num_frames", "categories", "evidence", "duration"):
        for value in ("text", None, {}, [None], True, float("nan")):
            path.write_text(json.dumps({**whole, name: value}) + "\n" + rest)
            with pytest.raises(InputError):
                build_report(folder)


@pytest.mark.parametrize("name", ["setup.json", "questions.json", "scores-00000-of-00001.jsonl"])
def test_damaged_evaluations_give_our_errors_only(tmp_path, name, monkeypatch):
    """Without the pictures, which take most of the time and do not read the folder."""
    for drawing in ("curves", "gains", "heat_table", "timeline", "frame_strips"):
        monkeypatch.setattr(figures, drawing, lambda *args, **kwargs: b"png")
    path = evaluation(tmp_path) / name
    whole, rng = path.read_bytes(), np.random.default_rng(4)
    errors = 0
    for turn in range(100):
        content = bytearray(whole)
        if turn % 4:
            for place in rng.integers(8 * len(content), size=2).tolist():
                content[place // 8] ^= 1 << place % 8
        else:
            del content[int(rng.integers(len(content))) :]
        path.write_bytes(content)
        try:
            build_report(tmp_path)
        except RefocusError:
            errors += 1
    assert errors > 20


SELECTIONS = {
    "huge.jsonl": '{"id": "a", "indices": [1' + "0" * 30 + "]}\n",
    "endless.jsonl": '{"id": "a", "indices": [Infinity]}\n',
    "times.jsonl": '{"id": "a", "timestamps": [Infinity]}\n',
    "number.jsonl": '{"id": "a", "indices": 5}\n',
    "empty.jsonl": '{"id": "a", "indices": []}\n',
    "deep.jsonl": "[" * 100_000 + "\n",
    "deep.json": "[" * 100_000,
    "null.json": "[[null]]",
    "text.json": '[["a"]]',
    "none.json": "[[]]",
    "db.dat": "'a', (0, 5\n",
    "db.db": "SQLite format 3\0 and nothing else",
}


@pytest.mark.parametrize("name", SELECTIONS)
def test_selections_that_are_none(tmp_path, name):
    path = tmp_path / name
    path.write_text(SELECTIONS[name])
    if name == "db.dat":
        (tmp_path / "db.dir").write_text("not, a directory of (a dumb\n")
    with pytest.raises(InputError):
        read_selections(path, [Question("a", "v.mp4", "q")], benchmark="videomme")


def test_annotations_that_are_none(tmp_path):
    for content in ("[" * 100_000, "[1]", '{"a": 1}', '["x"]', "[{}]", '[{"video_id": [], "frame_indexes_video": 3}]'):
        path = tmp_path / "LVHaystack_test_tiny.json"
        path.write_text(content)
        try:
            assert not read_benchmark("lvhaystack", tmp_path).questions
        except InputError:
            continue


def test_a_place_that_cannot_be_written(tmp_path):
    """Where the folder should be lies a file: as a disk that is full or read-only, an error of the system."""
    (tmp_path / "taken").write_text("")
    for write in (
        lambda: write_text(tmp_path / "taken" / "a.txt", "a"),
        lambda: RecordWriter(tmp_path / "taken" / "a.jsonl"),
        lambda: write_json(tmp_path / "taken" / "a.json", {}),
    ):
        with pytest.raises(InputError, match=r"cannot write .*taken"):
            write()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk(tmp_path):
    os.symlink("/dev/full", tmp_path / "a.jsonl")
    with RecordWriter(tmp_path / "a.jsonl") as file, pytest.raises(InputError, match="No space left"):
        file.write({"a": 1})
