"""FOCUS asks for few scores, looks closer where they promise more, and keeps its distance."""

from __future__ import annotations

import math

import numpy as np

from refocus_select.selectors.algorithms import focus, uniform
from refocus_select.selectors.algorithms.focus import _arms, _bounds, _nearest, _released_arms


class Oracle:
    """Scores with a hill at `centre`, and a record of what was asked."""

    def __init__(self, total, centre, width=15.0):
        noise = 0.02 * np.random.default_rng(0).uniform(size=total)
        self.scores = 0.1 + 0.6 * np.exp(-(((np.arange(total) - centre) / width) ** 2)) + noise
        self.calls = []

    def __call__(self, positions):
        self.calls.append(positions)
        return self.scores[positions]


def test_focus_asks_twice_for_new_frames_and_for_few():
    oracle = Oracle(1200, centre=700)
    picks = focus(oracle, 16, timestamps=np.arange(1200) / 2)
    assert len(oracle.calls) == 2
    asked = np.concatenate(oracle.calls)
    assert len(set(asked.tolist())) == len(asked)
    assert len(asked) < 1200 / 3
    assert len(picks) == 16
    assert (np.abs(picks - 700) < 60).sum() >= 4


def test_focus_looks_closer_where_the_hill_is():
    oracle = Oracle(1200, centre=700)
    focus(oracle, 16, timestamps=np.arange(1200) / 2)
    first, second = (np.histogram(call, bins=12, range=(0, 1200))[0] for call in oracle.calls)
    assert first.min() >= 3 * 2
    assert second[6] + second[7] > 0
    assert (second == 0).any()


def test_a_table_of_scores_serves_as_well():
    oracle = Oracle(400, centre=90)
    times = np.arange(400.0)
    assert focus(oracle, 8, timestamps=times).tolist() == focus(oracle.scores, 8, timestamps=times).tolist()


def test_picks_keep_the_gap_where_there_is_room():
    oracle = Oracle(2000, centre=1000)
    times = np.arange(2000) / 10
    # No pick by score alone, which may lie side by side: all come from the arms.
    picks = focus(oracle, 12, timestamps=times, min_gap=1.0, top_ratio=0.0)
    assert np.diff(times[picks]).min() >= 1.0


def test_the_gap_gives_way_when_an_arm_is_full():
    times = np.arange(40) / 10
    picks = focus(Oracle(40, centre=10), 30, timestamps=times, min_gap=10.0)
    assert len(set(picks.tolist())) == 30


def test_the_best_scored_frames_come_first():
    oracle = Oracle(300, centre=150)
    picks = focus(oracle, 10, timestamps=np.arange(300.0), top_ratio=1.0)
    asked = np.concatenate(oracle.calls)
    best = asked[np.argsort(-oracle.scores[asked], kind="stable")[:10]]
    assert picks.tolist() == sorted(best.tolist())


def test_every_frame_belongs_to_an_arm():
    arms = _arms(np.arange(1001) / 3)
    assert np.concatenate(arms).tolist() == list(range(1001))
    assert len(arms) == math.ceil(1001 / 3 / 16)
    assert len(_arms(np.arange(20.0))) == 8
    assert [len(arm) for arm in _arms(np.arange(5.0))] == [1] * 5
    lonely = _arms(np.array([0.0, 0.1, 0.2, 500.0]))
    assert [arm.tolist() for arm in lonely] == [[0, 1, 2], [3]]


def test_the_bound_is_the_published_one():
    found = np.array([0.2, 0.4, 0.5])
    bounds = _bounds(np.array([0, 0, 1]), found, 2)
    log3 = math.log(3)
    expected = [
        0.3 + math.sqrt(2 * log3 * 0.01 / 2) + 3 * log3 / 2,
        0.5 + math.sqrt(2 * log3 * 1e-6) + 3 * log3,
    ]
    np.testing.assert_allclose(bounds, expected)


def test_a_frame_without_a_score_has_the_nearest_of_its_arm():
    times = np.array([0.0, 1.0, 2.0, 3.0, 4.0])
    estimate = _nearest(times, np.array([0, 0, 0, 1, 1]), np.array([0, 4]), np.array([0.7, 0.1]))
    assert estimate.tolist() == [0.7, 0.7, 0.7, 0.1, 0.1]


def test_equal_answers_give_uniform_picks():
    times = np.arange(100.0)
    assert focus(lambda at: np.full(len(at), 0.5), 7, timestamps=times).tolist() == uniform(times, 7).tolist()


# -- the released code ----------------------------------------------------------------------------


def test_released_arms_leave_out_the_end():
    # 44 s: 8 arms wanted, 44 // 8 = 5 frames each, so 44 // 5 = 8 arms of 5: the last four frames are in none
    arms = _released_arms(np.arange(44.0))
    assert [len(arm) for arm in arms] == [5] * 8
    assert arms[-1][-1] == 39
    scores = np.linspace(0, 1, 44)
    for seed in range(10):
        assert focus(scores, 20, timestamps=np.arange(44.0), seed=seed, faithful=True).max() <= 39
    assert any(focus(scores, 20, timestamps=np.arange(44.0), seed=seed).max() > 39 for seed in range(10))


def test_released_arms_that_are_short_give_too_few():
    # 8 arms of 5, the best 4 of them hold 20 frames: K = 40 gives 8 by score and at most 20 more
    scores = np.random.default_rng(0).uniform(size=44)
    assert len(focus(scores, 40, timestamps=np.arange(44.0), faithful=True)) <= 28
    assert len(focus(scores, 40, timestamps=np.arange(44.0))) == 40


def test_the_released_gap_does_not_hold_within_an_arm():
    oracle = Oracle(2000, centre=1000)
    times = np.arange(2000) / 10
    picks = focus(oracle, 24, timestamps=times, min_gap=2.0, top_ratio=0.0, faithful=True)
    assert np.diff(times[picks]).min() < 2.0
    assert np.diff(times[focus(oracle, 24, timestamps=times, min_gap=2.0, top_ratio=0.0)]).min() >= 2.0


def test_released_scores_below_zero_do_not_rank():
    """Within an arm all are cut to zero and drawn alike; by default rather the best of the arm."""
    times = np.arange(400) / 10
    scores = -1 + 0.5 * (np.arange(400) % 50) / 49  # in each arm of 50 frames rising from -1 to -0.5
    late = {
        faithful: np.mean(
            [
                (
                    focus(scores, 8, timestamps=times, top_ratio=0.0, min_gap=0.0, seed=seed, faithful=faithful) % 50
                ).mean()
                for seed in range(40)
            ]
        )
        for faithful in (False, True)
    }
    assert late[False] > 34
    assert 18 < late[True] < 31
