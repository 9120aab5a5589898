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


@dataclass(frozen=True)
class EqualTokens:
    """A selector and the baseline at the same number of prompt tokens.

    Attributes:
        selector: who chose the frames.
        tokens: measured, on average.
        baseline_frames: K at which the baseline has so many.
        frames: K at which the selector would have so many: between two that were measured.
        value: of the selector there.
        gain: over the baseline on the questions that both have.
    """

    selector: str
    tokens: float
    baseline_frames: int
    frames: float
    value: Interval
    gain: Difference


def at_equal_tokens(
    results: Sequence[Any], value: Value, *, baseline: str = "uniform", seed: int = 0
) -> list[EqualTokens]:
    """Every selector at the tokens that the baseline has at each K, as far as its own lie around them.

    Tokens are the measured lengths of the prompts, averaged over the questions that both have. Between two numbers of
    frames the value of each question is taken to rise in a straight line over tokens; nothing is extrapolated.
    """
    known = [r for r in results if r.tokens is not None]
    found = []
    for num_frames in sorted({r.num_frames for r in known}):
        base = {r.id: r for r in _of(known, baseline, num_frames)}
        for selector in selectors_of(known):
            own: list[dict[str, Any]] = [
                {r.id: r for r in _of(known, selector, k) if r.id in base}
                for k in sorted({r.num_frames for r in known})
            ]
            line = _between(own, base, value) if selector != baseline and base else None
            if line is not None:
                ids, values, frames, tokens = line
                videos = [base[name].video for name in ids]
                gain = paired_difference(values, [value(base[name]) for name in ids], videos, seed=seed)
                interval = bootstrap_interval(values, videos, seed=seed)
                found.append(EqualTokens(selector, tokens, num_frames, frames, interval, gain))
    return found


def _between(
    own: list[dict[str, Any]], base: dict[str, Any], value: Value
) -> tuple[list[str], list[float], float, float] | None:
    """One selector at the tokens of the baseline: questions, values, K and tokens; None if they lie outside."""
    own = [rows for rows in own if rows]
    ids = sorted(set.intersection(*[set(rows) for rows in own])) if own else []
    if not ids:
        return None
    tokens = sum(base[name].tokens for name in ids) / len(ids)
    means = [sum(rows[name].tokens for name in ids) / len(ids) for rows in own]
    for low, high, left, right in zip(own, own[1:] or own, means, means[1:] or means, strict=False):
        if left * (1 - _SAME) <= tokens <= right * (1 + _SAME):
            share = 0.0 if right <= left else min(max((tokens - left) / (right - left), 0.0), 1.0)
            values = [(1 - share) * value(low[name]) + share * value(high[name]) for name in ids]
            sizes = low[ids[0]].num_frames, high[ids[0]].num_frames
            return ids, values, (1 - share) * sizes[0] + share * sizes[1], tokens
    return None


_SAME = 0.02  # lengths of prompts that differ by less are equal: times are longer or shorter words


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
