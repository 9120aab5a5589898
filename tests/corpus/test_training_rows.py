"""Results as training rows: what each stack's own reader finds in them, and what a break leaves."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from refocus_select.corpus import read_results, select_batch, training_rows, write_training_rows
from refocus_select.errors import InputError
from tests.brightness import BrightnessSelector
from tests.corpus.clips import write_clips


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Results of five questions about two clips, and the folder of their frames; the last two cannot be learnt."""
    folder = tmp_path_factory.mktemp("made")
    one, two = map(str, write_clips(folder, 2, seconds=1.0))
    rows = [
        {
            "id": "a",
            "video": one,
            "question": "Is it light?",
            "options": ["yes", "no"],
            "answer": 1,
            "reply": "It is not.",
        },
        {"id": "b", "video": two, "question": "What is in the <image>?", "reply": "A <video> of grey."},
        {"id": "c", "video": two, "question": "Is it dark?", "options": ["yes", "no"], "answer": 0, "reply": "It is."},
        {"id": "d", "video": two, "question": "And why?"},
        {"id": "e", "video": str(folder / "gone.mp4"), "question": "Where?", "reply": "Nowhere."},
    ]
    select_batch(rows, folder / "out.jsonl", selector=BrightnessSelector(), num_frames=3, frames=folder / "pictures")
    return folder / "out.jsonl", folder / "pictures"


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.mark.parametrize("stack", sorted(training_rows.STACKS))
def test_every_row_has_its_frames_and_their_times(stack, made, tmp_path):
    results, frames = made
    done = write_training_rows(results, tmp_path / "train.jsonl", stack, frames=frames, answer="reply")
    assert (done.read, done.written, done.without_frames, done.without_answer) == (5, 3, 1, 1)
    expected = [row for row in read_results(results) if row["id"] in "abc"]
    for row, result, reply in zip(
        rows_of(tmp_path / "train.jsonl"), expected, ("It is not.", "A video of grey.", "It is."), strict=True
    ):
        images = row["image"] if stack == "qwen-vl" else row["images"]
        text, answer = spoken(stack, row)
        times = [f"<{t:.1f} seconds>" for t in result["timestamps"]]
        assert re.findall(r"<\d+\.\d seconds>", text) == times
        assert re.sub(r"<\d+\.\d seconds>", "T", text).startswith("T<image>\n" * 2 + "T<image>\n")
        assert text.count("<image>") == len(images) == 3
        assert answer == reply
        assert [Path(i).is_absolute() for i in images] == [True] * 3
        assert [str(Path(i).relative_to(frames.resolve())) for i in images] == result["files"]
        assert Image.open(images[0]).size == (64, 64) or np.asarray(Image.open(images[0])).ndim == 3


def spoken(stack: str, row: dict) -> tuple[str, str]:
    """What the user and the assistant say, with a tag where a picture stands."""
    if stack == "qwen-vl":
        return row["conversations"][0]["value"], row["conversations"][1]["value"]
    if stack == "trl":
        parts = row["prompt"][0]["content"]
        text = "".join(p["text"] if p["type"] == "text" else "<image>\n" for p in parts)
        return text, row["completion"][0]["content"][0]["text"]
    return row["messages"][0]["content"], row["messages"][1]["content"]


def test_options_are_asked_for_by_letter(made, tmp_path):
    results, frames = made
    done = write_training_rows(results, tmp_path / "train.jsonl", "ms-swift", frames=frames)
    assert (done.written, done.without_answer) == (2, 2)
    first, second = rows_of(tmp_path / "train.jsonl")
    assert "Is it light?\nA. yes\nB. no\nAnswer with the option's letter" in first["messages"][0]["content"]
    assert [first["messages"][1]["content"], second["messages"][1]["content"]] == ["B", "A"]


@pytest.mark.parametrize("stack", ["ms-swift", "llamafactory"])
def test_frames_as_one_video(stack, made, tmp_path):
    results, frames = made
    write_training_rows(results, tmp_path / "train.jsonl", stack, frames=frames, form="video")
    row, result = rows_of(tmp_path / "train.jsonl")[0], next(iter(read_results(results)))
    assert [len(video) for video in row["videos"]] == [3]
    text = row["messages"][0]["content"]
    assert text.startswith("<video>The video lasts for 1.00 seconds, and 3 frames are selected from it.")
    assert re.findall(r"(\d\.\d\d)s", text) == [f"{t:.2f}" for t in result["timestamps"]]


def test_an_interrupted_run_continues_where_it_was(made, tmp_path, monkeypatch):
    results, frames = made
    whole = tmp_path / "whole.jsonl"
    write_training_rows(results, whole, "trl", frames=frames, answer="reply")
    monkeypatch.setattr(training_rows, "_ROWS_AT_ONCE", 1)
    stock, seen = training_rows._example, []

    def failing(row, *arguments):
        seen.append(row["id"])
        if len(seen) == 3:
            raise KeyboardInterrupt
        return stock(row, *arguments)

    target = tmp_path / "train.jsonl"
    with monkeypatch.context() as patch:
        patch.setattr(training_rows, "_example", failing)
        with pytest.raises(KeyboardInterrupt):
            write_training_rows(results, target, "trl", frames=frames, answer="reply")
    assert not target.exists()
    part = tmp_path / "train.jsonl.part"
    with part.open("ab") as file:
        file.write(b'{"half a li')  # what a power cut leaves
    with pytest.raises(InputError, match=r"is an interrupted run: continue it with --resume"):
        write_training_rows(results, target, "trl", frames=frames, answer="reply")
    with pytest.raises(InputError, match=r"begun with other results or settings"):
        write_training_rows(results, target, "ms-swift", frames=frames, answer="reply", resume=True)
    monkeypatch.setattr(training_rows, "_example", lambda row, *a: (seen.append(row["id"]), stock(row, *a))[1])
    write_training_rows(results, target, "trl", frames=frames, answer="reply", resume=True)
    assert seen == ["a", "b", "c", "c", "d", "e"]
    assert target.read_bytes() == whole.read_bytes()
    assert {p.name for p in tmp_path.iterdir()} == {"whole.jsonl", "train.jsonl"}


def test_bad_input_says_what_to_do(made, tmp_path):
    results, frames = made
    ask = {"frames": frames}
    with pytest.raises(InputError, match="written for ms-swift, llamafactory, trl, qwen-vl, not 'other'"):
        write_training_rows(results, tmp_path / "a.jsonl", "other", **ask)
    with pytest.raises(InputError, match="trl reads frames as images, not 'video'"):
        write_training_rows(results, tmp_path / "a.jsonl", "trl", form="video", **ask)
    with pytest.raises(InputError, match=r"written to \.jsonl"):
        write_training_rows(results, tmp_path / "a.json", "trl", **ask)
    with pytest.raises(InputError, match="no folder"):
        write_training_rows(results, tmp_path / "a.jsonl", "trl", frames=tmp_path / "none")
    with pytest.raises(InputError, match=r"no picture .*; is .* the folder of `batch --frames`\?"):
        write_training_rows(results, tmp_path / "a.jsonl", "trl", frames=tmp_path)
    with pytest.raises(InputError, match=r"none of 5 results can be trained on: 1 have no frames, 4 no answer"):
        write_training_rows(results, tmp_path / "b.jsonl", "trl", answer="wrong", **ask)
    assert not (tmp_path / "b.jsonl.part").exists()


def test_the_command_line(made, tmp_path):
    results, frames = made
    command = [sys.executable, "-m", "refocus_select", "convert", results, tmp_path / "t.jsonl", "--to", "llamafactory"]
    done = subprocess.run([*command, "--frames", frames], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "2 rows; 1 results without frames and 2 without an answer left out" in done.stdout
    use = done.stdout.splitlines()[1]
    entry = json.loads(use[use.index("{") : use.rindex("}") + 1])["NAME"]
    assert entry["formatting"] == "sharegpt"
    assert Path(entry["file_name"]) == (tmp_path / "t.jsonl").resolve()
    assert set(rows_of(tmp_path / "t.jsonl")[0]) <= set(entry["columns"])
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--to needs --frames DIR" in done.stderr
