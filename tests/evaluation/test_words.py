"""Subtitles of benchmarks in their published formats, with and without, in one report."""

from __future__ import annotations

import json

import pytest

from refocus_select.cli import main
from refocus_select.errors import InputError
from refocus_select.evaluation.benchmarks import read_benchmark
from refocus_select.questions import Question, words_of
from refocus_select.words import parse_transcript
from tests.corpus.test_words import LINES, QUESTION, srt
from tests.words.subtitled import write_film

VIDEOMME = {
    "video_id": "001", "duration": "short", "domain": "Knowledge", "sub_category": "x", "videoID": "fFjv93ACGo8",
    "question_id": "001-1", "task_type": "Action", "question": QUESTION, "options": ["A. yes", "B. no"], "answer": "A",
}  # fmt: skip
LONGVIDEOBENCH = {
    "id": "86Cxy_0", "video_path": "86Cxy.mp4", "subtitle_path": "86Cxy_en.json", "question": QUESTION,
    "candidates": ["yes", "no"], "correct_choice": 0, "question_category": "T2E", "duration_group": 60, "level": "L1",
    "topic_category": "x", "starting_timestamp_for_subtitles": 100.0,
}  # fmt: skip


def clock(seconds: float) -> str:
    return f"00:{int(seconds) // 60:02d}:{seconds % 60:06.3f}"


def test_videomme(tmp_path):
    (tmp_path / "videomme.json").write_text(json.dumps([VIDEOMME]))
    (tmp_path / "data").mkdir()
    write_film(tmp_path / "data" / "fFjv93ACGo8.mp4")
    (question,) = read_benchmark("videomme", tmp_path).questions
    assert "words" not in question.extra  # many of its videos have none
    (tmp_path / "subtitle").mkdir()
    srt(tmp_path / "subtitle" / "fFjv93ACGo8.srt")
    (question,) = read_benchmark("videomme", tmp_path).questions
    assert question.extra["words"] == str(tmp_path / "subtitle" / "fFjv93ACGo8.srt")
    assert words_of(question) == question.extra["words"]


@pytest.mark.parametrize("layout", ["line", "text"])
def test_longvideobench(tmp_path, layout):
    """The subtitles are those of the film that the video was cut from, and go on after it."""
    rows = [
        {"start": clock(100 + start), "end": clock(100 + end), "line": text}
        if layout == "line"
        else {"timestamp": [100 + start, 100 + end], "text": text}
        for start, end, text in ((-50.0, -48.0, "Long before."), *LINES, (300.0, 302.0, "Long after."))
    ]
    if layout == "text":
        rows[-1]["timestamp"][1] = None
    (tmp_path / "subtitles").mkdir()
    (tmp_path / "subtitles" / "86Cxy_en.json").write_text(json.dumps(rows))
    (tmp_path / "lvb_val.json").write_text(json.dumps([LONGVIDEOBENCH]))
    (tmp_path / "videos").mkdir()
    write_film(tmp_path / "videos" / "86Cxy.mp4")
    (question,) = read_benchmark("longvideobench", tmp_path).questions
    found = words_of(question)
    assert [(line.start, line.end, line.text) for line in found][:3] == list(LINES)
    assert [line.text for line in found.within(40.0)] == [text for _, _, text in LINES]


def test_times_in_hours_are_read():
    (line,) = parse_transcript(json.dumps([{"start": "01:00:01.500", "end": "01:00:03.000", "line": "late"}]))
    assert (line.start, line.end, line.text) == (3601.5, 3603.0, "late")


def test_a_beginning_that_is_no_number():
    with pytest.raises(InputError, match="words_start"):
        words_of(Question("a", "a.mp4", "?", extra={"words": "a.srt", "words_start": "soon"}))
    lines = [{"start": 5.0, "end": 6.0, "text": "x"}]
    assert words_of(Question("a", "a.mp4", "?", extra={"words": lines, "words_start": 4}))[0].start == 1.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("talks")
    write_film(folder / "talk.mp4")
    write_film(folder / "other.mp4")
    srt(folder / "lines.srt")
    rows = [
        {"id": "said", "video": "talk.mp4", "question": QUESTION, "words": "lines.srt", "evidence": [[11.0, 14.0]],
         "options": ["yes", "no"], "answer": 0},
        {"id": "seen", "video": "talk.mp4", "question": "a dark picture", "words": "lines.srt",
         "evidence": [[30.0, 40.0]], "options": ["yes", "no"], "answer": 0},
        {"id": "none", "video": "other.mp4", "question": QUESTION, "evidence": [[11.0, 14.0]],
         "options": ["yes", "no"], "answer": 0},
    ]  # fmt: skip
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_with_and_without_in_one_report(folder, tmp_path, capsys):
    out = tmp_path / "results"
    arguments = ["evaluate", "evidence", "questions", str(folder / "questions.jsonl"), "--out", str(out)]
    arguments += ["--selectors", "uniform", "mini", "--frames", "2", "--words", "off", "auto"]
    assert main(arguments) == 0
    rows = [json.loads(line) for path in out.glob("scores-*.jsonl") for line in path.read_text().splitlines()]
    recall = {(row["selector"], row["id"]): row["recall"] for row in rows}
    assert {name for name, _ in recall} == {"uniform", "mini", "mini + words"}  # uniform takes no account of words
    assert recall["mini + words", "said"] == 1.0
    for name in ("seen", "none"):
        assert recall["mini + words", name] == recall["mini", name]
    setup = json.loads((out / "setup.json").read_text())["selectors"]
    assert setup["mini + words"]["settings"]["words"] == {"words": "auto"}
    assert "words" not in setup["mini"]["settings"]
    for page in ("report.md", "report.html"):
        text = (out / page).read_text()
        assert "mini + words" in text
        assert "Overfitting means that a model learns" in text
    assert main(arguments) == 0  # what is done is not done again


class Listener:
    """Answers "yes" if the lines of the chosen moments hold the answer."""

    name = "listener"
    fingerprint = "listener-1"

    def answer(self, question, selection):
        from refocus_select.evaluation.answerers import Answer

        return Answer(0 if any("Overfitting" in quote.text for quote in selection.quotes) else 1)


def test_questions_are_answered_with_and_without(folder, tmp_path):
    out = tmp_path / "results"
    arguments = ["evaluate", "qa", "questions", str(folder / "questions.jsonl"), "--out", str(out), "--frames", "2"]
    arguments += ["--model", "tests.evaluation.test_words:Listener", "--selectors", "mini", "--baseline", "mini"]
    assert main([*arguments, "--words", "auto", "off"]) == 0
    rows = [json.loads(line) for path in out.glob("predictions-*.jsonl") for line in path.read_text().splitlines()]
    right = {(row["selector"], row["id"]): row["choice"] == row["target"] for row in rows}
    assert right["mini + words", "said"]
    assert not right["mini", "said"]
    assert any(row["quotes"] for row in rows)


def test_the_default_is_without(folder, tmp_path):
    out = tmp_path / "results"
    assert main(["evaluate", "evidence", "questions", str(folder / "questions.jsonl"), "--out", str(out),
                 "--selectors", "mini", "--frames", "2", "--baseline", "mini"]) == 0  # fmt: skip
    rows = [json.loads(line) for path in out.glob("scores-*.jsonl") for line in path.read_text().splitlines()]
    assert {row["selector"] for row in rows} == {"mini"}
    assert not any(row["quotes"] for row in rows)
