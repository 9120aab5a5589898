"""Feeding the trainer: the questions of a step with what the policy reads of them, the next step's meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from ..reference.clips import VideoFiles
from .compare import Item, UnreadableItem, load_item
from .config import TrainConfig
from .data import Batches, QuestionSet
from .policy import Policy
from .process_group import ProcessGroup

_FILE_WORKERS = 4


def workers_of(config: TrainConfig, questions: QuestionSet) -> int:
    """Threads that load: `data.workers`, by default a few for files and none for videos that a program makes."""
    if config.data.workers is not None:
        return config.data.workers
    return _FILE_WORKERS if isinstance(questions.clips, VideoFiles) else 0


class ItemLoader:
    """Loads the items of steps, those of this process.

    Loading is decoding and the frozen encoders' work: no weights that are trained take part, so that it does not matter
    when it is done.
    """

    def __init__(
        self, policy: Policy, questions: QuestionSet, stages: Sequence[Batches], processes: ProcessGroup, workers: int
    ) -> None:
        """Load for the stages whose batches are given; 0 workers load when asked."""
        self._policy, self._questions, self._stages, self._processes = policy, questions, stages, processes
        self._pool = ThreadPoolExecutor(workers, "loader") if workers else None
        self._waiting: dict[tuple[int, int], list[Future[Item | UnreadableItem]]] = {}

    def places(self, stage: int, step: int) -> np.ndarray:
        """Positions of the questions of this process in a step of a stage."""
        return self._stages[stage][step][self._processes.rank :: self._processes.size]

    def items(self, stage: int, step: int, then: tuple[int, int] | None) -> list[tuple[int, Item | UnreadableItem]]:
        """Items of a step with their positions; `then` is the step to prepare meanwhile."""
        places = [int(place) for place in self.places(stage, step)]
        if self._pool is None:
            return [(place, self._load(place)) for place in places]
        self._prepare(stage, step)
        found = self._waiting.pop((stage, step))
        for key in [key for key in self._waiting if key != then]:  # a stage has ended early
            for future in self._waiting.pop(key):
                future.cancel()
        if then is not None:
            self._prepare(*then)
        return [(place, future.result()) for place, future in zip(places, found, strict=True)]

    def _prepare(self, stage: int, step: int) -> None:
        if (stage, step) not in self._waiting and self._pool is not None:
            self._waiting[stage, step] = [self._pool.submit(self._load, int(p)) for p in self.places(stage, step)]

    def _load(self, place: int) -> Item | UnreadableItem:
        return load_item(self._policy, self._questions, place)

    def close(self) -> None:
        """Drop what was prepared."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
