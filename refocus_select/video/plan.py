"""Which packets to decode for a set of frames, and how to share them among threads. Pure: arrays in, spans out.

Cost model (measured, in decoded pictures): a frame costs every picture from its anchor, the keyframe that decoding
must start from, up to itself, counted once per group of frames with the same anchor; scaling a wanted picture
costs a fraction of decoding one. Seeking happens only between groups, so the plan never decodes a picture twice
and never costs more than reading the video from front to back.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from refocus_select.video.engine import Span

KEYFRAME_COST = 3.0  # a keyframe against an average picture
PICTURE_COST = 0.3  # scaling and copying a wanted picture
SPAN_TARGETS = 24  # targets per span where it can be cut: a short wait for the first pictures of a stream
FRAME_THREAD_GAIN = 0.7  # speed of one decoder with n frame threads against n decoders


@dataclass(frozen=True)
class Plan:
    """Spans in order of time, how many readers work on them, and the frame threads of each reader's decoder."""

    spans: list[Span]
    workers: int = 1
    threads: int = 1


@dataclass(frozen=True)
class Group:
    """Targets `start..stop-1` of a request, which share the keyframe number `anchor`."""

    start: int
    stop: int
    anchor: int
    cost: float


def find_anchors(
    positions: NDArray[np.int64],
    pts: NDArray[np.int64],
    key_positions: NDArray[np.int64],
    key_pts: NDArray[np.int64],
) -> NDArray[np.int64]:
    """For each frame the number of the last keyframe that precedes it both in decoding and in presentation.

    A frame that follows a keyframe in the file but is shown before it (a leading picture of an open GOP) may refer
    to pictures before that keyframe, so it belongs to an earlier one.

    Args:
        positions, pts: `[N]`, place in decoding order and presentation time of the frames.
        key_positions, key_pts: `[K]`, the same of the keyframes, in decoding order; K >= 1.

    Returns:
        int64 `[N]`; 0 where no keyframe precedes.
    """
    anchors = np.searchsorted(key_positions, positions, side="right") - 1
    np.clip(anchors, 0, None, out=anchors)
    while True:  # ends: every round lowers an entry, none goes below 0
        late = (key_pts[anchors] > pts) & (anchors > 0)
        if not late.any():
            return anchors.astype(np.int64)
        anchors = anchors - late


def group_targets(
    anchors: NDArray[np.int64], positions: NDArray[np.int64], key_positions: NDArray[np.int64]
) -> list[Group]:
    """Groups consecutive targets with the same anchor and predicts the cost of each group in pictures."""
    if len(anchors) == 0:
        return []
    edges = [0, *(np.flatnonzero(np.diff(anchors)) + 1).tolist(), len(anchors)]
    groups = []
    for start, stop in itertools.pairwise(edges):
        anchor = int(anchors[start])
        length = int(positions[start:stop].max()) - int(key_positions[anchor])
        groups.append(Group(start, stop, anchor, KEYFRAME_COST + max(length, 0) + PICTURE_COST * (stop - start)))
    return groups


def share(groups: Sequence[Group], workers: int, *, max_targets: int = SPAN_TARGETS) -> Plan:
    """Cuts groups into spans for `workers` threads.

    Threads take spans as they become free, so spans shrink towards the end (half an equal share of what is left):
    large ones at first for few seeks, small ones at last so that all threads end together. One group cannot be
    divided; where a few long groups would leave threads idle, fewer decoders with frame threads take over.
    """
    if not groups:
        return Plan([])
    total = sum(group.cost for group in groups)
    workers = max(1, workers)
    if workers > 1 and _makespan([group.cost for group in groups], workers) > total / (FRAME_THREAD_GAIN * workers):
        return Plan([Span(groups[0].start, groups[-1].stop, tuple(groups))], 1, workers)
    spans: list[Span] = []
    left = total
    current: list[Group] = []
    cost = 0.0
    for group in groups:
        targets = group.stop - current[0].start if current else 0
        if current and (cost + group.cost / 2 > left / (2 * workers) or targets > max_targets):
            spans.append(Span(current[0].start, current[-1].stop, tuple(current)))
            left -= cost
            current, cost = [], 0.0
        current.append(group)
        cost += group.cost
    spans.append(Span(current[0].start, current[-1].stop, tuple(current)))
    return Plan(spans, min(workers, len(spans)))


def snap_to_keyframes(
    targets: NDArray[np.int64], times: NDArray[np.float64], keyframes: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Moves each target to the nearest keyframe within half the distance to its neighbours.

    Args:
        targets: `[N]`, sorted unique frame numbers. A single one stays where it is: it has no spacing.
        times: `[F]`, seconds of all frames.
        keyframes: `[K]`, sorted frame numbers of the keyframes.

    Returns:
        int64 `[N]`, sorted; unique, because no target leaves its own half of a gap.
    """
    if len(targets) < 2 or len(keyframes) == 0:
        return targets
    at = times[targets]
    gaps = np.diff(at) / 2
    typical = float(np.median(gaps))
    before = np.concatenate([[typical], gaps])
    after = np.concatenate([gaps, [typical]])
    key_times = times[keyframes]
    right = np.searchsorted(key_times, at)
    moved = targets.copy()
    best = np.full(len(targets), np.inf)
    for candidate in (right - 1, right):
        inside = np.clip(candidate, 0, len(keyframes) - 1)
        shift = key_times[inside] - at
        # Strictly less on one side: two neighbours must not both move to the middle between them.
        allowed = (candidate == inside) & (shift > -before) & (shift <= after) & (np.abs(shift) < best)
        moved[allowed] = keyframes[inside[allowed]]
        best[allowed] = np.abs(shift[allowed])
    return moved


def _makespan(costs: Sequence[float], workers: int) -> float:
    """Time until all are done when `workers` threads take costs in order as they become free."""
    loads = [0.0] * workers
    for cost in costs:
        loads[loads.index(min(loads))] += cost
    return max(loads)
