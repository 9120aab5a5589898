"""What the network of the paper takes to train, from pieces of it that are measured here: memory, disk and time.

A whole network of 1.3B parameters need not fit, or be at hand: one block of its width is built with random weights,
run forward and backward, and its time and the bytes that wait for the backward pass are counted. So are one block of
the vision tower, and the decoding of one of the run's videos. Everything else is sizes and multiplication.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import VideoError
from ..models.backbone import Block
from ..models.config import RefocusConfig
from ..models.vision import SiglipBlock
from ..reference.clips import VideoClip
from .config import TrainConfig
from .data import QuestionSet, evenly

_TOKENS = 512  # of the measured block
_PROMPT = 200  # tokens around the frames, options included
_VISION_BATCH = 8


@dataclass(frozen=True)
class Pieces:
    """What was measured.

    Attributes:
        forward, backward: seconds per token of one block; `backward` without computing it again.
        saved: bytes per token that one block keeps for the backward pass if all of it is kept.
        vision: seconds per picture of one block of the tower.
        decode: seconds per video of the run, all candidates; None if none could be read.
        candidates: of the videos, on average.
        read: videos that were decoded for that.
    """

    forward: float
    backward: float
    saved: float
    vision: float
    decode: float | None
    candidates: float
    read: int


def measure(network: RefocusConfig, config: TrainConfig, questions: QuestionSet, device: torch.device) -> Pieces:
    """Measure pieces of a run on this machine; takes some seconds."""
    block = Block(network).to(device)
    block.mixer.at_once = True
    stream = torch.randn(1, _TOKENS, network.d_model, device=device, requires_grad=True)
    state = block.mixer.empty_state(1)
    bf16 = config.optimiser.mixed_precision == "bf16"

    def forward() -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            out: Tensor = block(stream, state, True)[0]
        return out

    weights = {p.untyped_storage().data_ptr() for p in block.parameters()}
    kept: dict[int, tuple[int, Tensor]] = {}  # the tensors too, so that no address is given away twice

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = forward()
    saved = sum(size for size, _ in kept.values()) / _TOKENS
    kept.clear()
    backward = _seconds(lambda: out.float().sum().backward(), device, runs=1)
    with torch.no_grad():
        ahead = _seconds(forward, device)
        tower = SiglipBlock(network.vision).to(device)
        patches = torch.randn(_VISION_BATCH, network.vision.grid**2, network.vision.hidden_size, device=device)
        vision = _seconds(lambda: tower(patches), device) / _VISION_BATCH
    decode, counts = [], []
    for place in evenly(len(questions), 3):
        try:
            clip = questions.clips(questions.questions[int(place)].video)
            counts.append(len(clip))
            if isinstance(clip, VideoClip):
                started = time.perf_counter()
                clip.pictures(np.arange(len(clip)), size=(network.vision.image_size,) * 2)
                decode.append(time.perf_counter() - started)
        except VideoError:
            continue
    return Pieces(
        forward=ahead / _TOKENS,
        backward=backward / _TOKENS,
        saved=saved,
        vision=vision,
        decode=sum(decode) / len(decode) if decode else None,
        candidates=sum(counts) / len(counts) if counts else config.data.max_frames,
        read=len(decode),
    )


def _seconds(work: Callable[[], object], device: torch.device, runs: int = 2) -> float:
    """Least seconds of a few runs, after one for warming up if there are several."""
    found = []
    for _ in range(runs + (runs > 1)):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        found.append(time.perf_counter() - started)
    return min(found[1:] or found)


def parameters(network: RefocusConfig) -> tuple[int, int]:
    """Numbers of the network without its vision tower, and of that."""
    from ..models.refocus import RefocusModel

    with torch.device("meta"):
        model = RefocusModel(network)
    tower = 0 if model.vision is None else sum(p.numel() for p in model.vision.parameters())
    return sum(p.numel() for p in model.parameters()) - tower, tower


def state_bytes(network: RefocusConfig) -> int:
    """Bytes of the recurrent state of all layers behind one token."""
    ssm = network.ssm
    inner = ssm.expand * network.d_model
    conv = (ssm.d_conv - 1) * (inner + 2 * ssm.ngroups * ssm.d_state)
    return 4 * network.n_layer * (inner * ssm.d_state + conv)


def memory(network: RefocusConfig, config: TrainConfig, pieces: Pieces, questions_each: int) -> dict[str, float]:
    """Bytes of the policy's device at the peak of a step, by part."""
    policy, tower = parameters(network)
    trained = policy + (tower if config.policy.train_vision else 0)
    tokens = config.data.max_frames * network.tokens_per_frame
    segment = min(tokens, config.policy.segment_tokens)
    segments = math.ceil(tokens / segment)
    width = 4 * network.d_model * network.n_layer  # inputs of all layers at one token
    rollouts = max(stage.rollouts * (max(stage.num_frames) + 1) for stage in config.stages)
    reading = segments * state_bytes(network) + (_PROMPT + rollouts) * width
    limit = config.policy.readings_kept
    kept = max(1, questions_each if limit is None else min(limit, questions_each))
    if config.policy.gradient_checkpointing:
        parts = {
            "inputs of all layers, one segment": float(segment * width),
            "one layer of one segment": pieces.saved * segment,
            "its gradients, about as much": pieces.saved * segment,
        }
    else:
        parts = {"all layers of the whole prompt": pieces.saved * tokens * network.n_layer * kept}
    return {
        "weights": 4.0 * (policy + tower),
        "gradients": 4.0 * trained,
        "AdamW": 8.0 * trained,
        f"readings that wait for rewards ({kept})": float(kept * reading),
        **parts,
        f"vision tower, {_VISION_BATCH} frames": float(
            _VISION_BATCH * network.vision.grid**2 * 4 * (6 * network.vision.hidden_size
                                                          + 2 * network.vision.intermediate_size)
        ),
    }  # fmt: skip


def question_seconds(network: RefocusConfig, config: TrainConfig, pieces: Pieces) -> dict[str, float]:
    """Seconds of this device for one question of a step, by part, without the reference model."""
    tokens = pieces.candidates * network.tokens_per_frame + _PROMPT
    again = 2 if config.policy.gradient_checkpointing else 0
    limit = config.policy.readings_kept
    readings = 1 if limit is None or limit > 0 else 2
    layers = network.n_layer
    steps = [stage.rollouts * (max(stage.num_frames) + 1) for stage in config.stages]
    return {
        "reading": readings * tokens * layers * pieces.forward,
        "gradient": tokens * layers * (again * pieces.forward + pieces.backward),
        "picking": 2 * sum(steps) / len(steps) * layers * pieces.forward,
        "vision tower": pieces.candidates * network.vision.num_hidden_layers * pieces.vision,
        "decoding": pieces.decode or 0.0,
    }
