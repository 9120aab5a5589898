"""Cases small enough to compute by hand, and each author's faults beside the sound answer."""

from __future__ import annotations

import numpy as np
import pytest

from refocus_select.selectors.algorithms import adaq, aks, bolt, gift, markey, mmr, qframe, topk, topk_nms
from refocus_select.selectors.algorithms.markey import _anchors


def seconds(count):
    return np.arange(float(count))


# -- top-k ----------------------------------------------------------------------------------------


def test_topk_prefers_the_earlier_of_equals():
    assert topk(np.array([1.0, 3.0, 2.0, 3.0, 2.0]), 3, timestamps=seconds(5)).tolist() == [1, 2, 3]


def test_nms_bans_a_quarter_share_on_either_side():
    scores = np.array([0.0, 5.0, 4.9, 1.0, 0.0, 0.0, 3.0, 0.0])
    assert topk(scores, 2, timestamps=seconds(8)).tolist() == [1, 2]
    assert topk_nms(scores, 2, timestamps=seconds(8)).tolist() == [1, 6]  # 8 s / (4 * 2): one second banned
    assert topk_nms(scores, 2, timestamps=seconds(8) / 10).tolist() == [1, 6]
    assert topk_nms(scores, 2, timestamps=seconds(8), window=0.5).tolist() == [1, 2]


def test_nms_lifts_the_ban_when_nobody_is_left():
    scores = np.array([0.0, 5.0, 4.9, 1.0, 0.0, 0.0, 3.0, 0.0])
    assert topk_nms(scores, 3, timestamps=seconds(8), window=100.0).tolist() == [1, 2, 6]


# -- MMR ------------------------------------------------------------------------------------------

TWINS = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])  # two equal frames and a different one


def test_mmr_weighs_relevance_against_likeness():
    scores = np.array([1.0, 0.9, 0.5])  # scaled to 1, 0.8, 0
    # frame 1: 0.5 * 0.8 - 0.5 * 1 = -0.1; frame 2: 0 - 0.5 * 0.5 = -0.25
    assert mmr(scores, 2, timestamps=seconds(3), embeddings=TWINS).tolist() == [0, 1]
    # frame 1: 0.3 * 0.8 - 0.7 = -0.46; frame 2: -0.35
    assert mmr(scores, 2, timestamps=seconds(3), embeddings=TWINS, balance=0.3).tolist() == [0, 2]


# -- AKS ------------------------------------------------------------------------------------------


def test_aks_as_released_gives_no_frame_below_32():
    scores = np.random.default_rng(0).uniform(size=128)
    for num_frames in (2, 8, 16, 31):
        assert aks(scores, num_frames, timestamps=seconds(128), faithful=True).tolist() == []
        assert len(aks(scores, num_frames, timestamps=seconds(128))) == num_frames


def test_aks_as_released_gives_one_frame_per_32nd_at_32():
    assert aks(seconds(64), 32, timestamps=seconds(64), faithful=True).tolist() == list(range(1, 64, 2))


def test_aks_as_released_loses_the_remainder():
    # 32 parts of two frames, floor(40 / 32) = 1 each
    assert len(aks(seconds(64), 40, timestamps=seconds(64), faithful=True)) == 32
    assert len(aks(seconds(64), 40, timestamps=seconds(64))) == 40


def test_aks_halves_until_each_part_has_one_pick():
    assert aks(seconds(64), 4, timestamps=seconds(64)).tolist() == [15, 31, 47, 63]


def test_aks_keeps_a_part_whose_best_stand_out():
    scores = np.zeros(16)
    scores[5] = 1.0  # K = 1: 1 - 1/16 = 0.94 > 0.8, no split
    for faithful in (False, True):
        assert aks(scores, 1, timestamps=seconds(16), faithful=faithful).tolist() == [5]
    # K = 2: 1/2 - 1/16 = 0.44, split once; the second half has nothing, its first frame is taken
    assert aks(scores, 2, timestamps=seconds(16)).tolist() == [5, 8]


def test_aks_gives_the_odd_pick_to_the_part_with_the_better_frame():
    assert aks(seconds(12), 3, timestamps=seconds(12)).tolist() == [5, 10, 11]
    assert aks(-seconds(12), 3, timestamps=seconds(12)).tolist() == [0, 1, 6]


def test_aks_judges_a_part_by_its_own_share():
    scores = np.zeros(16)
    scores[3], scores[12:] = 1.0, 0.2
    # All: 1.6/4 - 1.8/16 = 0.29, split. First half, share 2: 1/2 - 1/8 = 0.375, whole (by four frames it would be
    # 0.125, split). Second half: 0.2 - 0.1 = 0.1, split once more: the depth ends at log2 4.
    assert aks(scores, 4, timestamps=seconds(16), threshold=0.3).tolist() == [0, 3, 8, 12]


def test_aks_std_test_can_force_a_split():
    scores = np.zeros(16)
    scores[5] = 1.0
    kept = aks(scores, 2, timestamps=seconds(16), threshold=0.4)
    assert kept.tolist() == [0, 5]
    assert aks(scores, 2, timestamps=seconds(16), threshold=0.4, min_std=0.5).tolist() == [5, 8]


# -- BOLT -----------------------------------------------------------------------------------------


def test_bolt_steps_through_the_cumulated_scores():
    scores = np.array([0.0, 1.0, 0.0, 1.0])  # cumulated 0, 1/2, 1/2, 1
    assert bolt(scores, 2, timestamps=seconds(4)).tolist() == [1, 3]  # at 1/4 and 3/4
    assert bolt(scores, 1, timestamps=seconds(4)).tolist() == [1]  # at 1/2


def test_bolt_as_released_doubles_a_point_and_ends_at_the_last_frame():
    scores = np.array([0.0, 1.0, 0.0, 1.0])
    assert bolt(scores, 2, timestamps=seconds(4), faithful=True).tolist() == [1, 1]  # linspace(1/2, 1/2, 2)
    assert bolt(scores, 1, timestamps=seconds(4), faithful=True).tolist() == [3]  # linspace(1, 0, 1)


def test_bolt_as_released_repeats_a_needle():
    scores = np.zeros(10)
    scores[4] = 1.0
    assert bolt(scores, 3, timestamps=seconds(10), faithful=True).tolist() == [4, 4, 4]
    assert bolt(scores, 3, timestamps=seconds(10)).tolist() == [0, 1, 4]


def test_bolt_as_released_repeats_most_of_a_broad_needle():
    """As released, only about a third of 32 picks are distinct frames."""
    times = seconds(600)
    scores = np.exp(-(((times - 300) / 8) ** 2)) + 0.05 * np.random.default_rng(0).uniform(size=600)
    picks = bolt(scores, 32, timestamps=times, faithful=True)
    assert len(picks) == 32
    assert len(set(picks.tolist())) < 20
    assert len(set(bolt(scores, 32, timestamps=times).tolist())) == 32


def test_bolt_sharpens_with_alpha():
    scores = np.array([0.0, 0.5, 1.0, 0.5])
    # alpha 1: cumulated 0, 1/4, 3/4, 1; alpha 3: 0, 0.1, 0.9, 1
    assert bolt(scores, 3, timestamps=seconds(4), alpha=1.0).tolist() == [1, 2, 3]  # at 1/6, 1/2, 5/6
    assert bolt(scores, 3, timestamps=seconds(4), alpha=1.0, faithful=True).tolist() == [2, 2, 2]  # 1/3, 1/2, 2/3
    assert bolt(scores, 1, timestamps=seconds(4), alpha=3.0).tolist() == [2]


# -- Q-Frame and AdaQ -----------------------------------------------------------------------------


def frequencies(draw, count, draws=3000):
    return np.bincount([draw(seed)[0] for seed in range(draws)], minlength=count) / draws


def test_qframe_draws_in_proportion_to_the_softmax():
    chances = np.array([0.6, 0.1, 0.3])
    scores = np.log(chances) * 0.8 / 100  # undone by temperature 0.8 and scale 100
    found = frequencies(lambda seed: qframe(scores, 1, timestamps=seconds(3), seed=seed), 3)
    np.testing.assert_allclose(found, chances, atol=0.03)


def test_qframe_takes_the_models_own_scale():
    scores = np.array([0.0, 0.1, 0.2, 0.3])
    cold = frequencies(lambda seed: qframe(scores, 1, timestamps=seconds(4), logit_scale=1000.0, seed=seed), 4, 50)
    warm = frequencies(lambda seed: qframe(scores, 1, timestamps=seconds(4), logit_scale=0.01, seed=seed), 4)
    assert cold.tolist() == [0, 0, 0, 1]
    np.testing.assert_allclose(warm, 0.25, atol=0.03)


def test_adaq_draws_from_a_softmax_as_sharp_as_the_variance():
    scores = np.array([0.2, 0.6, 0.4])  # scaled 0, 1, 1/2: variance 1/6
    # gamma 3: temperature 1/2, logits 0, 2, 1
    chances = np.exp([0.0, 2.0, 1.0]) / np.exp([0.0, 2.0, 1.0]).sum()
    found = frequencies(lambda seed: adaq(scores, 1, timestamps=seconds(3), gamma=3.0, seed=seed), 3)
    np.testing.assert_allclose(found, chances, atol=0.03)


def test_adaq_leaves_out_what_lies_beyond_the_central_mass():
    scores = np.array([0.2, 0.6, 0.4])
    # gamma 0.5: temperature 1/12, logits 0, 12, 6: the best frame alone holds 0.9975
    for seed in range(20):
        assert adaq(scores, 1, timestamps=seconds(3), seed=seed).tolist() == [1]
        assert adaq(scores, 2, timestamps=seconds(3), seed=seed).tolist() == [1, 2]  # filled by score
    # gamma 1: logits 0, 6, 3: 0.95 and 0.047 together hold 0.9976, so frame 0 never comes
    drawn = {tuple(adaq(scores, 1, timestamps=seconds(3), gamma=1.0, seed=seed)) for seed in range(300)}
    assert drawn == {(1,), (2,)}


# -- MarKey and GIFT ------------------------------------------------------------------------------


def test_markey_adds_relevance_coverage_and_distance():
    scores = np.array([1.0, 0.9, 0.0])
    # second pick, frame 1: 0.7 * 0.9 + 0 - 0.1 = 0.53; frame 2: 0 + 0.2 / 3 - 0 = 0.067
    assert markey(scores, 2, timestamps=seconds(3), embeddings=TWINS).tolist() == [0, 1]
    # without relevance, frame 1: -0.1; frame 2: 0.067
    assert markey(scores, 2, timestamps=seconds(3), embeddings=TWINS, relevance=0.0).tolist() == [0, 2]


def test_markey_counts_what_a_frame_covers_better_and_not_what_it_covers_worse():
    right, up = [1.0, 0.0], [0.0, 1.0]
    embeddings = np.array([right] * 3 + [up] * 3 + [[0.5**0.5, 0.5**0.5], [0.6, 0.8]])
    inputs = {"timestamps": seconds(8), "embeddings": embeddings, "relevance": 0.0, "redundancy": 0.0}
    # The diagonal covers all best (0.78 on average). Then frame 0 adds 3 * 0.29, frame 7 only 3 * 0.09.
    assert markey(seconds(8), 2, **inputs).tolist() == [0, 6]


def test_markey_looks_back_at_recent_picks_only():
    embeddings = np.array([[1.0, 0.0], [0.0, 1.0], [0.8, 0.6], [1.0, 0.0]])
    scores = np.array([1.0, 0.9, 0.01, 0.0])
    picks = {"timestamps": seconds(4), "embeddings": embeddings, "coverage": 0.0, "relevance": 0.7, "redundancy": 0.1}
    # after 0 and 1. recent 1: frame 2 costs 0.06 and has 0.007; frame 3 costs 0 and has 0: frame 3.
    assert markey(scores, 3, recent=1, **picks).tolist() == [0, 1, 3]
    # recent 2: frame 2 costs 0.08, frame 3 costs 0.1.
    assert markey(scores, 3, recent=2, **picks).tolist() == [0, 1, 2]


def test_markey_takes_anchors_from_every_third_of_relevance():
    times = seconds(3000)
    scores = times / 3000
    anchors = _anchors(scores, times, 648)
    assert len(set(anchors.tolist())) == 648
    assert [int(((anchors >= low) & (anchors < low + 1000)).sum()) for low in (0, 1000, 2000)] == [216, 216, 216]
    assert _anchors(scores[:648], times[:648], 648).tolist() == list(range(648))


def test_gift_passes_over_what_a_better_frame_could_replace():
    embeddings = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    scores = np.array([1.0, 0.9, 0.5, 0.0])
    # squared distances to better frames: 4 (the widest), 0, 2, 2; times relevance: 4, 0, 1, 0
    assert gift(scores, 2, timestamps=seconds(4), embeddings=embeddings).tolist() == [0, 2]
    # in rounds of one, frame 1 is the best of the rest and so gets the widest distance
    assert gift(scores, 2, timestamps=seconds(4), embeddings=embeddings, per_round=1).tolist() == [0, 1]


def test_gift_finds_one_of_two_equal_frames_replaceable():
    scores = np.array([0.5, 1.0, 1.0, 0.0])
    embeddings = np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.1]])
    assert gift(scores, 2, timestamps=seconds(4), embeddings=embeddings).tolist() == [0, 1]


@pytest.mark.parametrize("count", [1, 2, 9, 10, 30])
def test_gift_agrees_with_the_definition(count):
    """Round by round from the definition, with plain loops."""
    generator = np.random.default_rng(count)
    embeddings = generator.normal(size=(40, 3))
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    scores = generator.uniform(size=40)
    relevance = (scores - scores.min()) / np.ptp(scores)
    apart = ((embeddings[:, None] - embeddings) ** 2).sum(axis=2)
    left, picks = list(range(40)), []
    while len(picks) < count:
        value = {}
        for i in left:
            better = [apart[i, j] for j in left if relevance[j] > relevance[i]]
            value[i] = relevance[i] * (min(better) if better else apart.max())
        taken = sorted(left, key=lambda i: -value[i])[: min(9, count - len(picks))]
        picks += taken
        left = [i for i in left if i not in taken]
    assert gift(scores, count, timestamps=seconds(40), embeddings=embeddings).tolist() == sorted(picks)
