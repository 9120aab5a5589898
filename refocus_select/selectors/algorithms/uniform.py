"""Uniform sampling in time."""

from __future__ import annotations

import numpy as np


def uniform(timestamps: np.ndarray, num_frames: int, *, ends: bool = False) -> np.ndarray:
    """Spread K picks evenly over the video.

    By default the candidate nearest to the centre of each of K equal segments of time. With `ends=True` the rule of
    the ReFoCUS evaluation (and of many video models): positions `linspace(0, F - 1, K)` rounded down, so that the
    first and the last candidate are always in.

    Args:
        timestamps: sorted times of the candidates in seconds, [F].
        num_frames: K.
        ends: take the ends rule.

    Returns:
        Sorted distinct positions, int64 [min(K, F)].
    """
    total = len(timestamps)
    if num_frames >= total:
        return np.arange(total, dtype=np.int64)
    if ends:
        return np.linspace(0, total - 1, num_frames, dtype=int).astype(np.int64)
    span = float(timestamps[-1] - timestamps[0])
    centres = timestamps[0] + (np.arange(num_frames) + 0.5) / num_frames * span
    right = np.clip(np.searchsorted(timestamps, centres), 1, total - 1)
    nearer_left = centres - timestamps[right - 1] <= timestamps[right] - centres
    picks = (right - nearer_left).astype(np.int64)
    # Two centres can share a candidate where frames are sparse: push the later one on, then back from the end.
    for k in range(1, num_frames):
        picks[k] = max(picks[k], picks[k - 1] + 1)
    limit = total - num_frames + np.arange(num_frames)
    return np.minimum(picks, limit)
