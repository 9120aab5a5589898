"""The command line: `refocus-select select | info | cache | evaluate | train | filter | batch | index | search | …`."""

from __future__ import annotations

import argparse
import io
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import __version__
from .cli_options import add_encoder, add_exact, add_no_network, add_sample_fps, add_words
from .corpus.cli import add_batch
from .dependencies import check_dependencies
from .errors import (
    AccessError,
    EncoderError,
    InputError,
    MissingDependencyError,
    RefocusError,
    SelectorLoadError,
    TranscriptError,
    VideoError,
)
from .evaluation.cli import add_evaluate
from .locations import check_offline
from .mcp.cli import add_mcp
from .plain_text import json_text, printable, seconds_of
from .train_selector.cli import add_train
from .ui.cli import add_ui
from .weights import DEFAULT_SELECTOR

if TYPE_CHECKING:
    from .selection import Selection
    from .selectors import FrameSelector

_EXAMPLES = """\
examples:
  refocus-select select film.mp4 "When is the bow and arrow used?"
  refocus-select select film.mp4 "Who wins?" -n 16 --out frames/ --plot why.png
  refocus-select select film.mp4 "Who wins?" "What is on the table?" --json > answers.jsonl
  refocus-select select film.mp4 "Who wins?" --selector aks --encoder google/siglip2-base-patch16-224
  refocus-select select lecture.mp4 "Where does she explain overfitting?" --words lecture.srt
  refocus-select select lecture.mp4 "the slide with the formula" --ocr --start 10:00 --end 25:30

Several questions read the video once. Ask in plain words for what is to be seen
or said, and keep words of order in ("after the goal"). "strategy":
"uniform_fallback" in the JSON means that nothing stood out: ask in other words,
or look at a part with --start and --end. -n auto takes as many frames as the
question needs; --no-exact is much faster on long films, with true times; a
transcript beside the file (talk.srt) is used without asking. exit status: 0 done, 2 bad arguments,
3 the video cannot be read, 4 the selector or the encoder cannot be
used, 130 interrupted."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        The exit status: 0 done, 2 bad arguments, 3 video unreadable, 4 selector or encoder not
        usable, 1 other errors of ours.
    """
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    if rest and hasattr(arguments, "overrides") and not any(word.startswith("-") for word in rest):
        arguments.overrides += rest  # settings behind an option, as in `train c.yaml --dry-run seed=1`
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    logging.basicConfig(level=logging.INFO if arguments.verbose else logging.WARNING, format="%(message)s")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files may hold what the terminal's encoding does not
            stream.reconfigure(errors="backslashreplace")
    try:
        check_dependencies()
        status: int = arguments.run(arguments)
        sys.stdout.flush()
        return status
    except (AccessError, InputError, MissingDependencyError, TranscriptError) as error:
        return _fail(error, 2)
    except VideoError as error:
        return _fail(error, 3)
    except (SelectorLoadError, EncoderError) as error:
        return _fail(error, 4)
    except RefocusError as error:
        return _fail(error, 1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output went away (`| head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _fail(error: Exception, status: int) -> int:
    print(f"refocus-select: {error}", file=sys.stderr)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="refocus-select",
        description="Choose the few frames of a video that answer a question, with their true times.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"refocus-select {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--backend", choices=("pyav", "torchcodec", "decord"), help="decoder (default: automatic)")
    common.add_argument("--json", action="store_true", help="JSON on standard output, one object per line")
    common.add_argument("-v", "--verbose", action="store_true", help="more messages on standard error")

    select = commands.add_parser(
        "select",
        parents=[common],
        help="the frames of a video that answer a question",
        description="Choose the frames of a video that answer one or more questions.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    select.add_argument("video", metavar="VIDEO", help="a file, a folder of images, or a URL")
    select.add_argument("questions", metavar="QUESTION", nargs="+", help="the question")
    select.add_argument(
        "-n", "--num-frames", type=_number, metavar="K",
        help='frames to choose (default: 8, or what the token budget allows); "auto" for as many as the question needs',
    )  # fmt: skip
    select.add_argument(
        "--token-budget", type=int, metavar="N", help="choose number and size of the frames so that they cost N tokens"
    )
    select.add_argument("--processor", metavar="NAME", help="folder or Hub id of the model that counts these tokens")
    select.add_argument("--out", type=Path, metavar="DIR", help="save the frames, named by time, and selection.json")
    select.add_argument("--plot", type=Path, metavar="FILE", help="draw scores and frames beside uniform sampling")
    select.add_argument("--sheet", type=Path, metavar="FILE", help="draw the chosen frames as one picture")
    select.add_argument(
        "--selector",
        default=DEFAULT_SELECTOR,
        metavar="NAME",
        help="'mini-policy' (default), 'mini', 'uniform', an algorithm, a folder, or a Hub id",
    )
    add_encoder(select)
    select.add_argument(
        "--cache", metavar="DIR", help="folder to keep encodings in (default: REFOCUS_CACHE_DIR if set)"
    )
    select.add_argument("--device", help="device of the selector, e.g. cuda (default: automatic)")
    select.add_argument(
        "--start", type=_seconds, metavar="TIME", help="start of the part to use: seconds, m:ss or h:mm:ss"
    )
    select.add_argument("--end", type=_seconds, metavar="TIME", help="end of the part to use")
    add_sample_fps(select)
    select.add_argument("--fps", type=float, help="maximum number of candidate frames per second")
    select.add_argument("--max-frames", type=int, metavar="F", help="maximum number of candidate frames")
    add_exact(select)
    add_no_network(select)
    add_words(select, default="auto")
    select.add_argument("--workers", type=int, metavar="W", help="decoder threads (default: one per core)")
    select.set_defaults(run=_select)

    info = commands.add_parser(
        "info", parents=[common], help="metadata of a video", description="Print the metadata of a video."
    )
    info.add_argument("video", metavar="VIDEO", help="a file, a folder of images, or a URL")
    add_sample_fps(info)
    info.set_defaults(run=_info)

    cache = commands.add_parser(
        "cache",
        help="list or remove stored encodings",
        description="List the encodings in the cache folder, last used first; --limit and --clear remove some or all.",
    )
    cache.add_argument("--dir", type=Path, help="the folder (default: REFOCUS_CACHE_DIR or the system's)")
    cache.add_argument("--limit", metavar="SIZE", help="remove what was not used for longest, down to e.g. 500MB")
    cache.add_argument("--clear", action="store_true", help="remove all encodings")
    cache.add_argument("--json", action="store_true", help="JSON on standard output, one object per line")
    cache.set_defaults(run=_cache, verbose=False)

    add_evaluate(commands)
    add_train(commands)
    add_batch(commands)
    add_mcp(commands)
    add_ui(commands)
    return parser


def _seconds(text: str) -> float:
    try:
        return seconds_of(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _number(text: str) -> int | str:
    """A number of frames, or "auto"."""
    if text == "auto":
        return text
    try:
        return int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f'{text!r} is neither a whole number nor "auto"') from error


def _select(arguments: argparse.Namespace) -> int:
    from .api import select_frames

    if arguments.no_network:
        check_offline(arguments.video)
    selector = _selector(arguments)
    choose: Callable[..., Any]
    if arguments.token_budget is None:
        if arguments.processor is not None:
            raise InputError("--processor counts tokens for --token-budget; give both")
        number = 8 if arguments.num_frames is None else arguments.num_frames
        choose = partial(select_frames, _given(arguments), arguments.questions, number, selector=selector)
    else:
        choose = _within_budget(arguments, selector)
    selections: Any = choose(
        cache=arguments.cache,
        start=arguments.start,
        end=arguments.end,
        fps=arguments.fps,
        max_frames=arguments.max_frames,
        exact=arguments.exact is not False,
        workers=arguments.workers,
        backend=arguments.backend,
        words=arguments.words,
        ocr=arguments.ocr,
        transcribe=arguments.transcribe,
        language=arguments.language,
    )
    several = len(selections) > 1
    for number, selection in enumerate(selections, start=1):
        place = f"{number:02d}-{_slug(selection.question)}" if several else ""
        outputs = []
        if arguments.out:
            outputs.append(selection.save(arguments.out / place))
        if arguments.plot:
            outputs.append(selection.plot(_numbered(arguments.plot, place)))
        if arguments.sheet:
            outputs.append(selection.contact_sheet(_numbered(arguments.sheet, place)))
        if not selector.needs_frames:  # nobody has seen these frames yet
            selection.check()
        if arguments.json:
            print(selection.to_json(), flush=True)
        else:
            _print_selection(selection, outputs)
    return 0


def _within_budget(arguments: argparse.Namespace, selector: FrameSelector) -> Callable[..., list[Selection]]:
    """How frames are chosen within a token budget."""
    if arguments.processor is None:
        raise InputError(
            "--token-budget: tokens are counted with the processor of a model; name it, e.g. "
            "--processor Qwen/Qwen2.5-VL-7B-Instruct"
        )
    from transformers import AutoProcessor

    from .adapters.budget import select_within

    try:
        processor = AutoProcessor.from_pretrained(arguments.processor, local_files_only=bool(arguments.no_network))
    except (OSError, ValueError) as error:
        raise InputError(
            f"--processor {arguments.processor}: no processor can be loaded from there ({error})"
        ) from error
    return partial(
        select_within, _given(arguments), arguments.questions, processor, selector, arguments.token_budget,
        num_frames=arguments.num_frames,
    )  # fmt: skip


def _given(arguments: argparse.Namespace) -> str | dict[str, object]:
    """The video, with the rate of its pictures."""
    rate = arguments.sample_fps
    return arguments.video if rate is None else {"video": arguments.video, "sample_fps": rate}


def _selector(arguments: argparse.Namespace) -> FrameSelector:
    from .selectors import FrameSelector
    from .selectors.registry import offline_arguments

    options = {name: getattr(arguments, name) for name in ("encoder", "device") if getattr(arguments, name) is not None}
    if arguments.no_network:
        options |= offline_arguments(arguments.selector, arguments.encoder)
    return FrameSelector.from_pretrained(arguments.selector, **options)


def _print_selection(selection: Selection, outputs: Sequence[Path]) -> None:
    from .pictures import clock

    how = "" if selection.strategy == "selected" else "  (spread over the video)"
    print(f"{selection.question}{how}")
    for index, time in zip(selection.indices, selection.timestamps, strict=True):
        print(f"  {clock(float(time)):>10}  {time:10.3f} s   frame {index}")
    if selection.plan is not None:
        plan = selection.plan
        sizes = " and ".join(f"{width} x {height}" for height, width in dict.fromkeys(plan.sizes))
        print(f"  {len(selection)} frames of {sizes} pixels: {plan.tokens} of {plan.budget} tokens ({plan.why})")
    for quote in selection.quotes:
        how = "written: " if quote.source == "written" else ""
        print(f"  {clock(quote.start):>10}  {how}“{printable(quote.text)}”")
    for warning in selection.warnings:
        print(f"  note: {warning}")
    for output in outputs:
        print(f"  written: {output}")


def _numbered(path: Path, place: str) -> Path:
    return path.with_stem(f"{path.stem}-{place}") if place else path


def _slug(question: str) -> str:
    """A file name of the question's words, safe everywhere."""
    return re.sub(r"[^a-z0-9]+", "-", question.lower()).strip("-")[:40] or "question"


def _info(arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    from .video import open_video

    with open_video(_given(arguments), backend=arguments.backend) as video:
        facts = {**asdict(video.metadata), "fingerprint": video.fingerprint, "warnings": list(video.warnings)}
    if arguments.json:
        print(json_text(facts))
        return 0
    for name, value in facts.items():
        if name == "warnings":
            continue
        print(f"{name.replace('_', ' '):>18}  {round(value, 3) if isinstance(value, float) else value}")
    for warning in facts["warnings"]:
        print(f"{'note':>18}  {warning}")
    return 0


def _cache(arguments: argparse.Namespace) -> int:
    from dataclasses import asdict
    from datetime import datetime

    from .cache import EncodingCache, parse_size

    cache = EncodingCache(arguments.dir)
    limit = 0 if arguments.clear else parse_size(arguments.limit) if arguments.limit else None
    removed = cache.shrink(limit) if limit is not None else 0
    entries = cache.entries()
    if arguments.json:
        for entry in entries:
            print(json_text({**asdict(entry), "path": str(entry.path)}))
        return 0
    for entry in entries:
        used = datetime.fromtimestamp(entry.used).strftime("%Y-%m-%d %H:%M")
        print(f"{entry.size / 1e6:9.2f} MB  {used}  {entry.candidates:5d} frames  {entry.encoder}  {entry.source}")
    total = sum(entry.size for entry in entries)
    print(f"{len(entries)} encodings, {total / 1e6:.2f} MB of {cache.max_bytes / 1e6:.0f} MB in {cache.folder}")
    if limit is not None:
        print(f"{removed} removed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
