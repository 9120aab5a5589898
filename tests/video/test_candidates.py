"""The candidate rules: the paper's golden cases, and the promises of the default rule for any times."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refocus_select.errors import InputError
from refocus_select.video import CandidateRule, open_video, sample_candidates
from refocus_select.video.candidates import paper_indices, time_indices

GOLDEN = json.loads((Path(__file__).parents[1] / "data/golden/aux/candidate_sampling.json").read_text())


def _video(count: int, fps: float | None = None, timestamps: np.ndarray | None = None):
    return open_video(np.zeros((count, 2, 2, 3), np.uint8), fps=fps, timestamps=timestamps)


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: f"{case['total_frames']}at{case['fps']:g}")
def test_paper_rule_equals_the_authors(case: dict) -> None:
    total, rate = case["total_frames"], case["fps"]
    indices = paper_indices(total, rate, fps=case["max_fps"], max_frames=case["max_num_frames"])
    assert indices.tolist() == case["idx"]
    assert len(indices) == case["num"]


def test_paper_preset_on_a_video() -> None:
    plan = sample_candidates(_video(900, fps=30.0), "paper")
    assert plan.indices.tolist() == np.linspace(0, 899, 120, dtype=int).tolist()
    np.testing.assert_allclose(plan.timestamps, plan.indices / 30.0)
    repeated = sample_candidates(_video(5, fps=1.0), "paper")  # slower than 4 fps: repetitions by definition
    assert len(repeated) == 20
    assert len(np.unique(repeated.indices)) == 5


times_strategy = st.lists(st.floats(0.001, 3.0), min_size=0, max_size=150).map(
    lambda gaps: np.concatenate([[0.0], np.cumsum(gaps)])
)


@given(times=times_strategy, fps=st.floats(0.05, 60), most=st.integers(1, 80), last=st.floats(0.001, 2))
def test_default_rule_keeps_its_promises(times: np.ndarray, fps: float, most: int, last: float) -> None:
    duration = float(times[-1]) + last
    indices = time_indices(times, 0.0, duration, fps=fps, max_frames=most)
    assert 1 <= len(indices) <= min(most, len(times))
    assert len(indices) <= max(1, duration * fps + 1e-3)
    assert (np.diff(indices) > 0).all()
    assert indices[0] >= 0
    assert indices[-1] < len(times)


@given(count=st.integers(1, 400), rate=st.floats(1, 120), fps=st.floats(0.1, 30), most=st.integers(1, 200))
def test_constant_rate_is_divided_evenly(count: int, rate: float, fps: float, most: int) -> None:
    times = np.arange(count) / rate
    indices = time_indices(times, 0.0, count / rate, fps=fps, max_frames=most)
    expected = min(count, most, max(1, int(count / rate * fps + 1e-6)))
    assert len(indices) == expected
    if len(indices) > 2:
        gaps = np.diff(indices)
        assert gaps.max() - gaps.min() <= 1


def test_the_centre_of_each_segment_is_taken() -> None:
    times = np.arange(300) / 30
    assert time_indices(times, 0, 10, fps=1, max_frames=100).tolist() == list(range(15, 300, 30))
    assert time_indices(times, 0, 10, fps=4, max_frames=5).tolist() == [30, 90, 150, 210, 270]
    assert time_indices(times, 2, 4, fps=1, max_frames=100).tolist() == [75, 105]


def test_varying_rate_is_sampled_by_time_not_by_number() -> None:
    times = np.concatenate([np.arange(100) / 100, 1 + np.arange(9.0)])  # a dense second, then one frame a second
    indices = time_indices(times, 0, 10, fps=1, max_frames=100)
    assert indices.tolist() == [50, *range(100, 109)]
    still = np.array([0.0, 0.1, 60.0])  # one frame stays for a minute
    assert time_indices(still, 0, 61, fps=2, max_frames=100).tolist() == [0, 1, 2]
    assert time_indices(still, 0, 61, fps=1 / 30.5, max_frames=2).tolist() == [1]


def test_part_of_a_video() -> None:
    video = _video(100, fps=10.0)
    plan = sample_candidates(video, fps=2, start=3, end=5)
    assert plan.indices.tolist() == [32, 37, 42, 47]
    assert sample_candidates(video, start=9.99).indices.tolist() == [99]
    assert sample_candidates(video, start=2.04, end=2.05).indices.tolist() == [20]
    assert sample_candidates(video, end=10.4, max_frames=1).indices.tolist() == [50]
    paper = sample_candidates(video, "paper", start=3, end=5)
    assert paper.indices.tolist() == np.linspace(30, 49, 8, dtype=int).tolist()


def test_a_part_that_begins_before_the_first_frame_is_divided_from_the_first_frame_on() -> None:
    video = _video(100, timestamps=10 + np.arange(100) / 10)  # shown from 10 s to 20 s
    for start in (None, 0, 4.5):
        assert sample_candidates(video, start=start, fps=1).indices.tolist() == list(range(5, 100, 10))
        assert sample_candidates(video, start=start, end=12, fps=1).indices.tolist() == [5, 15]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"start": -1}, "negative"),
        ({"end": -1}, "negative"),
        ({"start": 10}, "lasts 10.00 s"),
        ({"start": 5, "end": 5}, "must lie after start"),
        ({"start": 5, "end": 2}, "must lie after start"),
        ({"end": 12}, "lasts 10.00 s"),
        ({"start": float("nan")}, "time in seconds"),
        ({"start": "3"}, "time in seconds"),
        ({"end": float("inf")}, "time in seconds"),
        ({"end": True}, "time in seconds"),
        ({"fps": 0}, "fps"),
        ({"fps": float("nan")}, "fps"),
        ({"fps": "2"}, "fps"),
        ({"max_frames": 0}, "max_frames"),
        ({"max_frames": 2.5}, "max_frames"),
        ({"rule": "papers"}, "unknown candidate rule"),
    ],
)
def test_unusable_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        sample_candidates(_video(100, fps=10.0), **arguments)


def test_unusable_rule() -> None:
    with pytest.raises(InputError, match="method"):
        CandidateRule(method="random")  # type: ignore[arg-type]


def test_on_files(clip: Callable[[str], Path]) -> None:
    with open_video(clip("gap.mp4")) as video:  # eleven seconds without a new frame
        plan = sample_candidates(video, fps=1)
        assert (np.diff(plan.indices) > 0).all()
        assert video.timestamps[plan.indices].tolist() == plan.timestamps.tolist()
        assert len(plan) < video.metadata.duration
    with open_video(clip("one_frame.mp4")) as video:
        assert sample_candidates(video).indices.tolist() == [0]
        assert sample_candidates(video, "paper").indices.tolist() == [0]


# -- short videos --------------------------------------------------------------------------------------------------


@given(times=times_strategy, fps=st.floats(0.05, 60), most=st.integers(1, 80), least=st.integers(1, 80))
def test_a_short_video_gives_its_least_number_of_candidates(
    times: np.ndarray, fps: float, most: int, least: int
) -> None:
    duration = float(times[-1]) + 0.5
    indices = time_indices(times, 0.0, duration, fps=fps, max_frames=most, min_frames=least)
    assert min(most, least, len(times)) <= len(indices) <= min(most, len(times))
    assert (np.diff(indices) > 0).all()
    if int(duration * fps) >= least + 1:  # dense enough by itself: at a constant rate nothing changes
        even = np.arange(len(times)) / 10
        same = {"fps": fps, "max_frames": most}
        if int(len(even) / 10 * fps) >= least:
            assert (
                time_indices(even, 0.0, len(even) / 10, **same).tolist()
                == time_indices(even, 0.0, len(even) / 10, **same, min_frames=least).tolist()
            )


def test_short_videos_are_sampled_more_densely() -> None:
    video = _video(60, fps=30.0)
    rule = CandidateRule(fps=2.0, max_frames=16, min_frames=10)
    assert len(sample_candidates(video, rule)) == 10
    assert len(sample_candidates(video, rule, fps=2)) == 4, "the caller's rate counts"
    assert len(sample_candidates(video, rule, fps=2, min_frames=6)) == 6, "but not below what is needed"
    assert len(sample_candidates(video, rule, min_frames=40)) == 40, "a rule's largest number is not a reason for fewer"
    assert len(sample_candidates(video, rule, min_frames=40, max_frames=20)) == 20, "a caller's is"
    assert sample_candidates(video, rule, min_frames=90).indices.tolist() == list(range(60))
    assert sample_candidates(video, rule, min_frames=5, start=1, end=1.1).indices.tolist() == [30, 31, 32]
    assert len(sample_candidates(video, "paper")) == 8
    assert (
        sample_candidates(video, "paper", min_frames=32).indices.tolist() == np.linspace(0, 59, 32, dtype=int).tolist()
    )
    assert len(np.unique(sample_candidates(video, "paper", min_frames=500).indices)) == 60


def test_frames_in_a_burst_are_candidates_too() -> None:
    times = np.concatenate([np.arange(40) / 1000, [10.0]])  # forty frames in a moment, and then nothing
    assert len(time_indices(times, 0.0, 11.0, fps=2, max_frames=100)) == 2
    chosen = time_indices(times, 0.0, 11.0, fps=2, max_frames=100, min_frames=24)
    assert len(chosen) == 24
    assert np.diff(chosen).max() == 2, "those that are added are spread over the burst"
