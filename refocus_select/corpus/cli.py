"""`refocus-select batch`, `convert`, `index` and `search`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from ..arguments import LoadArguments
from ..cli_options import add_encoder, add_exact, add_no_network, add_words
from ..errors import InputError
from ..plain_text import json_text, printable
from ..weights import DEFAULT_SELECTOR

_BATCH = """\
examples:
  refocus-select batch questions.jsonl --out frames.jsonl -n 32
  refocus-select batch questions.csv --out frames.parquet --frames pictures/ --selector aks
  refocus-select batch questions.jsonl --out frames.jsonl --resume           (after a break, of any kind)
  accelerate launch -m refocus_select batch questions.jsonl --out frames.jsonl     (one process per GPU)
  refocus-select batch questions.parquet --out frames.parquet --engine ray         (a Ray cluster)

A table has the columns video and question, and as far as known id, options and words (what is said: a transcript file,
a list of lines, "auto" or "off", instead of --words); others are kept. Rows that are no questions, and videos that
cannot be read, become rows with an error."""

_CONVERT = """\
examples:
  refocus-select convert frames.jsonl frames.parquet
  refocus-select convert frames.jsonl train.jsonl --to ms-swift --frames pictures/
  refocus-select convert frames.jsonl train.jsonl --to trl --frames pictures/ --answer response"""

_INDEX = """\
examples:
  refocus-select index lectures/ --out lectures.index        (again later: only what is new or changed is read)
  refocus-select search lectures.index "the slide with the formula" -k 5
  refocus-select search lectures.index "who asks the first question?" --video lectures/03.mp4"""


def add_batch(commands: Any) -> None:
    """Add `batch`, `convert`, `index` and `search` to the subcommands of the command line."""
    common = argparse.ArgumentParser(add_help=False)
    add_encoder(common)
    common.add_argument("--device", help="device of the selector, e.g. cuda (default: automatic)")
    common.add_argument("--fps", type=float, help="maximum number of candidate frames per second")
    common.add_argument("--max-frames", type=int, metavar="F", help="maximum number of candidate frames")
    add_exact(common)
    add_no_network(common)
    add_words(common, default="off", choices=("auto", "off"))
    common.add_argument("--backend", choices=("pyav", "torchcodec", "decord"), help="decoder")
    common.add_argument("--workers", type=int, metavar="W", help="videos at a time (default: one per core and one)")
    common.add_argument("--quiet", action="store_true", help="no progress")
    common.add_argument("-v", "--verbose", action="store_true", help="more messages on standard error")
    _add_batch(commands, common)
    _add_convert(commands)
    _add_index(commands, common)
    _add_search(commands)


def _add_batch(commands: Any, common: argparse.ArgumentParser) -> None:
    batch = commands.add_parser(
        "batch",
        parents=[common],
        help="choose frames for a table of questions about many videos",
        description="Choose frames for every row of a table; each video is read once.",
        epilog=_BATCH,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    batch.add_argument("questions", metavar="QUESTIONS", help=".jsonl, .json, .csv, .parquet, or a saved dataset")
    batch.add_argument("--out", type=Path, required=True, metavar="RESULTS", help=".jsonl or .parquet")
    batch.add_argument("--selector", default=DEFAULT_SELECTOR, metavar="NAME", help="see `refocus-select select`")
    batch.add_argument("-n", "--num-frames", type=int, default=8, metavar="K", help="frames to choose (default: 8)")
    batch.add_argument("--frames", type=Path, metavar="DIR", help="write the chosen frames there, at full size")
    batch.add_argument("--scores", action="store_true", help="keep the scores of all candidates")
    batch.add_argument(
        "--videos", type=Path, metavar="DIR", help="where relative video paths start (default: QUESTIONS')"
    )
    batch.add_argument("--cache", metavar="DIR", help="folder to keep encodings in (default: REFOCUS_CACHE_DIR if set)")
    batch.add_argument("--engine", choices=("local", "ray"), default="local", help="ray: on the cluster of RAY_ADDRESS")
    batch.add_argument(
        "--shard", metavar="I/N", help="only part I of N of the videos, I from 0 (default: RANK/WORLD_SIZE)"
    )
    again = batch.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="continue an interrupted run")
    again.add_argument("--overwrite", action="store_true", help="start over, whatever is there")
    batch.set_defaults(run=_batch)


def _add_convert(commands: Any) -> None:
    convert = commands.add_parser(
        "convert",
        help="write the results of `batch` in another form",
        description="Turn results into .jsonl, .parquet, a folder for datasets.load_from_disk, a frame index "
        "database for the evaluation of the authors' release, or training rows of a fine-tuning stack.",
        epilog=_CONVERT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    convert.add_argument("results", metavar="RESULTS", help="what `batch` wrote")
    convert.add_argument("target", metavar="TARGET", help="a new .jsonl or .parquet, a folder, or a database")
    convert.add_argument("--like", metavar="DB", help="a database of the authors' prepare.sh, whose keys are used")
    convert.add_argument(
        "--benchmark", default="", metavar="NAME", help="with --like: name of the benchmark, e.g. videomme"
    )
    convert.add_argument("--to", metavar="STACK", help="training rows for ms-swift, llamafactory, trl or qwen-vl")
    convert.add_argument("--frames", metavar="DIR", help="with --to: the folder of `batch --frames`")
    convert.add_argument(
        "--form",
        default="images",
        metavar="FORM",
        help="with --to: images (a time in front of each, default) or video (a list of frames, times in a sentence)",
    )
    convert.add_argument(
        "--answer", metavar="COLUMN", help="with --to: what is to be learnt (default: the letter of the right option)"
    )
    convert.add_argument("--resume", action="store_true", help="with --to: continue an interrupted run")
    convert.set_defaults(run=_convert, verbose=False)


def _add_index(commands: Any, common: argparse.ArgumentParser) -> None:
    index = commands.add_parser(
        "index",
        parents=[common],
        help="encode a collection of videos, to ask about it at any time",
        description="Encode videos into an index. What is there already is kept; what is new or changed is read.",
        epilog=_INDEX,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    index.add_argument("videos", nargs="*", metavar="VIDEO", help="files, and folders that are searched for videos")
    index.add_argument("--out", type=Path, required=True, metavar="INDEX", help="the index, a folder")
    index.add_argument(
        "--selector", default="mini", metavar="NAME", help="a selector; for searching, one that compares vectors"
    )
    index.add_argument("--check", action="store_true", help="read everything in the index and say what is damaged")
    index.set_defaults(run=_index)


def _add_search(commands: Any) -> None:
    search = commands.add_parser(
        "search",
        help="the moments of an indexed collection that answer a question",
        description="Search all videos of an index, or choose the frames of one of them.",
        epilog=_INDEX,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    search.add_argument("index", metavar="INDEX", help="what `refocus-select index` wrote")
    search.add_argument("question", metavar="QUESTION")
    search.add_argument("-k", type=int, default=10, help="moments to find (default: 10)")
    search.add_argument("--gap", type=float, default=2.0, metavar="S", help="seconds between moments of a video (2)")
    search.add_argument("--video", help="choose K frames of this video instead")
    search.add_argument("--device", help="device of the selector, e.g. cuda")
    search.add_argument("--json", action="store_true", help="JSON on standard output, one object per line")
    search.set_defaults(run=_search, verbose=False)


def _batch(arguments: argparse.Namespace) -> int:
    from ..shards import Shard
    from .batch import select_batch, summary

    shard = Shard.from_text(arguments.shard) if arguments.shard else None
    result = select_batch(
        arguments.questions,
        arguments.out,
        selector=arguments.selector,
        encoder=arguments.encoder,
        num_frames=arguments.num_frames,
        frames=arguments.frames,
        scores=arguments.scores,
        root=arguments.videos,
        resume=arguments.resume,
        overwrite=arguments.overwrite,
        workers=arguments.workers,
        engine=arguments.engine,
        shard=None if shard is None else (shard.index, shard.count),
        cache=arguments.cache,
        backend=arguments.backend,
        selector_arguments=_selector_arguments(arguments),
        progress=_progress(arguments),
        network=not arguments.no_network,
        **_sampling(arguments),
    )
    print(summary(result))
    return 0


def _convert(arguments: argparse.Namespace) -> int:
    from .results import convert_results

    if arguments.to is not None:
        return _convert_to_training_rows(arguments)
    count = convert_results(arguments.results, arguments.target, like=arguments.like, benchmark=arguments.benchmark)
    print(f"written: {arguments.target} ({count} rows)")
    return 0


def _convert_to_training_rows(arguments: argparse.Namespace) -> int:
    from .training_rows import how_to_use, write_training_rows

    if arguments.frames is None:
        raise InputError("--to needs --frames DIR, the folder that `refocus-select batch --frames DIR` wrote")
    done = write_training_rows(
        arguments.results,
        arguments.target,
        arguments.to,
        frames=arguments.frames,
        form=arguments.form,
        answer=arguments.answer,
        resume=arguments.resume,
    )
    left_out = f"{done.without_frames} results without frames and {done.without_answer} without an answer left out"
    print(f"written: {arguments.target} ({done.written} rows; {left_out})")
    print(f"use: {how_to_use(arguments.to, arguments.target)}")
    return 0


def _index(arguments: argparse.Namespace) -> int:
    from .index import Index

    if arguments.check:
        problems = Index(arguments.out).check()
        for problem in problems:
            print(f"{problem.where}: {problem.what}")
        print(f"{arguments.out}: {len(problems)} problems")
        return 1 if problems else 0
    if not arguments.videos:
        raise InputError("give files or folders to index")
    update = Index.build(
        arguments.videos,
        arguments.out,
        selector=arguments.selector,
        encoder=arguments.encoder,
        workers=arguments.workers,
        backend=arguments.backend,
        selector_arguments=_selector_arguments(arguments),
        progress=_progress(arguments),
        network=not arguments.no_network,
        **_sampling(arguments),
    ).last_update
    for video, error in update.failed:
        print(f"not indexed: {video}: {error}", file=sys.stderr)
    print(
        f"{arguments.out}: {update.total} videos ({update.added} new, {update.changed} changed, {update.moved} moved, "
        f"{update.removed} removed, {len(update.failed)} not readable)"
    )
    return 0


def _search(arguments: argparse.Namespace) -> int:
    from ..pictures import clock
    from .index import Index

    index = Index(arguments.index, **({} if arguments.device is None else {"device": arguments.device}))
    if arguments.video is not None:
        selection = index.select(arguments.question, video=arguments.video, num_frames=arguments.k)
        rows = [
            {"video": arguments.video, "timestamp": float(time), "index": int(place), "score": float(score)}
            for place, time, score in zip(
                selection.indices, selection.timestamps, selection.scores[selection.picks], strict=True
            )
        ]
    else:
        rows = [hit.to_dict() for hit in index.search(arguments.question, arguments.k, min_gap=arguments.gap)]
    for row in rows:
        if arguments.json:
            print(json_text(row))
        else:
            said = f"  “{printable(row['quote']['text'])}”" if row.get("quote") else ""
            print(f"{row['score']:8.3f}  {clock(row['timestamp']):>10}  frame {row['index']:<8}  {row['video']}{said}")
    return 0


# -- their arguments ------------------------------------------------------------------------------


def _selector_arguments(arguments: argparse.Namespace) -> LoadArguments:
    device = arguments.device
    if device is None and "LOCAL_RANK" in os.environ:  # one process per GPU
        import torch

        count = torch.cuda.device_count()
        device = f"cuda:{int(os.environ['LOCAL_RANK']) % count}" if count else None
    return {} if device is None else {"device": device}


def _sampling(arguments: argparse.Namespace) -> dict[str, Any]:
    given = {"fps": arguments.fps, "max_frames": arguments.max_frames, "exact": arguments.exact}
    heard = {name: getattr(arguments, name) for name in ("words", "ocr", "transcribe", "language")}
    return {name: value for name, value in given.items() if value is not None} | {
        name: value for name, value in heard.items() if value not in (None, False, "off")
    }


def _progress(arguments: argparse.Namespace) -> bool | None:
    return False if arguments.quiet else None
