"""Farthest-first traversal against its definition, and its guarantee."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from refocus_select.errors import InputError
from refocus_select.selectors.algorithms import farthest_first, mmr


def angles(*degrees: float) -> np.ndarray:
    turn = np.radians(degrees)
    return np.stack([np.cos(turn), np.sin(turn)], 1)


def test_by_hand() -> None:
    rows = angles(0, 10, 20, 100, 180)
    assert farthest_first(rows, 3, [0]).tolist() == [0, 4, 3]
    assert farthest_first(rows, 3, [3, 0]).tolist() == [3, 0, 4]
    assert farthest_first(rows, 1).tolist() == [4]  # the mean lies at about 60 degrees
    assert farthest_first(rows * np.array([[1], [9], [0.1], [5], [3]]), 3, [0]).tolist() == [0, 4, 3]  # cosines


def test_every_pick_is_the_farthest() -> None:
    rows = np.random.default_rng(0).standard_normal((40, 6))
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    picks = farthest_first(rows, 12, [7, 3]).tolist()
    assert picks[:2] == [7, 3]
    for place in range(2, 12):
        nearest = (unit @ unit[picks[:place]].T).max(1)
        left = [i for i in range(40) if i not in picks[:place]]
        assert nearest[picks[place]] == pytest.approx(min(nearest[i] for i in left))


def test_a_bonus_makes_it_marginal_relevance() -> None:
    rows = np.random.default_rng(2).standard_normal((30, 5))
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    scores = np.random.default_rng(3).random(30)
    scores = (scores - scores.min()) / np.ptp(scores)
    first = int(scores.argmax())
    for balance in (0.1, 0.5):
        # MMR's cosines are mapped to [0, 1], which halves them
        picks = farthest_first(rows, 9, [first], 2 * balance / (1 - balance) * scores)
        assert sorted(picks.tolist()) == mmr(
            scores, 9, timestamps=np.arange(30.0), embeddings=unit, balance=balance
        ).tolist()  # fmt: skip


def test_nothing_lies_farther_than_twice_the_best_radius() -> None:
    # Gonzalez (1985), for the Euclidean distance, which orders unit vectors as the cosine does
    rows = np.random.default_rng(1).standard_normal((11, 3))
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    apart = np.linalg.norm(unit[:, None] - unit[None], axis=-1)

    def radius(centres: tuple[int, ...]) -> float:
        return float(apart[:, list(centres)].min(1).max())

    best = min(radius(centres) for centres in itertools.combinations(range(11), 3))
    assert best <= radius(tuple(farthest_first(rows, 3).tolist())) <= 2 * best


def test_copies_and_small_videos() -> None:
    same = np.ones((5, 3))
    assert sorted(farthest_first(same, 5).tolist()) == [0, 1, 2, 3, 4]
    assert farthest_first(same, 3, [4]).tolist() == [4, 0, 1]
    assert sorted(farthest_first(same, 9).tolist()) == [0, 1, 2, 3, 4]
    assert farthest_first(np.zeros((0, 3)), 4).tolist() == []
    assert len(farthest_first(np.array([[1.0, 0], [np.nan, 1], [0, 1]]), 3)) == 3
    with pytest.raises(InputError, match="num_frames must be at least 1"):
        farthest_first(same, 0)
