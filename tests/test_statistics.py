"""Intervals against what is known without drawing."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from refocus_select.errors import InputError
from refocus_select.statistics import bootstrap_interval, paired_difference


def binomial_quantile(probability: float, n: int, p: float) -> int:
    total = 0.0
    for k in range(n + 1):
        total += math.comb(n, k) * p**k * (1 - p) ** (n - k)
        if total >= probability:
            return k
    return n


@pytest.mark.parametrize(("right", "n"), [(30, 50), (5, 40), (195, 200)])
def test_the_interval_of_an_accuracy_is_that_of_the_binomial(right, n):
    """Drawing from n answers of which a share p is right gives Binomial(n, p) right answers."""
    found = bootstrap_interval([1] * right + [0] * (n - right), resamples=200_000)
    p = right / n
    assert found.mean == pytest.approx(p)
    assert found.low * n == pytest.approx(binomial_quantile(0.025, n, p), abs=1e-9)
    assert found.high * n == pytest.approx(binomial_quantile(0.975, n, p), abs=1e-9)


def test_groups_of_unequal_size_match_all_possible_draws():
    values, groups = [1.0, 0.0, 0.0, 5.0, 2.0, 2.0], ["a", "a", "a", "b", "c", "c"]
    parts = {"a": [1.0, 0.0, 0.0], "b": [5.0], "c": [2.0, 2.0]}
    means = [np.concatenate([parts[g] for g in draw]).mean() for draw in product("abc", repeat=3)]
    found = bootstrap_interval(values, groups, level=0.5, resamples=200_000)
    # 27 equally likely draws
    assert found.low == pytest.approx(np.quantile(means, 0.25, method="inverted_cdf"))
    assert found.high == pytest.approx(np.quantile(means, 0.75, method="inverted_cdf"))
    assert (found.mean, found.count, found.groups) == (pytest.approx(10 / 6), 6, 3)


def test_copies_of_a_question_are_no_evidence():
    generator = np.random.default_rng(1)
    values = generator.normal(size=60)
    once = bootstrap_interval(values)
    copied = bootstrap_interval(np.repeat(values, 5), [i for i in range(60) for _ in range(5)])
    naive = bootstrap_interval(np.repeat(values, 5))
    assert (copied.low, copied.high) == (pytest.approx(once.low), pytest.approx(once.high))
    assert naive.high - naive.low < 0.6 * (once.high - once.low)


def test_the_interval_has_the_width_of_the_normal_one_for_many_values():
    values = np.random.default_rng(2).normal(3, 2, 2000)
    found = bootstrap_interval(values, resamples=20_000)
    half = 1.96 * values.std() / math.sqrt(2000)
    assert found.low == pytest.approx(values.mean() - half, abs=0.06 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.06 * half)


def test_it_covers_the_truth_about_as_often_as_it_says():
    """Videos of 4 questions that share their luck: the interval over videos holds, the one over questions does not."""
    generator = np.random.default_rng(3)
    videos = [v for v in range(40) for _ in range(4)]
    clustered = plain = 0
    for _ in range(300):
        values = np.repeat(generator.normal(size=40), 4) + 0.3 * generator.normal(size=160)
        a, b = (bootstrap_interval(values, g, resamples=400) for g in (videos, None))
        clustered += a.low <= 0 <= a.high
        plain += b.low <= 0 <= b.high
    assert 0.89 <= clustered / 300 <= 0.985
    assert plain / 300 < 0.8


def test_equal_seeds_give_equal_intervals_and_chunks_do_not_matter(monkeypatch):
    values = np.random.default_rng(4).random(50)
    before = bootstrap_interval(values)
    assert bootstrap_interval(values) == before
    assert bootstrap_interval(values, seed=1) != before
    monkeypatch.setattr("refocus_select.statistics._CHUNK", 777)
    assert bootstrap_interval(values) == before


def test_a_paired_difference_is_the_interval_of_the_differences():
    a, b = np.array([1, 1, 0, 1, 0, 1.0]), np.array([1, 0, 0, 0, 1, 1.0])
    videos = list("uuvvww")
    found = paired_difference(a, b, videos)
    plain = bootstrap_interval(a - b, videos)
    assert (found.mean, found.low, found.high) == (plain.mean, plain.low, plain.high)
    assert (found.better, found.worse) == (2, 1)
    back = paired_difference(b, a, videos)
    assert (back.mean, back.low, back.high) == (-found.mean, -found.high, -found.low)
    assert not found.decided


def test_pairs_decide_what_single_intervals_cannot():
    generator = np.random.default_rng(5)
    hard = generator.normal(0, 5, 200)
    a, b = hard + 0.3 + 0.1 * generator.normal(size=200), hard
    assert paired_difference(a, b).decided
    assert bootstrap_interval(a).low < bootstrap_interval(b).high
    assert not paired_difference(a, a).decided  # an interval that ends at zero does not leave it out


def test_one_group_or_none_has_no_interval():
    one = bootstrap_interval([1, 0], ["v", "v"])
    assert one.mean == 0.5
    assert math.isnan(one.low)
    assert math.isnan(one.high)
    assert math.isnan(bootstrap_interval([]).mean)
    assert one.text() == "0.500"
    assert bootstrap_interval([1.0, 1.0]).text(scale=100, digits=1, sign=True) == "+100.0 [+100.0, +100.0]"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: bootstrap_interval([1, float("nan")]), "1 values that are not finite"),
        (lambda: bootstrap_interval([1, 2], ["a"]), "2 values but 1 groups"),
        (lambda: bootstrap_interval([1], level=1), "level"),
        (lambda: bootstrap_interval([1], resamples=0), "resamples"),
        (lambda: bootstrap_interval([[1]]), "shape"),
        (lambda: paired_difference([1], [1, 2]), "same questions"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(InputError, match=words):
        call()
