"""The policy under training: a `RefocusModel` with what it reads, drawing subsets and scoring them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..errors import InputError
from ..models.backbone import BackboneState
from ..models.checkpoint import fingerprint
from ..models.preprocess import prepare_frames, resize_frames
from ..models.refocus import RefocusModel
from ..models.vectors import Reading, TextEncoder, question_parts, read_vectors
from ..questions import Question
from ..reference.clips import Clip
from ..selectors import FrameSelector
from ..selectors.dual_encoder import VECTORS, DualEncoderSelector
from ..selectors.policy import PolicySelector
from ..selectors.vector_policy import VectorPolicySelector
from ..video import CandidateRule, Frames
from .objective import entropies


@dataclass(frozen=True)
class PolicyInputs:
    """What the policy reads for one question.

    Attributes:
        frames: vectors [F, h]; for policies that read pictures pooled features [F, T, h], or pixels uint8 [F, H, W, 3].
        times: seconds, float32 [F].
        question: vectors [P, h], or token ids int64 [L].
    """

    frames: Tensor
    times: Tensor
    question: Tensor


@dataclass(frozen=True)
class Rollouts:
    """Subsets of B questions, in the order of picking.

    Attributes:
        picks: positions among the candidates, int64 [B, N, K].
        log_probs: of each pick, [B, N, K].
        entropy: of each pick's distribution in nats, [B, N, K].
        distributions: log-probabilities of all frames before each pick, [B, N, K, F]; -inf for those picked already.
    """

    picks: Tensor
    log_probs: Tensor
    entropy: Tensor
    distributions: Tensor


class Policy(nn.Module, ABC):
    """A policy under training.

    Attributes:
        model: the network.
        reader: the selector whose encodings hold the frames' features.
    """

    model: RefocusModel
    reader: FrameSelector

    @property
    def device(self) -> torch.device:
        """Where the network lies."""
        return self.model.device

    @abstractmethod
    def inputs(self, question: Question, clip: Clip) -> PolicyInputs:
        """What the network reads, on the CPU.

        Raises:
            RefocusError: if the video cannot be read.
        """

    @abstractmethod
    def group(self, inputs: PolicyInputs) -> Hashable:
        """Inputs with equal values can be read in one batch."""

    @abstractmethod
    def read(self, batch: Sequence[PolicyInputs]) -> Reading:
        """Read a batch, with gradient if it is enabled."""

    def disturbed(self, inputs: PolicyInputs, generator: torch.Generator) -> PolicyInputs:
        """Inputs as they are learned from, if that differs from how they are read later."""
        return inputs

    @abstractmethod
    def selector(self, name: str) -> FrameSelector:
        """The network behind the interface of a selector, sharing its weights."""

    def forward(
        self,
        batch: Sequence[PolicyInputs],
        picks: Tensor | None = None,
        *,
        rollouts: int = 1,
        steps: int = 8,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Rollouts:
        """Score given subsets, or draw and score new ones, from one reading of videos and questions.

        Drawing takes no gradient. Scoring is one parallel pass over all picks, and its gradient goes through the state
        into the reading of the prompt.

        Args:
            batch: inputs of one group.
            picks: [B, N, K]; None draws `rollouts` subsets of `steps` picks.

        Raises:
            FloatingPointError: if the network no longer gives numbers.
        """
        reading = self.read(batch)
        if not reading.finite:
            raise FloatingPointError("what the policy reads in the videos is not finite")
        if picks is None:
            still = reading.detached()
            picks = self.model.decode(
                still.keys,
                still.values,
                still.state,
                steps=steps,
                num_samples=rollouts,
                sample=True,
                temperature=temperature,
                generator=generator,
                similarity=still.similarity,
                rank=False,
            ).picks
        scored = self.model.score(
            reading.keys,
            reading.values,
            reading.state,
            picks.to(self.device),
            temperature=temperature,
            similarity=reading.similarity,
        )
        return Rollouts(picks, scored.pick_log_probs, entropies(scored.log_probs), scored.log_probs)

    @torch.no_grad()
    def greedy(self, batch: Sequence[PolicyInputs], steps: int) -> tuple[Tensor, Tensor]:
        """The best frame at every step: picks [B, K], and log-probabilities of the first pick [B, F]."""
        reading = self.read(batch)
        decoded = self.model.decode(
            reading.keys, reading.values, reading.state, steps=steps, similarity=reading.similarity, rank=False
        )
        return decoded.picks[:, 0], decoded.log_probs[:, 0, 0]


class VectorPolicy(Policy):
    """Reads the vectors of a dual encoder; questions about videos of equal length share a batch."""

    def __init__(self, model: RefocusModel, reader: DualEncoderSelector, *, wording_noise: float = 0.0) -> None:
        """Wrap a network.

        Args:
            model: with `frame_encoder` "none".
            reader: whose vectors it reads.
            wording_noise: while learning, the vector of a question's sentence gets a random part of up to so many times
                its own length. What is learned from a few dozen wordings then depends on what they share, and other
                wordings are read by the things that they name.

        Raises:
            InputError: if there is noise for a network that reads questions as one vector.
        """
        super().__init__()
        if wording_noise and not model.config.question_mentions:
            raise InputError(
                "policy.wording_noise is for policies that read what a question names apart from its "
                "sentence: set policy.question_mentions above 0"
            )
        self.model, self.wording_noise = model, wording_noise
        self.reader: DualEncoderSelector = reader
        self._memo = Memo(reader.encoder)

    def inputs(self, question: Question, clip: Clip) -> PolicyInputs:
        vectors = clip.encoding(self.reader).tensors[VECTORS]
        times = torch.from_numpy(np.asarray(clip.timestamps, dtype=np.float32))
        asked = question_parts(self._memo, [question.question], self.model.config.question_mentions)[0]
        return PolicyInputs(vectors, times, asked)

    def disturbed(self, inputs: PolicyInputs, generator: torch.Generator) -> PolicyInputs:
        if not self.wording_noise:
            return inputs
        sentence, *named = inputs.question.unbind(0)
        random = torch.randn(sentence.shape, generator=generator)
        size = self.wording_noise * torch.rand((), generator=generator) * sentence.norm() / random.norm()
        return replace(inputs, question=torch.stack([sentence + size * random, *named]))

    def group(self, inputs: PolicyInputs) -> Hashable:
        return len(inputs.frames)

    def read(self, batch: Sequence[PolicyInputs]) -> Reading:
        stacked = (torch.stack([getattr(i, name) for i in batch]) for name in ("frames", "question", "times"))
        return read_vectors(self.model, *(tensor.to(self.device).float() for tensor in stacked))

    def selector(self, name: str) -> VectorPolicySelector:
        return VectorPolicySelector(self.model, self.reader.encoder, name=name)


class Memo:
    """Vectors of texts, kept.

    Each is encoded alone: in a batch its last digits would depend on the others, and a run that goes on from a
    checkpoint would differ from one that was never broken off.
    """

    def __init__(self, encoder: TextEncoder) -> None:
        self._encoder = encoder
        self._known: dict[str, Tensor] = {}

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Float32 [len(texts), h]."""
        for text in texts:
            if text not in self._known:
                self._known[text] = self._encoder.encode_text([text])[0].float()
        return torch.stack([self._known[text] for text in texts])


class PicturePolicy(Policy):
    """Reads pictures through a SigLIP tower, and questions as text: the network of the paper.

    One question at a time: prompts have a hundred thousand tokens. They are read in segments, which are computed again
    in the backward pass instead of being kept.
    """

    def __init__(
        self,
        selector: PolicySelector,
        *,
        options: bool = False,
        train_vision: bool = False,
        gradient_checkpointing: bool = True,
        segment_tokens: int = 8192,
    ) -> None:
        super().__init__()
        self.model = selector.model
        self._tokenizer = selector.tokenizer
        self._options = options
        self._train_vision = train_vision
        self._checkpointing = gradient_checkpointing
        self._segment = max(1, segment_tokens // self.model.config.tokens_per_frame)
        self.reader = TowerReader(self.model, keep_pixels=train_vision)

    def inputs(self, question: Question, clip: Clip) -> PolicyInputs:
        frames = clip.encoding(self.reader).tensors["features"]
        times = torch.from_numpy(np.asarray(clip.timestamps, dtype=np.float32))
        text = question.question
        if self._options:
            from ..models.prompt import multiple_choice_text

            text = multiple_choice_text(text, question.options)
        return PolicyInputs(frames, times, self._tokenizer.suffix(text))

    def group(self, inputs: PolicyInputs) -> Hashable:
        return id(inputs)

    def read(self, batch: Sequence[PolicyInputs]) -> Reading:
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
        return Reading(torch.cat(keys)[None], torch.cat(values)[None], state, None)

    def _read_segment(self, segment: Tensor, state: BackboneState) -> tuple[Tensor, Tensor, BackboneState]:
        if segment.dtype == torch.uint8:
            pixels = prepare_frames(segment.numpy(), self.model.config.vision).to(self.device)
            tokens = self.model.embed_frames(pixels)
        else:
            tokens = self.model.projector(segment.to(self.device, self.model.dtype))
        return self.model.read_frames(tokens, state)

    def selector(self, name: str) -> PolicySelector:
        return PolicySelector(self.model, self._tokenizer, name=name)


class TowerReader(FrameSelector):
    """Keeps the pooled features of a frozen SigLIP tower, or the pictures when the tower is trained too."""

    ordered = False

    def __init__(self, model: RefocusModel, *, keep_pixels: bool) -> None:
        self._model = model
        self._keep_pixels = keep_pixels
        self.name = "pictures" if keep_pixels else "tower"
        self.rule = CandidateRule(model.config.max_fps, model.config.max_num_frames)
        side = model.config.vision.image_size
        # The tower alone decides the features, and it is frozen: the rest of the network may change.
        self.fingerprint = f"pictures-{side}" if keep_pixels else f"tower-{fingerprint(model, part='vision.')[:40]}"

    @torch.no_grad()
    def encode_frames(self, frames: Iterator[Frames], total: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        rows = []
        for piece in frames:
            if self._keep_pixels:
                rows.append(torch.from_numpy(resize_frames(piece.data, self._model.config.vision.image_size)))
            else:
                pixels = prepare_frames(piece.data, self._model.config.vision).to(self._model.device)
                rows.append(self._model.pool_frames(pixels).to(self._model.dtype).cpu())
        return {"features": torch.cat(rows)}, {}

    def choose(self, *_: object, **__: object) -> list:
        raise InputError("this reader only keeps features; it chooses no frames")
