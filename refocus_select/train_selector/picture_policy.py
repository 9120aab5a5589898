"""`PicturePolicy`: the network of the paper under training, which reads pictures and text."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..errors import InputError
from ..models.backbone import BackboneState
from ..models.checkpoint import fingerprint
from ..models.preprocess import prepare_frames, resize_frames
from ..models.prompt import multiple_choice_text
from ..models.refocus import Reading, RefocusModel
from ..questions import Question
from ..reference.clips import Clip
from ..selectors import FrameSelector
from ..selectors.policy import PolicySelector
from ..video import CandidateRule, Frames
from .objective import entropies
from .policy import Policy, PolicyInputs, Rollouts


class PicturePolicy(Policy):
    """Reads pictures through a SigLIP tower, and questions as text: the network of the paper.

    One question at a time: prompts have a hundred thousand tokens. With gradient checkpointing they are read in
    segments of which only the state behind each is kept; in the backward pass a segment is read again, layer by layer,
    and of a layer only its input is kept until its own turn. So no more than one layer of one segment is ever whole.
    """

    model: RefocusModel

    def __init__(
        self,
        selector: PolicySelector,
        *,
        train_vision: bool = False,
        gradient_checkpointing: bool = True,
        segment_tokens: int = 8192,
        readings_kept: int | None = None,
        feature_dtype: torch.dtype = torch.bfloat16,
    ) -> None:
        """Wrap a network.

        Args:
            selector: with the network and its tokenizer. Its configuration decides whether answer options are read.
            train_vision: keep pictures instead of features, and train the tower too.
            gradient_checkpointing: see the class.
            segment_tokens: visual tokens of a segment.
            readings_kept: see `Policy`.
            feature_dtype: of the kept features; bfloat16 takes 231 MB for 512 frames of 196 tokens.
        """
        super().__init__()
        self.model = selector.model
        self.readings_kept = readings_kept
        self._tokenizer = selector.tokenizer
        self._checkpointing = gradient_checkpointing
        self.model.backbone.gradient_checkpointing = gradient_checkpointing
        self._segment = max(1, segment_tokens // self.model.config.tokens_per_frame)
        self.reader = TowerReader(self.model, None if train_vision else feature_dtype)

    def inputs(self, question: Question, clip: Clip) -> PolicyInputs:
        """See `Policy`."""
        frames = clip.encoding(self.reader).tensors["features"]
        times = torch.from_numpy(np.asarray(clip.timestamps, dtype=np.float32))
        text = question.question
        if self.model.config.answer_options:
            text = multiple_choice_text(text, question.options)
        return PolicyInputs(frames, times, self._tokenizer.suffix(text))

    def group(self, inputs: PolicyInputs) -> Hashable:
        """See `Policy`."""
        return id(inputs)

    def read(self, batch: Sequence[PolicyInputs]) -> Reading:
        """See `Policy`."""
        if len(batch) != 1:
            raise InputError(f"this policy reads one question at a time, not {len(batch)}")
        inputs = batch[0]
        state = self.model.start(self._tokenizer.prefix().to(self.device))
        keys, values = [], []
        for segment in inputs.frames.split(self._segment):
            if self._checkpointing and torch.is_grad_enabled():
                k, v, state = checkpoint(self._read_segment, segment, state, use_reentrant=False)
            else:
                k, v, state = self._read_segment(segment, state)
            keys.append(k)
            values.append(v)
        state = self.model.read_text(inputs.question[None].to(self.device), state)
        return Reading(torch.cat(keys)[None], torch.cat(values)[None], state)

    @torch.no_grad()
    def pick(
        self, reading: Reading, steps: int, *, rollouts: int = 1, sample: bool = False, **how: Any
    ) -> tuple[Tensor, Tensor]:
        """See `Policy`."""
        decoded = self.model.decode(
            reading.keys, reading.values, reading.state, steps=steps, num_samples=rollouts, sample=sample, rank=False,
            **how,
        )  # fmt: skip
        return decoded.picks, decoded.log_probs[:, 0, 0]

    def score(self, reading: Reading, picks: Tensor, temperature: float) -> Rollouts:
        """See `Policy`."""
        scored = self.model.score(reading.keys, reading.values, reading.state, picks, temperature=temperature)
        return Rollouts(picks, scored.pick_log_probs, None, entropies(scored.log_probs), scored.log_probs)

    def _read_segment(self, segment: Tensor, state: BackboneState) -> tuple[Tensor, Tensor, BackboneState]:
        if segment.dtype == torch.uint8:
            pixels = prepare_frames(segment.numpy(), self.model.config.vision).to(self.model.device)
            tokens = self.model.embed_frames(pixels)
        else:
            tokens = self.model.projector(segment.to(self.device, self.model.dtype))
        return self.model.read_frames(tokens, state)

    def selector(self, name: str) -> PolicySelector:
        """See `Policy`."""
        return PolicySelector(self.model, self._tokenizer, name=name)


class TowerReader(FrameSelector):
    """Keeps the pooled features of a frozen SigLIP tower, or the pictures when the tower is trained too."""

    ordered = False

    def __init__(self, model: RefocusModel, dtype: torch.dtype | None) -> None:
        """Read with the tower of `model`; `dtype` is that of kept features, None keeps the pictures."""
        self._model = model
        self._dtype = dtype
        self.name = "pictures" if dtype is None else "tower"
        self.rule = CandidateRule(model.config.max_fps, model.config.max_num_frames)
        if dtype is None:
            self.fingerprint = f"pictures-{model.config.vision.image_size}"
        else:  # the tower alone decides the features, and it is frozen: the rest of the network may change
            facts = {"vision": asdict(model.config.vision), "pool": model.config.mm_spatial_pool_mode}
            tower = fingerprint(model, part="vision.", settings=facts)
            self.fingerprint = f"tower-{str(dtype).removeprefix('torch.')}-{tower[:40]}"

    @torch.no_grad()
    def encode_frames(self, frames: Iterator[Frames], total: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """See `FrameSelector`."""
        rows = []
        for piece in frames:
            if self._dtype is None:
                rows.append(torch.from_numpy(resize_frames(piece.data, self._model.config.vision.image_size)))
            else:
                pixels = prepare_frames(piece.data, self._model.config.vision).to(self._model.device)
                rows.append(self._model.pool_frames(pixels).to(self._dtype).cpu())
        return {"features": torch.cat(rows)}, {}

    def choose(self, *_: object, **__: object) -> list:
        """Refused: this reader is for training only."""
        raise InputError("this reader only keeps features; it chooses no frames")
