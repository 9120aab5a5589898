"""The commands `refocus-select evaluate qa`, `evidence`, `export` and `report`."""

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
from ..weights import DEFAULT_SELECTOR

if TYPE_CHECKING:
    from ..questions import Problem, Question
    from .benchmarks import QuestionSet
    from .choosers import Chooser

_QA = """\
examples:
  refocus-select evaluate qa videomme data/Video-MME --model Qwen/Qwen2.5-VL-7B-Instruct --out results/videomme \\
      --selectors uniform aks mini --encoder google/siglip2-base-patch16-224 --frames 8 16 32
  torchrun --nproc-per-node 8 -m refocus_select evaluate qa …            the same, a part of the videos on each GPU
  refocus-select evaluate qa questions mine.jsonl --model my_model:answerer --selectors uniform mini --out results/mine

Every prediction is kept in the folder: a run that was broken off goes on from there, and more selectors or numbers of
frames may join later. Writes report.md, report.html and summary.json, and prints the table."""

_EVIDENCE = """\
example:
  refocus-select evaluate evidence nextgqa data/NExT-GQA --selectors uniform aks mini --frames 4 8 16 --out results/gqa

Recall is the share of evidence spans that hold a chosen frame, precision the share of chosen frames in a span, coverage
the share of the evidence's time that is near a chosen frame. No model answers anything."""

_EXPORT = """\
examples:
  refocus-select evaluate export results/videomme --selector mini -n 32 --out mini-32.jsonl
  refocus-select evaluate export results/videomme --selector mini -n 32 --out mini.db --like work/frameidx/…/cand0

The second writes a frame index database for scripts/evaluate.sh of the authors' release; its keys are taken from one
that their scripts/prepare.sh made for the same benchmark."""


def add_question_commands(kinds: Any) -> None:
    """Add the commands to those of `evaluate`."""
    formatter = argparse.RawDescriptionHelpFormatter
    qa = kinds.add_parser(
        "qa",
        help="answer multiple-choice questions from the frames of each selector",
        description="Put every selector in front of the same video model, at the same numbers of frames.",
        epilog=_QA,
        formatter_class=formatter,
    )
    _add_questions(qa)
    model = qa.add_argument_group("the model")
    model.add_argument(
        "--model",
        required=True,
        metavar="NAME",
        help="folder or Hub id of a video model, module:attribute of your own answerer, or reference:NAME",
    )
    model.add_argument("--scoring", choices=("generate", "logits"), default="generate", help="default: generate")
    model.add_argument("--max-new-tokens", type=int, default=16, metavar="N", help="of an answer (default: 16)")
    model.add_argument("--preamble", default="", metavar="TEXT", help="words in front of the question")
    model.add_argument("--instruction", metavar="TEXT", help="words behind the options (default: ask for a letter)")
    model.add_argument("--system-prompt", metavar="TEXT", help="the model's system prompt")
    model.add_argument("--timestamps", default="auto", help="how the model is told times (default: auto)")
    model.add_argument("--temporal-merge", default="auto", help="for models that merge frames (default: auto)")
    model.add_argument("--dtype", help="of the model's weights (default: bfloat16 on a GPU, else float32)")
    model.add_argument("--attn-implementation", metavar="NAME", help="e.g. flash_attention_2")
    qa.set_defaults(run=_qa)

    evidence = kinds.add_parser(
        "evidence",
        help="measure whether the frames lie where a question is answered",
        description="Measure the frames of each selector against marked time spans.",
        epilog=_EVIDENCE,
        formatter_class=formatter,
    )
    _add_questions(evidence)
    evidence.add_argument(
        "--tolerance", type=float, metavar="SEC", help="how far a frame may miss a span (default: the benchmark's)"
    )
    evidence.add_argument("--reach", type=float, metavar="SEC", help="what a frame covers to each side (default: 1)")
    evidence.set_defaults(run=_evidence)

    export = kinds.add_parser(
        "export",
        help="write the frames that a selector chose",
        description="Write the frames of one selector from the folder of an evaluation.",
        epilog=_EXPORT,
        formatter_class=formatter,
    )
    export.add_argument("results", type=Path, metavar="DIR", help="folder of an evaluation")
    export.add_argument("--selector", required=True, metavar="NAME", help="whose frames")
    export.add_argument("-n", "--num-frames", type=int, required=True, metavar="K", help="at which number of frames")
    export.add_argument("--out", type=Path, required=True, metavar="FILE", help="lines of JSON, or a database")
    export.add_argument("--like", type=Path, metavar="DB", help="write a database with the keys of this one")
    export.set_defaults(run=_export, verbose=False)

    report = kinds.add_parser(
        "report",
        help="write the report of an evaluation again",
        description="Write report.md and report.html from whatever results are in the folder, and print the table.",
    )
    report.add_argument("results", type=Path, metavar="DIR", help="folder of an evaluation")
    report.add_argument("--baseline", default="uniform", metavar="NAME", help="compared with (default: uniform)")
    report.add_argument("--seed", type=int, default=0, help="of the bootstrap (default: 0)")
    report.set_defaults(run=_report, verbose=False)


def _add_questions(parser: argparse.ArgumentParser) -> None:
    """What question answering and evidence recall have in common."""
    parser.add_argument("benchmark", metavar="BENCHMARK", help="videomme, longvideobench, mlvu, nextqa, egoschema, "
                        "lvbench, lvhaystack, momentseeker, nextgqa, or questions (your own table)")  # fmt: skip
    parser.add_argument("folder", metavar="PATH", help="where it was unpacked; for questions the file")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where all results are kept")
    data = parser.add_argument_group("questions and videos")
    data.add_argument("--annotations", metavar="FILE", help="the list of questions, if it has another name")
    data.add_argument("--videos", metavar="DIR", help="folder of the videos (default: PATH and below)")
    data.add_argument("--split", metavar="NAME", help="which part (default: the benchmark's usual one)")
    data.add_argument("--limit", type=int, metavar="N", help="the first N questions only")
    selectors = parser.add_argument_group("selectors")
    selectors.add_argument(
        "--selectors", nargs="+", default=["uniform", DEFAULT_SELECTOR], metavar="NAME", help="compared"
    )
    selectors.add_argument("--selections", nargs="+", default=[], metavar="FILE", help="what others selected "
                           "(.jsonl, .json, or a database of the authors' release); FILE=NAME names it")  # fmt: skip
    selectors.add_argument("--encoder", metavar="NAME", help="dual encoder of the algorithms: a folder or a Hub id")
    selectors.add_argument("--frames", nargs="+", type=int, default=[32], metavar="K", help="numbers of frames")
    selectors.add_argument("--fps", type=float, help="candidates per second at most (default: each selector's own)")
    selectors.add_argument("--max-frames", type=int, metavar="F", help="candidates in all at most")
    selectors.add_argument("--options-to-selector", action="store_true", help="give selectors the options too")
    selectors.add_argument("--cache", metavar="DIR", help="keep encodings there (default: REFOCUS_CACHE_DIR if set)")
    selectors.add_argument("--baseline", default="uniform", metavar="NAME", help="compared with (default: uniform)")
    running = parser.add_argument_group("running")
    running.add_argument("--device", help="where selectors and model run (default: a GPU for each process)")
    running.add_argument("--shard", metavar="I/N", help="this part of the videos (default: RANK of WORLD_SIZE)")
    running.add_argument("--seed", type=int, default=0, help="of the bootstrap (default: 0)")
    running.add_argument("-v", "--verbose", action="store_true", help="say more on standard error")


# -- the commands ---------------------------------------------------------------------------------


def _qa(arguments: argparse.Namespace) -> int:
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
                     "temporal_merge", "attn_implementation")
    }  # fmt: skip
    answerer = load_answerer(arguments.model, **({} if own else settings))
    facts = {"answerer": {"name": answerer.name, "fingerprint": answerer.fingerprint}}
    facts["answerer"] |= getattr(answerer, "settings", {})

    def work(done: Any, report: Any) -> Iterable[Prediction]:
        questions = _shard(arguments).of(asked.questions)
        return answer_questions(questions, choosers, answerer, arguments.frames, done=done, report=report)

    return _evaluate(arguments, "qa", "predictions", asked, problems, choosers, facts, work)


def _evidence(arguments: argparse.Namespace) -> int:
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


def _export(arguments: argparse.Namespace) -> int:
    import json

    from ..questions import Question
    from .run import read_parts
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
    benchmark = json.loads((arguments.results / "setup.json").read_text("utf-8"))["benchmark"]
    questions = [Question(r["id"], r["video"], r["question"]) for r in rows]
    count = write_database(arguments.out, chosen, like=arguments.like, questions=questions, benchmark=benchmark)
    print(f"written: {arguments.out} ({count} of {len(chosen)} questions)")
    return 0


def _report(arguments: argparse.Namespace) -> int:
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
    from .records import RecordWriter, write_json
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
    check_setup(folder / "setup.json", facts)
    record_run(shard.file(folder, "runs"))
    finished = shard.file(folder, "finished").with_suffix(".json")
    finished.unlink(missing_ok=True)
    counted = {"missing": dict(asked.missing), "left_out": dict(asked.left_out)}
    listed = [{"id": problem.where, "what": problem.what} for problem in problems]
    write_json(folder / "questions.json", {"questions": len(asked.questions), **counted, "problems": listed})
    done = {(row["id"], row["selector"], row["num_frames"]) for row in read_parts(folder, name)}
    complaints = shard.file(folder, "problems")
    complaints.unlink(missing_ok=True)
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
        choosers.append(SelectorChooser(selector, encodings, options_to_selector=arguments.options_to_selector))
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


def record_run(path: Path) -> None:
    """Keep the command and the versions of everything that takes part, a line per run."""
    from .pages import versions
    from .records import RecordWriter

    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    command = shlex.join(["refocus-select", *sys.argv[1:]])
    with RecordWriter(path) as runs:
        runs.write({"time": now, "command": command, "versions": versions()})
