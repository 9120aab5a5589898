"""Checkpoints: complete or not there, so that a run that is killed goes on from the last one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..errors import InputError
from ..files import remove_leftovers, replacing_folder

WEIGHTS, OPTIMISER, STATE = "model.safetensors", "optimiser.safetensors", "state.json"


def save_checkpoint(folder: Path, model: nn.Module, optimiser: torch.optim.Optimizer, state: dict[str, Any]) -> Path:
    """Write the checkpoint of `state["step"]` under a temporary name and move it into place."""
    target = at_step(folder, state["step"])
    with replacing_folder(target) as scratch:
        save_file({n: t.detach().cpu().contiguous() for n, t in model.state_dict().items()}, scratch / WEIGHTS)
        save_file(_flat(optimiser), scratch / OPTIMISER)
        (scratch / STATE).write_text(json.dumps(state, indent=1), encoding="utf-8")
    return target


def load_checkpoint(path: Path, model: nn.Module, optimiser: torch.optim.Optimizer | None) -> dict[str, Any]:
    """Fill model and optimiser.

    Returns:
        The state that was saved.

    Raises:
        InputError: if the checkpoint is damaged or of another model.
    """
    try:
        model.load_state_dict(load_file(path / WEIGHTS))
        if optimiser is not None:
            _fill(optimiser, load_file(path / OPTIMISER))
        state: dict[str, Any] = json.loads((path / STATE).read_text(encoding="utf-8"))
    except Exception as error:  # safetensors, json and torch raise their own
        raise InputError(
            f"the checkpoint {path} is damaged or of another model ({error}); remove it to go on from the one before"
        ) from error
    return state


def numbered(folder: Path) -> list[Path]:
    """The complete checkpoints by step, oldest first."""
    return sorted(folder.glob("step-*")) if folder.is_dir() else []


def at_step(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return folder / f"step-{step:08d}"


def clean(folder: Path, keep: int) -> None:
    """Remove all but the last checkpoints and the best ones these go back to, and what killed processes left."""
    found = numbered(folder)
    best = {json.loads((path / STATE).read_text(encoding="utf-8"))["best_step"] for path in found[-keep:]}
    for path in set(found[:-keep]) - {at_step(folder, step) for step in best}:
        shutil.rmtree(path, ignore_errors=True)
    remove_leftovers(folder)


def _flat(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state of an optimiser as named tensors: "<parameter>.<what>"."""
    state = optimiser.state_dict()["state"]
    return {
        f"{index}.{what}": value.detach().cpu().contiguous() if isinstance(value, Tensor) else torch.tensor(value)
        for index, values in state.items()
        for what, value in values.items()
    }


def _fill(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, what = name.split(".", 1)
        state.setdefault(int(index), {})[what] = tensor
    whole = optimiser.state_dict()
    whole["state"] = state
    optimiser.load_state_dict(whole)
