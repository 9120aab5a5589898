"""Tables by hand, and reports that hold everything that they promise."""

from __future__ import annotations

import base64
import io
import json
import math
import re

import numpy as np
import pytest
from PIL import Image

from refocus_select.cli import main
from refocus_select.errors import InputError
from refocus_select.evaluation import figures
from refocus_select.evaluation.evidence import EvidenceScore
from refocus_select.evaluation.pages import (
    Code,
    Figure,
    Heading,
    Table,
    Text,
    to_html,
    to_markdown,
    versions,
    write_report,
)
from refocus_select.evaluation.qa import Prediction
from refocus_select.evaluation.report import build_report
from refocus_select.evaluation.tables import all_pairs, by_group, difference, overall

from .videos import write_videos


def prediction(name, selector="uniform", right=True, *, k=4, video=None, **more):
    values = {"indices": (1, 20, 30, 50), "timestamps": (0.1, 2.0, 3.0, 5.0), "strategy": "selected", "target": 1}
    video = video or f"{name[:2]}.mp4"
    return Prediction(name, video, selector, k, choice=1 if right else 0, duration=6.0, question=f"What is {name}?",
                      **{**values, **more})  # fmt: skip


RESULTS = [
    prediction("v0a", right=True, categories=("x",), length="short"),
    prediction("v0b", right=False, categories=("y", "x"), length="short"),
    prediction("v1a", right=False, categories=("y",), length="long"),
    prediction("v0a", "mini", right=True, categories=("x",), length="short"),
    prediction("v0b", "mini", right=True, categories=("y", "x"), length="short"),
    prediction("v1a", "mini", right=True, categories=("y",), length="long"),
    prediction("v1b", "mini", right=False, categories=("y",), length="long"),
    prediction("v0a", right=False, k=8),
]


def correct(result):
    return float(result.correct)


def test_values_and_gains_by_hand():
    lines = {(line.selector, line.num_frames): line for line in overall(RESULTS, correct)}
    assert list(lines) == [("uniform", 4), ("mini", 4), ("uniform", 8)]
    assert lines["uniform", 4].value.mean == pytest.approx(1 / 3)
    assert lines["uniform", 4].gain is None
    assert lines["mini", 4].value.mean == pytest.approx(3 / 4)
    gain = lines["mini", 4].gain
    assert (gain.count, gain.groups, gain.better, gain.worse) == (3, 2, 2, 0)  # on the three that both have
    assert gain.mean == pytest.approx(2 / 3)
    # two videos with differences (0 + 1) / 2 and 1: the means of draws are 1/2, 2/3, 1
    assert (gain.low, gain.high) == (0.5, 1.0)
    assert math.isnan(lines["uniform", 8].value.low)
    assert difference(RESULTS, correct, "uniform", "mini", 4).mean == -gain.mean
    assert difference(RESULTS, correct, "uniform", "mini", 8) is None
    assert list(all_pairs(RESULTS, correct, 4)) == [("uniform", "mini")]


def test_groups_by_hand():
    by_category = by_group(RESULTS, correct, lambda r: r.categories, 4)
    assert {g: {s: i.mean for s, i in v.items()} for g, v in by_category.items()} == {
        "x": {"uniform": 0.5, "mini": 1.0},
        "y": {"uniform": 0.0, "mini": pytest.approx(2 / 3)},
    }
    assert list(by_group(RESULTS, correct, lambda r: [r.length], 4)) == ["short", "long"]
    seconds = [prediction(f"v{n}", length=f"{n} s") for n in (600, 15, 3600)]
    assert list(by_group(seconds, correct, lambda r: [r.length], 4)) == ["15 s", "600 s", "3600 s"]


# -- pages ----------------------------------------------------------------------------------------


def picture(colour="red"):
    buffer = io.BytesIO()
    Image.new("RGB", (4, 3), colour).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_page_needs_nothing_else(tmp_path):
    parts = [
        Heading("A & B"),
        Text("1 < 2"),
        Code("a --b <c>\nd"),
        Table(["name", "value"], [["x|y", "<1>"]], "All"),
        Figure("red", picture(), 'a "red" picture'),
    ]
    markdown, page = write_report(tmp_path, "Title", parts)
    text = markdown.read_text()
    assert "| x\\|y | <1> |" in text
    assert "    a --b <c>\n    d" in text
    assert '![a "red" picture](red.png)' in text
    assert Image.open(tmp_path / "red.png").getpixel((0, 0)) == (255, 0, 0)
    content = page.read_text()
    assert "1 &lt; 2" in content
    assert "<td>&lt;1&gt;</td>" in content
    assert "A &amp; B" in content
    (data,) = re.findall(r'src="data:image/png;base64,([^"]+)"', content)
    assert base64.b64decode(data) == picture()
    assert not re.search(r'(src|href)="(?!data:)', content)
    assert to_html("t", []).startswith("<!doctype html>")
    assert to_markdown("t", []) == "# t\n"


def test_versions_name_what_decides():
    assert {"python", "torch", "transformers", "numpy", "av"} <= versions().keys()


def folder_of(tmp_path, kind, name, rows, **setup):
    tmp_path.mkdir(exist_ok=True)
    facts = {"kind": kind, "benchmark": "questions", "selectors": {
        "uniform": {"fingerprint": "uniform-1", "settings": {}},
        "mini": {"fingerprint": "f" * 64, "settings": {"seed": 3}},
    }, **setup}  # fmt: skip
    (tmp_path / "setup.json").write_text(json.dumps(facts))
    (tmp_path / f"{name}-00000-of-00001.jsonl").write_text("".join(json.dumps(r.to_dict()) + "\n" for r in rows))
    run = {"time": "now", "command": "refocus-select evaluate … --out x", "versions": {"python": "3.11"}}
    (tmp_path / "runs-00000-of-00001.jsonl").write_text(json.dumps(run) + "\n")
    return tmp_path


def test_a_report_on_answers(tmp_path):
    write_videos(tmp_path, "v0.mp4")
    rows = [prediction(r.id, r.selector, r.correct, k=r.num_frames, categories=r.categories, length=r.length,
                       video=str(tmp_path / f"{r.id[:2]}.mp4"), tokens=90 if r.selector == "mini" else 80)
            for r in RESULTS]  # fmt: skip
    out = folder_of(tmp_path / "out", "qa", "predictions", rows, answerer={"name": "model"})
    (out / "problems-00000-of-00001.jsonl").write_text(
        json.dumps({"id": "v1b", "what": "uniform, 4 frames: damaged"}) + "\n"
        + json.dumps({"id": "v0a", "what": "solved since"}) + "\n"
    )  # fmt: skip
    (out / "questions.json").write_text(
        json.dumps({"missing": {f"w{n}": 2 for n in range(30)}, "left_out": {"open-ended": 4}, "problems": []})
    )
    report = build_report(out)
    text = report.markdown.read_text()
    assert "| mini | 4 | 75.0 [50.0, 100.0] | +66.7 [+50.0, +100.0] |" in text
    assert "At K = 4 the selectors have different questions (uniform 3, mini 4)" in text
    assert "lengths of the prompts differ by more than 2 %" in text
    assert "30 videos with 60 questions are not there" in text
    assert "… and 10 more" in text
    assert "v1b: uniform, 4 frames: damaged" in text
    assert "solved since" not in text
    assert "4 (open-ended)" in text
    assert "refocus-select evaluate … --out x" in text
    assert '{"seed": 3}' in text
    assert "f" * 40 in text
    assert "| short |" in text
    assert (out / "example-1-frames.png").is_file()  # v0.mp4 is there
    assert text.count("-frames.png") == 2  # v1.mp4 is not
    assert "| mini | 4 |" in report.table
    assert build_report(out).markdown.read_text() == text


def test_a_report_on_evidence(tmp_path):
    def score(name, selector, recall):
        spans = ((0.0, 1.0),)
        return EvidenceScore(name, f"{name[:2]}.mp4", selector, 4, (1,), (0.5,), "selected", spans, recall, 0.25, 0.125,
                             length="short", question="Where?", duration=6.0)  # fmt: skip

    rows = [score(f"v{v}a", s, float(s == "mini")) for v in range(2) for s in ("uniform", "mini")]
    out = folder_of(tmp_path, "evidence", "scores", rows, tolerance=5.0, reach=1.0)
    text = build_report(out).markdown.read_text()
    assert "| mini | 4 | 1.000 [1.000, 1.000] | 0.250 [0.250, 0.250] | 0.125 [0.125, 0.125] |" in text
    assert "+1.000 [+1.000, +1.000]" in text
    assert "within 5 s" in text
    summary = json.loads((out / "summary.json").read_text())
    assert summary["lines"]["coverage"][0]["mean"] == 0.125


def test_one_video_has_no_interval_and_the_report_says_so(tmp_path):
    out = folder_of(tmp_path, "qa", "predictions", [prediction("v0a"), prediction("v0b", right=False)])
    text = build_report(out).markdown.read_text()
    assert "| uniform | 4 | 50.0 | – |" in text
    assert "no interval can be given" in text


def test_a_folder_without_results(tmp_path):
    out = folder_of(tmp_path, "qa", "predictions", [])
    with pytest.raises(InputError, match="no results yet"):
        build_report(out)


def test_a_needle_report(tmp_path, capsys):
    film = tmp_path / "film"
    film.mkdir()
    for number in range(20):
        Image.new("RGB", (40, 24), (number * 10,) * 3).save(film / f"{number:02d}.png")
    needles = [{"name": n, "text": n, "question": "Which number?"} for n in ("41", "42")]
    (tmp_path / "needles.json").write_text(json.dumps(needles))
    out = tmp_path / "out"
    command = ["evaluate", "needle", str(film), "--needles", str(tmp_path), "--selectors", "uniform", "random",
               "--lengths", "8", "16", "--depths", "3", "--out", str(out)]  # fmt: skip
    for size in ("2", "4"):
        assert main([*command, "-n", size]) == 0
    text = (out / "report.md").read_text()
    assert len(re.findall(r"^\| (uniform|random) \| [24] \|", text, re.M)) == 4
    for name in ("heat-2", "heat-4", "curve-recall", "gains-recall", "lengths", "picks"):
        assert f"({name}.png)" in text
        with Image.open(out / f"{name}.png") as drawn:
            assert len(drawn.convert("RGB").getcolors(1 << 24)) > 10
    assert "41: “Which number?”" in text
    assert "uniform-1" in text
    assert (out / "report.html").stat().st_size > 50_000
    assert [row["selector"] for row in json.loads((out / "summary.json").read_text())] == ["uniform", "random"] * 2


# -- pictures -------------------------------------------------------------------------------------


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def close(image, colour):
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return np.abs(image - wanted).max(axis=2) < 12


def test_gains_are_coloured_by_what_they_decide():
    results = [prediction(f"v{n}", s, s == "good" or (s == "uniform" and n % 2)) for n in range(20)
               for s in ("uniform", "good", "bad")]  # fmt: skip
    image = pixels(figures.gains(overall(results, correct), what="accuracy", baseline="uniform"))
    assert close(image, "#2b8a3e").any()
    assert close(image, "#c92a2a").any()


def test_a_timeline_shows_evidence_and_frames_where_they_are():
    strip = figures.Strip("one", [1], [5.0], True)
    image = pixels(figures.timeline([strip], end=10.0, spans=[(0.0, 2.5)], title="where"))
    shaded, tick = (np.flatnonzero(close(image, c).any(axis=0)) for c in ("#ffe066", "#2b8a3e"))
    width = (shaded.max() - shaded.min()) / 2.5  # pixels per second
    assert tick.mean() == pytest.approx(shaded.min() + 5.0 * width, abs=0.15 * width)


def test_frames_are_shown_with_their_selector(tmp_path):
    write_videos(tmp_path, "a.mp4")
    many = figures.Strip("many", list(range(0, 60, 5)), [n / 10 for n in range(0, 60, 5)], False)
    few = figures.Strip("few", [3, 9], [0.3, 0.9])
    drawn = figures.frame_strips(str(tmp_path / "a.mp4"), [many, few], title="What?")
    width, height = Image.open(io.BytesIO(drawn)).size
    assert width == 8 * 154 + 4  # at most eight frames
    assert height == 30 + 2 * (18 + 90 + 16 + 4)
    assert figures.frame_strips(str(tmp_path / "none.mp4"), [few], title="?") is None


def test_many_selectors_have_a_style_each():
    results = [prediction(f"v{n}", f"s{i}", (n + i) % 3 == 0, k=k) for n in range(4) for i in range(14) for k in (4, 8)]
    assert len(figures.curves(overall(results, correct), what="accuracy")) > 10_000
