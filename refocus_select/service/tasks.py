"""One request of a server or page: how far it is, how long it may take, and whether anybody still waits for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..errors import AccessError

_POLL = 0.1  # seconds between looks at whether a waiting request is still wanted


class CancelledError(Exception):
    """Whoever asked does not wait any more."""


class Task:
    """A request that can be cancelled from another thread.

    Attributes:
        done, total: how many candidates are read, of how many; 0 of 0 before reading.
    """

    def __init__(self, timeout: float, report: Callable[[int, int], None] | None = None) -> None:
        """Start the clock.

        Args:
            timeout: seconds that it may take, waiting included.
            report: told `done` and `total` in the thread that works.
        """
        self.done, self.total = 0, 0
        self._timeout, self._deadline = timeout, time.monotonic() + timeout
        self._report = report
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """End it at its next step."""
        self._cancelled.set()

    def check(self) -> None:
        """Go on, or not.

        Raises:
            CancelledError: after `cancel`.
            AccessError: when the time is over.
        """
        if self._cancelled.is_set():
            raise CancelledError
        if time.monotonic() > self._deadline:
            raise AccessError(
                f"this took longer than {self._timeout:g} s and was stopped: ask for a part with start and end, or "
                "start with a larger --timeout"
            )

    def progress(self, done: int, total: int) -> None:
        """Remember how far it is, tell it, and `check`."""
        self.done, self.total = done, total
        if self._report is not None:
            self._report(done, total)
        self.check()

    @contextmanager
    def holding(self, lock: threading.Lock | threading.Semaphore) -> Iterator[None]:
        """Wait for a lock for as long as the task may go on."""
        while not lock.acquire(timeout=_POLL):
            self.check()
        try:
            self.check()
            yield
        finally:
            lock.release()


class Slots:
    """So many tasks work at once, so many wait, and more are refused."""

    def __init__(self, working: int, waiting: int) -> None:
        self._working, self._most = threading.Semaphore(working), working + waiting
        self._lock, self._inside = threading.Lock(), 0
        self._told = f"{working} requests are worked on and {waiting} wait"

    @contextmanager
    def taken(self, task: Task) -> Iterator[None]:
        """Work when it is one's turn.

        Raises:
            AccessError: if too many wait already.
        """
        with self._lock:
            if self._inside >= self._most:
                raise AccessError(f"{self._told}: ask again later, or start with a larger --max-concurrent")
            self._inside += 1
        try:
            with task.holding(self._working):
                yield
        finally:
            with self._lock:
                self._inside -= 1
