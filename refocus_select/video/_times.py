"""Times of packets made continuous: clocks that wrap or start anew, times that repeat or step back. Pure."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_WRAP = 2**33  # MPEG system clocks have 33 bits
_JUMP = 10.0  # seconds: a longer jump ahead is another recording, a shorter one a pause (ffmpeg's own threshold)
_BACK = 1.0  # seconds: a longer step back is another recording even if it does not begin with a keyframe


@dataclass(frozen=True)
class Joined:
    """P packets on one clock. `starts` are the places of packets at which the clock of the file starts anew."""

    pts: NDArray[np.int64]
    starts: list[int]
    wraps: int


def join_clocks(
    pts: NDArray[np.int64], dts: NDArray[np.int64], keys: NDArray[np.bool_], time_base: float
) -> Joined | None:
    """Makes the times of an MPEG stream continuous in the order of the file; None if they are.

    A clock that wraps goes on. Where it jumps (back, or ahead by more than ten seconds), another recording begins;
    its first picture follows the last one before it after one usual step.

    Args:
        pts, dts: `[P]`, times of the packets in the order of the file, in ticks of `time_base` seconds.
        keys: `[P]`, which are keyframes.
        time_base: seconds per tick.
    """
    steps = np.diff(dts)
    if len(steps) == 0 or (steps.min() >= 0 and steps.max() * time_base <= _JUMP):
        return None
    turns = np.rint(steps / _WRAP).astype(np.int64)
    times = dts - _WRAP * np.concatenate([[0], np.cumsum(turns)])
    shown = times + (pts - dts + _WRAP // 2) % _WRAP - _WRAP // 2
    steps = np.diff(times) * time_base
    broken = (steps > _JUMP) | (steps < -_BACK) | ((steps < 0) & keys[1:])
    starts = (np.flatnonzero(broken) + 1).tolist()
    wraps = int(np.count_nonzero(turns))
    if not starts and not wraps:
        return None
    usual = int(np.median(np.abs(np.diff(times)))) or 1
    last: int | None = None
    for start, stop in zip([0, *starts], [*starts, len(times)], strict=True):
        part = slice(start, stop)
        if last is not None:
            shown[part] += last + usual - int(shown[part].min())
        last = int(shown[part].max())
    return Joined(shown, starts, wraps)


def repaired(times: NDArray[np.float64], usual: float) -> tuple[NDArray[np.float64], int]:
    """Strictly increasing times for pictures in the order in which they are shown, and how many were changed.

    The longest run of increasing times is true; the rest are placed evenly between their neighbours.

    Args:
        times: `[N]`, seconds as the file states them.
        usual: seconds between pictures, for those before the first and behind the last true time.
    """
    true = _longest_increasing(times)
    if len(true) == len(times):
        return times, 0
    numbers = np.arange(len(times), dtype=np.float64)
    fixed = np.interp(numbers, true, times[true])
    before, behind = numbers < true[0], numbers > true[-1]
    fixed[before] = times[true[0]] - (true[0] - numbers[before]) * usual
    fixed[behind] = times[true[-1]] + (numbers[behind] - true[-1]) * usual
    return fixed, len(times) - len(true)


def _longest_increasing(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Places of a longest strictly increasing subsequence (patience sorting)."""
    ends: list[float] = []
    places: list[int] = []
    before = np.full(len(values), -1, dtype=np.int64)
    for place, value in enumerate(values.tolist()):
        row = bisect_left(ends, value)
        before[place] = places[row - 1] if row else -1
        if row == len(ends):
            ends.append(value)
            places.append(place)
        else:
            ends[row], places[row] = value, place
    chain = []
    place = places[-1] if places else -1
    while place >= 0:
        chain.append(place)
        place = int(before[place])
    return np.array(chain[::-1], dtype=np.int64)
