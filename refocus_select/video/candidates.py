"""Which frames of a video are considered at all: the candidates among which a selector chooses."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from refocus_select.errors import InputError

if TYPE_CHECKING:
    from refocus_select.video.base import Video

_TOLERANCE = 1e-6  # seconds by which a time may miss a frame's start through rounding


@dataclass(frozen=True)
class CandidateRule:
    """How candidates are spread over a video.

    Attributes:
        fps: at most so many candidates per second, but for `min_frames`.
        max_frames: at most so many in all.
        min_frames: a short video, or a short part of one, is sampled more densely than `fps` until it gives so many,
            or all its frames.
        method: `"time"` divides the duration into equal segments and takes the frame shown at the middle of each,
            which is right for a varying frame rate and never yields a frame twice. `"paper"` is the rule of the
            ReFoCUS evaluation: `n = min(max_frames, max(1, floor(total / average_fps * fps)))` frames at
            `linspace(0, total - 1, n, dtype=int)`, by frame number, with repetitions if the video has fewer.
    """

    fps: float = 4.0
    max_frames: int = 512
    method: Literal["time", "paper"] = "time"
    min_frames: int = 1

    def __post_init__(self) -> None:
        if isinstance(self.fps, bool) or not isinstance(self.fps, int | float) or not 0 < self.fps < math.inf:
            raise InputError(f"fps must be a number above 0, not {self.fps!r}")
        for name in ("max_frames", "min_frames"):
            count = getattr(self, name)
            if isinstance(count, bool) or not isinstance(count, int) or count < 1:
                raise InputError(f"{name} must be a whole number of at least 1, not {count!r}")
        if self.method not in ("time", "paper"):
            raise InputError(f"method must be 'time' or 'paper', not {self.method!r}")

    def limited(
        self, *, fps: float | None = None, max_frames: int | None = None, min_frames: int | None = None
    ) -> CandidateRule:
        """This rule with a caller's limits.

        Args:
            fps, max_frames: replace the rule's own. An `fps` is obeyed in short videos too: the rule's own
                `min_frames` no longer counts.
            min_frames: raises the rule's `min_frames` and `max_frames` where they are lower; a `max_frames` that is
                given beside it still holds.
        """
        rule = self if fps is None else replace(self, fps=fps, min_frames=1)
        if min_frames is not None:
            rule = replace(rule, min_frames=min_frames)  # checks it
            rule = replace(
                rule, min_frames=max(min_frames, self.min_frames if fps is None else 1),
                max_frames=max(min_frames, self.max_frames),
            )  # fmt: skip
        return rule if max_frames is None else replace(rule, max_frames=max_frames)


MIN_CANDIDATES = 32  # of a short video, for selectors: 8 seconds at 4 per second
PRESETS = {"default": CandidateRule(), "paper": CandidateRule(fps=4.0, max_frames=512, method="paper")}


def policy_rule(fps: float, max_frames: int, method: str) -> CandidateRule:
    """The rule of a trained policy; that of the paper stays the authors' in short videos too."""
    least = 1 if method == "paper" else min(MIN_CANDIDATES, max_frames)
    return CandidateRule(fps, max_frames, method, least)  # type: ignore[arg-type]


@dataclass(frozen=True)
class CandidatePlan:
    """Candidates in order of time: frame numbers int64 `[F]` and seconds float64 `[F]`."""

    indices: NDArray[np.int64]
    timestamps: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.indices)


def sample_candidates(
    video: Video,
    rule: CandidateRule | str | None = None,
    *,
    fps: float | None = None,
    max_frames: int | None = None,
    min_frames: int | None = None,
    start: float | None = None,
    end: float | None = None,
) -> CandidatePlan:
    """Chooses the candidate frames of a video. Nothing is decoded.

    Args:
        video: an opened video.
        rule: a `CandidateRule`, `"default"` (also None), or `"paper"`.
        fps, max_frames, min_frames: see `CandidateRule.limited`.
        start, end: seconds, on the clock of `Video.timestamps`; only frames shown in this part are candidates.

    Returns:
        At least one candidate.

    Raises:
        InputError: unknown preset, or a part that is empty or outside the video.
    """
    if rule is None:
        rule = PRESETS["default"]
    elif isinstance(rule, str):
        if rule not in PRESETS:
            raise InputError(f"unknown candidate rule {rule!r}; known are {', '.join(sorted(PRESETS))}")
        rule = PRESETS[rule]
    rule = rule.limited(fps=fps, max_frames=max_frames, min_frames=min_frames)
    times, duration = video.timestamps, video.metadata.duration
    low, high = _check_range(video.metadata.source, float(times[0]), duration, start, end)
    if rule.method == "paper":
        inside = _frames_shown(times, low, high)
        count, rate = len(inside), video.metadata.average_fps
        least = min(count, rule.min_frames)  # repetitions are the authors' rule, and no more of them are added
        indices = inside[paper_indices(count, rate, fps=rule.fps, max_frames=rule.max_frames, min_frames=least)]
    else:
        indices = time_indices(times, low, high, fps=rule.fps, max_frames=rule.max_frames, min_frames=rule.min_frames)
    return CandidatePlan(indices, times[indices])


def time_indices(
    times: NDArray[np.float64], start: float, end: float, *, fps: float, max_frames: int, min_frames: int = 1
) -> NDArray[np.int64]:
    """Frames shown at the centres of equal segments of `[start, end)`.

    Args:
        times: `[N]`, seconds, increasing.
        start, end: seconds.
        fps, max_frames, min_frames: as in `CandidateRule`; `max_frames` holds where they contradict each other.

    Returns:
        int64 `[F]`, sorted and unique, 1 <= F <= min(max_frames, max(1, min_frames, fps * (end - start))). All frames
        of the part if there are no more; fewer, down to `min_frames`, where a frame stays on screen for longer than a
        segment.
    """
    inside = _frames_shown(times, start, end)
    count = min(max_frames, max(1, min_frames, math.floor((end - start) * fps + _TOLERANCE)))
    if len(inside) <= count:
        return inside
    centres = start + (np.arange(count) + 0.5) * ((end - start) / count)
    shown = np.searchsorted(times, centres + _TOLERANCE, side="right") - 1
    chosen = np.unique(np.clip(shown, inside[0], inside[-1])).astype(np.int64)
    missing = min(max_frames, min_frames) - len(chosen)
    if missing <= 0:
        return chosen
    others = np.setdiff1d(inside, chosen)
    return np.union1d(chosen, others[np.arange(missing) * len(others) // missing])


def paper_indices(
    total: int, rate: float, *, fps: float = 4.0, max_frames: int = 512, min_frames: int = 1
) -> NDArray[np.int64]:
    """The candidate rule of the ReFoCUS evaluation (release settings: 4 frames per second, 512 in all).

    Args:
        total: frames in the video.
        rate: its average frames per second.
        fps, max_frames: at most so many candidates per second and in all.
        min_frames: at least so many in all (the authors' 1).

    Returns:
        int64 `[n]`, sorted, with repetitions if `n > total`.
    """
    count = min(max_frames, max(1, min_frames, math.floor(total / rate * fps)))
    # linspace itself, not integer arithmetic: they differ by one for some (total, count).
    return np.linspace(0, total - 1, count, dtype=int).astype(np.int64)


def _frames_shown(times: NDArray[np.float64], start: float, end: float) -> NDArray[np.int64]:
    """Frames on screen at some time in `[start, end)`; the first may have begun before."""
    first = max(int(np.searchsorted(times, start + _TOLERANCE, side="right")) - 1, 0)
    stop = max(int(np.searchsorted(times, end - _TOLERANCE, side="left")), first + 1)
    return np.arange(first, stop, dtype=np.int64)


def _check_range(
    source: str, first: float, duration: float, start: float | None, end: float | None
) -> tuple[float, float]:
    """The part from `start` to `end` of a video whose frames are shown from `first` to `duration`."""
    for name, value in (("start", start), ("end", end)):
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not math.isfinite(value):
            raise InputError(f"{name} must be a time in seconds, not {value!r}")
        if value < 0:
            raise InputError(f"{name} must not be negative ({value:g}); times count from the first frame")
    low = 0.0 if start is None else float(start)
    if low >= duration and low > 0:
        raise InputError(f"{source}: start {low:g} s is after the end of the video, which lasts {duration:.2f} s")
    high = duration if end is None else float(end)
    if end is not None and high <= low:
        raise InputError(f"end ({high:g} s) must lie after start ({low:g} s)")
    if high > duration + 1.0:  # a time rounded up to the next second is not a mistake
        raise InputError(f"{source}: end {high:g} s is after the end of the video, which lasts {duration:.2f} s")
    if high <= first and first > 0:
        raise InputError(f"{source}: end {high:g} s is before the first frame, which is shown at {first:g} s")
    return max(low, first), min(high, duration)
