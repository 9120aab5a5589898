"""The processes of a run: one, or as many as `accelerate launch` or `torchrun` started."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from ..errors import InputError

_BUCKET = 2**24  # numbers that are summed in one exchange


class ProcessGroup:
    """The processes of a run: which one this is, and what they do together.

    Attributes:
        rank: of this process, from 0.
        size: number of processes.
        device: of this process.
    """

    def __init__(self, device: str | None = None) -> None:
        """Join the processes that the launcher's environment variables (RANK, WORLD_SIZE, …) describe.

        Args:
            device: "cpu", "cuda", …; by default the GPU if there is one, each process its own.

        Raises:
            InputError: if there are fewer GPUs than processes on this machine.
        """
        self.rank, self.size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        local = int(os.environ.get("LOCAL_RANK", 0))
        chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        if chosen.type == "cuda" and chosen.index is None:
            if local >= torch.cuda.device_count():
                raise InputError(
                    f"process {local} of this machine has no GPU of its own ({torch.cuda.device_count()} there); start "
                    "fewer processes, or set device=cpu"
                )
            chosen = torch.device("cuda", local)
            torch.cuda.set_device(chosen)  # what is gathered with NCCL passes through the current GPU
        self.device = chosen
        self._started = False
        if self.size > 1 and not dist.is_initialized():
            dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
            self._started = True

    @property
    def is_main_process(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def same_weights(self, model: nn.Module) -> None:
        """Give all processes the weights of the first."""
        if self.size > 1:
            for tensor in (*model.parameters(), *model.buffers()):
                dist.broadcast(tensor.data, 0)

    def sum_gradients(self, model: nn.Module) -> None:
        """Replace the gradients by their sums over the processes, each of which may have any part of them.

        Once per step, after all backward passes: processes may so read different numbers of questions, and what no
        process has a gradient for stays without one.
        """
        if self.size == 1:
            return
        trained = [p for p in model.parameters() if p.requires_grad]
        there = torch.tensor([p.grad is not None for p in trained], dtype=torch.int32, device=self.device)
        dist.all_reduce(there, dist.ReduceOp.MAX)
        bucket: list[nn.Parameter] = []
        for p, somewhere in zip(trained, there.tolist(), strict=True):
            if not somewhere:
                continue
            if p.grad is None:
                p.grad = torch.zeros_like(p)
            if bucket and (bucket[0].dtype != p.dtype or sum(q.numel() for q in bucket) + p.numel() > _BUCKET):
                _sum(bucket)
                bucket = []
            bucket.append(p)
        if bucket:
            _sum(bucket)

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, by rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def broadcast(self, value: Any) -> Any:
        """The value of the main process."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, 0)
        return values[0]

    def barrier(self) -> None:
        """Wait until all processes have reached this point."""
        if self.size > 1:
            dist.barrier()

    def close(self) -> None:
        """Leave the group."""
        if self._started:
            dist.destroy_process_group()
            self._started = False


def _sum(parameters: Sequence[nn.Parameter]) -> None:
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))
