"""Evidence measures by hand, and on a real clip."""

from __future__ import annotations

import numpy as np
import pytest

from refocus_select.errors import InputError
from refocus_select.evaluation.choosers import Encodings, SelectorChooser, StoredChooser
from refocus_select.evaluation.evidence import EvidenceScore, evidence_measures, score_evidence
from refocus_select.evaluation.selections import StoredSelection
from refocus_select.questions import Question
from refocus_select.selectors import UniformSelector

from .videos import write_videos


def test_recall_and_precision_by_hand():
    # spans 0-2 and 10-12; frames at 1, 1.5, 5: one span of two, two frames of three
    recall, precision, _ = evidence_measures([1, 1.5, 5], [(0, 2), (10, 12)])
    assert (recall, precision) == (0.5, pytest.approx(2 / 3))
    assert evidence_measures([2.0], [(0, 2)])[:2] == (1, 1)  # the ends belong to a span
    assert evidence_measures([2.4], [(0, 2)], tolerance=0.5)[:2] == (1, 1)
    assert evidence_measures([2.6], [(0, 2)], tolerance=0.5)[:2] == (0, 0)


def test_coverage_by_hand():
    # 4 s of evidence; a frame at 1 covers 0-2 of 0-3, a frame at 9.5 covers 8.5-10.5: 0.5 s of 10-11
    assert evidence_measures([1, 9.5], [(0, 3), (10, 11)], reach=1)[2] == pytest.approx(2.5 / 4)
    # frames and spans that overlap count once
    assert evidence_measures([1, 1.2, 1.4], [(0, 2), (1, 4)], reach=0.5)[2] == pytest.approx(1.4 / 4)
    assert evidence_measures([5], [(0, 2)], reach=1)[2] == 0
    # single moments: the share within reach
    assert evidence_measures([5], [(4.5, 4.5), (7, 7)], reach=1)[2] == 0.5


def test_coverage_matches_counting_small_pieces():
    generator = np.random.default_rng(0)
    for _ in range(20):
        times = generator.uniform(0, 30, 4)
        starts = generator.uniform(0, 28, 3)
        spans = [(s, s + generator.uniform(0.5, 2)) for s in starts]
        grid = np.linspace(0, 31, 310_001)
        inside = np.any([(grid >= s) & (grid <= e) for s, e in spans], axis=0)
        near = np.any(np.abs(grid[:, None] - times) <= 0.7, axis=1)
        expected = (inside & near).sum() / inside.sum()
        assert evidence_measures(times, spans, reach=0.7)[2] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    ("times", "spans", "options"),
    [([], [(0, 1)], {}), ([1], [], {}), ([1], [(0, 1)], {"tolerance": -1}), ([1], [(0, 1)], {"reach": -1})],
)
def test_what_cannot_be_measured(times, spans, options):
    with pytest.raises(InputError):
        evidence_measures(times, spans, **options)


def test_selectors_are_measured_on_a_clip(tmp_path):
    write_videos(tmp_path, "a.mp4")
    video = str(tmp_path / "a.mp4")
    questions = [
        Question("early", video, "early?", evidence=((0.0, 1.0),), category="x"),
        Question("late", video, "late?", evidence=((4.0, 6.0), (4.5, 5.5))),
    ]
    stored = [
        StoredSelection("early", 2, (1, 59)),
        StoredSelection("late", 2, None, (4.51, 5.2)),
        StoredSelection("late", 4, (1, 2, 3, 4)),
    ]
    choosers = [SelectorChooser(UniformSelector(), Encodings()), StoredChooser("mine", "1", stored)]
    told = []
    scores = {
        (s.id, s.selector, s.num_frames): s
        for s in score_evidence(questions, choosers, [2, 3, 4], report=told.append, progress=False)
    }
    early, late = scores["early", "mine", 2], scores["late", "mine", 2]
    assert (early.indices, early.timestamps) == ((1, 59), (0.1, 5.9))
    assert (early.recall, early.precision) == (1.0, 0.5)
    assert early.categories == ("x",)
    assert early.length == "up to 2 min"
    assert late.indices == (45, 52)
    assert (late.recall, late.precision) == (1.0, 1.0)
    # uniform, K = 3: near 1, 3 and 5 s
    assert scores["late", "uniform", 3].recall == 1
    assert scores["late", "uniform", 3].precision == pytest.approx(1 / 3)
    # nobody selected 3 frames, which is not a problem; 4 frames were selected for one of the questions
    assert [(problem.where, problem.what) for problem in told] == [("early", "mine has no selection of 4 frames")]
    assert ("late", "mine", 4) in scores
    assert ("early", "mine", 3) not in scores
    assert EvidenceScore.from_dict(early.to_dict()) == early


def test_stored_frames_of_another_copy_are_refused(tmp_path):
    write_videos(tmp_path, "a.mp4")
    question = Question("q", str(tmp_path / "a.mp4"), "?", evidence=((0, 1),))
    told = []
    chooser = StoredChooser("mine", "1", [StoredSelection("q", 1, (60,))])
    assert not list(score_evidence([question], [chooser], [1], report=told.append, progress=False))
    assert "has frame 60, but" in told[0].what
    with pytest.raises(InputError, match="several selections"):
        StoredChooser("mine", "1", [StoredSelection("q", 1, (6,)), StoredSelection("q", 1, (7,))])
