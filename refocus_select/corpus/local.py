"""The engine of one machine: a few videos at a time, each in a thread of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from typing import Any, TypeVar

from ..cache import EncodingCache
from ..selectors import FrameSelector
from ..video.base import available_cpus
from .answer import BatchSettings, answer_video
from .table import VideoJob

Results = list[dict[str, Any]]
J = TypeVar("J")
R = TypeVar("R")


def default_workers() -> int:
    """Videos in flight: while one waits for its decoder, the others keep the encoder busy (see benchmarks/corpus.py).

    A thread per core decodes, and one more video covers the beginnings and ends of files.
    """
    return min(available_cpus() + 1, 16)


def run_local(
    jobs: Iterator[VideoJob],
    selector: FrameSelector,
    settings: BatchSettings,
    *,
    workers: int | None = None,
    cache: EncodingCache | None = None,
) -> Iterator[tuple[VideoJob, Results]]:
    """Answer videos, several at once, in the order in which they are done.

    Decoding and the large part of encoding release Python's lock, so threads are enough. No more videos are begun than
    there are workers: memory does not depend on the number of videos.

    Args:
        jobs: what is asked.
        selector: who chooses.
        settings: how.
        workers: videos at a time (default: `default_workers`).
        cache: where encodings are kept.
    """
    return in_parallel(jobs, partial(answer_video, selector, settings=settings, cache=cache), workers)


def in_parallel(jobs: Iterator[J], work: Callable[[J], R], workers: int | None = None) -> Iterator[tuple[J, R]]:
    """Do jobs in threads; at most `workers` are begun and not yet taken.

    Raises:
        Whatever `work` raises; jobs that are under way are waited for.
    """
    count = workers or default_workers()
    pool = ThreadPoolExecutor(count, "refocus-video")
    running: dict[Future[R], J] = {}
    try:
        while True:
            while len(running) < count and (job := next(jobs, None)) is not None:
                running[pool.submit(work, job)] = job
            if not running:
                return
            # The timeout lets Ctrl-C through on systems where a plain wait cannot be interrupted.
            ready, _ = wait(running, timeout=1.0, return_when=FIRST_COMPLETED)
            for future in ready:
                yield running.pop(future), future.result()
    finally:
        pool.shutdown(cancel_futures=True)
