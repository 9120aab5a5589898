"""The reports of the three evaluations, made from what lies in their folders."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..statistics import Interval
from . import figures
from .evidence import MEASURES, EvidenceScore
from .needle_trials import Trial, draw_heat_maps, read_trials, summarise
from .pages import Code, Figure, Heading, Part, Table, Text, write_report
from .qa import Prediction
from .records import read_json, read_records, write_json
from .run import read_parts, read_setup
from .tables import Line, Result, all_pairs, at_equal_tokens, by_group, overall, selectors_of

_EXAMPLES = 4  # questions whose frames are shown
_STRIPS = 5  # selectors in one picture
_LISTED = 20  # missing videos and problems that are named


@dataclass(frozen=True)
class Report:
    """What was written.

    Attributes:
        table: the main table in Markdown, to print.
        markdown: path of the report.
        html: path of the same as one page.
    """

    table: str
    markdown: Path
    html: Path


def build_report(folder: Path, *, baseline: str = "uniform", seed: int = 0) -> Report:
    """Write the report of an evaluation from its folder, whatever shards have written so far.

    Args:
        folder: what `--out` was.
        baseline: the selector that others are compared with.
        seed: of the bootstrap.

    Raises:
        InputError: if the folder holds no results.
    """
    if not (folder / "setup.json").is_file():
        raise InputError(f"{folder} holds no evaluation: setup.json is not there; give the folder of an --out")
    setup = read_setup(folder / "setup.json")
    kind = setup.get("kind", "needle")
    build = {"qa": _qa, "evidence": _evidence, "needle": _needle}[kind]
    title, main, parts, summary = build(folder, setup, baseline, seed)
    parts += _provenance(folder, setup, seed)
    write_json(folder / "summary.json", summary)
    markdown, page = write_report(folder, title, parts)
    rows = ["| " + " | ".join(row) + " |" for row in (main.header, ["---"] * len(main.header), *main.rows)]
    return Report("\n".join(rows), markdown, page)


Built = tuple[str, Table, list[Part], Any]


# -- question answering ---------------------------------------------------------------------------


def _qa(folder: Path, setup: Mapping[str, Any], baseline: str, seed: int) -> Built:
    results = _results(Prediction, folder, "predictions")
    _check_any(folder, results)
    right: Callable[[Prediction], float] = lambda r: float(r.correct)  # noqa: E731
    lines = overall(results, right, baseline=baseline, seed=seed)
    rows = []
    for line in lines:
        own = [r for r in results if (r.selector, r.num_frames) == (line.selector, line.num_frames)]
        unread = sum(r.choice is None for r in own)
        tokens = [r.tokens for r in own if r.tokens is not None]
        rows.append(
            [
                line.selector,
                str(line.num_frames),
                _percent(line.value),
                _gain(line),
                _macro(own, right),
                str(line.value.count),
                str(unread),
                f"{np.mean(tokens):.0f}" if tokens else "–",
                f"{np.mean([r.seconds for r in own]):.2f}",
            ]
        )
    header = ["selector", "K", "accuracy, %", f"gain over {baseline}", "mean of categories", "questions"]
    header += ["not understood", "prompt tokens", "s per answer"]
    main = Table(header, rows, "Accuracy")
    model = setup.get("answerer", {}).get("name", "")
    parts: list[Part] = [
        Text(
            f"{model} answers {len({r.id for r in results})} questions about {len({r.video for r in results})} videos. "
            "Every selector takes the same path: its K frames and their times are given to the same model with the "
            "same words. Intervals are 95 % bootstrap intervals over videos; gains are paired, on the questions that "
            "both selectors have. An answer that could not be understood counts as wrong."
        ),
        main,
        *_one_video(results),
        *_uneven(results),
        *_equal_tokens(results, right, baseline, seed),
        *_curves(lines, "accuracy", baseline),
        *_groups(results, right, "Accuracy", seed),
        *_pairs(results, right, seed),
        *_examples(results, right, lambda r: "right" if r.correct else "wrong", lambda r: r.correct),
        *_missing(folder, results),
    ]
    summary = {"kind": "qa", "lines": _plain(lines), **_grouped(results, right, seed)}
    return f"Question answering: {setup['benchmark']}", main, parts, summary


def _equal_tokens(
    results: Sequence[Prediction], value: Callable[[Prediction], float], baseline: str, seed: int
) -> list[Part]:
    """The same comparison at equal tokens: frames near each other cost fewer at equal K."""
    found = at_equal_tokens(results, value, baseline=baseline, seed=seed)
    if not found:
        return []
    rows = [
        [
            item.selector, f"{item.tokens:.0f}", str(item.baseline_frames), f"{item.frames:.1f}",
            item.value.text(scale=100, digits=1), item.gain.text(scale=100, digits=1, sign=True),
        ]
        for item in found
    ]  # fmt: skip
    header = ["selector", "prompt tokens", f"K of {baseline}", "K", "accuracy, %", f"gain over {baseline}"]
    return [
        Heading("At equal tokens"),
        Text(
            "Lengths of prompts are measured. Each selector is compared at the mean length that the baseline's prompts "
            "have; between two numbers of frames its values are taken to change in a straight line."
        ),
        Table(header, rows, "Accuracy at equal prompt tokens"),
    ]


def _uneven(results: Sequence[Prediction]) -> list[Part]:
    """A word of warning where the selectors did not get the same."""
    parts: list[Part] = []
    for num_frames in sorted({r.num_frames for r in results}):
        own = [r for r in results if r.num_frames == num_frames]
        counts = {name: sum(r.selector == name for r in own) for name in selectors_of(own)}
        if len(set(counts.values())) > 1:
            told = ", ".join(f"{name} {count}" for name, count in counts.items())
            parts.append(Text(f"At K = {num_frames} the selectors have different questions ({told}): compare gains."))
        tokens = {}
        for name in counts:
            known = [r.tokens for r in own if r.selector == name and r.tokens is not None]
            if known:
                tokens[name] = float(np.mean(known))
        if tokens and max(tokens.values()) > 1.02 * min(tokens.values()):
            parts.append(Text(f"At K = {num_frames} the lengths of the prompts differ by more than 2 %."))
    return parts


# -- evidence -------------------------------------------------------------------------------------


def _evidence(folder: Path, setup: Mapping[str, Any], baseline: str, seed: int) -> Built:
    results = _results(EvidenceScore, folder, "scores")
    _check_any(folder, results)
    values: dict[str, Callable[[EvidenceScore], float]] = {name: attrgetter(name) for name in MEASURES}
    lines = {name: overall(results, values[name], baseline=baseline, seed=seed) for name in MEASURES}
    rows = [
        [
            line.selector,
            str(line.num_frames),
            *[lines[name][place].value.text() for name in MEASURES],
            "–" if line.gain is None else line.gain.text(sign=True),
            str(line.value.count),
        ]
        for place, line in enumerate(lines["recall"])
    ]
    main = Table(["selector", "K", *MEASURES, f"recall over {baseline}", "questions"], rows, "Evidence")
    recall = values["recall"]
    parts: list[Part] = [
        Text(
            f"{len({r.id for r in results})} questions about {len({r.video for r in results})} videos. Recall is the "
            f"share of evidence spans that hold a chosen frame (within {setup['tolerance']:g} s), precision the share "
            "of chosen frames that lie in a span, coverage the share of the evidence's time that is at most "
            f"{setup['reach']:g} s from a chosen frame. Intervals are 95 % bootstrap intervals over videos."
        ),
        main,
        *_one_video(results),
    ]
    for name in MEASURES:
        parts += _curves(lines[name], name, baseline, gains=name == "recall")
    parts += _groups(results, recall, "Recall", seed)
    parts += _pairs(results, recall, seed)
    parts += _examples(results, recall, lambda r: f"recall {r.recall:.2f}", lambda r: r.recall > 0)
    parts += _missing(folder, results)
    summary = {
        "kind": "evidence",
        "lines": {name: _plain(lines[name]) for name in MEASURES},
        **_grouped(results, recall, seed),
    }
    return f"Evidence: {setup['benchmark']}", main, parts, summary


# -- needles --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Found:
    """A trial as a result: needles take the place of videos, since their depths are not independent evidence."""

    id: str
    video: str
    selector: str
    num_frames: int
    found: bool
    length: str


def _needle(folder: Path, setup: Mapping[str, Any], baseline: str, seed: int) -> Built:
    trials = read_trials(folder / "trials.jsonl")
    _check_any(folder, trials)
    results = [
        _Found(f"{t.needle}/{t.length}/{t.depth}", t.needle, t.selector, t.num_frames, t.found > 0, str(t.length))
        for t in trials
    ]
    found: Callable[[_Found], float] = lambda r: float(r.found)  # noqa: E731
    lines = overall(results, found, baseline=baseline, seed=seed)
    rows, summary = [], []
    sizes = sorted({t.num_frames for t in trials})
    for line in lines:
        own = [t for t in trials if (t.selector, t.num_frames) == (line.selector, line.num_frames)]
        (score,) = summarise(own)
        gain = "–" if line.gain is None else line.gain.text(sign=True)
        rows.append([line.selector, str(line.num_frames), line.value.text(), gain, f"{score.worst:.2f}",
                     f"{score.chance:.3f}", str(score.trials)])  # fmt: skip
        summary.append({key: None if value != value else value for key, value in asdict(score).items()} | {
            "num_frames": line.num_frames
        })  # fmt: skip
    header = ["selector", "K", "recall", f"gain over {baseline}", "worst cell", "chance", "trials"]
    main = Table(header, rows, "Needles found")
    questions = "; ".join(f"{name}: “{question}”" for name, question in setup["needles"].items())
    parts: list[Part] = [
        Text(
            f"Each needle is hidden at {len({t.depth for t in trials})} depths among "
            f"{', '.join(map(str, sorted({t.length for t in trials})))} candidate frames. {questions}. Intervals are "
            "95 % bootstrap intervals over needles."
        ),
        main,
        *(_curves(lines, "recall", baseline) if len(sizes) > 1 else []),
    ]
    for size in sizes:
        path = draw_heat_maps([t for t in trials if t.num_frames == size], folder / f"heat-{size}.png")
        parts.append(Figure(path.stem, path.read_bytes(), f"Recall over depth and number of candidates, K = {size}"))
    grid = by_group(results, found, lambda r: [f"{r.length} candidates"], sizes[0], seed=seed)
    ordered = dict(sorted(grid.items(), key=lambda item: int(item[0].split()[0])))
    parts.append(Figure("lengths", figures.heat_table(ordered, what="recall"), f"Recall by candidates, K = {sizes[0]}"))
    parts.append(_picked(trials, sizes[0]))
    return "Needle in a haystack", main, parts, summary


def _picked(trials: Sequence[Trial], num_frames: int) -> Figure:
    """Where everybody looked in one haystack: the longest, the needle nearest to its middle."""
    own = [t for t in trials if t.num_frames == num_frames]
    longest = max(t.length for t in own)
    first = min((t for t in own if t.length == longest), key=lambda t: abs(t.position / t.length - 0.5))
    same = [t for t in own if (t.needle, t.length, t.depth) == (first.needle, first.length, first.depth)]
    strips = [figures.Strip(t.selector, t.picked, [float(p) for p in t.picked], t.found > 0) for t in same]
    span = (float(first.position), float(first.position + first.size - 1))
    title = f"Candidates that were chosen for the needle “{first.needle}” (its place is shaded)"
    picture = figures.timeline(strips, end=float(longest), spans=[span], title=title, unit="candidate")
    return Figure("picks", picture, title)


# -- parts of all ---------------------------------------------------------------------------------


def _results(kind: type[Any], folder: Path, name: str) -> list[Any]:
    try:
        return [kind.from_dict(row) for row in read_parts(folder, name)]
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"a line of {name} in {folder} is damaged ({error}); remove it and run again") from error


def _check_any(folder: Path, results: Sequence[Any]) -> None:
    if not results:
        raise InputError(f"{folder} holds no results yet")


def _percent(interval: Interval) -> str:
    return interval.text(scale=100, digits=1)


def _gain(line: Line) -> str:
    return "–" if line.gain is None else line.gain.text(scale=100, digits=1, sign=True)


def _macro(results: Sequence[Prediction], value: Callable[[Prediction], float]) -> str:
    """The mean of the categories' means, as MLVU reports it."""
    groups: dict[str, list[float]] = {}
    for result in results:
        for name in result.categories:
            groups.setdefault(name, []).append(value(result))
    return f"{100 * np.mean([np.mean(v) for v in groups.values()]):.1f}" if len(groups) > 1 else "–"


def _one_video(results: Sequence[Result]) -> list[Part]:
    if len({r.video for r in results}) > 1:
        return []
    return [Text("All questions are about one video, so no interval can be given.")]


def _curves(lines: Sequence[Line], what: str, baseline: str, *, gains: bool = True) -> list[Part]:
    parts: list[Part] = []
    if len({line.num_frames for line in lines}) > 1:
        picture = figures.curves(lines, what=what, baseline=baseline)
        parts.append(Figure(f"curve-{what}", picture, f"{what} over the number of frames, with 95 % intervals"))
    if gains and any(line.gain is not None for line in lines):
        picture = figures.gains(lines, what=what, baseline=baseline)
        parts.append(Figure(f"gains-{what}", picture, f"Paired difference in {what} to {baseline}"))
    return parts


def _groups(results: Sequence[Any], value: Callable[[Any], float], what: str, seed: int) -> list[Part]:
    """Tables per category and per length at the largest common K."""
    size = max(_common_sizes(results))
    parts: list[Part] = []
    for name, groups in (("category", lambda r: r.categories), ("length", lambda r: [r.length])):
        found = by_group(results, value, groups, size, seed=seed)
        if not found or (name == "length" and len(found) < 2):
            continue
        names = list(dict.fromkeys(selector for values in found.values() for selector in values))
        rows = [
            [
                group,
                str(max(interval.count for interval in values.values())),
                *[_percent(values[n]) if n in values else "–" for n in names],
            ]
            for group, values in found.items()
        ]
        parts.append(Heading(f"{what} by {name}"))
        parts.append(Table([name, "questions", *names], rows, f"{what} in %, K = {size}"))
        if len(found) > 1:
            parts.append(
                Figure(f"by-{name}", figures.heat_table(found, what=what.lower()), f"{what} by {name}, K = {size}")
            )
    return parts


def _common_sizes(results: Sequence[Result]) -> list[int]:
    """The numbers of frames K that most selectors have."""
    selectors = {k: {r.selector for r in results if r.num_frames == k} for k in {r.num_frames for r in results}}
    most = max(map(len, selectors.values()))
    return [k for k, names in selectors.items() if len(names) == most]


def _pairs(results: Sequence[Result], value: Callable[[Any], float], seed: int) -> list[Part]:
    """The difference between any two selectors at the largest common K."""
    size = max(_common_sizes(results))
    pairs = all_pairs(results, value, size, seed=seed)
    if len(pairs) < 2:
        return []
    rows = [
        [
            f"{first} − {second}",
            gap.text(scale=100, digits=1, sign=True),
            f"{gap.better} : {gap.worse}",
            "yes" if gap.decided else "no",
        ]
        for (first, second), gap in pairs.items()
    ]
    return [
        Heading("Any two selectors"),
        Table(["pair", "difference, points", "better : worse", "decided"], rows, f"Paired differences, K = {size}"),
        Text("“Decided” means that the 95 % interval leaves zero out. With many pairs some will do so by chance."),
    ]


def _grouped(results: Sequence[Any], value: Callable[[Any], float], seed: int) -> dict[str, Any]:
    """Categories and lengths at every K, for programs."""
    found: dict[str, Any] = {"by_category": {}, "by_length": {}}
    for size in sorted({r.num_frames for r in results}):
        for name, groups in (("by_category", lambda r: r.categories), ("by_length", lambda r: [r.length])):
            grid = by_group(results, value, groups, size, seed=seed)
            found[name][str(size)] = {
                group: {selector: _numbers(interval) for selector, interval in values.items()}
                for group, values in grid.items()
            }
    return found


def _plain(lines: Sequence[Line]) -> list[dict[str, Any]]:
    return [
        {
            "selector": line.selector,
            "num_frames": line.num_frames,
            **_numbers(line.value),
            "gain": None if line.gain is None else _numbers(line.gain),
        }
        for line in lines
    ]


def _numbers(interval: Interval) -> dict[str, Any]:
    """JSON knows no nan."""
    return {key: None if isinstance(v, float) and np.isnan(v) else v for key, v in asdict(interval).items()}


def _examples(
    results: Sequence[Any],
    value: Callable[[Any], float],
    told: Callable[[Any], str],
    good: Callable[[Any], bool],
) -> list[Part]:
    """Frames of the questions on which the selectors differ most, at the smallest common K."""
    size = min(_common_sizes(results))
    by_question: dict[str, list[Any]] = {}
    for result in results:
        if result.num_frames == size:
            by_question.setdefault(result.id, []).append(result)
    spread = {name: float(np.ptp([value(r) for r in own])) for name, own in by_question.items()}
    ranked = sorted(by_question, key=lambda name: -spread[name])
    first = {by_question[name][0].video: name for name in reversed(ranked)}  # the best of each video
    chosen = sorted(ranked, key=lambda name: first[by_question[name][0].video] != name)
    parts: list[Part] = [Heading("Examples")] if chosen else []
    for number, name in enumerate(chosen[:_EXAMPLES], start=1):
        own = by_question[name]
        strips = [figures.Strip(f"{r.selector}: {told(r)}", r.indices, r.timestamps, good(r)) for r in own]
        spans = list(getattr(own[0], "evidence", ()))
        end = max([r.duration for r in own] + [stop for _, stop in spans])
        title = own[0].question or name
        line = figures.timeline(strips, end=end, spans=spans, title=title)
        parts.append(Figure(f"example-{number}-times", line, f"{name}: {title}"))
        picture = figures.frame_strips(own[0].video, strips[:_STRIPS], title=title)
        if picture is not None:
            parts.append(Figure(f"example-{number}-frames", picture, f"Frames chosen for {name}"))
        said = [f"{r.selector}: {quote}" for r in own for quote in getattr(r, "quotes", ())]
        parts += [Text("Lines that decided:"), Code("\n".join(said))] if said else []
    return parts


def _missing(folder: Path, results: Sequence[Any]) -> list[Part]:
    """What could not be evaluated, by name."""
    path = folder / "questions.json"
    facts = read_json(path) if path.is_file() else {}
    missing, left_out, known = (facts.get(name) or {} for name in ("missing", "left_out", "problems"))
    if not isinstance(missing, dict) or not all(isinstance(count, int) for count in missing.values()):
        raise InputError(f"{path} is damaged; run the evaluation again")
    complete = max(sum(1 for r in results if r.id == name) for name in {r.id for r in results})
    counts: dict[str, int] = {}
    for result in results:
        counts[result.id] = counts.get(result.id, 0) + 1
    later = [row for path in sorted(folder.glob("problems-*.jsonl")) for row in read_records(path)]
    problems = [*known, *[row for row in later if counts.get(str(row.get("id")), 0) < complete]]
    parts: list[Part] = []
    if missing:
        total = sum(missing.values())
        parts.append(Text(f"{len(missing)} videos with {total} questions are not there and were left out:"))
        parts.append(Code(_first([f"{name}  ({count} questions)" for name, count in missing.items()])))
    if left_out:
        told = ", ".join(f"{count} ({kind})" for kind, count in left_out.items())
        parts.append(Text(f"Rows of other kinds, left out: {told}."))
    if problems:
        parts.append(Text(f"{len(problems)} problems; what they concern is not in the tables:"))
        parts.append(Code(_first([f"{row.get('id')}: {row.get('what')}" for row in problems])))
    return [Heading("What is missing"), *parts] if parts else []


def _first(lines: Sequence[str]) -> str:
    more = [f"… and {len(lines) - _LISTED} more"] if len(lines) > _LISTED else []
    return "\n".join([*lines[:_LISTED], *more])


def _provenance(folder: Path, setup: Mapping[str, Any], seed: int) -> list[Part]:
    """Command, versions, seeds, and fingerprints."""
    parts: list[Part] = [Heading("How this was made")]
    runs = [run for path in sorted(folder.glob("runs*.jsonl")) for run in read_records(path)]
    commands = list(dict.fromkeys(str(run.get("command")) for run in runs))
    if commands:
        parts.append(Code("\n".join(commands)))
    kinds = list(
        dict.fromkeys(", ".join(f"{k} {v}" for k, v in dict(run.get("versions") or {}).items()) for run in runs)
    )
    parts += [Text(f"Versions: {kind}.") for kind in kinds]
    parts.append(Text(f"Seed of the bootstrap: {seed}. Selectors that draw at random state their seed below."))
    rows = []
    for name, facts in setup["selectors"].items():
        known = facts if isinstance(facts, dict) else {"fingerprint": facts}
        settings = json.dumps(known.get("settings", {}), sort_keys=True) if known.get("settings") else "–"
        rows.append([name, str(known.get("fingerprint"))[:40], settings])
    parts.append(Table(["selector", "fingerprint", "settings"], rows, "Selectors"))
    rest = {key: value for key, value in setup.items() if key not in ("selectors", "kind", "needles")}
    parts.append(Code(json.dumps(rest, indent=2, ensure_ascii=False)))
    return parts
