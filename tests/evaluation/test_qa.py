"""Question answering with a tiny real model, real clips and real selectors; interrupted, resumed, and in parts."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from refocus_select.adapters import last_selection
from refocus_select.cli import main
from refocus_select.encoding import VideoEncoding
from refocus_select.errors import InputError, VideoDecodeError
from refocus_select.evaluation.answerers import (
    Answer,
    ReferenceAnswerer,
    VideoModelAnswerer,
    load_answerer,
)
from refocus_select.evaluation.choosers import Encodings, SelectorChooser
from refocus_select.evaluation.qa import Prediction, answer_questions
from refocus_select.evaluation.records import RecordWriter, read_records
from refocus_select.evaluation.run import read_parts
from refocus_select.questions import Question
from refocus_select.reference.base import ReferenceModel
from refocus_select.selectors import FrameSelector, UniformSelector
from refocus_select.shards import Shard
from tests.brightness import BrightnessSelector
from tests.video.clips import read_all

from .videos import write_model, write_videos

OPTIONS = ("one", "two", "three")


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    """Four clips, a table of eight questions about them and one about a clip that is not there, and a model."""
    folder = tmp_path_factory.mktemp("room")
    write_videos(folder, *[f"v{n}.mp4" for n in range(4)])
    rows = [
        {"id": f"q{v}{q}", "video": f"v{v}.mp4", "question": f"What is {q} in {v}?", "options": OPTIONS,
         "answer": (v + q) % 3, "category": "xy"[q], "evidence": [[1 + q, 2 + q]]}
        for v in range(4) for q in range(2)
    ]  # fmt: skip
    rows.append({"id": "gone", "video": "none.mp4", "question": "?", "options": OPTIONS, "answer": 0})
    rows.append({"id": "open", "video": "v0.mp4", "question": "Why?"})
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_model(folder / "model")
    return folder


def question(room, name="q00", **changes):
    video = str(room / f"v{name[1]}.mp4")
    return Question(**{"id": name, "video": video, "question": "light?", "options": OPTIONS, "answer": 1, **changes})


class Counting:
    """Answers with the number in the first picture, and remembers what it was asked."""

    name = "counting"
    fingerprint = "counting-1"

    def __init__(self):
        self.asked = []

    def answer(self, question, selection):
        numbers = read_all(selection.frames)
        self.asked.append((question.id, selection.selector, tuple(numbers)))
        return Answer(numbers[0] % len(question.options), tokens=len(numbers))


def choosers(*selectors, **options):
    encodings = Encodings()
    return [SelectorChooser(selector, encodings, **options) for selector in selectors]


def test_everybody_goes_the_same_way(room):
    answerer = Counting()
    asked = [question(room, "q00"), question(room, "q10"), question(room, "q01")]
    found = list(answer_questions(asked, choosers(UniformSelector(), BrightnessSelector()), answerer, [2, 4],
                                  progress=False))  # fmt: skip
    assert len(found) == 3 * 2 * 2
    assert [p.key[0] for p in found] == ["q00", "q01"] * 4 + ["q10"] * 4  # video by video
    for prediction, (name, selector, numbers) in zip(found, answerer.asked, strict=True):
        assert (prediction.id, prediction.selector) == (name, selector)
        assert prediction.indices == numbers  # the frames that the model saw are the ones that are kept
        assert prediction.timestamps == tuple(number / 10 for number in numbers)
        assert len(numbers) == prediction.num_frames == prediction.tokens
        assert prediction.choice == numbers[0] % 3
        assert prediction.correct == (prediction.choice == 1)
        assert Prediction.from_dict(json.loads(json.dumps(prediction.to_dict()))) == prediction


def test_options_reach_the_selector_only_when_asked(room):
    selector = BrightnessSelector()
    list(answer_questions([question(room)], choosers(selector), Counting(), [2], progress=False))
    assert selector.options == [None]
    list(answer_questions([question(room)], choosers(selector, options_to_selector=True), Counting(), [2],
                          progress=False))  # fmt: skip
    assert selector.options == [list(OPTIONS)]


def test_a_video_is_encoded_once_for_all_that_share_an_encoder(room):
    class Watched(BrightnessSelector):
        encoded = 0

        def encode_frames(self, frames, total):
            Watched.encoded += 1
            return super().encode_frames(frames, total)

    first, second = Watched(), Watched()
    second.name = "again"
    asked = [question(room, "q00"), question(room, "q01"), question(room, "q10")]
    list(answer_questions(asked, choosers(first, second), Counting(), [2, 3, 4], progress=False))
    assert Watched.encoded == 2  # videos


def test_a_broken_video_stops_nobody_else(room, tmp_path):
    (tmp_path / "v9.mp4").write_bytes(b"no video")
    bad = question(room, "q90", video=str(tmp_path / "v9.mp4"))
    told = []
    found = list(answer_questions([bad, question(room)], choosers(BrightnessSelector()), Counting(), [2],
                                  report=told.append, progress=False))  # fmt: skip
    assert [p.id for p in found] == ["q00"]
    assert told[0].where == "q90"
    assert told[0].what.startswith("brightness, 2 frames: ")

    class Failing(Counting):
        def answer(self, question, selection):
            raise VideoDecodeError("a frame is damaged")

    told.clear()
    assert not list(answer_questions([question(room)], choosers(UniformSelector()), Failing(), [2],
                                     report=told.append, progress=False))  # fmt: skip
    assert told[0].what == "uniform, 2 frames: a frame is damaged"


# -- answerers ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def by_logits(room):
    settings = {"scoring": "logits", "temporal_merge": "duplicate", "dtype": "float32", "device": "cpu"}
    return VideoModelAnswerer(str(room / "model"), **settings)


def selection_of(room, selector, num_frames=3, name="q00"):
    return selector.select(question(room, name).video, "light?", num_frames=num_frames, cache=False)


def test_a_video_model_sees_exactly_the_chosen_frames(room, by_logits):
    first = selection_of(room, UniformSelector())
    answer = by_logits.answer(question(room), first)
    seen = last_selection(by_logits.processor)
    assert seen.indices.tolist() == first.indices.tolist()
    assert len(answer.scores) == 3
    assert answer.choice == int(np.argmax(answer.scores))
    # the same through the wrapper itself, as a user would
    text = "light?\nA. one\nB. two\nC. three\nAnswer with the option's letter from the given choices directly."
    chat = [{"role": "user", "content": [{"type": "video", "video": first.video.source},
                                         {"type": "text", "text": text}]}]  # fmt: skip
    inputs = by_logits.processor.apply_chat_template(
        [chat], tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True,
        processor_kwargs={"num_frames": 3},
    )  # fmt: skip
    with torch.no_grad():
        logits = by_logits.model(**inputs).logits[0, -1]
    tokens = [by_logits.processor.tokenizer.encode(letter)[0] for letter in "ABC"]
    assert answer.scores == pytest.approx(logits[tokens].tolist(), abs=1e-4)
    assert answer.tokens == inputs["input_ids"].shape[1]


def test_other_frames_change_the_answer_and_equal_k_means_equal_tokens(room, by_logits):
    dark = BrightnessSelector().select(question(room).video, "dark?", num_frames=3, cache=False)
    first, second = (by_logits.answer(question(room), s) for s in (selection_of(room, UniformSelector()), dark))
    assert first.scores != second.scores
    assert first.tokens == second.tokens
    assert by_logits.answer(question(room), dark) == second


def test_generation_is_greedy_and_read(room):
    answerer = VideoModelAnswerer(str(room / "model"), dtype="float32", device="cpu", max_new_tokens=3,
                                  preamble="Look well.", instruction="Letter:", system_prompt="Be brief.")  # fmt: skip
    selection = selection_of(room, UniformSelector())
    answer = answerer.answer(question(room), selection)
    assert answer == answerer.answer(question(room), selection)
    assert answer.scores == ()
    assert answer.text
    # a token is a byte here: the words in front, behind, and of the system make the difference
    plain = VideoModelAnswerer(str(room / "model"), dtype="float32", device="cpu", max_new_tokens=3)
    default = "Answer with the option's letter from the given choices directly."
    system = len("system\nBe brief.\n") + 2  # and its two marks
    expected = len("Look well.\n") + len("Letter:") - len(default) + system
    assert answer.tokens - plain.answer(question(room), selection).tokens == expected
    assert answerer.fingerprint != plain.fingerprint


def test_pairs_of_frames_halve_what_selectors_choose(room):
    answerer = VideoModelAnswerer(str(room / "model"), scoring="logits", dtype="float32", device="cpu",
                                  temporal_merge="pairs")  # fmt: skip
    (found,) = answer_questions([question(room)], choosers(UniformSelector()), answerer, [4], progress=False)
    assert (found.num_frames, len(found.indices)) == (4, 2)


class BrightnessReference(ReferenceModel):
    """Option 0 is as likely as the first picture is bright, option 1 as the encoding's last one."""

    name = "brightness"
    fingerprint = "reference-1"

    def __init__(self):
        self.keys = []

    def option_logits(self, requests):
        found = []
        for request in requests:
            self.keys.append(request.clip.key)
            encoding = request.clip.encoding(BrightnessSelector())
            assert isinstance(encoding, VideoEncoding)
            rows = []
            for subset in request.subsets:
                pictures = request.clip.pictures(subset.numpy(), size=(48, 80))
                bright = encoding.tensors["brightness"][subset]
                rows.append([float(pictures[0].mean()), float(bright[-1]), 0.0])
            found.append(torch.tensor(rows))
        return found


def test_a_reference_model_answers_from_the_chosen_frames(room):
    model = BrightnessReference()
    asked = [question(room, "q00"), question(room, "q01")]
    found = list(answer_questions(asked, choosers(UniformSelector(), BrightnessSelector()), ReferenceAnswerer(model),
                                  [2, 3], progress=False))  # fmt: skip
    assert len(found) == 8
    assert len(set(model.keys)) == 1  # one clip for all selections of the video: each frame is seen once
    for prediction in found:
        selection = BrightnessSelector().select(asked[0].video, "light?", num_frames=60, cache=False)
        frames = selection.decode(np.array(prediction.indices), size=(48, 80))
        assert prediction.scores[0] == pytest.approx(frames[0].mean(), abs=0.01)
        last = selection.decode(np.array(prediction.indices), size=(8, 8))[-1]
        assert prediction.scores[1] == pytest.approx(last.mean(), abs=1)
        assert prediction.choice == int(np.argmax(prediction.scores))


def test_a_reference_model_needs_no_preparation(room):
    selection = selection_of(room, UniformSelector())
    prepared, fresh = ReferenceAnswerer(BrightnessReference()), ReferenceAnswerer(BrightnessReference())
    prepared.prepare([selection, selection_of(room, UniformSelector(), 5)])
    assert prepared.answer(question(room), selection) == fresh.answer(question(room), selection)


def test_a_video_model_as_reference_model(room):
    """The trainer's reward model answers the evaluation too, and gets the frames that were chosen."""
    answerer = load_answerer(f"reference:{room / 'model'}", device="cpu", dtype="float32", scoring="logits")
    assert isinstance(answerer, ReferenceAnswerer)
    asked = [question(room, "q00"), question(room, "q01", options=("dark", "light"), answer=0)]
    found = list(answer_questions(asked, choosers(UniformSelector(), BrightnessSelector()), answerer, [2, 4],
                                  progress=False))  # fmt: skip
    assert len(found) == 8
    assert all(np.isfinite(p.scores).all() and p.choice == int(np.argmax(p.scores)) for p in found)
    assert [len(p.scores) for p in found] == [3, 2] * 4
    alone = ReferenceAnswerer(answerer.model).answer(asked[0], selection_of(room, UniformSelector(), 2))
    assert alone.scores == pytest.approx(found[0].scores, abs=1e-4)


def test_your_own_answerer(room):
    here = "tests.evaluation.test_qa"
    assert isinstance(load_answerer(f"{here}:Counting"), Counting)
    assert isinstance(load_answerer(f"{here}:BrightnessReference"), ReferenceAnswerer)
    for spec, message in (
        (f"{here}:nobody", "cannot be loaded"),
        ("no_such_module:x", "cannot be loaded"),
        (f"{here}:OPTIONS", "no method answer"),
    ):
        with pytest.raises(InputError, match=message):
            load_answerer(spec)
    with pytest.raises(InputError, match="scoring must be one of"):
        load_answerer(str(room / "model"), scoring="guess")


# -- shards and records ---------------------------------------------------------------------------


def test_shards_divide_the_videos(monkeypatch):
    asked = [Question(f"{v}{q}", f"v{v}", "?") for q in range(2) for v in range(5)]
    parts = [Shard(index, 3).of(asked) for index in range(3)]
    assert sorted(q.id for part in parts for q in part) == sorted(q.id for q in asked)
    assert not {q.video for q in parts[0]} & {q.video for q in parts[1]}
    assert Shard.from_text("2/3") == Shard(2, 3)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert Shard.from_environment() == Shard(1, 4)
    for text in ("3/3", "1", "-1/2", "a/b", "0/0"):
        with pytest.raises(InputError):
            Shard.from_text(text)
    monkeypatch.setenv("RANK", "x")
    with pytest.raises(InputError, match="give --shard"):
        Shard.from_environment()


def test_records_survive_a_torn_line(tmp_path):
    path = tmp_path / "a" / "x-00000-of-00001.jsonl"
    with RecordWriter(path) as file:
        for n in range(3):
            file.write({"id": str(n), "selector": "s", "num_frames": 2, "text": "é" * 50_000})
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"id": "3", "sel' + b"x" * 100_000)
    assert [row["id"] for row in read_records(path)] == ["0", "1", "2"]
    with RecordWriter(path) as file:
        assert path.read_bytes() == whole
        file.write({"id": "3", "selector": "s", "num_frames": 2})
    with RecordWriter(path.with_name("x-00001-of-00002.jsonl")) as file:
        file.write({"id": "3", "selector": "s", "num_frames": 2, "text": "later"})
        file.write({"id": "4", "selector": "s", "num_frames": 2})
    merged = read_parts(path.parent, "x")
    assert [row["id"] for row in merged] == ["0", "1", "2", "3", "4"]
    assert "text" not in merged[3]  # of two with the same question, selector and K the first
    path.write_bytes(b"torn")
    with RecordWriter(path):
        assert path.read_bytes() == b""
    path.write_text("[1]\n")
    with pytest.raises(InputError, match="not an object"):
        list(read_records(path))


# -- the commands ---------------------------------------------------------------------------------


def command(room, out, *more, kind="qa"):
    model = ["--model", str(room / "model"), "--dtype", "float32", "--scoring", "logits"] if kind == "qa" else []
    return ["evaluate", kind, "questions", str(room / "questions.jsonl"), *model, "--device", "cpu", "--out", str(out),
            "--selectors", "uniform", "random", "--frames", "2", "4", *more]  # fmt: skip


def lines(out, name="predictions"):
    return [json.loads(line) for path in sorted(out.glob(f"{name}-*")) for line in path.read_text().splitlines()]


def keys(rows):
    return sorted((row["id"], row["selector"], row["num_frames"]) for row in rows)


def plain(rows):
    """Without what may differ from run to run."""
    return sorted(json.dumps({k: v for k, v in row.items() if k != "seconds"}) for row in rows)


EVERYTHING = sorted(
    (f"q{v}{q}", s, k) for v in range(4) for q in range(2) for s in ("uniform", "random") for k in (2, 4)
)


@pytest.fixture(scope="module")
def finished(room, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished")
    assert main(command(room, out)) == 0
    return out


def test_the_command_keeps_everything_and_reports(finished, capsys):
    assert keys(lines(finished)) == EVERYTHING
    report = (finished / "report.md").read_text()
    assert "1 videos with 1 questions are not there" in report
    assert "none.mp4" in report
    assert "open: fewer than two options" in report
    assert "accuracy, %" in report
    assert "uniform-1" in report  # fingerprints
    assert "| x | 4 |" in report  # per category
    summary = json.loads((finished / "summary.json").read_text())
    assert [(line["selector"], line["num_frames"], line["count"]) for line in summary["lines"]] == [
        ("uniform", 2, 8), ("random", 2, 8), ("uniform", 4, 8), ("random", 4, 8),
    ]  # fmt: skip
    right = [
        row["choice"] == row["target"]
        for row in lines(finished)
        if (row["selector"], row["num_frames"]) == ("uniform", 4)
    ]
    assert summary["lines"][2]["mean"] == pytest.approx(np.mean(right))
    page = (finished / "report.html").read_text()
    assert page.count("data:image/png;base64,") == report.count(".png)") >= 5
    assert main(["evaluate", "report", str(finished), "--baseline", "random"]) == 0
    assert "gain over random" in capsys.readouterr().out
    assert main(["evaluate", "report", str(finished)]) == 0


def test_a_killed_evaluation_goes_on_without_losing_or_repeating(room, finished, tmp_path):
    """kill -9 in the middle, a torn line as a crash of the machine may leave it, and a second start."""
    arguments = [sys.executable, "-m", "refocus_select", *command(room, tmp_path)]
    record = tmp_path / "predictions-00000-of-00001.jsonl"
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and (not record.is_file() or record.read_bytes().count(b"\n") < 5):
            time.sleep(0.005)
        process.kill()
        process.wait()
    assert process.returncode != 0
    before = record.read_bytes()
    kept = before[: before.rfind(b"\n") + 1]
    count = kept.count(b"\n")
    assert 5 <= count < len(EVERYTHING)
    record.write_bytes(kept + b'{"id": "q3')
    assert main(command(room, tmp_path)) == 0
    assert record.read_bytes().startswith(kept)
    assert keys(lines(tmp_path)) == EVERYTHING
    assert plain(lines(tmp_path)) == plain(lines(finished))
    again = record.read_bytes()
    assert main(command(room, tmp_path)) == 0
    assert record.read_bytes() == again


def test_parts_give_the_same_as_the_whole(room, finished, tmp_path, capsys, monkeypatch):
    assert main(command(room, tmp_path, "--shard", "0/2")) == 0
    assert "the report follows" in capsys.readouterr().out
    assert not (tmp_path / "report.md").is_file()
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(command(room, tmp_path)) == 0  # as a process of torchrun or accelerate launch
    assert len(list(tmp_path.glob("predictions-*-of-00002.jsonl"))) == 2
    assert plain(lines(tmp_path)) == plain(lines(finished))
    table = (finished / "report.md").read_text().split("**Accuracy**")[1].split("##")[0].splitlines()
    ours = (tmp_path / "report.md").read_text().split("**Accuracy**")[1].split("##")[0].splitlines()
    assert [row.rsplit("|", 2)[0] for row in ours] == [row.rsplit("|", 2)[0] for row in table]
    monkeypatch.delenv("RANK")
    monkeypatch.delenv("WORLD_SIZE")
    assert main(command(room, tmp_path)) == 0  # in one process: nothing is left to do
    assert keys(lines(tmp_path)) == EVERYTHING


def test_more_selectors_and_what_others_selected_may_join(room, finished, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(command(room, out)) == 0
    exported = tmp_path / "theirs.jsonl"
    assert main(["evaluate", "export", str(out), "--selector", "random", "-n", "4", "--out", str(exported)]) == 0
    assert len(exported.read_text().splitlines()) == 8
    more = ["--selectors", "uniform", "--selections", f"{exported}=theirs"]
    assert main([*command(room, out), *more]) == 0
    rows = lines(out)
    joined = {row["id"]: row for row in rows if row["selector"] == "theirs"}
    random = {row["id"]: row for row in rows if (row["selector"], row["num_frames"]) == ("random", 4)}
    assert len(joined) == 8
    for name, row in joined.items():
        assert (row["num_frames"], row["indices"], row["choice"], row["scores"]) == tuple(
            random[name][key] for key in ("num_frames", "indices", "choice", "scores")
        )
    table = capsys.readouterr().out
    assert "| theirs | 4 |" in table
    report = (out / "report.md").read_text()
    assert "At K = 4 the selectors have different questions" not in report
    assert main(["evaluate", "export", str(out), "--selector", "nobody", "-n", "4", "--out", str(exported)]) == 2
    assert "there are: random at K = 2" in capsys.readouterr().err


def test_results_are_not_mixed(room, finished, tmp_path, capsys):
    assert main([*command(room, finished), "--options-to-selector"]) == 2
    assert "another options_to_selector" in capsys.readouterr().err
    assert main([*command(room, finished), "--preamble", "Look."]) == 2
    assert "another answerer" in capsys.readouterr().err
    assert main(["evaluate", "report", str(tmp_path)]) == 2
    assert "holds no evaluation" in capsys.readouterr().err


def test_evidence_on_the_command_line(room, tmp_path, capsys):
    assert main(command(room, tmp_path, "--reach", "0.5", kind="evidence")) == 0
    rows = lines(tmp_path, "scores")
    assert keys(rows) == EVERYTHING
    # uniform, K = 4 of 6 s: near 0.75, 2.25, 3.75, 5.25 s; evidence at 1-2 s and 2-3 s
    scores = {(row["id"], row["num_frames"]): row["recall"] for row in rows if row["selector"] == "uniform"}
    assert {scores[f"q{v}0", 4] for v in range(4)} == {0.0}
    assert {scores[f"q{v}1", 4] for v in range(4)} == {1.0}
    report = (tmp_path / "report.md").read_text()
    assert "coverage the share of the evidence's time that is at most 0.5 s" in report
    assert "| uniform | 4 | 0.500" in capsys.readouterr().out


def test_arguments_are_checked(room, tmp_path, capsys):
    assert main([*command(room, tmp_path), "--frames", "0"]) == 2
    assert "--frames must be at least 1" in capsys.readouterr().err
    assert main([*command(room, tmp_path), "--selections", str(room / "questions.jsonl")]) == 2
    assert "needs indices or timestamps" in capsys.readouterr().err


def test_a_selector_is_what_it_says(room):
    (chooser,) = choosers(FrameSelector.from_pretrained("random", seed=7))
    assert chooser.settings["seed"] == 7
    assert chooser.settings["rule"]["max_frames"] == 512


def test_paths_of_this_package_stay_out(finished):
    """The report names the user's own paths only where the user gave them."""
    report = (finished / "report.md").read_text()
    assert str(Path(__file__).parents[2] / "refocus_select") not in report
