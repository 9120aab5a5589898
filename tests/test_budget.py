"""The plan of a token budget: pure arithmetic over sizes, costs and needs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from refocus_select.budget import (
    USED,
    Cost,
    frames_needed,
    plan_frames,
    relevance,
    shares,
    size_ladder,
    wants_detail,
)
from refocus_select.selection import Selection
from refocus_select.video import VideoMetadata

LADDER = size_ladder((720, 1280), min_side=224, max_side=None, grid=28)


def by_area(size: tuple[int, int]) -> Cost:
    """One token for each 28 x 28 pixels, and ten for the video."""
    return Cost(10.0, size[0] * size[1] / 784)


def selection(scores: list[float], **changes: Any) -> Selection:
    times = np.arange(len(scores), dtype=float)
    made = Selection(
        question="Who?", selector="test", indices=np.arange(1), timestamps=times[:1], scores=np.array(scores),
        candidate_indices=np.arange(len(scores)), candidate_timestamps=times, video_fingerprint="",
        video=VideoMetadata("test", len(scores), float(len(scores)), width=64, height=64),
    )  # fmt: skip
    return replace(made, **changes)


def test_sizes_keep_the_shape_and_are_never_larger_than_the_video() -> None:
    assert LADDER[0] == (112, 224)
    assert LADDER[-1] == (728, 1288)  # 720 x 1280 on a grid of 28, as processors round it
    areas = [h * w for h, w in LADDER]
    assert areas == sorted(set(areas))
    assert all(h % 28 == 0 and w % 28 == 0 and abs(w * 9 / 16 - h) <= 14 for h, w in LADDER)
    assert size_ladder((100, 60), min_side=224, max_side=None) == [(100, 60)]
    assert max(size_ladder((720, 1280), min_side=224, max_side=500)[-1]) == 500


def test_number_and_size_use_the_budget() -> None:
    for tokens in range(300, 9000, 370):
        choice = plan_frames(tokens, LADDER, by_area, needed=6)
        assert choice is not None
        assert choice.tokens == by_area(choice.size).fixed + choice.num_frames * by_area(choice.size).each <= tokens
        assert choice.tokens >= USED * tokens


def test_what_is_wanted_decides_between_more_and_larger() -> None:
    few, many = (plan_frames(4000, LADDER, by_area, needed=n) for n in (3, 16))
    assert few is not None
    assert many is not None
    assert (few.num_frames, many.num_frames) == (6, 32)
    assert few.size > many.size
    detail = plan_frames(4000, LADDER, by_area, needed=3, wanted=1.0)
    assert detail is not None
    assert detail.num_frames < few.num_frames
    assert detail.size > few.size


def test_at_few_tokens_frames_become_small_before_they_become_few() -> None:
    choice = plan_frames(500, LADDER, by_area, needed=8)
    assert choice is not None
    assert choice.size == LADDER[0]
    assert choice.num_frames == 15
    assert plan_frames(30, LADDER, by_area, needed=8) is None
    all_there_is = plan_frames(10**6, LADDER, by_area, needed=8, most=20)
    assert all_there_is is not None
    assert (all_there_is.num_frames, all_there_is.size) == (20, LADDER[-1])
    assert "all 20" in all_there_is.why


def test_frames_beyond_the_needed_may_be_small() -> None:
    choice = plan_frames(4000, LADDER, by_area, needed=4, graded=True)
    assert choice is not None
    assert choice.num_frames == 8
    assert choice.context_size[0] * choice.context_size[1] <= choice.size[0] * choice.size[1] / 4
    same = plan_frames(4000, LADDER, by_area, needed=4)
    assert same is not None
    assert same.size < choice.size


def test_the_need_is_what_was_learned_or_what_covers_half_of_the_relevance() -> None:
    assert frames_needed(selection([0.0] * 50, enough=3)) == 3
    one_peak = [0.0] * 40 + [1.0] + [0.0] * 9
    assert frames_needed(selection(one_peak)) == 1
    scene = [0.0] * 40 + [0.9, 1.0, 0.9] + [0.0] * 7  # near frames of one scene count once
    assert frames_needed(selection(scene)) == 1
    four = [1.0 if k % 12 == 5 else 0.0 for k in range(48)]
    assert frames_needed(selection(four)) == 2  # of four equal peaks
    assert frames_needed(selection([0.5] * 30)) == 8
    assert frames_needed(selection(one_peak, strategy="uniform_fallback")) == 8
    assert relevance(np.array([-np.inf, 0.0, 0.0, 2.0, 1.0])).tolist() == pytest.approx([0, 0, 0, 1, 1 / 3], abs=0.2)


def test_videos_share_by_relevance() -> None:
    assert shares(1000, [1.0, 1.0]) == [500, 500]
    assert shares(1000, [0.0, 0.0]) == [500, 500]
    large, small = shares(1000, [1.0, 0.0])
    assert (large, small) == (875, 125)
    assert sum(shares(999, [0.3, 0.2, 0.7])) <= 999


@pytest.mark.parametrize(
    ("question", "detail"),
    [
        ("What is written on the sign?", True),
        ("What is the number on the jersey?", True),
        ("How small is the screw?", True),
        ("Who scores the second goal?", False),
        ("What does the man do after he leaves the car?", False),
    ],
)
def test_questions_about_something_written_or_small(question: str, detail: bool) -> None:
    assert wants_detail(question) is detail
