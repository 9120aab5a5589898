"""`refocus-select train` and `refocus-select filter`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..errors import InputError
from .presets import preset_names

_TRAIN = """\
examples:
  refocus-select train config.yaml
  refocus-select train config.yaml seed=1 optimiser.lr=1e-4 output=runs/second
  refocus-select train config.yaml --dry-run
  refocus-select train --preset paper data.format=nextqa data.train=NExT-QA/train.csv data.validation=NExT-QA/val.csv
  accelerate launch -m refocus_select.train_selector config.yaml      (one process per GPU)

The same command resumes an interrupted run. `refocus-select train --settings` lists all settings."""


def add_train(commands: Any) -> None:
    """Add `train` and `filter` to the subcommands of the command line."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("config", nargs="?", metavar="CONFIG", help="settings as YAML")
    common.add_argument("--preset", metavar="NAME", help="start from the settings of: " + ", ".join(preset_names()))
    common.add_argument("overrides", nargs="*", metavar="NAME=VALUE", help="settings that replace those of the file")
    common.add_argument("-v", "--verbose", action="store_true", help="say more on standard error")

    train = commands.add_parser(
        "train",
        parents=[common],
        help="train a selector by reinforcement learning",
        description="Train a frame selection policy from the answers of a frozen video model.",
        epilog=_TRAIN,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    train.add_argument(
        "--dry-run", action="store_true", help="check everything, try one step per stage, print the cost"
    )
    train.add_argument("--settings", action="store_true", help="list all settings with defaults and sources")
    train.set_defaults(run=_train)

    kept = commands.add_parser(
        "filter",
        parents=[common],
        help="keep the training questions whose answer depends on the frames",
        description="Probe the reference model of a training configuration with 16 parts of each video, and keep the "
        "questions whose margins vary. The same command resumes where it was interrupted.",
    )
    kept.add_argument("--shard", default="0/1", metavar="I/N", help="only the I-th of N parts, I from 0")
    kept.set_defaults(run=_filter)
    _add_serve(commands)


def _add_serve(commands: Any) -> None:
    serve = commands.add_parser(
        "serve-reference",
        help="serve a reference model to training processes",
        description="Load a reference model and answer the questions of training processes that name this address as "
        "reference.url. They must see the video files under the same paths.",
    )
    serve.add_argument("model", metavar="MODEL", help="as reference.model")
    serve.add_argument("overrides", nargs="*", metavar="NAME=VALUE", help="as reference.arguments, e.g. device=cuda:1")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen at (default: this machine only)")
    serve.add_argument("--port", type=int, default=8765, help="0 takes a free one (default: 8765)")
    serve.add_argument("-v", "--verbose", action="store_true", help="say more on standard error")
    serve.set_defaults(run=_serve)


def _serve(arguments: argparse.Namespace) -> int:
    from ..reference import load_reference
    from ..reference.server import ReferenceServer
    from .settings import parse_yaml

    how = {}
    for word in arguments.overrides:
        name, equals, value = word.partition("=")
        if not equals:
            raise InputError(f"{word!r} is no argument; write name=value, e.g. device=cuda:1")
        how[name] = parse_yaml(value)
    reference = load_reference(arguments.model, **how)
    try:
        server = ReferenceServer(reference, arguments.host, arguments.port)
    except OSError as error:
        raise InputError(
            f"cannot listen at {arguments.host}:{arguments.port} ({error}); give another --port"
        ) from error
    with server:
        host, port = server.server_address[:2]
        print(f"serving {reference.name} at http://{host!s}:{port}", flush=True)
        server.serve_forever()
    return 0


def _load(arguments: argparse.Namespace) -> Any:
    from .config import TrainConfig

    words = list(arguments.overrides)
    path = arguments.config
    if path is not None and "=" in path and not Path(path).exists():  # settings without a file
        words, path = [path, *words], None
    return TrainConfig.load(path, words, preset=arguments.preset)


def _train(arguments: argparse.Namespace) -> int:
    if arguments.settings:
        return _settings()
    from .process_group import ProcessGroup
    from .report import verdict
    from .run import train_selector

    config = _load(arguments)
    if arguments.dry_run:
        from .plan import plan

        processes = ProcessGroup(config.device)
        try:
            text = plan(config, processes)
            if processes.is_main_process:
                print(text)
        finally:
            processes.close()
        return 0
    result = train_selector(config)
    print(f"{result.folder}")
    print(verdict(result.report).replace("**", ""))
    for row in result.report["accuracy"]:
        means = "  ".join(f"{name} {row[name]['mean']:.3f}" for name in ("uniform", "top-k", "policy"))
        print(f"  {row['num_frames']:>3} frames  {means}")
    return 0


def _filter(arguments: argparse.Namespace) -> int:
    from .data import load_questions
    from .filter import KEPT, filter_questions
    from .reward import RewardModel
    from .run_setup import load_references

    config = _load(arguments)
    if not config.data.train or not (config.reference.model or config.reference.url):
        raise InputError("a filter needs data.train and reference.model")
    try:
        part, parts = (int(number) for number in arguments.shard.split("/"))
    except ValueError as error:
        raise InputError(f"--shard must look like 0/4, not {arguments.shard!r}") from error
    if not 0 <= part < parts:
        raise InputError(f"--shard {arguments.shard}: I must be at least 0 and below N")
    output = Path(config.output)
    questions = load_questions(config.data.train, "train", config.data, output / "features")
    reward_model = RewardModel(load_references(config.reference), config.objective.reward)
    settings = config.filter
    result = filter_questions(
        questions, reward_model, output / settings.out,
        threshold=settings.threshold, num_frames=settings.num_frames, shard=(part, parts),
    )  # fmt: skip
    print(f"{result.kept} of {result.probed} questions kept, {result.unreadable} with unreadable videos")
    if result.complete:
        print(f"written: {result.folder / KEPT}")
    else:
        print(f"{len(questions) - result.probed - result.unreadable} questions of other shards are still to be probed")
    return 0


def _settings() -> int:
    from .config import TrainConfig
    from .settings import describe

    for name, default, meaning, source in describe(TrainConfig):
        shown = default if len(default) <= 40 else "…"
        print(f"{name:<34} {shown:<22} {meaning}{f'  [{source}]' if source else ''}")
    return 0
