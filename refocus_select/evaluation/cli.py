"""The options of `refocus-select evaluate`, one function per kind of evaluation."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..cli_options import add_encoder, add_words
from ..weights import DEFAULT_SELECTOR
from . import commands as run

_NEEDLE = """\
example:
  refocus-select evaluate needle film.mp4 --needles examples/needles --selectors uniform topk mdp3 mini --out results/

Writes trials.jsonl (every single choice; an interrupted evaluation resumes from there), summary.json,
needle.png, and a report (report.md, report.html) into the folder, and prints the table."""

_QA = """\
examples:
  refocus-select evaluate qa videomme data/Video-MME --model Qwen/Qwen2.5-VL-7B-Instruct --out results/videomme \\
      --selectors uniform aks mini --encoder google/siglip2-base-patch16-224 --frames 8 16 32
  torchrun --nproc-per-node 8 -m refocus_select evaluate qa …            the same, a part of the videos on each GPU
  refocus-select evaluate qa questions mine.jsonl --model my_model:answerer --selectors uniform mini --out results/mine
  refocus-select evaluate qa videomme data/Video-MME --model Qwen/Qwen2.5-VL-7B-Instruct --out results/subtitles \\
      --words off auto --words-in-prompt chosen          with the benchmark's subtitles and without, in one report

Every prediction is kept in the folder: an interrupted run resumes from there, and more selectors or numbers of
frames may join later. Writes report.md, report.html and summary.json, and prints the table."""

_EVIDENCE = """\
example:
  refocus-select evaluate evidence nextgqa data/NExT-GQA --selectors uniform aks mini --frames 4 8 16 --out results/gqa

Recall is the share of evidence spans that hold a chosen frame, precision the share of chosen frames in a span, coverage
the share of the evidence's time that is near a chosen frame. No model answers anything."""

_SCENES = """\
example:
  refocus-select batch longvideobench.jsonl --out mini.jsonl -n 64
  refocus-select evaluate scenes KFS-Bench/lvb_anno.csv --selections mini.jsonl=mini uniform.jsonl=uniform"""

_EXPORT = """\
examples:
  refocus-select evaluate export results/videomme --selector mini -n 32 --out mini-32.jsonl
  refocus-select evaluate export results/videomme --selector mini -n 32 --out mini.db --like work/frameidx/…/cand0

The second writes a frame index database for scripts/evaluate.sh of the authors' release; its keys are taken from one
that their scripts/prepare.sh made for the same benchmark."""


def add_evaluate(commands: Any) -> None:
    """Add `evaluate` to the subcommands of the command line."""
    evaluate = commands.add_parser("evaluate", help="measure selectors side by side")
    kinds = evaluate.add_subparsers(title="evaluations", metavar="KIND", required=True)
    for add in (_add_needle, _add_qa, _add_evidence, _add_scenes, _add_blur, _add_efficiency, _add_export, _add_report):
        add(kinds)


def _add_needle(kinds: Any) -> None:
    needle = kinds.add_parser(
        "needle",
        help="find a picture that was hidden in a video",
        description="Hide pictures at several depths among the candidate frames of a video, and count how often each "
        "selector finds them.",
        epilog=_NEEDLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    needle.add_argument("video", metavar="VIDEO", help="the haystack")
    needle.add_argument("--needles", required=True, metavar="DIR", help="a folder with needles.json")
    needle.add_argument(
        "--selectors", nargs="+", default=["uniform", DEFAULT_SELECTOR], metavar="NAME", help="selectors to compare"
    )
    add_encoder(needle)
    needle.add_argument("--device", help="device of the selectors, e.g. cuda")
    needle.add_argument("-n", "--num-frames", type=int, default=32, metavar="K", help="frames to choose (default: 32)")
    needle.add_argument("--lengths", nargs="+", type=int, metavar="N", help="candidates (default: 64 … 1024)")
    needle.add_argument("--depths", type=int, default=10, metavar="D", help="evenly spaced depths (default: 10)")
    needle.add_argument("--out", type=Path, metavar="DIR", help="keep all trials, the summary and the heat maps there")
    needle.add_argument("-v", "--verbose", action="store_true", help="more messages on standard error")
    needle.set_defaults(run=run.needle)


def _add_blur(kinds: Any) -> None:
    blur = kinds.add_parser(
        "blur",
        help="blur what a selector chooses, and see whether it still does",
        description="Blur the frames that a selector chooses, or those of the evidence where questions have it, and "
        "count how many of them it chooses still. One that looks at the pictures leaves them.",
    )
    blur.add_argument("questions", metavar="QUESTIONS", help="a table of questions (.jsonl, .csv, …)")
    _add_one_selector(blur, 8)
    blur.set_defaults(run=run.blur)


def _add_efficiency(kinds: Any) -> None:
    table = kinds.add_parser(
        "efficiency",
        help="parameters, counted operations, time and memory of a selector on one video",
        description="Encode a video and ask a question about it, and tell what that takes on this machine.",
    )
    table.add_argument("video", metavar="VIDEO")
    table.add_argument("question", metavar="QUESTION")
    _add_one_selector(table, 32)
    table.set_defaults(run=run.efficiency)


def _add_one_selector(parser: argparse.ArgumentParser, num_frames: int) -> None:
    parser.add_argument("--selector", default=DEFAULT_SELECTOR, metavar="NAME", help="as in `select`")
    add_encoder(parser)
    parser.add_argument("--device", help="device of the selector, e.g. cuda")
    parser.add_argument(
        "-n",
        "--num-frames",
        type=int,
        default=num_frames,
        metavar="K",
        help=f"frames to choose (default: {num_frames})",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("-v", "--verbose", action="store_true", help="more messages on standard error")


def _add_qa(kinds: Any) -> None:
    qa = kinds.add_parser(
        "qa",
        help="answer multiple-choice questions from the frames of each selector",
        description="Put every selector in front of the same video model, at the same numbers of frames.",
        epilog=_QA,
        formatter_class=argparse.RawDescriptionHelpFormatter,
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
    model.add_argument(
        "--max-new-tokens",
        type=int,
        default=16,
        metavar="N",
        help="maximum number of tokens of an answer (default: 16)",
    )
    model.add_argument("--preamble", default="", metavar="TEXT", help="text before the question")
    model.add_argument("--instruction", metavar="TEXT", help="text after the options (default: ask for a letter)")
    model.add_argument("--system-prompt", metavar="TEXT", help="the model's system prompt")
    model.add_argument("--timestamps", default="auto", help="how the model learns the times of frames (default: auto)")
    model.add_argument("--temporal-merge", default="auto", help="for models that merge frames (default: auto)")
    model.add_argument(
        "--words-in-prompt", choices=("chosen", "all"),
        help="with --words auto: the model reads the lines that decided, or all lines of the chosen moments",
    )  # fmt: skip
    model.add_argument(
        "--token-budget",
        type=int,
        metavar="N",
        help="give the frames the size at which they cost at most N video tokens, whatever their number",
    )
    model.add_argument("--dtype", help="data type of the model's weights (default: bfloat16 on a GPU, else float32)")
    model.add_argument("--attn-implementation", metavar="NAME", help="e.g. flash_attention_2")
    qa.set_defaults(run=run.qa)


def _add_evidence(kinds: Any) -> None:
    evidence = kinds.add_parser(
        "evidence",
        help="measure whether the frames lie where a question is answered",
        description="Measure the frames of each selector against marked time spans.",
        epilog=_EVIDENCE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_questions(evidence)
    evidence.add_argument(
        "--tolerance", type=float, metavar="SEC", help="how far a frame may miss a span (default: the benchmark's)"
    )
    evidence.add_argument("--reach", type=float, metavar="SEC", help="what a frame covers to each side (default: 1)")
    evidence.set_defaults(run=run.evidence)


def _add_scenes(kinds: Any) -> None:
    scenes = kinds.add_parser(
        "scenes",
        help="measure chosen frames against the scenes of KFS-Bench",
        description="Score selections for LongVideoBench or Video-MME by the scenes that KFS-Bench (Li et al., 2026) "
        "marks: unified key frame sampling score (UKSS), key frame rate, scene hit rate. No model answers anything.",
        epilog=_SCENES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    scenes.add_argument("scenes", metavar="TABLE", help="lvb_anno.csv or vidmme_anno.csv of KFS-Bench")
    scenes.add_argument(
        "--selections",
        nargs="+",
        required=True,
        metavar="FILE",
        help="results of `batch` or selections of `export` (.jsonl), or the authors' form (.json); FILE=NAME names it",
    )
    scenes.add_argument("--json", action="store_true", help="JSON on standard output")
    scenes.set_defaults(run=run.scenes, verbose=False)


def _add_export(kinds: Any) -> None:
    export = kinds.add_parser(
        "export",
        help="write the frames that a selector chose",
        description="Write the frames of one selector from the folder of an evaluation.",
        epilog=_EXPORT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    export.add_argument("results", type=Path, metavar="DIR", help="folder of an evaluation")
    export.add_argument("--selector", required=True, metavar="NAME", help="whose frames")
    export.add_argument("-n", "--num-frames", type=int, required=True, metavar="K", help="at which number of frames")
    export.add_argument("--out", type=Path, required=True, metavar="FILE", help="lines of JSON, or a database")
    export.add_argument("--like", type=Path, metavar="DB", help="write a database with the keys of this one")
    export.set_defaults(run=run.export, verbose=False)


def _add_report(kinds: Any) -> None:
    report = kinds.add_parser(
        "report",
        help="write the report of an evaluation again",
        description="Write report.md and report.html from whatever results are in the folder, and print the table.",
    )
    report.add_argument("results", type=Path, metavar="DIR", help="folder of an evaluation")
    report.add_argument(
        "--baseline", default="uniform", metavar="NAME", help="selector to compare with (default: uniform)"
    )
    report.add_argument("--seed", type=int, default=0, help="seed of the bootstrap (default: 0)")
    report.set_defaults(run=run.report, verbose=False)


def _add_questions(parser: argparse.ArgumentParser) -> None:
    """What question answering and evidence recall have in common."""
    parser.add_argument("benchmark", metavar="BENCHMARK", help="videomme, longvideobench, mlvu, nextqa, egoschema, "
                        "lvbench, lvhaystack, momentseeker, nextgqa, or questions (your own table)")  # fmt: skip
    parser.add_argument(
        "folder", metavar="PATH", help="folder where the benchmark was unpacked; for questions the file"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of all results")
    data = parser.add_argument_group("questions and videos")
    data.add_argument("--annotations", metavar="FILE", help="the list of questions, if it has another name")
    data.add_argument("--videos", metavar="DIR", help="folder of the videos (default: PATH and below)")
    data.add_argument("--split", metavar="NAME", help="split of the benchmark (default: its usual one)")
    data.add_argument("--limit", type=int, metavar="N", help="the first N questions only")
    selectors = parser.add_argument_group("selectors")
    selectors.add_argument(
        "--selectors", nargs="+", default=["uniform", DEFAULT_SELECTOR], metavar="NAME", help="compared"
    )
    selectors.add_argument("--selections", nargs="+", default=[], metavar="FILE", help="what others selected "
                           "(.jsonl, .json, or a database of the authors' release); FILE=NAME names it")  # fmt: skip
    add_encoder(selectors)
    selectors.add_argument("--frames", nargs="+", type=int, default=[32], metavar="K", help="numbers of frames")
    selectors.add_argument(
        "--fps", type=float, help="maximum number of candidates per second (default: each selector's own)"
    )
    selectors.add_argument("--max-frames", type=int, metavar="F", help="maximum number of candidates")
    add_words(selectors, default=["off"], choices=("off", "auto"), nargs="+")
    selectors.add_argument("--options-to-selector", action="store_true", help="give selectors the options too")
    selectors.add_argument(
        "--cache", metavar="DIR", help="folder to keep encodings in (default: REFOCUS_CACHE_DIR if set)"
    )
    selectors.add_argument(
        "--baseline", default="uniform", metavar="NAME", help="selector to compare with (default: uniform)"
    )
    running = parser.add_argument_group("running")
    running.add_argument("--device", help="device of selectors and model (default: a GPU for each process)")
    running.add_argument(
        "--shard", metavar="I/N", help="only part I of N of the videos, I from 0 (default: RANK/WORLD_SIZE)"
    )
    running.add_argument("--seed", type=int, default=0, help="seed of the bootstrap (default: 0)")
    running.add_argument("-v", "--verbose", action="store_true", help="more messages on standard error")
