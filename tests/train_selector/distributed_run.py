"""Runs of two processes: `torchrun --nproc_per_node 2 -m tests.train_selector.distributed_run FOLDER`."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from refocus_select.errors import VideoDecodeError
from refocus_select.train_selector.trainer import Trainer

from .planted import World
from .small_run import small_policy, small_run

LENGTHS = (8, 10, 12)  # a batch of 3 questions: two for one process, of different lengths, and one for the other
IMITATE = ("stages=[{num_frames: [2], steps: 4, method: evidence}]", "optimiser.batch=3")
REWARD = ("stages=[{num_frames: [2], steps: 4, rollouts: 4, entropy_bonus: 0.05}]", "optimiser.batch=3")
PASSES = (*REWARD, "objective.clip=0.2", "objective.passes=2", "optimiser.micro_batch=1")
MIXED = ("stages=[{num_frames: [2], steps: 2, rollouts: 4}, {num_frames: [2], steps: 2, method: evidence}]",
         "optimiser.batch=3")  # fmt: skip


class Absent(World):
    """One process can read none of these videos."""

    def __call__(self, video: str) -> Any:
        if dist.get_rank() == 1:
            raise VideoDecodeError(f"{video} is out of reach")
        return super().__call__(video)


def _digest(tensors: list[Any]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(b"none" if tensor is None else tensor.detach().numpy().tobytes())
    return digest.hexdigest()


def main(folder: Path) -> None:
    """Several runs, and whether the processes agree at the end of each."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    seen: list[tuple[str, str]] = []
    load_best = Trainer.load_best

    def recorded(trainer: Trainer) -> int:
        parameters = list(trainer.policy.parameters())
        seen.append((_digest(parameters), _digest([p.grad for p in parameters])))
        return load_best(trainer)

    Trainer.load_best = recorded  # type: ignore[method-assign]
    small_run(folder / "imitate", *IMITATE, lengths=LENGTHS)
    small_run(folder / "reward", *REWARD, lengths=LENGTHS)
    small_run(folder / "passes", *PASSES, lengths=LENGTHS)
    small_run(folder / "absent", *MIXED, train=Absent(400, 1))
    result = small_run(folder / "absent", *MIXED, train=Absent(400, 1), policy=small_policy(7))  # over: its result
    everyone: list[Any] = [None, None]
    dist.all_gather_object(everyone, (seen, result.report["accuracy"]))
    if dist.get_rank() == 0:
        (folder / "agreement.json").write_text(json.dumps(everyone))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
