"""Batches on one machine: order, errors, resuming after kill -9, full disks, shards."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from refocus_select import select_frames
from refocus_select.corpus import load_results, read_results, select_batch
from refocus_select.corpus.local import in_parallel
from refocus_select.corpus.output import OutputError
from refocus_select.corpus.parts import Workspace
from refocus_select.errors import InputError
from tests.brightness import BrightnessSelector
from tests.corpus.clips import write_clips, write_questions
from tests.corpus.selectors import Counting, Meddling
from tests.video.clips import draw, encode, read

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return write_clips(tmp_path_factory.mktemp("clips"), 5, seconds=1.0)


@pytest.fixture
def questions(clips, tmp_path):
    return write_questions(tmp_path / "questions.jsonl", [str(clip) for clip in clips], 23)


def rows_of(path):
    return list(read_results(path))


def test_questions_of_a_video_share_its_encoding_and_rows_keep_their_order(questions, clips, tmp_path):
    selector = Counting(tmp_path / "log")
    result = select_batch(questions, tmp_path / "out.jsonl", selector=selector, num_frames=3)
    assert selector.encodings == len(clips)
    assert (result.rows, result.failed, result.videos, result.complete) == (23, 0, 5, True)
    rows = rows_of(result.path)
    assert [row["id"] for row in rows] == [f"q{i}" for i in range(23)]
    assert [row["note"] for row in rows] == list(range(23))
    for row in rows:
        alone = select_frames(row["video"], row["question"], 3, selector=BrightnessSelector())
        assert row["indices"] == alone.indices.tolist()
        assert row["timestamps"] == pytest.approx(alone.timestamps.tolist(), abs=1e-6)
    assert not (tmp_path / "out.jsonl.parts").exists()


def test_what_is_wrong_becomes_a_row(clips, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    table = tmp_path / "questions.jsonl"
    lines = [
        {"id": "a", "video": str(clips[0]), "question": "light?"},
        {"id": "b", "video": "broken.mp4", "question": "light?"},
        {"id": "c", "video": "missing.mp4", "question": "light?"},
        {"id": "d", "video": str(clips[0])},
        {"id": "a", "video": str(clips[1]), "question": "dark?"},
        {"id": "e", "video": str(clips[1]), "question": "light?", "indices": [7], "error": "mine"},
    ]
    table.write_text("".join(json.dumps(line) + "\n" for line in lines) + "{not json\n")
    result = select_batch(table, tmp_path / "out.jsonl", selector=BrightnessSelector(), num_frames=2)
    rows = rows_of(result.path)
    assert (result.rows, result.failed) == (7, 5)
    assert [row["error"] is None for row in rows] == [True, False, False, False, False, True, False]
    assert "broken.mp4" in rows[1]["error"]
    assert "missing.mp4" in rows[2]["error"]
    assert rows[3]["error"] == "line 4: question is missing"
    assert "row 5: the id 'a' is that of row 1" in rows[4]["error"]
    assert rows[4]["question"] == "dark?"
    assert len(rows[5]["indices"]) == 2
    assert rows[6]["error"].startswith("line 7")


@pytest.mark.parametrize("kind", [".csv", ".parquet"])
def test_tables_of_every_kind_give_the_same(questions, tmp_path, kind):
    import datasets

    rows = [json.loads(line) for line in questions.read_text().splitlines()]
    table = datasets.Dataset.from_list(rows)
    path = tmp_path / f"table{kind}"
    _ = table.to_csv(path) if kind == ".csv" else table.to_parquet(path)
    expected = select_batch(questions, tmp_path / "lines.jsonl", selector=BrightnessSelector())
    found = select_batch(path, tmp_path / f"result{'.parquet' if kind == '.csv' else '.jsonl'}",
                         selector=BrightnessSelector())  # fmt: skip
    for ours, theirs in zip(rows_of(expected.path), rows_of(found.path), strict=True):
        assert {**ours, "note": str(ours["note"])} == {**theirs, "note": str(theirs["note"])}


def test_results_as_a_dataset(questions, tmp_path):
    results = []
    for name in ("out.jsonl", "out.parquet"):
        select_batch(questions, tmp_path / name, selector=BrightnessSelector(), num_frames=2, scores=True)
        results.append(load_results(tmp_path / name))
    assert results[0].to_list() == results[1].to_list()
    assert results[0].column_names == results[1].column_names
    row = results[0][3]
    assert row["id"] == "q3"
    assert len(row["indices"]) == 2
    assert len(row["scores"]) == len(row["candidate_indices"]) == len(row["candidate_timestamps"])
    assert json.loads(row["extra"]) == {"note": 3}


def test_frames_are_written_once_and_are_the_right_ones(questions, tmp_path):
    result = select_batch(
        questions, tmp_path / "out.jsonl", selector=BrightnessSelector(), num_frames=2, frames=tmp_path / "frames"
    )
    named = set()
    for row in rows_of(result.path):
        assert len(row["files"]) == 2
        for index, file in zip(row["indices"], row["files"], strict=True):
            assert read(np.asarray(Image.open(tmp_path / "frames" / file))) == index
            named.add(file)
    assert named == {p.relative_to(tmp_path / "frames").as_posix() for p in (tmp_path / "frames").rglob("*.jpg")}


def test_existing_output_is_refused(questions, tmp_path):
    out = tmp_path / "out.jsonl"
    selector = Counting(tmp_path / "log")
    select_batch(questions, out, selector=selector)
    before, encoded = out.read_bytes(), selector.encodings
    with pytest.raises(InputError, match="exists already"):
        select_batch(questions, out, selector=selector)
    with pytest.raises(InputError, match="other num_frames"):
        select_batch(questions, out, selector=selector, num_frames=3, resume=True)
    again = select_batch(questions, out, selector=selector, resume=True)
    assert (again.complete, again.answered, selector.encodings) == (True, 0, encoded)
    assert out.read_bytes() == before
    select_batch(questions, out, selector=selector, num_frames=3, overwrite=True)
    assert all(len(row["indices"]) == 3 for row in rows_of(out))
    (tmp_path / "other.jsonl").write_text("mine\n")
    with pytest.raises(InputError, match="not written by this command"):
        select_batch(questions, tmp_path / "other.jsonl", selector=selector, resume=True)
    assert (tmp_path / "other.jsonl").read_text() == "mine\n"


def test_two_runs_on_one_output_are_refused(questions, tmp_path):
    with Workspace(tmp_path / "out.jsonl", (0, 1)), pytest.raises(InputError, match="another run"):
        select_batch(questions, tmp_path / "out.jsonl", selector=BrightnessSelector(), resume=True)
    with Workspace(tmp_path / "out.jsonl", (0, 2)), pytest.raises(InputError, match="another run"):
        select_batch(questions, tmp_path / "out.jsonl", selector=BrightnessSelector())  # divided in another way


@pytest.mark.parametrize("arguments", [
    {"num_frames": 0}, {"workers": 0}, {"engine": "spark"}, {"fps": -1.0}, {"temperature": 2.0}, {"shard": (2, 2)},
])  # fmt: skip
def test_bad_arguments_stop_before_anything_is_written(questions, tmp_path, arguments):
    with pytest.raises(InputError):
        select_batch(questions, tmp_path / "out.jsonl", selector=BrightnessSelector(), **arguments)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["questions.jsonl"]


def test_a_video_that_changes_while_it_is_read(tmp_path):
    clip = write_clips(tmp_path, 1, seconds=1.0)[0]
    rows = [{"video": str(clip), "question": "light?"}]
    select_batch(rows, tmp_path / "out.jsonl", selector=Meddling(clip), frames=tmp_path / "frames")
    assert "changed while it was read" in rows_of(tmp_path / "out.jsonl")[0]["error"]


# -- interrupted -----------------------------------------------------------------------------------

RUN = """
import sys
from pathlib import Path
from refocus_select.corpus import select_batch
from tests.corpus.selectors import Counting
select_batch(sys.argv[1], sys.argv[2], selector=Counting(Path(sys.argv[3]), delay=float(sys.argv[4])), workers=1)
"""


def start(*arguments, limit=None):
    def limited():
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writing then fails with an error, as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.Popen(
        [sys.executable, "-c", RUN, *map(str, arguments)],
        cwd=ROOT, stderr=subprocess.PIPE, text=True, preexec_fn=limited if limit else None,
    )  # fmt: skip


def test_a_killed_run_goes_on_and_repeats_nothing(questions, clips, tmp_path):
    whole, out, log = tmp_path / "whole.jsonl", tmp_path / "out.jsonl", tmp_path / "log"
    select_batch(questions, whole, selector=BrightnessSelector())
    process = start(questions, out, log, 0.5)
    part = tmp_path / "out.jsonl.parts" / "part-00000-of-00001.jsonl"
    deadline = time.monotonic() + 120
    while not (part.exists() and part.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not out.exists()
    kept = [json.loads(line) for line in part.read_text().splitlines()]
    finished = len({row["position"] % len(clips) for row in kept})
    assert 0 < finished < len(clips)
    with part.open("a") as file:
        file.write('{"position": 22, "sel')  # as if it had been killed in the middle of a line
    with pytest.raises(InputError, match="exists already, unfinished"):
        select_batch(questions, out, selector=BrightnessSelector())
    selector = Counting(tmp_path / "second")
    result = select_batch(questions, out, selector=selector, resume=True)
    assert selector.encodings == len(clips) - finished
    assert result.answered == 23 - len(kept)
    assert out.read_bytes() == whole.read_bytes()


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="no limit of file sizes here")
def test_a_full_disk_stops_with_a_clear_error_and_loses_nothing(questions, clips, tmp_path):
    whole, out, log = tmp_path / "whole.jsonl", tmp_path / "out.jsonl", tmp_path / "log"
    select_batch(questions, whole, selector=BrightnessSelector())
    process = start(questions, out, log, 0, limit=6000)  # the temporary table fits, the results do not
    error = process.communicate()[1]
    assert process.returncode != 0
    assert "cannot write" in error
    assert "--resume" in error
    assert not out.exists()
    part = tmp_path / "out.jsonl.parts" / "part-00000-of-00001.jsonl"
    lines = part.read_text().splitlines(keepends=True)
    assert lines
    assert all(line.endswith("\n") and json.loads(line) for line in lines)
    selector = Counting(tmp_path / "second")
    select_batch(questions, out, selector=selector, resume=True)
    assert selector.encodings < len(clips)
    assert out.read_bytes() == whole.read_bytes()


def test_a_place_that_cannot_be_written(questions, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        select_batch(questions, tmp_path / "file" / "out.jsonl", selector=BrightnessSelector())
    with pytest.raises(OutputError, match="cannot write"):
        select_batch(questions, tmp_path / "out.jsonl", selector=BrightnessSelector(), frames=tmp_path / "file")
    result = select_batch(questions, tmp_path / "second.jsonl", selector=BrightnessSelector())
    assert result.complete


# -- shards ---------------------------------------------------------------------------------------


def test_shards_give_the_same_as_one_run(questions, clips, tmp_path, monkeypatch):
    select_batch(questions, tmp_path / "whole.jsonl", selector=BrightnessSelector())
    out, selector = tmp_path / "out.jsonl", Counting(tmp_path / "log")
    monkeypatch.setenv("WORLD_SIZE", "3")
    for rank in ("2", "0", "1"):
        monkeypatch.setenv("RANK", rank)
        assert not out.exists()
        result = select_batch(questions, out, selector=selector)
    assert result.complete
    assert selector.encodings == len(clips)
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_work_of_one_division_is_used_by_another(questions, clips, tmp_path):
    select_batch(questions, tmp_path / "whole.jsonl", selector=BrightnessSelector())
    out, selector = tmp_path / "out.jsonl", Counting(tmp_path / "log")
    assert not select_batch(questions, out, selector=selector, shard=(1, 2)).complete
    assert select_batch(questions, out, selector=selector, resume=True, shard=(0, 1)).complete
    assert selector.encodings == len(clips)
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


# -- the engine -----------------------------------------------------------------------------------


def test_no_more_is_begun_than_there_are_workers():
    begun = itertools.count()
    for _ in itertools.islice(in_parallel(begun, lambda number: number, 3), 50):  # a list of all would never end
        pass
    assert next(begun) <= 50 + 3


def test_the_command_line(questions, tmp_path):
    command = [sys.executable, "-m", "refocus_select", "batch", questions, "--out", tmp_path / "out.parquet",
               "--selector", "uniform", "-n", "4"]  # fmt: skip
    environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE")}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "23 rows of 5 videos" in done.stdout
    assert all(len(row["indices"]) == 4 for row in rows_of(tmp_path / "out.parquet"))
    again = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment)
    assert again.returncode == 2
    assert "exists already" in again.stderr
    command = [sys.executable, "-m", "refocus_select", "convert", tmp_path / "out.parquet", tmp_path / "copy.jsonl"]
    assert subprocess.run(list(map(str, command)), capture_output=True).returncode == 0
    assert rows_of(tmp_path / "copy.jsonl") == rows_of(tmp_path / "out.parquet")


def test_rows_hold_videos_in_every_form(tmp_path: Path) -> None:
    """Contents, dicts, and what stands beside a folder of pictures."""
    film = encode(tmp_path / "film.mp4", 50, options={"g": "12"})
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(6):
        Image.fromarray(draw(number)).save(pictures / f"{number}.png")
    content = film.read_bytes()
    forms = {
        "path": film,
        "bytes": content,
        "dict": {"path": None, "bytes": content},
        "part": {"type": "video", "video": str(film), "video_start": "0:01", "video_end": 2},
        "folder": {"video": str(pictures), "sample_fps": 2},
        "plain folder": str(pictures),
        "no bytes": b"",
        "times": {"video": str(pictures), "timestamps": [0, 1, 2, 3, 4, 5]},
    }
    rows = [{"id": name, "video": video, "question": "What?"} for name, video in forms.items()]
    rows.append({"id": "beside", "video": str(pictures), "sample_fps": 4, "question": "What?"})
    rows.append({"id": "wrong", "video": str(pictures), "sample_fps": -4, "question": "What?"})
    out = tmp_path / "out.jsonl"
    select_batch(rows, out, selector="uniform", num_frames=6, progress=False)
    found = [json.loads(line) for line in out.read_text().splitlines()]
    named = dict(zip([*forms, "beside", "wrong"], found, strict=True))
    for name in ("bytes", "dict"):
        assert named[name]["timestamps"] == named["path"]["timestamps"]
        assert len(named[name]["timestamps"]) == 6
    assert all(1 <= time < 2 for time in named["part"]["timestamps"])
    assert named["folder"]["timestamps"] == [0, 0.5, 1, 1.5, 2, 2.5]
    assert named["plain folder"]["timestamps"] == [0, 1, 2, 3, 4, 5]
    assert named["beside"]["timestamps"] == [0, 0.25, 0.5, 0.75, 1, 1.25]
    assert "must be text" in named["no bytes"]["error"]
    assert "give sample_fps" in named["times"]["error"]
    assert "sample_fps must be a number above 0" in named["wrong"]["error"]
