"""The processes of a run: one, or as many as `accelerate launch` or `torchrun` started."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..errors import InputError


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

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model with gradients that are averaged over the processes."""
        if self.size == 1:
            return model
        # The rank head and the embedding of a second stack take no part in the loss.
        devices = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=devices, find_unused_parameters=True)

    def no_sync(self, model: nn.Module) -> AbstractContextManager[Any]:
        """Keep the gradients of a backward pass to this process; they are averaged by the next one."""
        return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, by rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        """Wait until all processes have reached this point."""
        if self.size > 1:
            dist.barrier()

    def close(self) -> None:
        """Leave the group."""
        if self._started:
            dist.destroy_process_group()
            self._started = False
