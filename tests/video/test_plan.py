"""The decode plan on random streams: what is decoded suffices, nothing is decoded twice, threads share evenly."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from refocus_select.video.plan import (
    FRAME_THREAD_GAIN,
    KEYFRAME_COST,
    SPAN_TARGETS,
    Group,
    find_anchors,
    group_targets,
    share,
    snap_to_keyframes,
)


@dataclass
class Stream:
    """A made-up stream in order of presentation: place in decoding order, and the keyframes."""

    positions: NDArray[np.int64]
    pts: NDArray[np.int64]
    key_positions: NDArray[np.int64]
    key_pts: NDArray[np.int64]


@st.composite
def streams(draw: st.DrawFn) -> Stream:
    """GOPs of random lengths; in open ones up to three frames follow the keyframe but are shown before it."""
    order: list[int] = []  # presentation ranks in decoding order
    keys: list[int] = []
    start = 0
    for length in draw(st.lists(st.integers(1, 30), min_size=1, max_size=12)):
        leading = draw(st.integers(0, min(3, length - 1))) if start else 0
        keys.append(len(order))
        order.append(start + leading)
        order += range(start, start + leading)
        rest = list(range(start + leading + 1, start + length))
        while rest:  # anchors before the B-frames between them
            run = draw(st.integers(1, 4))
            block, rest = rest[:run], rest[run:]
            order += [block[-1], *block[:-1]]
        start += length
    ranks = np.array(order)
    positions = np.argsort(ranks)
    pts = 100 + 7 * np.arange(len(ranks))
    key_positions = np.array(keys)
    return Stream(positions, pts, key_positions, pts[ranks[key_positions]])


@given(stream=streams(), data=st.data())
def test_groups_hold_every_target_once_and_decode_enough(stream: Stream, data: st.DataObject) -> None:
    total = len(stream.pts)
    targets = np.unique(data.draw(st.lists(st.integers(0, total - 1), min_size=1, max_size=60)))
    positions = stream.positions[targets]
    anchors = find_anchors(positions, stream.pts[targets], stream.key_positions, stream.key_pts)
    for target, anchor in zip(targets, anchors, strict=True):
        # The last keyframe before the frame in both orders, found the slow way.
        before = (stream.key_positions <= stream.positions[target]) & (stream.key_pts <= stream.pts[target])
        assert anchor == np.flatnonzero(before)[-1]
    groups = group_targets(anchors, positions, stream.key_positions)
    covered = [p for group in groups for p in range(group.start, group.stop)]
    assert covered == list(range(len(targets)))
    for group in groups:
        assert (anchors[group.start : group.stop] == group.anchor).all()
        assert group.cost >= KEYFRAME_COST

    for workers in (1, 2, 5):
        plan = share(groups, workers)
        assert [g for span in plan.spans for g in span.work] == groups
        edges = [(span.start, span.stop) for span in plan.spans]
        assert edges[0][0] == 0
        assert edges[-1][1] == len(targets)
        assert all(a[1] == b[0] for a, b in itertools.pairwise(edges))
        assert 1 <= plan.workers <= workers
        assert plan.threads == 1 or (plan.workers == 1 and plan.threads == workers)


@given(
    costs=st.lists(st.floats(1, 300), min_size=1, max_size=200),
    workers=st.integers(1, 16),
)
def test_threads_end_together(costs: list[float], workers: int) -> None:
    groups = [Group(i, i + 1, i, cost) for i, cost in enumerate(costs)]
    plan = share(groups, workers)
    if plan.threads > 1:
        # Frame threads take over only where whole groups would keep one thread busy for longer.
        assert max(_finish([g.cost for g in groups], workers)) > sum(costs) / (FRAME_THREAD_GAIN * workers)
        return
    loads = _finish([sum(g.cost for g in span.work) for span in plan.spans], plan.workers)
    spans = [sum(g.cost for g in span.work) for span in plan.spans]
    assert max(loads) <= sum(costs) / plan.workers + max(spans)
    assert all(span.stop - span.start <= max(SPAN_TARGETS, 1) for span in plan.spans)


def _finish(costs: list[float], workers: int) -> list[float]:
    loads = [0.0] * workers
    for cost in costs:
        loads[loads.index(min(loads))] += cost
    return loads


def test_one_long_gop_is_given_to_frame_threads() -> None:
    plan = share([Group(0, 8, 0, 1000.0)], 4)
    assert (plan.workers, plan.threads, len(plan.spans)) == (1, 4, 1)
    assert share([Group(0, 8, 0, 1000.0)], 1).threads == 1
    assert share([], 4).spans == []


def test_many_short_gops_are_given_to_decoders() -> None:
    groups = [Group(i, i + 1, i, 15.0) for i in range(512)]
    plan = share(groups, 2)
    assert (plan.workers, plan.threads) == (2, 1)
    assert len(plan.spans) >= 512 // SPAN_TARGETS
    assert len(plan.spans[-1].work) == 1, "the last spans are small, so that both threads end together"


@given(stream=streams(), data=st.data(), snap_ends=st.booleans())
def test_snapping_stays_within_half_the_spacing(stream: Stream, data: st.DataObject, snap_ends: bool) -> None:
    total = len(stream.pts)
    targets = np.unique(data.draw(st.lists(st.integers(0, total - 1), min_size=1, max_size=30)))
    times = np.cumsum(data.draw(st.lists(st.floats(0.01, 1), min_size=total, max_size=total)))
    keyframes = np.unique(np.searchsorted(stream.pts, stream.key_pts))
    moved = snap_to_keyframes(targets, times, keyframes)
    assert (np.diff(moved) >= 0).all()
    if len(targets) < 2:
        assert moved.tolist() == targets.tolist()
        return
    gaps = np.diff(times[targets]) / 2
    limit = np.maximum(np.append(gaps, np.median(gaps)), np.append(np.median(gaps), gaps))
    assert (np.abs(times[moved] - times[targets]) <= limit + 1e-9).all()
    changed = moved != targets
    assert np.isin(moved[changed], keyframes).all()
    assert (moved[np.isin(targets, keyframes)] == targets[np.isin(targets, keyframes)]).all()


def test_snapping_never_joins_two_targets() -> None:
    times = np.arange(100) / 10
    moved = snap_to_keyframes(np.array([10, 20, 30]), times, np.array([15, 25]))
    assert len(set(moved.tolist())) == 3


@pytest.mark.parametrize("keyframes", [[], [0]])
def test_snapping_without_keyframes_near(keyframes: list[int]) -> None:
    targets = np.array([40, 50, 60])
    moved = snap_to_keyframes(targets, np.arange(100.0), np.array(keyframes, dtype=np.int64))
    assert moved.tolist() == targets.tolist()
