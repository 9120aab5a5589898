"""Runs a decode plan on threads. Knows nothing of codecs: a reader turns one span of targets into pictures."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from refocus_select.errors import InputError

BUFFER_BYTES = 96 * 2**20  # pictures decoded ahead of the consumer, in all
BUFFER_FRAMES = 20  # ...but at least so many: a reader may hand over pictures up to 16 places out of order


@dataclass(frozen=True)
class Span:
    """Targets `start..stop-1` of a request, decoded by one reader in one go; `work` is the backend's own plan."""

    start: int
    stop: int
    work: Any


@dataclass(frozen=True)
class Picture:
    """One decoded picture: its position among the targets, and the frame number that it really shows."""

    position: int
    data: NDArray[np.uint8]
    index: int
    valid: bool


Put = Callable[[int, NDArray[np.uint8], int, bool], None]
"""Takes (position among the targets, picture `[H, W, 3]` valid only during the call, frame number, is it good)."""


class Cancelled(Exception):
    """The consumer has gone; the reader stops."""


class SpanReader(Protocol):
    """Decodes spans, one at a time, in one thread."""

    def read(self, span: Span, put: Put, check: Callable[[], None]) -> None:
        """Hands every target of the span to `put`, nearly in order; calls `check` often (it raises `Cancelled`)."""

    def close(self) -> None:
        """Gives back what the reader holds."""


class _ThreadPool:
    """Threads that take spans in order from a shared list until it is empty, one fails, or the consumer leaves."""

    def __init__(
        self, spans: Sequence[Span], make_reader: Callable[[], SpanReader], put: Put, lock: threading.Condition
    ) -> None:
        self._spans = iter(spans)
        self._make_reader = make_reader
        self._put = put
        self.changed = lock
        self.error: BaseException | None = None
        self.cancelled = False
        self.running = 0
        self._threads: list[threading.Thread] = []

    def start(self, count: int) -> None:
        self.running = count
        for number in range(count):
            thread = threading.Thread(target=self._work, name=f"refocus-decode-{number}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def check(self) -> None:
        if self.cancelled:
            raise Cancelled

    def stop(self) -> None:
        with self.changed:
            self.cancelled = True
            self.changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _next_span(self) -> Span | None:
        with self.changed:
            return None if self.cancelled else next(self._spans, None)

    def _work(self) -> None:
        try:
            span = self._next_span()
            if span is None:
                return
            reader = self._make_reader()
            try:
                while span is not None:
                    reader.read(span, self._put, self.check)
                    span = self._next_span()
            finally:
                reader.close()
        except Cancelled:
            pass
        except BaseException as error:  # handed to the consumer, which raises it
            with self.changed:
                self.error = self.error or error
                self.cancelled = True
        finally:
            with self.changed:
                self.running -= 1
                self.changed.notify_all()


def fill(spans: Sequence[Span], make_reader: Callable[[], SpanReader], workers: int, put: Put) -> None:
    """Decodes all spans and returns when every picture has been handed to `put` (called from several threads)."""
    if not spans:
        return
    workers = min(workers, len(spans))
    if workers <= 1:
        reader = make_reader()
        try:
            for span in spans:
                reader.read(span, put, lambda: None)
        finally:
            reader.close()
        return
    pool = _ThreadPool(spans, make_reader, put, threading.Condition())
    pool.start(workers)
    try:
        with pool.changed:
            while pool.running:
                # The timeout lets Ctrl-C through on systems where a plain wait cannot be interrupted.
                pool.changed.wait(timeout=1.0)
    finally:
        pool.stop()
    if pool.error is not None:
        raise pool.error


def stream(
    spans: Sequence[Span],
    make_reader: Callable[[], SpanReader],
    workers: int,
    *,
    total: int,
    frame_bytes: int,
    chunk: int,
    ordered: bool,
) -> Generator[Picture, None, None]:
    """Decodes spans in the background and yields pictures, in order of position or as they come.

    At most `max(2 * chunk, BUFFER_BYTES / frame_bytes)` pictures wait for the consumer. In order, a reader may run
    ahead of the next picture wanted by that many positions: the reader that holds the next picture is never held
    up, so this cannot lock. Closing the generator stops the threads.
    """
    limit = max(2 * chunk, BUFFER_FRAMES, BUFFER_BYTES // max(frame_bytes, 1))
    waiting: dict[int, Picture] = {}
    following = 0  # the next position to yield (ordered)
    changed = threading.Condition()

    def put(position: int, data: NDArray[np.uint8], index: int, valid: bool) -> None:
        picture = Picture(position, np.array(data), index, valid)
        with changed:
            while not pool.cancelled and (position >= following + limit if ordered else len(waiting) >= limit):
                changed.wait(timeout=1.0)
            pool.check()
            waiting[position] = picture
            if not ordered or position == following:
                changed.notify_all()

    pool = _ThreadPool(spans, make_reader, put, changed)
    owner = os.getpid()
    pool.start(max(1, min(workers, len(spans))))
    try:
        for count in range(total):
            if os.getpid() != owner:
                raise InputError(
                    "frames that are being iterated over cannot be taken along into another process: its threads "
                    "stay behind. Ask for the frames again in this one"
                )
            with changed:
                while True:
                    if pool.error is not None:
                        raise pool.error
                    if ordered and following in waiting:
                        picture = waiting.pop(following)
                        following += 1
                        break
                    if not ordered and waiting:
                        picture = waiting.pop(next(iter(waiting)))
                        break
                    if not pool.running:
                        raise RuntimeError(f"a reader left out {total - count} of {total} pictures")
                    changed.wait(timeout=1.0)
                # Readers wait for a full buffer to have room; waking them for every picture would cost switches.
                if len(waiting) <= limit // 2 or ordered:
                    changed.notify_all()
            yield picture
    finally:
        if os.getpid() == owner:
            pool.stop()
