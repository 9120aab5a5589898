"""The benchmark of words: its texts, its questions, and what words are compared with."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from benchmarks.words import compose
from benchmarks.words.peers import bm25, frames_of_lines, fused_ranks
from benchmarks.words.texts import HERE, TEMPLATES, programmes
from refocus_select import open_video
from refocus_select.words import Line, read_transcript
from refocus_select.words.match import LineIndex


def test_every_clause_names_a_line_that_is_there():
    for programme in programmes():
        for part in programme.parts:
            assert part.said, part.title
            for kind, line, text in part.asked:
                assert text
                assert kind == "picture" or 0 <= line < len(part.said), (part.title, text)


def test_validation_and_test_share_no_template_and_no_programme():
    assert not {t for kind in TEMPLATES["validation"].values() for t in kind} & {
        t for kind in TEMPLATES["test"].values() for t in kind
    }
    titles = {split: {p.title for p in programmes() if p.split == split} for split in TEMPLATES}
    assert not titles["validation"] & titles["test"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    shortest = min((p for p in programmes() if p.kind == "news"), key=lambda p: sum(len(part.said) for part in p.parts))
    return compose._make(shortest, 0, folder, 0)


def test_a_video_is_made_with_its_transcript_and_spans(made):
    with open_video(made.video) as video:
        duration = video.metadata.duration
    lines = read_transcript(made.transcript)
    assert len(lines) >= 6
    assert lines[-1].end <= duration
    assert {question.category for question in made.questions} <= set(compose.KINDS)
    for question in made.questions:
        for start, end in question.evidence:
            assert 0 <= start < end <= duration + 1 / compose.FPS
    spoken = [q for q in made.questions if q.category in ("said", "shown while said")]
    starts = {round(line.start, 2) for line in lines}
    assert all(round(q.evidence[0][0], 2) in starts for q in spoken)


def test_questions_are_many_and_of_every_kind(monkeypatch, tmp_path):
    monkeypatch.setattr(compose, "_write_video", lambda path, *rest: path.touch())
    videos = compose.make(tmp_path)
    counts = Counter((m.split, q.category) for m in videos for q in m.questions)
    assert sum(count for (split, _), count in counts.items() if split == "test") >= 200
    for kind in ("said", "written", "who says", "shown while said", "not there"):
        assert counts["test", kind] >= 10, kind
        assert counts["validation", kind] >= 5, kind
    assert [q.question for m in compose.make(tmp_path) for q in m.questions] == [
        q.question for m in videos for q in m.questions
    ]


def test_moments_of_the_film():
    for entry in json.loads((HERE / "film.json").read_text(encoding="utf-8"))["film"]:
        assert "“" in entry["question"]
        assert all(0 <= start < end < 597 for start, end in entry["moments"])


def test_peers():
    lines = ["the cat sat on the mat", "a dog barks", "the tax rises again"]
    scores = bm25(lines, "When does the dog bark, and barks again?")
    assert scores.argmax() == 1
    index = LineIndex([Line(10.0 * k, 10.0 * k + 4, t) for k, t in enumerate(lines)], np.eye(3), np.eye(3))
    times = np.arange(0.0, 30.0)
    assert frames_of_lines(scores, index, times, 1).tolist() == [12]
    assert len(frames_of_lines(np.zeros(3), index, times, 4)) == 4
    ranked = fused_ranks(np.array([0.1, 0.9, 0.5]), np.array([0.2, 0.8, 0.9]), 2)
    assert set(ranked.tolist()) == {1, 2}
