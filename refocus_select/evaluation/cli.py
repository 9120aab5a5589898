"""The commands under `refocus-select evaluate`: this file has `needle`, `question_cli` the others."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..weights import DEFAULT_SELECTOR
from .question_cli import add_question_commands

_EXAMPLE = """\
example:
  refocus-select evaluate needle film.mp4 --needles examples/needles --selectors uniform topk mdp3 mini --out results/

Writes trials.jsonl (every single choice; an evaluation that was broken off goes on from there), summary.json,
needle.png, and a report (report.md, report.html) into the folder, and prints the table."""


def add_evaluate(commands: Any) -> None:
    """Add `evaluate` to the subcommands of the command line."""
    evaluate = commands.add_parser("evaluate", help="measure selectors side by side")
    kinds = evaluate.add_subparsers(title="evaluations", metavar="KIND", required=True)
    needle = kinds.add_parser(
        "needle",
        help="find a picture that was hidden in a video",
        description="Hide pictures at several depths among the candidate frames of a video, and count who finds them.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    needle.add_argument("video", metavar="VIDEO", help="the haystack")
    needle.add_argument("--needles", required=True, metavar="DIR", help="a folder with needles.json")
    needle.add_argument(
        "--selectors", nargs="+", default=["uniform", DEFAULT_SELECTOR], metavar="NAME", help="who is compared"
    )
    needle.add_argument("--encoder", metavar="NAME", help="dual encoder of the algorithms: a folder or a Hub id")
    needle.add_argument("--device", help="where the selectors run, e.g. cuda")
    needle.add_argument("-n", "--num-frames", type=int, default=32, metavar="K", help="frames to choose (default: 32)")
    needle.add_argument("--lengths", nargs="+", type=int, metavar="N", help="candidates (default: 64 … 1024)")
    needle.add_argument("--depths", type=int, default=10, metavar="D", help="evenly spaced depths (default: 10)")
    needle.add_argument("--out", type=Path, metavar="DIR", help="keep all trials, the summary and the heat maps there")
    needle.add_argument("-v", "--verbose", action="store_true", help="say more on standard error")
    needle.set_defaults(run=_needle)
    add_question_commands(kinds)


def _needle(arguments: argparse.Namespace) -> int:
    import numpy as np

    from . import needle as n
    from .choosers import load_selector, settings_of
    from .question_cli import record_run
    from .report import build_report
    from .run import check_setup

    if arguments.depths < 1:
        raise InputError(f"--depths must be at least 1, not {arguments.depths}")
    needles = n.load_needles(arguments.needles)
    selectors = [
        load_selector(name, encoder=arguments.encoder, device=arguments.device)
        for name in dict.fromkeys(arguments.selectors)
    ]
    options: dict[str, Any] = {
        "lengths": tuple(arguments.lengths or n.LENGTHS),
        "depths": tuple(round(float(depth), 4) for depth in np.linspace(0, 1, arguments.depths)),
        "num_frames": arguments.num_frames,
    }
    if arguments.out is None:
        trials = list(n.run_needles(arguments.video, needles, selectors, **options))
        print(n.table(n.summarise(trials)))
        return 0
    record_run(arguments.out / "runs.jsonl")
    facts = {
        "kind": "needle",
        "video": _identity(arguments.video),
        "needles": {needle.name: needle.question for needle in needles},
        "selectors": {s.name: {"fingerprint": s.fingerprint, "settings": settings_of(s)} for s in selectors},
        "frames": [arguments.num_frames],
    }
    record = arguments.out / "trials.jsonl"
    check_setup(arguments.out / "setup.json", facts)
    trials = n.read_trials(record)
    with record.open("a", encoding="utf-8") as file:
        for trial in n.run_needles(
            arguments.video, needles, selectors, done={trial.key for trial in trials}, **options
        ):
            n.write_trial(trial, file)
            trials.append(trial)
    trials = [trial for trial in trials if trial.num_frames == arguments.num_frames]
    print(n.table(n.summarise(trials)))
    print(f"written: {n.draw_heat_maps(trials, arguments.out / 'needle.png')}")
    print(f"written: {build_report(arguments.out).html}")
    return 0


def _identity(video: str) -> str:
    from ..video import open_video

    with open_video(video) as source:
        return source.fingerprint
