"""The engine of a cluster: the same work as a pipeline of Ray Data.

    videos ──> decode (tasks, one CPU each, as many as there is room for) ──> encode and choose (actors, one per GPU)

Ray Data starts and stops tasks and actors, holds decoders back while pictures wait, and repeats what a lost worker had
taken. A video whose worker dies again and again gets a row with that error. Parts, resuming and merging are those of
the local engine: only the process that was started writes.
"""

from __future__ import annotations

import gc
import inspect
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..cache import EncodingCache
from ..errors import InputError, MissingDependencyError
from ..locations import short_name
from ..questions import Question, as_row
from ..selectors import FrameSelector
from ..video import Video, VideoMetadata, open_video, sample_candidates
from ..video.base import SpanReader
from ..video.engine import Put, Span
from ..video.plan import Plan
from .answer import BatchSettings, Described, answer_video, failed, file_state
from .table import VideoJob

logger = logging.getLogger(__name__)

CARRIED_BYTES = 512 * 2**20  # of pictures per video from a decoder to an encoder; larger ones are decoded there
VIDEOS_AT_ONCE = 10_000  # handed to one pipeline: its bookkeeping stays small, whatever the table holds
BLOCKS = 1000
RETRIES = 1  # of what a dead worker had taken; then once more, each video in a task of its own

Loader = Callable[[], FrameSelector]


class RayRunner:
    """Answers videos on a Ray cluster.

    Attributes:
        selector: what is known of the selector, which is loaded on the workers only.
    """

    def __init__(
        self,
        selector: str | FrameSelector,
        arguments: dict[str, Any],
        workers: int | None,
        cache: EncodingCache | None,
    ) -> None:
        ray = _ray()
        if not ray.is_initialized():
            ray.init(logging_level=logging.WARNING, log_to_driver=False)
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        resources = ray.cluster_resources()
        gpus = 0 if str(arguments.get("device", "")).startswith("cpu") else int(resources.get("GPU", 0))
        self._load: Loader = (
            partial(_same, selector)
            if isinstance(selector, FrameSelector)
            else partial(FrameSelector.from_pretrained, selector, **arguments)
        )
        self._needs = {"num_cpus": 1, "num_gpus": 1} if gpus else {"num_cpus": 1}
        self._most = workers or gpus or max(1, int(resources.get("CPU", 1)) - 1)  # a CPU is left for decoding
        self._cache = None if cache is None else (str(cache.folder.absolute()), cache.max_bytes)
        describe = ray.remote(**self._needs)(_describe)
        if isinstance(selector, FrameSelector):
            self.selector = Described.of(selector)
        else:
            try:
                self.selector = ray.get(describe.remote(self._load))
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None

    def run(self, jobs: Iterator[VideoJob], settings: BatchSettings) -> Iterator[tuple[VideoJob, list[dict[str, Any]]]]:
        """Answer videos, in the order in which they are done."""
        while piece := list(islice(jobs, VIDEOS_AT_ONCE)):
            left = {job.number: job for job in piece}
            for number, results in self._pipeline(piece, settings):
                if number in left:  # what is repeated may come twice
                    yield left.pop(number), results
            if left:
                gc.collect()  # errors of dead actors hold their handles, and these their processors
                yield from self._alone(list(left.values()), settings)

    def _alone(self, jobs: list[VideoJob], settings: BatchSettings) -> Iterator[tuple[VideoJob, list[dict[str, Any]]]]:
        """Answer videos that were lost with a worker, each in a task of its own: the harmless ones succeed."""
        ray = _ray()
        answer = ray.remote(max_retries=RETRIES, **self._needs)(_answer_alone)
        load = ray.put(self._load)
        running = {answer.remote(load, settings, self._cache, _packed(job)): job for job in jobs}
        while running:
            for ready in ray.wait(list(running), timeout=1.0)[0]:
                job = running.pop(ready)
                try:
                    yield job, json.loads(ray.get(ready))
                except ray.exceptions.WorkerCrashedError:
                    name = short_name(job.video)
                    text = f"{name}: the worker died every time it read this video; the file or its size is why"
                    yield job, failed(job, self.selector.name, settings.num_frames, text)

    def _pipeline(self, jobs: list[VideoJob], settings: BatchSettings) -> Iterator[tuple[int, list[dict[str, Any]]]]:
        for row in self._dataset(jobs, settings).iter_rows():
            yield int(row["number"]), json.loads(row["results"])

    def _dataset(self, jobs: list[VideoJob], settings: BatchSettings) -> Any:
        """The pipeline; nothing runs before its rows are asked for."""
        ray = _ray()
        context = ray.data.DataContext.get_current().copy()
        context.enable_progress_bars = False
        context.max_errored_blocks = -1  # what is missing at the end is asked again
        context.execution_options.preserve_order = False
        with _installed(context), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*ray_remote_args", category=DeprecationWarning)
            rows = [{"job": _packed(job)} for job in jobs]
            videos = ray.data.from_items(rows, override_num_blocks=min(len(rows), BLOCKS))
            decoded = videos.map_batches(
                partial(_decode, self.selector, settings),
                batch_size=1,
                num_cpus=1,
            )
            return decoded.map_batches(
                _Encoder,
                batch_size=1,
                compute=ray.data.ActorPoolStrategy(min_size=1, max_size=self._most),
                fn_constructor_args=(self._load, settings, self._cache),
                **self._needs,
                **_limits(videos),
            )


class _installed:
    """Ray Data's settings for a while; they are global."""

    def __init__(self, context: Any) -> None:
        self._context = context

    def __enter__(self) -> None:
        kind = type(self._context)
        self._before = kind.get_current()
        kind._set_current(self._context)

    def __exit__(self, *_: object) -> None:
        type(self._context)._set_current(self._before)


def _ray() -> Any:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingDependencyError(
            "the engine 'ray' needs Ray: pip install 'refocus-select[cluster]' (here and on the nodes)"
        ) from error
    return ray


def _limits(dataset: Any) -> dict[str, int]:
    """Actors come back as often as they die, but what kills them is given up, where this Ray lets us say so."""
    takes_more = "ray_remote_args" in inspect.signature(dataset.map_batches).parameters
    return {"max_restarts": -1, "max_task_retries": RETRIES} if takes_more else {}


def _same(selector: FrameSelector) -> FrameSelector:
    return selector


def _describe(load: Loader) -> Described:
    return Described.of(load())


# -- what travels ---------------------------------------------------------------------------------


def _packed(job: VideoJob) -> str:
    return json.dumps(
        {
            "number": job.number,
            "video": job.video,
            "positions": job.positions,
            "questions": [as_row(question) for question in job.questions],
            "beside": dict(job.beside),
        }
    )


def _unpacked(text: str) -> VideoJob:
    row = json.loads(text)
    questions = tuple(
        Question(q["id"], q["video"], q["question"], tuple(q.get("options", ()))) for q in row["questions"]
    )
    return VideoJob(row["number"], row["video"], tuple(row["positions"]), questions, row["beside"])


class DecodedVideo(Video):
    """Candidates of a video that were decoded elsewhere; everything else is as in the video itself."""

    def __init__(
        self, metadata: VideoMetadata, fingerprint: str, warnings: list[str], arrays: dict[str, np.ndarray]
    ) -> None:
        """Arrays: `timestamps` of all frames; of the candidates `asked`, `indices`, `valid` and `data`."""
        super().__init__(metadata, arrays["timestamps"], fingerprint, warnings)
        self._arrays = arrays

    def _plan(self, targets: np.ndarray, workers: int) -> Plan:
        return Plan([Span(0, len(targets), targets)])

    def _reader(self, targets: np.ndarray, size: tuple[int, int], plan: Plan) -> SpanReader:
        asked, data = self._arrays["asked"], self._arrays["data"]
        if not np.isin(targets, asked).all() or data.shape[1:3] != size:
            raise InputError(f"{self.metadata.source}: frames are requested that were not decoded")
        return _Replay(self._arrays)


class _Replay:
    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        self._arrays = arrays

    def read(self, span: Span, put: Put, check: Callable[[], None]) -> None:
        arrays = self._arrays
        places = np.searchsorted(arrays["asked"], span.work[span.start : span.stop])
        for position, place in enumerate(places.tolist(), start=span.start):
            check()
            put(position, arrays["data"][place], int(arrays["indices"][place]), bool(arrays["valid"][place]))

    def close(self) -> None:
        """Nothing is held."""


# -- on the workers -------------------------------------------------------------------------------


def _decode(selector: Described, settings: BatchSettings, batch: dict[str, Any]) -> Iterator[dict[str, list[Any]]]:
    """Decode the candidates of videos. What cannot be decoded here is left to the encoder, errors too."""
    from safetensors.numpy import save

    for text in batch["job"]:
        job = _unpacked(str(text))
        facts: dict[str, Any] = {"state": file_state(job.video)}
        pictures = b""
        if selector.needs_frames and selector.frame_size is not None and settings.sampling.get("exact", True):
            try:
                settings.check_network(job.video)
                with open_video(job.given, backend=settings.backend) as video:
                    sampling = {k: v for k, v in settings.reading(job.given).items() if k != "exact"}
                    plan = sample_candidates(video, selector.rule, **sampling)
                    asked, (height, width) = np.unique(plan.indices), selector.frame_size
                    if len(asked) * height * width * 3 <= CARRIED_BYTES:
                        opening = list(video.warnings)
                        frames = video.get_frames(asked, size=(height, width), workers=1)
                        facts |= {
                            "metadata": asdict(video.metadata), "fingerprint": video.fingerprint, "warnings": opening,
                        }  # fmt: skip
                        pictures = save(
                            {
                                "timestamps": video.timestamps,
                                "asked": asked,
                                "indices": frames.indices,
                                "valid": frames.valid,
                                "data": frames.data,
                            }
                        )
            except Exception as error:  # the encoder meets it again and reports it like the local engine
                logger.info("%s: %s", short_name(job.video), error)
                pictures = b""
        yield {"job": [str(text)], "facts": [json.dumps(facts)], "pictures": [pictures]}


class _Encoder:
    """One selector, for the life of an actor."""

    def __init__(self, load: Loader, settings: BatchSettings, cache: tuple[str, int] | None) -> None:
        self._selector = load()
        self._settings = settings
        self._cache = None if cache is None else EncodingCache(Path(cache[0]), max_bytes=cache[1])

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        answers = [
            self._answer(*row)
            for row in zip(map(str, batch["job"]), map(str, batch["facts"]), batch["pictures"], strict=True)
        ]
        return {"number": [number for number, _ in answers], "results": [text for _, text in answers]}

    def _answer(self, text: str, facts: str, pictures: bytes) -> tuple[int, str]:
        job, known = _unpacked(text), json.loads(facts)
        decoded = _decoded(known, pictures) if pictures else None
        state = tuple(known["state"]) if known["state"] else None
        results = answer_video(
            self._selector, job, settings=self._settings, cache=self._cache, decoded=decoded, state=state
        )  # fmt: skip
        return job.number, json.dumps(results, ensure_ascii=False)


def _answer_alone(load: Loader, settings: BatchSettings, cache: tuple[str, int] | None, text: str) -> str:
    """Everything about one video in one process."""
    return _Encoder(load, settings, cache)._answer(text, json.dumps({"state": None}), b"")[1]


def _decoded(facts: dict[str, Any], pictures: bytes) -> DecodedVideo:
    from safetensors.numpy import load

    return DecodedVideo(
        VideoMetadata(**facts["metadata"]), facts["fingerprint"], facts["warnings"], load(pictures)
    )  # fmt: skip
