"""One bad row is one row with an error, whatever is in it; and files of strangers give our errors only."""

from __future__ import annotations

import json
import os
import sys

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from refocus_select.corpus import read_results, select_batch
from refocus_select.errors import InputError, RefocusError, SelectorLoadError
from refocus_select.questions import iter_questions, read_questions
from tests.corpus.clips import write_clips


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    (path,) = write_clips(tmp_path_factory.mktemp("clips"), 1, seconds=1.0)
    return path


ROW = {"id": "x", "video": "v.mp4", "question": "q"}
DIGITS = "9" * 5000
LINES = {
    "evidence is a number": json.dumps({**ROW, "evidence": 5}),
    "evidence is true": json.dumps({**ROW, "evidence": True}),
    "evidence is an object": json.dumps({**ROW, "evidence": {"a": 1}}),
    "evidence of huge numbers": json.dumps({**ROW, "evidence": [[0, 10**400]]}),
    "evidence without end": json.dumps({**ROW, "evidence": [[0, float("inf")]]}),
    "evidence of many digits": f'{{"video": "v.mp4", "question": "q", "evidence": [[0, {DIGITS}]]}}',
    "evidence of texts": json.dumps({**ROW, "evidence": ["ab"]}),
    "open brackets": "[" * 100_000,
    "closed brackets": '{"video": "v.mp4", "question": "q", "x": ' + "[" * 5000 + "]" * 5000 + "}",
    "options in each other": '{"video": "v.mp4", "question": "q", "options": ' + "[" * 200 + "]" * 200 + "}",
    "a list": "[1, 2]",
    "a number": "17",
    "null": "null",
    "no utf-8": '{"video": "v.mp4", "question": "caf\udce9"}',
    "half a pair in the question": '{"video": "v.mp4", "question": "\\ud800"}',
    "half a pair in the id": '{"id": "\\ud800", "video": "v.mp4", "question": "q"}',
    "half a pair in an option": '{"video": "v.mp4", "question": "q", "options": ["a", "\\udfff"]}',
    "half a pair in the category": '{"video": "v.mp4", "question": "q", "category": "\\ud800"}',
    "half a pair in the video": '{"video": "\\ud800.mp4", "question": "q"}',
    "a zero byte in the video": '{"video": "a\\u0000.mp4", "question": "q"}',
    "a video of 5000 letters": json.dumps({**ROW, "video": "v" * 5000}),
    "an answer of many digits": json.dumps({**ROW, "answer": DIGITS}),
    "an answer that is not a place": json.dumps({**ROW, "answer": 10**30}),
    "an answer below all places": json.dumps({**ROW, "answer": -(10**30)}),
    "an id that is a list": json.dumps({**ROW, "id": [1]}),
}


@pytest.mark.parametrize("wrong", LINES)
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_bad_row_is_one_row_with_an_error(clip, tmp_path, wrong, suffix):
    os.symlink(clip, tmp_path / "v.mp4")
    good = json.dumps({"id": "good", "video": "v.mp4", "question": "ok"})
    table = f"{LINES[wrong]}\n{good}\n"
    (tmp_path / "q.jsonl").write_text(table, encoding="utf-8", errors="surrogateescape")
    out = tmp_path / f"r.{suffix}"
    result = select_batch(tmp_path / "q.jsonl", out, selector="uniform", num_frames=2, progress=False)
    bad, fine = read_results(out)
    assert bad["error"]
    assert (fine["id"], fine["error"], len(fine["indices"])) == ("good", None, 2)
    assert (result.rows, result.failed) == (2, 1)


def test_values_that_only_look_bad_are_kept(clip, tmp_path):
    """Long numbers, other columns of any kind, and columns that are named like those of results."""
    os.symlink(clip, tmp_path / "v.mp4")
    rows = [
        f'{{"id": 1, "video": "v.mp4", "question": "q", "x": {DIGITS}}}',
        '{"id": 2, "video": "v.mp4", "question": "q", "x": "\\ud800", "scores": "high", "error": "before"}',
        '{"id": 3, "video": "v.mp4", "question": "q", "x": {"y": [1, null, NaN]}, "extra": 5, "position": -1}',
    ]
    (tmp_path / "q.jsonl").write_text("\n".join(rows))
    for suffix in ("jsonl", "parquet"):
        out = tmp_path / f"r.{suffix}"
        select_batch(tmp_path / "q.jsonl", out, selector="uniform", num_frames=2, progress=False)
        one, two, three = read_results(out)
        assert [row["error"] for row in (one, two, three)] == [None] * 3
        assert one["x"] == DIGITS
        assert "scores" not in two
        assert (three["x"], three["extra"], three["position"]) == ({"y": [1, None, None]}, 5, -1)


class Rude:
    def __str__(self):
        raise RuntimeError("no")


def test_rows_that_are_python_objects(clip, tmp_path):
    endless: list = []
    endless.append(endless)
    good = {"video": str(clip), "question": "q"}
    rows = [{**good, "x": endless}, {**good, "x": Rude()}, {**good, "id": 10**5000}, {**good, "x": 10**5000},
            {**good, "options": {1: "a", "b": "c"}}, {**good, "id": np.int64(7), "answer": np.int64(1)},
            3, None, good]  # fmt: skip
    select_batch(rows, tmp_path / "r.jsonl", selector="uniform", num_frames=2, progress=False)
    errors = [row["error"] for row in read_results(tmp_path / "r.jsonl")]
    assert [error is None for error in errors] == [False] * 4 + [True, True, False, False, True]
    with pytest.raises(InputError, match="must be a file or rows"):
        read_questions(3)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_videos_whose_names_are_no_utf8(clip, tmp_path):
    os.symlink(clip, os.fsencode(tmp_path) + b"/caf\xe9.mp4")
    (tmp_path / "q.jsonl").write_bytes(b'{"video": "caf\xe9.mp4", "question": "q"}\n')
    for suffix in ("jsonl", "parquet"):
        out = tmp_path / f"r.{suffix}"
        select_batch(tmp_path / "q.jsonl", out, selector="uniform", num_frames=2, progress=False)
        (row,) = read_results(out)
        assert row["error"] is None
        if suffix == "jsonl":
            assert os.path.exists(row["video"])


@pytest.mark.parametrize("cell", ["A" * 200_000, '"never closed'])
def test_a_cell_that_csv_cannot_hold(tmp_path, cell):
    path = tmp_path / "q.csv"
    rest = "".join(f"v.mp4,question {n}\n" for n in range(20_000))
    path.write_text(f"video,question\nv.mp4,before\nv.mp4,{cell}\n{rest}")
    questions, problems = read_questions(path)
    assert questions[0].question == "before"
    assert questions[-1].question == "question 19999"
    assert len(problems) == 1
    assert "field limit" in problems[0].what


def test_tables_in_other_encodings_are_refused(tmp_path):
    path = tmp_path / "q.csv"
    path.write_text("video,question\nv.mp4,q\n", encoding="utf-16")
    with pytest.raises(InputError, match="UTF-8"):
        read_questions(path)
    path.write_text("\ufeffvideo,question\nv.mp4,q\n", encoding="utf-8")
    assert not read_questions(path)[1]
    path = tmp_path / "q.jsonl"
    path.write_text('\ufeff{"video": "v.mp4", "question": "q"}\n', encoding="utf-8")
    assert not read_questions(path)[1]


def damaged(whole: bytes, rng: np.random.Generator) -> bytes:
    """Some bits flipped, cut short, or a part of it replaced."""
    content = bytearray(whole)
    kind = rng.integers(3)
    if kind == 0:
        for place in rng.integers(8 * len(content), size=rng.integers(1, 9)).tolist():
            content[place // 8] ^= 1 << place % 8
    elif kind == 1:
        del content[int(rng.integers(len(content))) :]
    else:
        place = int(rng.integers(len(content)))
        content[place : place + 8] = rng.bytes(int(rng.integers(16)))
    return bytes(content)


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "parquet"])
def test_damaged_tables_give_our_errors_only(tmp_path, suffix):
    rows = [{"id": str(n), "video": "v.mp4", "question": f"q {n}", "options": ["a", "b"], "evidence": [[0.5, 1.0]]}
            for n in range(3)]  # fmt: skip
    path = tmp_path / f"q.{suffix}"
    if suffix == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif suffix == "csv":
        cells = "".join(f'{r["id"]},v.mp4,{r["question"]},"[""a"", ""b""]","[[0.5, 1]]"\n' for r in rows)
        path.write_text("id,video,question,options,evidence\n" + cells)
    else:
        path.write_text(json.dumps(rows) if suffix == "json" else "\n".join(map(json.dumps, rows)))
    assert [q.evidence for q in read_questions(path)[0]] == [((0.5, 1.0),)] * 3
    whole, rng = path.read_bytes(), np.random.default_rng(1)
    read = 0
    for _ in range(150):
        path.write_bytes(damaged(whole, rng))
        try:
            read += len(list(iter_questions(path)))
        except RefocusError:
            continue
    assert read > 0


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_damaged_results_give_our_errors_only(clip, tmp_path, suffix):
    out = tmp_path / f"r.{suffix}"
    rows = [{"video": str(clip), "question": f"q {n}"} for n in range(3)]
    select_batch(rows, out, selector="uniform", num_frames=2, progress=False)
    whole, rng = out.read_bytes(), np.random.default_rng(2)
    errors = 0
    for _ in range(150):
        out.write_bytes(damaged(whole, rng))
        try:
            list(read_results(out))
        except RefocusError:
            errors += 1
    assert errors > 20


@pytest.mark.parametrize("name", ["job.json", "part"])
def test_damaged_parts_of_a_run_give_our_errors_only(clip, tmp_path, name):
    """What lies beside an unfinished result."""
    out = tmp_path / "r.jsonl"
    rows = [{"video": str(clip), "question": "q"}, {"video": "of the other shard", "question": "q"}]
    select_batch(rows, out, selector="uniform", num_frames=2, progress=False, shard=(0, 2))
    (path,) = (tmp_path / "r.jsonl.parts").glob(f"{name}*")
    whole, rng = path.read_bytes(), np.random.default_rng(3)
    for _ in range(40):
        path.write_bytes(damaged(whole, rng))
        try:
            select_batch(rows, out, selector="uniform", num_frames=2, progress=False, shard=(0, 2), resume=True)
        except RefocusError:
            continue


def test_without_network_urls_and_what_is_not_in_the_cache_of_the_hub_are_refused(clip, tmp_path, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("the network was used"))
    rows = [{"video": url, "question": "q"} for url in ("http://example.org/v.mp4", "HTTPS://example.org/v", str(clip))]
    settings = {"num_frames": 2, "progress": False, "network": False}
    select_batch(rows, tmp_path / "r.jsonl", selector="uniform", **settings)
    one, two, three = read_results(tmp_path / "r.jsonl")
    assert "is a URL" in one["error"]
    assert "is a URL" in two["error"]
    assert three["error"] is None
    with pytest.raises(SelectorLoadError, match="not complete in the local cache"):
        select_batch(rows, tmp_path / "s.jsonl", selector="owner/name", **settings)
    with pytest.raises(SelectorLoadError, match="not complete in the local cache"):
        select_batch(rows, tmp_path / "s.jsonl", selector="topk", selector_arguments={"encoder": "a/b"}, **settings)
