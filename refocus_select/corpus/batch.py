"""`select_batch`: a table of questions in, a table of frames out, whatever happens in between."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .. import __version__
from ..cache import EncodingCache, find_cache
from ..errors import InputError
from ..plain_text import parse_json
from ..weights import DEFAULT_SELECTOR
from .answer import RESULT_FIELDS, SAMPLING, WORDS, BatchSettings, no_result
from .parts import PartWriter, Progress, Workspace
from .results import check_target
from .table import QuestionTable, Source, VideoJob

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ..arguments import BatchArguments, LoadArguments
    from ..encoders import DualEncoder
    from ..selectors import FrameSelector
    from .answer import Described

Results = list[dict[str, Any]]


@dataclass(frozen=True)
class BatchResult:
    """What a run did.

    Attributes:
        path: the results; they are there if `complete`.
        rows: in all.
        failed: of them with an error.
        videos: in all.
        answered: rows that this run has done; the others were done before, or belong to other shards.
        complete: whether all rows are done and merged.
        seconds: of this run.
    """

    path: Path
    rows: int
    failed: int
    videos: int
    answered: int
    complete: bool
    seconds: float


def select_batch(
    questions: Source,
    out: str | os.PathLike[str],
    *,
    selector: str | FrameSelector = DEFAULT_SELECTOR,
    encoder: str | os.PathLike[str] | DualEncoder | None = None,
    num_frames: int = 8,
    frames: str | os.PathLike[str] | None = None,
    scores: bool = False,
    root: str | os.PathLike[str] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    workers: int | None = None,
    engine: Literal["local", "ray"] = "local",
    shard: tuple[int, int] | None = None,
    cache: EncodingCache | str | os.PathLike[str] | bool | None = None,
    backend: str | None = None,
    selector_arguments: LoadArguments | None = None,
    progress: bool | None = None,
    network: bool = True,
    **kwargs: Unpack[BatchArguments],
) -> BatchResult:
    """Choose frames for every row of a table.

        select_batch("questions.jsonl", "frames.jsonl", num_frames=32)

    All questions about a video share one encoding, wherever they stand. A row that is not a question, and a video that
    cannot be read, become rows with an `error`. The order of the rows is kept. What is done is on the disk at once: a
    run that was killed continues with `resume=True`, and its result is that of an uninterrupted run.

    Args:
        questions: .jsonl, .json, .csv or .parquet, a saved dataset, or rows with `video`, `question`, and as far as
            known `id`, `options`; other fields are kept. `video` is a path, a URL, the content of a file (held in
            memory), or a dict with one of these; `sample_fps` (of a folder of pictures), `video_start` and `video_end`
            (seconds) are obeyed.
        out: .jsonl or .parquet. Until it is complete, the folder OUT.parts lies beside it.
        selector: a name for `FrameSelector.from_pretrained`, or a selector that is loaded already.
        encoder: whose vectors it compares, for selectors that read vectors (see `load_encoder`).
        num_frames: how many frames K.
        frames: a folder for the chosen frames, as JPEG at full size; rows name their files.
        scores: also keep the scores of all candidates.
        root: folder that relative video paths start from (default: that of the table).
        resume: continue an interrupted run.
        overwrite: start over, whatever is there.
        workers: videos at a time; with Ray, encoders at most.
        engine: "local", or "ray" for a cluster (RAY_ADDRESS says which; without it one is started here).
        shard: (i, n), only every n-th video from the i-th on; the shard that ends last merges. By default RANK and
            WORLD_SIZE, as `accelerate launch` and `torchrun` set them.
        cache: see `FrameSelector.encode`.
        backend: decoder.
        selector_arguments: for `FrameSelector.from_pretrained`, e.g. {"device": "cuda"}.
        progress: show rate and remaining time (default: only on a terminal).
        network: False refuses URLs (their rows get an error), and uses only what is in the local cache of the Hub.
        **kwargs: `fps`, `max_frames`, `start`, `end`, `exact`, `words` (here "auto" or "off", the default), `ocr`,
            `transcribe`, `language` (see `FrameSelector.encode`), and choice arguments of the selector. A row's own
            field `words` ("auto", "off", a file, or a list of lines) counts more.

    Returns:
        What was done.

    Raises:
        InputError: if there is an output already, another run writes it, it was started with other questions or
            settings, it cannot be written (`OutputError`: what is done stays), or an argument is not usable.
        SelectorLoadError: if the selector cannot be loaded.
        EncoderError: if the encoder cannot be used with it.
        MissingDependencyError: for engine "ray" without Ray, and for Parquet without pyarrow.
    """
    began = time.monotonic()
    target = Path(out)
    check_target(target)
    if resume and overwrite:
        raise InputError("resume continues an interrupted run and overwrite starts over: give one of them")
    if engine not in ("local", "ray"):
        raise InputError(f"engine must be 'local' or 'ray', not {engine!r}")
    if workers is not None and workers < 1:
        raise InputError(f"workers must be at least 1, not {workers}")
    part = _shard(shard) if engine == "local" else (0, 1)
    settings = BatchSettings(
        num_frames=num_frames,
        sampling={k: v for k, v in kwargs.items() if k in SAMPLING and v is not None},
        choice={k: v for k, v in kwargs.items() if k not in SAMPLING | WORDS},
        words={k: v for k, v in kwargs.items() if k in WORDS and v not in (None, False, "off")},
        backend=backend,
        frames=None if frames is None else str(Path(frames).absolute()),
        scores=scores,
        network=network,
    )
    arguments: dict[str, Any] = with_encoder(selector, encoder, selector_arguments)
    if not network:
        from ..selectors.registry import offline_arguments

        arguments |= offline_arguments(selector, arguments.get("encoder"))
    with Workspace(target, part) as space:
        _check_existing(space, resume, overwrite)
        table = QuestionTable(questions, root=root)
        try:
            runner = _runner(engine, selector, arguments, workers, find_cache(cache))
            settings.check(runner.selector)
            facts = {
                "version": __version__,
                "questions": table.digest,
                "rows": len(table),
                "selector": runner.selector.name,
                "fingerprint": runner.selector.fingerprint,
                **settings.facts(),
            }
            state = Progress(len(table))
            if space.finished(facts):
                space.clean()
                failed = _recorded_failures(space.record)
                return BatchResult(target, len(table), failed, len(table.videos), 0, True, time.monotonic() - began)
            space.check_job(facts)
            state.read(space.parts())
            answered = _run(table, runner, settings, space, state, progress)
            state.read(space.parts())
            complete = bool(state.done.all())
            failed = int(state.failed.sum())
            if complete:
                summary = {"rows": len(table), "failed": failed, "videos": len(table.videos)}
                space.finish(_merged(table, state), facts, summary)
            seconds = time.monotonic() - began
            return BatchResult(target, len(table), failed, len(table.videos), answered, complete, seconds)
        finally:
            table.close()


class _LocalRunner:
    def __init__(self, selector: FrameSelector, workers: int | None, cache: EncodingCache | None) -> None:
        self.selector: FrameSelector | Described = selector
        self._loaded, self._workers, self._cache = selector, workers, cache

    def run(self, jobs: Iterator[VideoJob], settings: BatchSettings) -> Iterator[tuple[VideoJob, Results]]:
        from .local import run_local

        return run_local(jobs, self._loaded, settings, workers=self._workers, cache=self._cache)


def _runner(
    engine: str,
    selector: str | FrameSelector,
    arguments: dict[str, Any],
    workers: int | None,
    cache: EncodingCache | None,
) -> Any:
    """What answers videos: an object with `selector` and `run`."""
    from ..selectors import FrameSelector

    if engine == "ray":
        from .cluster import RayRunner

        return RayRunner(selector, arguments, workers, cache)
    loaded = selector if isinstance(selector, FrameSelector) else FrameSelector.from_pretrained(selector, **arguments)
    return _LocalRunner(loaded, workers, cache)


def _shard(shard: tuple[int, int] | None) -> tuple[int, int]:
    from ..shards import Shard

    chosen = Shard(*shard) if shard is not None else Shard.from_environment()
    return chosen.index, chosen.count


def with_encoder(selector: str | FrameSelector, encoder: Any, arguments: Mapping[str, Any] | None) -> dict[str, Any]:
    """Arguments for loading a selector, the encoder among them.

    Raises:
        InputError: if an encoder is given for a selector that has one.
    """
    given = dict(arguments or {})
    if encoder is None:
        return given
    if not isinstance(selector, str | os.PathLike):
        raise InputError("encoder: this selector is loaded already; give its name, or load it with that encoder")
    return {**given, "encoder": encoder}


def _check_existing(space: Workspace, resume: bool, overwrite: bool) -> None:
    if overwrite:
        if space.shard[1] > 1:
            raise InputError(f"shards cannot overwrite what other shards have written; remove {space.target} first")
        space.clear()
        return
    if resume:
        return
    if space.target.exists():
        raise InputError(f"{space.target} exists already; choose another --out, or --overwrite")
    begun = space.own_part().exists() if space.shard[1] > 1 else not space.is_empty()
    if begun:
        raise InputError(
            f"{space.target} exists already, unfinished: continue it with --resume, or start over with --overwrite"
        )


def _run(
    table: QuestionTable, runner: Any, settings: BatchSettings, space: Workspace, state: Progress, progress: bool | None
) -> int:
    """Answer what is not done; the number of rows."""
    from tqdm import tqdm

    name, done = runner.selector.name, state.done
    with PartWriter(space.own_part()) as part:
        broken = [int(place) for place in table.broken() if not done[place]] if space.shard[0] == 0 else []
        part.write([{"position": p, **no_result(name, settings.num_frames, table.row(p)["error"])} for p in broken])
        answered, failed = len(broken), len(broken)
        left = sum(1 for _ in table.open_videos(done, part=space.shard))
        disable = None if progress is None else not progress
        with tqdm(total=left, desc="videos", unit="video", disable=disable, smoothing=0.05) as bar:
            for _, results in runner.run(table.jobs(done, part=space.shard), settings):
                part.write(results)
                answered += len(results)
                failed += sum(result["error"] is not None for result in results)
                bar.set_postfix({"questions": answered, "errors": failed}, refresh=False)
                bar.update()
    return answered


def _merged(table: QuestionTable, state: Progress) -> Iterator[dict[str, Any]]:
    for position, result in enumerate(state.rows()):
        row = {name: value for name, value in table.row(position).items() if name not in RESULT_FIELDS}
        yield {**row, **result}


def _recorded_failures(record: Path) -> int:
    try:
        return int(parse_json(record.read_bytes())["result"]["failed"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{record} is damaged ({error}); start over with --overwrite") from error


def summary(result: BatchResult) -> str:
    """What a run did, in one line for people."""
    if not result.complete:
        return f"{result.answered} rows done in {result.seconds:.0f} s; other shards are to come, the last one merges"
    errors = f", {result.failed} of them with an error" if result.failed else ""
    return f"{result.path}: {result.rows} rows of {result.videos} videos{errors} ({result.seconds:.0f} s)"
