"""What every algorithm promises: exactly min(K, T) sorted distinct picks, whatever comes in."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refocus_select.errors import InputError
from refocus_select.selectors.algorithms import SCORED, random, uniform
from refocus_select.selectors.algorithms.contract import clean_scores, is_flat, minmax, unit_rows


def run(name, scores, embeddings, times, num_frames, **settings):
    """Call an algorithm with the inputs that it knows."""
    algorithm = SCORED[name]
    known = inspect.signature(algorithm).parameters
    inputs = {"timestamps": times, "embeddings": embeddings, **settings}
    return algorithm(scores, num_frames, **{key: value for key, value in inputs.items() if key in known})


@st.composite
def videos(draw, *, scores=None):
    total = draw(st.integers(1, 40))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    number = st.one_of(st.floats(-1, 1), st.floats(allow_nan=True, allow_infinity=True), st.just(0.25))
    values = draw(st.lists(number if scores is None else scores, min_size=total, max_size=total))
    gaps = draw(st.lists(st.floats(0, 90), min_size=total, max_size=total))
    embeddings = generator.normal(size=(total, 4))
    for row in draw(st.sets(st.integers(0, total - 1), max_size=3)):
        embeddings[row] = draw(st.sampled_from([np.nan, np.inf, 0.0, 1e38]))
    if draw(st.booleans()):
        embeddings[:] = embeddings[0]  # a still picture
    return np.array(values), embeddings, np.cumsum(gaps)


@pytest.mark.parametrize("name", SCORED)
@settings(max_examples=60, deadline=None)
@given(video=videos(), num_frames=st.integers(1, 45))
def test_exactly_min_k_sorted_distinct_picks(name, video, num_frames):
    scores, embeddings, times = video
    before = scores.copy(), embeddings.copy(), times.copy()
    picks = run(name, scores, embeddings, times, num_frames)
    assert picks.dtype == np.int64
    assert len(picks) == min(num_frames, len(times))
    assert (np.diff(picks) > 0).all()
    assert 0 <= picks[0] <= picks[-1] < len(times)
    np.testing.assert_array_equal(picks, run(name, scores, embeddings, times, num_frames))
    for given_array, kept in zip(video, before, strict=True):
        np.testing.assert_array_equal(given_array, kept)


@pytest.mark.parametrize("name", SCORED)
@settings(max_examples=25, deadline=None)
@given(video=videos(scores=st.just(0.0)), num_frames=st.integers(1, 45), value=st.sampled_from([0.3, -2.0, np.nan]))
def test_equal_scores_give_uniform_picks(name, video, num_frames, value):
    _, embeddings, times = video
    picks = run(name, np.full(len(times), value), embeddings, times, num_frames)
    np.testing.assert_array_equal(picks, uniform(times, num_frames))


@pytest.mark.parametrize("name", [name for name in SCORED if "faithful" in inspect.signature(SCORED[name]).parameters])
@settings(max_examples=40, deadline=None)
@given(video=videos(), num_frames=st.integers(1, 45))
def test_faithful_picks_stay_inside_the_video(name, video, num_frames):
    scores, embeddings, times = video
    picks = run(name, scores, embeddings, times, num_frames, faithful=True)
    assert len(picks) <= num_frames
    assert (np.diff(picks) >= 0).all()
    assert ((picks >= 0) & (picks < len(times))).all()


@pytest.mark.parametrize("name", [name for name in SCORED if "seed" in inspect.signature(SCORED[name]).parameters])
def test_another_seed_draws_other_frames(name):
    generator = np.random.default_rng(0)
    scores = generator.uniform(size=200) / 20
    drawn = {tuple(run(name, scores, None, np.arange(200.0), 8, seed=seed)) for seed in range(5)}
    assert len(drawn) == 5


@pytest.mark.parametrize("name", SCORED)
def test_a_clear_answer_is_found(name):
    generator = np.random.default_rng(3)
    scores = generator.uniform(0, 0.1, size=240)
    scores[100:104] = 0.95
    embeddings = generator.normal(size=(240, 16))
    picks = run(name, scores, embeddings, np.arange(240.0), 8)
    assert set(picks) & {100, 101, 102, 103}


@pytest.mark.parametrize("name", SCORED)
@pytest.mark.parametrize("num_frames", [0, -1, 2.5, True, None])
def test_k_must_be_a_positive_whole_number(name, num_frames):
    with pytest.raises(InputError, match="num_frames"):
        run(name, np.arange(9.0), np.eye(9), np.arange(9.0), num_frames)


def test_inputs_must_fit_each_other():
    with pytest.raises(InputError, match="3 scores but 4 timestamps"):
        SCORED["topk"](np.zeros(3), 2, timestamps=np.arange(4.0))
    with pytest.raises(InputError, match="5 embeddings but 4 timestamps"):
        SCORED["mmr"](np.zeros(4), 2, timestamps=np.arange(4.0), embeddings=np.eye(5))
    with pytest.raises(InputError, match="one-dimensional"):
        SCORED["topk"](np.zeros((3, 1)), 2, timestamps=np.arange(3.0))
    with pytest.raises(InputError, match=r"\[T, D\]"):
        SCORED["gift"](np.zeros(3), 2, timestamps=np.arange(3.0), embeddings=np.zeros(3))
    with pytest.raises(InputError, match="sorted"):
        SCORED["aks"](np.zeros(3), 2, timestamps=np.array([0.0, 2.0, 1.0]))


def test_broken_scores_rank_last_and_infinite_ones_first():
    scores = np.array([0.5, np.nan, 0.1, -np.inf, 0.3, np.inf])
    assert clean_scores(scores).tolist() == [0.5, 0.1, 0.1, 0.1, 0.3, 0.5]
    assert SCORED["topk"](scores, 3, timestamps=np.arange(6.0)).tolist() == [0, 4, 5]
    assert clean_scores([np.nan, np.inf]).tolist() == [0.0, 1.0]


def test_rounding_is_no_ranking():
    assert is_flat(np.array([0.25, np.nextafter(np.float32(0.25), np.float32(1)), 0.25]))
    assert not is_flat(np.array([0.0612, 0.0613]))
    assert minmax(np.array([2.0, 4.0, 3.0])).tolist() == [0.0, 1.0, 0.5]
    assert minmax(np.array([2.0, 2.0])).tolist() == [0.0, 0.0]


def test_rows_get_unit_length_and_broken_ones_none():
    rows = unit_rows([[3.0, 4.0], [np.nan, 1.0], [0.0, 0.0], [3e38, 0.0]])
    np.testing.assert_allclose(rows, [[0.6, 0.8], [0, 0], [0, 0], [1, 0]], rtol=1e-6)


@given(total=st.integers(1, 60), num_frames=st.integers(1, 70), seed=st.integers(0, 100))
def test_random_and_the_ends_rule_keep_the_contract(total, num_frames, seed):
    times = np.arange(total) / 2
    for picks in (random(times, num_frames, seed=seed), uniform(times, num_frames, ends=True)):
        assert len(picks) == min(num_frames, total)
        assert (np.diff(picks) > 0).all()
        assert 0 <= picks[0] <= picks[-1] < total
    np.testing.assert_array_equal(random(times, num_frames, seed=seed), random(times, num_frames, seed=seed))


def test_the_ends_rule_takes_first_and_last():
    assert uniform(np.arange(10.0), 4, ends=True).tolist() == [0, 3, 6, 9]
    assert uniform(np.arange(10.0), 3, ends=True).tolist() == [0, 4, 9]
    assert uniform(np.arange(10.0), 1, ends=True).tolist() == [0]


def test_random_takes_every_frame_equally_often():
    taken = np.bincount(np.concatenate([random(np.arange(10), 3, seed=seed) for seed in range(3000)]))
    assert (np.abs(taken - 900) < 120).all()  # 900 expected, standard deviation 25
