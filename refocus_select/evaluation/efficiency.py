"""The efficiency table: parameters, operations, time and memory of a selector on a video."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ..selectors import FrameSelector


def efficiency(selector: FrameSelector, video: str, question: str, num_frames: int, runs: int = 3) -> dict[str, Any]:
    """What choosing from one video takes on this machine.

    Operations are counted while it runs, not estimated: those of matrix products, convolutions and attention, two for
    each multiplication and addition. What an encoder does outside of torch is not seen.

    Args:
        selector: any.
        video: a file.
        question: asked about it, twice: the second time the video is encoded already.
        num_frames: K.
        runs: of which the fastest counts.

    Returns:
        "parameters" of each part; "tera_flops" and "seconds" of "video" (decoding included) and "question";
        "candidates"; "memory_bytes", the peak on a GPU, None elsewhere.
    """
    devices = {parameter.device for part in _parts(selector).values() for parameter in part.parameters()}
    gpu = next((device for device in devices if device.type == "cuda"), None)
    if gpu is not None:
        torch.cuda.reset_peak_memory_stats(gpu)
    with FlopCounterMode(display=False) as counted:
        encoding = selector.encode(video, cache=False, progress=False)
    flops = {"video": counted.get_total_flops() / 1e12}
    with FlopCounterMode(display=False) as counted:
        selector.select(encoding, question, num_frames=num_frames)
    flops["question"] = counted.get_total_flops() / 1e12
    seconds = {
        "video": _fastest(lambda: selector.encode(video, cache=False, progress=False), gpu, runs),
        "question": _fastest(lambda: selector.select(encoding, question, num_frames=num_frames), gpu, runs),
    }
    return {
        "selector": selector.name,
        "device": str(gpu or "cpu"),
        "candidates": len(encoding),
        "num_frames": num_frames,
        "parameters": {name: sum(p.numel() for p in part.parameters()) for name, part in _parts(selector).items()},
        "tera_flops": flops,
        "seconds": seconds,
        "memory_bytes": None if gpu is None else torch.cuda.max_memory_allocated(gpu),
    }


def _parts(selector: FrameSelector) -> dict[str, nn.Module]:
    """The networks of a selector: its policy, and the encoder that it reads."""
    found: dict[str, nn.Module] = {}
    for name in ("model", "encoder"):
        part = getattr(selector, name, None)
        if isinstance(part, nn.Module):
            found[name] = part
        else:  # an encoder that holds its networks
            held = {key: value for key, value in vars(part).items() if isinstance(value, nn.Module)} if part else {}
            found |= {f"{name}.{key}": value for key, value in held.items()}
    return found


def _fastest(work: Callable[[], object], gpu: torch.device | None, runs: int) -> float:
    found = []
    for _ in range(runs):
        if gpu is not None:
            torch.cuda.synchronize(gpu)
        started = time.perf_counter()
        work()
        if gpu is not None:
            torch.cuda.synchronize(gpu)
        found.append(time.perf_counter() - started)
    return min(found)


def efficiency_table(found: dict[str, Any]) -> str:
    """The result as text."""
    parameters = ", ".join(f"{name} {count / 1e6:.2f} M" for name, count in found["parameters"].items())
    lines = [
        f"{found['selector']} on {found['device']}: {found['num_frames']} of {found['candidates']} candidates",
        f"parameters     {sum(found['parameters'].values()) / 1e6:.2f} M ({parameters or 'none'})",
        "               TFLOP (counted)   seconds",
    ]
    for name, label in (("video", "a new video"), ("question", "a question")):
        lines.append(f"{label:<15}{found['tera_flops'][name]:>15.3f} {found['seconds'][name]:>9.3f}")
    if found["memory_bytes"] is not None:
        lines.append(f"memory         {found['memory_bytes'] / 2**30:.2f} GiB at the peak")
    return "\n".join(lines)
