"""The choice of the embedded selector: its contract, and what it does when nothing stands out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from refocus_select import FrameSelector, open_video
from refocus_select.selectors.algorithms import uniform
from refocus_select.selectors.similarity import FLAT_PEAK, FLAT_RISE, pick_relevant, smoothed


@st.composite
def videos(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    count = draw(st.integers(1, 40))
    finite = st.floats(-4, 4, allow_nan=False, width=32)
    similarity = draw(arrays.arrays(np.float64, count, elements=finite))
    vectors = draw(arrays.arrays(np.float64, (count, 3), elements=finite)) + 1e-3
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-9)
    times = np.cumsum(draw(arrays.arrays(np.float64, count, elements=st.floats(0.01, 5, allow_nan=False))))
    return similarity, vectors @ vectors.T, times


@settings(max_examples=200, deadline=None)
@given(videos(), st.integers(1, 60))
def test_the_contract_holds_for_any_scores(video: tuple[np.ndarray, np.ndarray, np.ndarray], k: int) -> None:
    similarity, pairwise, times = video
    choice = pick_relevant(similarity, pairwise, times, k)
    assert len(set(choice.picks.tolist())) == len(choice.picks) == min(k, len(similarity))
    assert choice.picks.min() >= 0
    assert choice.picks.max() < len(similarity)
    assert choice.scores.shape == similarity.shape
    again = pick_relevant(similarity.copy(), pairwise.copy(), times.copy(), k)
    assert (again.picks == choice.picks).all()
    assert (choice.strategy == "uniform_fallback") == bool(choice.warnings)
    if choice.strategy == "selected":
        assert choice.scores[choice.picks].max() == choice.scores.max()


@pytest.mark.parametrize(("level", "height"), [(FLAT_PEAK - 2, 1.0), (FLAT_PEAK + 1, 0.5 * FLAT_RISE), (0.0, 0.0)])
def test_flat_scores_are_spread_and_reported(level: float, height: float) -> None:
    times = np.arange(50.0)
    similarity = level + height * np.sin(times)
    choice = pick_relevant(similarity, np.eye(50), times, 5)
    assert choice.strategy == "uniform_fallback"
    assert "nothing in the video stands out" in choice.warnings[0]
    assert (choice.picks == uniform(times, 5)).all()


def test_a_peak_is_taken_first_and_copies_are_avoided() -> None:
    similarity = np.zeros(100)
    similarity[[40, 41, 42, 43, 44, 45, 46]] = 5.0
    similarity[70] = 4.9
    pairwise = np.eye(100)
    pairwise[40:47, 40:47] = 1.0
    choice = pick_relevant(similarity, pairwise, 10 * np.arange(100.0), 2)
    assert choice.strategy == "selected"
    assert choice.picks.tolist() == [40, 70]


def test_near_neighbours_steady_a_candidate_and_far_ones_do_not() -> None:
    similarity = np.array([0.0, 8.0, 0.0, 4.0, 4.0, 4.0])
    near = smoothed(similarity, np.array([0.0, 1.0, 2.0, 100.0, 101.0, 102.0]))
    np.testing.assert_allclose(near, [1.6, 8 / 1.5, 1.6, 4.0, 4.0, 4.0])
    np.testing.assert_allclose(smoothed(similarity, 10 * np.arange(6.0)), similarity)
    assert similarity[1] == 8.0
    assert smoothed(similarity[:1], np.zeros(1)).tolist() == [0.0]


@pytest.fixture(scope="module")
def selector() -> FrameSelector:
    return FrameSelector.from_pretrained("mini", device="cpu")


def test_a_video_of_one_colour_is_spread(selector: FrameSelector) -> None:
    grey = np.full((24, 64, 64, 3), 120, np.uint8)
    selection = selector.select(open_video(list(grey), fps=2), "Where is the dog?", num_frames=4)
    assert selection.strategy == "uniform_fallback"
    assert len(selection.indices) == 4
    assert any("stands out" in warning for warning in selection.warnings)


def test_the_selection_is_the_same_again(selector: FrameSelector) -> None:
    rng = np.random.default_rng(3)
    frames = list(rng.integers(0, 255, (20, 8, 8, 3)).repeat(12, 1).repeat(12, 2).astype(np.uint8))
    first, second = (
        selector.select(open_video(frames, fps=2), "A red car on the road", num_frames=6) for _ in range(2)
    )
    assert (first.indices == second.indices).all()
    assert (first.scores == second.scores).all()
    assert len(first.indices) == 6
