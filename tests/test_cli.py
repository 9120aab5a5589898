"""The command line, run in its own process as a user would."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from refocus_select import FrameSelector, cli
from tests.brightness import ramp
from tests.test_selection import write_mp4


@pytest.fixture
def film(tmp_path):
    path = tmp_path / "ramp.mp4"
    write_mp4(path, ramp(30, 48, 64))
    return path


def run(*arguments, **kwargs):
    command = [sys.executable, "-m", "refocus_select", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, **kwargs)


def test_select_prints_json_only_on_standard_output(film, tmp_path):
    done = run(
        "select", film, "first question?", "second question?", "-n", 3, "--selector", "uniform", "--json",
        "--out", tmp_path / "out", "--plot", tmp_path / "why.png", "--sheet", tmp_path / "sheet.png",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    assert first["question"] == "first question?"
    assert {"video", "question", "selector", "indices", "timestamps", "scores", "duration", "warnings"} <= first.keys()
    assert len(second["timestamps"]) == 3
    assert first["timestamps"] == pytest.approx([i / 10 for i in first["indices"]])
    written = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file())
    assert "out/01-first-question/selection.json" in written
    assert "why-02-second-question.png" in written
    assert "sheet-01-first-question.png" in written


def test_select_prints_times_for_people(film):
    done = run("select", film, "what?", "-n", 2, "--selector", "uniform", "--start", "0:01", "--end", "2.5")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("what?")
    assert all(" s   frame " in line for line in lines[1:3])
    assert 10 <= int(lines[1].split()[-1]) <= int(lines[2].split()[-1]) <= 25


def test_info(film):
    facts = json.loads(run("info", film, "--json").stdout)
    assert (facts["num_frames"], facts["width"], facts["height"], facts["codec"]) == (30, 64, 48, "h264")
    assert facts["duration"] == pytest.approx(3.0)
    assert "30" in run("info", film).stdout


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["select", "{film}", ""], 2, "question is empty"),
        (["select", "{film}", "what?", "-n", "0"], 2, "num_frames must be at least 1"),
        (["select", "{film}", "what?", "--start", "99"], 2, "start"),
        (["select", "no-such.mp4", "what?"], 3, "no-such.mp4"),
        (["select", "{text}", "what?"], 3, "text.mp4"),
        (["info", "{text}"], 3, "text.mp4"),
        (["select", "{film}", "what?", "--selector", "nonsense"], 4, "no selector 'nonsense'"),
    ],
)
def test_errors_are_one_line_and_have_a_status(film, tmp_path, arguments, status, words, capsys):
    text = tmp_path / "text.mp4"
    text.write_text("this is not a video")
    places = {"film": film, "text": text}
    filled = [a.format(**places) for a in arguments]
    if filled[0] == "select" and "--selector" not in filled:
        filled += ["--selector", "uniform"]
    assert cli.main(filled) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert words in captured.err
    assert captured.err.startswith("refocus-select: ")
    assert len(captured.err.splitlines()) == 1


@pytest.mark.parametrize("arguments", [["--help"], ["select", "--help"], ["info", "--help"]])
def test_help_teaches(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert ("VIDEO" in text) == (len(arguments) > 1)
    if arguments[0] != "info":
        assert "examples:" in text
        assert "exit status" in text


@pytest.mark.parametrize("time", ["abc", "1:2:3:4", "-5", "1:-2", ""])
def test_bad_times_are_usage_errors(film, time, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["select", str(film), "what?", f"--start={time}"])
    assert stop.value.code == 2
    assert "write seconds, m:ss or h:mm:ss" in capsys.readouterr().err


def test_a_reader_that_goes_away_is_no_error(film):
    command = (
        f"{sys.executable} -m refocus_select select {film} {' '.join(f'q{i}' for i in range(40))} --selector uniform"
    )
    done = subprocess.run(["sh", "-c", f"{command} | head -n 1"], capture_output=True, text=True)
    assert done.stdout.startswith("q0")
    assert "Traceback" not in done.stderr


def test_the_option_that_was_renamed_is_named(capsys):
    for command in (["select", "a.mp4", "what?"], ["batch", "q.jsonl", "--out", "r.jsonl"]):
        with pytest.raises(SystemExit, match="2"):
            cli.main([*command, "--snap"])
        assert "--snap is called --no-exact now" in capsys.readouterr().err


@pytest.mark.parametrize(("option", "exact"), [([], True), (["--exact"], True), (["--no-exact"], False)])
def test_exact_reaches_the_selector(monkeypatch, film, option, exact):
    given = []
    encode = FrameSelector.encode
    monkeypatch.setattr(FrameSelector, "encode", lambda *a, **kw: given.append(kw["exact"]) or encode(*a, **kw))
    assert cli.main(["select", str(film), "what?", "--selector", "uniform", *option]) == 0
    assert given == [exact]


def test_without_network_urls_are_refused_and_nothing_is_fetched(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("the network was used"))
    assert cli.main(["select", "HTTPS://example.org/v.mp4", "a bird", "--selector", "uniform", "--no-network"]) == 2
    assert "is a URL, and the network may not be used" in capsys.readouterr().err
    index = ["index", "--out", str(tmp_path / "i"), "--no-network"]
    assert cli.main([*index, "http://example.org/v.mp4"]) == 2
    assert "is a URL, and the network may not be used" in capsys.readouterr().err
    empty = tmp_path / "v.mp4"
    empty.write_bytes(b"")
    cache = str(tmp_path / "hub")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", cache)
    for command in (["select", str(empty), "a bird", "--no-network"], [*index, str(empty)]):
        for options in (["--selector", "nobody/nothing"], ["--selector", "topk", "--encoder", "nobody/nothing"]):
            assert cli.main([*command, *options]) == 4
            assert "nobody/nothing is not complete in the local cache" in capsys.readouterr().err
