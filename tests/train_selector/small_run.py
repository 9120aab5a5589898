"""Small runs in the planted world: a policy, settings, and a run in a process of its own that can be killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from refocus_select.models.portable import PortableConfig, PortablePolicy
from refocus_select.selectors.dual_encoder import DualEncoderSelector
from refocus_select.train_selector import Request, TrainConfig, TrainResult, train_selector
from refocus_select.train_selector.initialise import reinitialise
from refocus_select.train_selector.metrics import read_log
from refocus_select.train_selector.vector_policy import VectorPolicy

from .planted import Answerer, Vectors, World

GRAIN = 1.0  # of runs that are killed
LEARN = ("optimiser.lr=0.005", "objective.advantage=batch", "objective.reward=probability")


class Sentences:
    """A sentence encoder of a few words."""

    def encode(self, texts: Sequence[str]) -> Tensor:
        rows = [torch.tensor([len(text), text.count("e"), text.count("a"), 1.0]) for text in texts]
        return torch.nn.functional.normalize(torch.stack(rows), dim=-1)


def small_policy(seed: int = 0, *, d: int = 16, **fields: Any) -> VectorPolicy:
    """A `VectorPolicy` over the planted vectors."""
    torch.manual_seed(seed)
    values: dict[str, Any] = {"d_state": 4, "headdim": 8, "entities": 1, "sentence_size": 4, "max_picks": 8, **fields}
    model = PortablePolicy(PortableConfig(d_model=d, **values))
    reinitialise(model, "heads")
    return VectorPolicy(model, DualEncoderSelector(Vectors()), Sentences())


class Both(Answerer):
    """Answers about the training world and the held-out one.

    `before` is called first, with the number of the call. Above 0, `grain` makes every subset a little different.
    """

    def __init__(
        self, worlds: Sequence[World], before: Callable[[int], None] = lambda number: None, grain: float = 0.0
    ) -> None:
        super().__init__(worlds[0])
        self._grain = grain
        self._worlds = {str(world.seed): world for world in worlds}
        self._before = before
        self.calls = 0

    def option_logits(self, requests: Sequence[Request]) -> list[Tensor]:
        self.calls += 1
        self._before(self.calls - 1)
        found = []
        for request in requests:
            self.world = self._worlds[request.clip.key.split("-")[0]]
            (logits,) = super().option_logits([request])
            logits[:, request.question.answer] += self._grain * (request.subsets.double() * 1.7 + 1).sin().mean(1)
            found.append(logits)
        return found


def small_config(folder: str | Path, *words: str) -> TrainConfig:
    """Settings of a run of a second or two; `words` replace them."""
    common = (
        f"output={folder}", "device=cpu", *LEARN, "optimiser.batch=4", "optimiser.warmup_steps=4",
        "stages=[{num_frames: [2], steps: 6, rollouts: 4}]", "validation.questions=12", "validation.every=4",
        "checkpoint_every=5", "test_questions=20",
    )  # fmt: skip
    return TrainConfig.load(None, [*common, *words])


def small_run(
    folder: str | Path,
    *words: str,
    before: Callable[[int], None] = lambda number: None,
    lengths: Sequence[int] = (12,),
    grain: float = 0.0,
    policy: VectorPolicy | None = None,
    **given: Any,
) -> TrainResult:
    """A run in the planted world."""
    worlds = World(400, 1, lengths=lengths), World(48, 2, lengths=lengths)
    torch.set_num_threads(1)
    arguments: dict[str, Any] = {"train": worlds[0], "validation": worlds[1], "reference": Both(worlds, before, grain)}
    arguments["policy"] = policy or small_policy()
    return train_selector(small_config(folder, *words), **(arguments | given))


def killed_run(folder: str, words: Sequence[str], name: str, number: int, lengths: Sequence[int]) -> None:
    """A run that is killed at the `number`-th call of `name` ("" for the reference model); for a process of its own."""

    def die(call: int) -> None:
        if call == number:
            os.kill(os.getpid(), signal.SIGKILL)

    if not name:
        small_run(folder, *words, before=die, lengths=lengths, grain=GRAIN)
        return
    original, calls = getattr(os, name), iter(range(10**9))

    def counted(*arguments: Any, **named: Any) -> Any:
        die(next(calls))
        return original(*arguments, **named)

    setattr(os, name, counted)
    small_run(folder, *words, lengths=lengths, grain=GRAIN)


def weights(folder: str | Path) -> bytes:
    """The weights of a result."""
    return (Path(folder) / "selector" / "model.safetensors").read_bytes()


def log(folder: str | Path) -> list[dict[str, Any]]:
    """The log without what the clock decides."""
    return [{k: v for k, v in row.items() if k != "seconds"} for row in read_log(Path(folder))]


def rows_of(folder: str | Path, kind: str) -> list[dict[str, Any]]:
    """The rows of a kind."""
    return [row for row in log(folder) if row["kind"] == kind]
