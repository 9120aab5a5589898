"""What `refocus-select evaluate needle`, `qa`, `evidence`, `scenes`, `blur`, `efficiency`, `export` and `report` do."""

from __future__ import annotations

import argparse
import hashlib
import os
import shlex
import sys
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError

if TYPE_CHECKING:
    from ..questions import Problem, Question
    from .benchmarks import QuestionSet
    from .choosers import Chooser


def needle(arguments: argparse.Namespace) -> int:
    """Hide needles, ask selectors, print and report the recall."""
    import numpy as np

    from ..files import remove_leftovers
    from .choosers import load_selector, settings_of
    from .needle import LENGTHS, load_needles, run_needles
    from .needle_trials import draw_heat_maps, read_trials, summarise, table, write_trial
    from .records import writing
    from .report import build_report
    from .run import check_setup

    if arguments.depths < 1:
        raise InputError(f"--depths must be at least 1, not {arguments.depths}")
    needles = load_needles(arguments.needles)
    selectors = [
        load_selector(name, encoder=arguments.encoder, device=arguments.device)
        for name in dict.fromkeys(arguments.selectors)
    ]
    options: dict[str, Any] = {
        "lengths": tuple(arguments.lengths or LENGTHS),
        "depths": tuple(round(float(depth), 4) for depth in np.linspace(0, 1, arguments.depths)),
        "num_frames": arguments.num_frames,
    }
    if arguments.out is None:
        trials = list(run_needles(arguments.video, needles, selectors, **options))
        print(table(summarise(trials)))
        return 0
    remove_leftovers(arguments.out)
    _record_run(arguments.out / "runs.jsonl")
    facts = {
        "kind": "needle",
        "video": _identity(arguments.video),
        "needles": {needle.name: needle.question for needle in needles},
        "selectors": {s.name: {"fingerprint": s.fingerprint, "settings": settings_of(s)} for s in selectors},
        "frames": [arguments.num_frames],
    }
    record = arguments.out / "trials.jsonl"
    check_setup(arguments.out / "setup.json", facts)
    trials = read_trials(record)
    with writing(record):
        opened = record.open("a", encoding="utf-8")
    with opened as file:
        for trial in run_needles(arguments.video, needles, selectors, done={trial.key for trial in trials}, **options):
            write_trial(trial, file)
            trials.append(trial)
    trials = [trial for trial in trials if trial.num_frames == arguments.num_frames]
    print(table(summarise(trials)))
    print(f"written: {draw_heat_maps(trials, arguments.out / 'needle.png')}")
    print(f"written: {build_report(arguments.out).html}")
    return 0


def qa(arguments: argparse.Namespace) -> int:
    """Let a video model answer from the frames of each selector."""
    from ..questions import check_choices
    from .answerers import load_answerer
    from .qa import Prediction, answer_questions

    asked, problems = _questions(arguments, check_choices, "can be scored")
    device = _device(arguments)
    choosers = _choosers(arguments, asked, device)
    own = ":" in arguments.model and not arguments.model.startswith("reference:")
    settings: dict[str, Any] = {"device": device, "dtype": arguments.dtype} | {
        name: getattr(arguments, name)
        for name in ("scoring", "max_new_tokens", "preamble", "instruction", "system_prompt", "timestamps",
                     "temporal_merge", "attn_implementation", "words_in_prompt", "token_budget")
    }  # fmt: skip
    answerer = load_answerer(arguments.model, **({} if own else settings))
    facts = {"answerer": {"name": answerer.name, "fingerprint": answerer.fingerprint}}
    facts["answerer"] |= getattr(answerer, "settings", {})

    def work(done: Any, report: Any) -> Iterable[Prediction]:
        questions = _shard(arguments).of(asked.questions)
        return answer_questions(questions, choosers, answerer, arguments.frames, done=done, report=report)

    return _evaluate(arguments, "qa", "predictions", asked, problems, choosers, facts, work)


def evidence(arguments: argparse.Namespace) -> int:
    """Measure the frames of each selector against marked time spans."""
    from ..questions import Problem
    from .evidence import REACH, EvidenceScore, score_evidence

    def check(question: Question) -> list[Problem]:
        return [] if question.evidence else [Problem(question.id, "no evidence is marked")]

    asked, problems = _questions(arguments, check, "has evidence")
    choosers = _choosers(arguments, asked, _device(arguments))
    tolerance = asked.tolerance if arguments.tolerance is None else arguments.tolerance
    reach = REACH if arguments.reach is None else arguments.reach

    def work(done: Any, report: Any) -> Iterable[EvidenceScore]:
        questions = _shard(arguments).of(asked.questions)
        return score_evidence(
            questions, choosers, arguments.frames, tolerance=tolerance, reach=reach, done=done, report=report
        )

    facts = {"tolerance": tolerance, "reach": reach}
    return _evaluate(arguments, "evidence", "scores", asked, problems, choosers, facts, work)


def scenes(arguments: argparse.Namespace) -> int:
    """Score selections by the scenes of KFS-Bench."""
    from dataclasses import asdict

    from ..plain_text import json_text
    from .kfs_bench import read_chosen, read_scenes, summarise_scenes, table

    wanted = read_scenes(arguments.scenes)
    summaries = {}
    for given in arguments.selections:
        path, _, label = given.partition("=")
        name = label or Path(path).stem
        if name in summaries:
            raise InputError(f"two selections are called {name!r}; write FILE=NAME")
        summaries[name] = summarise_scenes(read_chosen(path, wanted), wanted)
    print(json_text({n: asdict(s) for n, s in summaries.items()}) if arguments.json else table(summaries))
    return 0


def export(arguments: argparse.Namespace) -> int:
    """Write the frames that one selector chose."""
    from ..questions import Question
    from .run import read_parts, read_setup
    from .selections import StoredSelection, write_database, write_selections

    rows = [*read_parts(arguments.results, "predictions"), *read_parts(arguments.results, "scores")]
    names = sorted({f"{row['selector']} at K = {row['num_frames']}" for row in rows})
    rows = [r for r in rows if (r["selector"], r["num_frames"]) == (arguments.selector, arguments.num_frames)]
    if not rows:
        raise InputError(
            f"{arguments.results} holds no frames of {arguments.selector} at K = {arguments.num_frames}; there are: "
            f"{', '.join(names) or 'none at all'}"
        )
    chosen = [
        StoredSelection(r["id"], r["num_frames"], tuple(r["indices"]), tuple(r["timestamps"]), r["selector"])
        for r in rows
    ]
    if arguments.like is None:
        print(f"written: {write_selections(arguments.out, chosen)} ({len(chosen)} questions)")
        return 0
    benchmark = read_setup(arguments.results / "setup.json").get("benchmark", "")
    questions = [Question(r["id"], r["video"], r["question"]) for r in rows]
    count = write_database(arguments.out, chosen, like=arguments.like, questions=questions, benchmark=benchmark)
    print(f"written: {arguments.out} ({count} of {len(chosen)} questions)")
    return 0


def report(arguments: argparse.Namespace) -> int:
    """Write the report of an evaluation again."""
    from .report import build_report

    written = build_report(arguments.results, baseline=arguments.baseline, seed=arguments.seed)
    print(written.table)
    print(f"written: {written.markdown}, {written.html}")
    return 0


# -- their steps ----------------------------------------------------------------------------------


def _evaluate(
    arguments: argparse.Namespace,
    kind: str,
    name: str,
    asked: QuestionSet,
    problems: list[Problem],
    choosers: list[Chooser],
    facts: dict[str, Any],
    work: Callable[[Any, Any], Iterable[Any]],
) -> int:
    """Run a shard, keep every result, and write the report when all shards are through."""
    from ..files import remove_leftovers
    from .records import RecordWriter, write_json, writing
    from .report import build_report
    from .run import check_setup, read_parts

    shard, folder = _shard(arguments), arguments.out
    facts = {
        "kind": kind,
        "benchmark": asked.name,
        "annotations": asked.digest,
        "options_to_selector": arguments.options_to_selector,
        "sampling": _sampling(arguments),
        **facts,
        "frames": sorted(set(arguments.frames)),
        "selectors": {
            chooser.name: {"fingerprint": chooser.fingerprint, "settings": getattr(chooser, "settings", {})}
            for chooser in choosers
        },
    }
    remove_leftovers(folder)
    check_setup(folder / "setup.json", facts)
    _record_run(shard.file(folder, "runs"))
    finished = shard.file(folder, "finished").with_suffix(".json")
    complaints = shard.file(folder, "problems")
    with writing(folder):
        finished.unlink(missing_ok=True)
        complaints.unlink(missing_ok=True)
    counted = {"missing": dict(asked.missing), "left_out": dict(asked.left_out)}
    listed = [{"id": problem.where, "what": problem.what} for problem in problems]
    write_json(folder / "questions.json", {"questions": len(asked.questions), **counted, "problems": listed})
    done = {(row["id"], row["selector"], row["num_frames"]) for row in read_parts(folder, name)}
    with RecordWriter(shard.file(folder, name)) as results, RecordWriter(complaints) as wrong:
        for result in work(done, lambda problem: wrong.write({"id": problem.where, "what": problem.what})):
            results.write(result.to_dict())
    write_json(finished, {"questions": len(asked.questions)})
    if len(list(folder.glob(f"finished-*-of-{shard.count:05d}.json"))) < shard.count:
        print(f"shard {shard.index}/{shard.count} is done; the report follows when the others are")
        return 0
    written = build_report(folder, baseline=arguments.baseline, seed=arguments.seed)
    print(written.table)
    print(f"written: {written.markdown}, {written.html}")
    return 0


def _questions(
    arguments: argparse.Namespace, check: Callable[[Question], list[Problem]], can: str
) -> tuple[QuestionSet, list[Problem]]:
    """The questions of a benchmark that can be used, and what is wrong with the others; the latter is told."""
    from dataclasses import replace

    from ..questions import problem_table
    from .benchmarks import read_benchmark

    if any(size < 1 for size in arguments.frames):
        raise InputError(f"--frames must be at least 1, not {min(arguments.frames)}")
    asked = read_benchmark(
        arguments.benchmark,
        arguments.folder,
        annotations=arguments.annotations,
        videos=arguments.videos,
        split=arguments.split,
    )
    wrong = {question.id: check(question) for question in asked.questions}
    problems = [*asked.problems, *[problem for found in wrong.values() for problem in found]]
    usable = [question for question in asked.questions if not wrong[question.id]][: arguments.limit]
    if asked.missing:
        names = ", ".join(list(asked.missing)[:10])
        more = f" and {len(asked.missing) - 10} more" if len(asked.missing) > 10 else ""
        count = sum(asked.missing.values())
        print(f"{len(asked.missing)} videos with {count} questions are not there: {names}{more}", file=sys.stderr)
    if problems:
        print(f"{len(problems)} problems:\n{problem_table(problems)}", file=sys.stderr)
    if not usable:
        raise InputError(f"no question of {arguments.folder} {can}; see above for what is missing or wrong")
    return replace(asked, questions=usable), problems


def _choosers(arguments: argparse.Namespace, asked: QuestionSet, device: str | None) -> list[Chooser]:
    """Selectors and stored selections in the order of the command."""
    from ..cache import find_cache
    from .choosers import Encodings, SelectorChooser, StoredChooser, load_selector
    from .selections import read_selections

    encodings = Encodings(find_cache(arguments.cache), _sampling(arguments))
    choosers: list[Chooser] = []
    for name in dict.fromkeys(arguments.selectors):
        selector = load_selector(name, encoder=arguments.encoder, device=device)
        for words in _words(arguments, selector.reads_words):
            choosers.append(
                SelectorChooser(selector, encodings, options_to_selector=arguments.options_to_selector, words=words)
            )
    for spec in arguments.selections:
        path, _, label = spec.partition("=")
        stored = read_selections(path, asked.questions, order=asked.order, benchmark=asked.name)
        text = repr([(item.id, item.num_frames, item.indices, item.timestamps) for item in stored])
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        chooser = StoredChooser(label or Path(path).stem, digest, stored)
        choosers.append(chooser)
        absent = sorted(set(chooser.sizes) - set(arguments.frames))
        if absent:
            print(f"{path} has selections of {absent} frames, which --frames does not ask for", file=sys.stderr)
    names = [chooser.name for chooser in choosers]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"two selectors are called {twice!r}; name a file with --selections FILE=NAME")
    return choosers


def _shard(arguments: argparse.Namespace) -> Any:
    from ..shards import Shard

    return Shard.from_text(arguments.shard) if arguments.shard else Shard.from_environment()


def _device(arguments: argparse.Namespace) -> str | None:
    """What was asked for, or the GPU of this process."""
    if arguments.device is not None or "LOCAL_RANK" not in os.environ:
        return arguments.device
    import torch

    count = torch.cuda.device_count()
    return f"cuda:{int(os.environ['LOCAL_RANK']) % count}" if count else None


def _sampling(arguments: argparse.Namespace) -> dict[str, Any]:
    asked = {"fps": arguments.fps, "max_frames": arguments.max_frames}
    return {name: value for name, value in asked.items() if value is not None}


def _words(arguments: argparse.Namespace, read: bool) -> list[dict[str, Any] | None]:
    """How often a selector takes part: without words, with them, or both.

    One that takes no account of words takes part with them only if the model is to read them.
    """
    given: dict[str, Any] = {"words": "auto", "ocr": arguments.ocr, "transcribe": arguments.transcribe}
    given |= {"language": arguments.language}
    said = {name: value for name, value in given.items() if value}
    useful = read or bool(getattr(arguments, "words_in_prompt", None))
    kinds = {"off": None, "auto": said}
    asked = [kinds[kind] for kind in dict.fromkeys(arguments.words) if kind == "off" or useful]
    return asked or [None]


def _record_run(path: Path) -> None:
    """Keep the command and the versions of everything that takes part, a line per run."""
    from .pages import versions
    from .records import RecordWriter

    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    command = shlex.join(["refocus-select", *sys.argv[1:]])
    with RecordWriter(path) as runs:
        runs.write({"time": now, "command": command, "versions": versions()})


def _identity(video: str) -> str:
    from ..video import open_video

    with open_video(video) as source:
        return source.fingerprint


def blur(arguments: argparse.Namespace) -> int:
    """`refocus-select evaluate blur`."""
    from ..plain_text import json_text
    from ..questions import problem_table, read_questions
    from .blur import blur_table, blur_test
    from .choosers import load_selector

    questions, problems = read_questions(arguments.questions)
    if problems or not questions:
        raise InputError(
            f"{arguments.questions} cannot be used:\n{problem_table(problems) or '  it holds no questions'}"
        )
    selector = load_selector(arguments.selector, encoder=arguments.encoder, device=arguments.device)
    found = blur_test(selector, questions, arguments.num_frames)
    if not found["questions"]:
        raise InputError(f"not one video of {arguments.questions} can be read")
    print(json_text(found) if arguments.json else blur_table(found))
    return 0


def efficiency(arguments: argparse.Namespace) -> int:
    """`refocus-select evaluate efficiency`."""
    from ..plain_text import json_text
    from .choosers import load_selector
    from .efficiency import efficiency as measured
    from .efficiency import efficiency_table

    selector = load_selector(arguments.selector, encoder=arguments.encoder, device=arguments.device)
    found = measured(selector, arguments.video, arguments.question, arguments.num_frames)
    print(json_text(found) if arguments.json else efficiency_table(found))
    return 0
