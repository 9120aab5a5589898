"""From results to tables: one value per question, compared over selectors, numbers of frames, and groups."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Protocol

from ..statistics import Difference, Interval, bootstrap_interval, paired_difference


class Result(Protocol):
    """What predictions and evidence scores have in common."""

    @property
    def id(self) -> str:
        """Of the question."""

    @property
    def video(self) -> str:
        """Path of the video: questions about one are drawn together."""

    @property
    def selector(self) -> str:
        """Who chose the frames."""

    @property
    def num_frames(self) -> int:
        """K."""


Value = Callable[[Any], float]
Groups = Callable[[Any], Sequence[str]]


@dataclass(frozen=True)
class Line:
    """One selector at one number of frames.

    Attributes:
        selector: who chose the frames.
        num_frames: K.
        value: mean and interval.
        gain: over the baseline on the questions that both have; None for the baseline itself, or without common ones.
    """

    selector: str
    num_frames: int
    value: Interval
    gain: Difference | None


def overall(results: Sequence[Result], value: Value, *, baseline: str = "uniform", seed: int = 0) -> list[Line]:
    """All selectors at all numbers of frames, in the order of first appearance and of K."""
    lines = []
    for num_frames in sorted({result.num_frames for result in results}):
        for selector in selectors_of(results):
            own = _of(results, selector, num_frames)
            if own:
                interval = bootstrap_interval([value(r) for r in own], [r.video for r in own], seed=seed)
                gain = None
                if selector != baseline:
                    gain = difference(results, value, selector, baseline, num_frames, seed=seed)
                lines.append(Line(selector, num_frames, interval, gain))
    return lines


def difference(
    results: Sequence[Result], value: Value, first: str, second: str, num_frames: int, *, seed: int = 0
) -> Difference | None:
    """How much better `first` is than `second` on the questions that both have; None if there are none."""
    a = {result.id: result for result in _of(results, first, num_frames)}
    b = {result.id: result for result in _of(results, second, num_frames)}
    common = [name for name in a if name in b]
    if not common:
        return None
    return paired_difference(
        [value(a[name]) for name in common],
        [value(b[name]) for name in common],
        [a[name].video for name in common],
        seed=seed,
    )


def all_pairs(
    results: Sequence[Result], value: Value, num_frames: int, *, seed: int = 0
) -> dict[tuple[str, str], Difference]:
    """The difference between any two selectors at one K."""
    found = {}
    for first, second in combinations(selectors_of(_at(results, num_frames)), 2):
        gap = difference(results, value, first, second, num_frames, seed=seed)
        if gap is not None:
            found[first, second] = gap
    return found


def by_group(
    results: Sequence[Result], value: Value, groups: Groups, num_frames: int, *, seed: int = 0
) -> dict[str, dict[str, Interval]]:
    """For each group the value of each selector at one K. A question may belong to several groups, or to none."""
    members: dict[str, list[Result]] = {}
    for result in _at(results, num_frames):
        for group in groups(result):
            members.setdefault(group, []).append(result)
    found: dict[str, dict[str, Interval]] = {}
    for group in sorted(members, key=_natural):
        for selector in selectors_of(members[group]):
            own = [result for result in members[group] if result.selector == selector]
            interval = bootstrap_interval([value(r) for r in own], [r.video for r in own], seed=seed)
            found.setdefault(group, {})[selector] = interval
    return found


def selectors_of(results: Sequence[Result]) -> list[str]:
    """Names in the order of first appearance."""
    return list(dict.fromkeys(result.selector for result in results))


def _natural(group: str) -> tuple[int, float, str]:
    """Durations by length, everything else by name."""
    known = ["short", "medium", "long", "up to 2 min", "2 to 15 min", "15 to 60 min", "over 60 min"]
    number = group.removesuffix(" s")
    if number.isdigit():
        return 0, float(number), group
    return (0, known.index(group), group) if group in known else (1, 0.0, group)


def _at(results: Sequence[Result], num_frames: int) -> list[Result]:
    return [result for result in results if result.num_frames == num_frames]


def _of(results: Sequence[Result], selector: str, num_frames: int) -> list[Result]:
    return [result for result in results if result.selector == selector and result.num_frames == num_frames]
