"""The policy under training: a network with what it reads, drawing subsets and scoring them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..errors import InputError
from ..models.backbone import BackboneState
from ..models.checkpoint import fingerprint
from ..models.cues import relative_texts, similarities, video_cues
from ..models.portable import PortablePolicy, PortableReading
from ..models.preprocess import prepare_frames, resize_frames
from ..models.recognition import UNRELATED
from ..models.refocus import Reading, RefocusModel
from ..models.sentences import SentenceEncoder, read_questions
from ..questions import Question
from ..reference.clips import Clip, LabelledClip
from ..selectors import FrameSelector
from ..selectors.dual_encoder import VECTORS, DualEncoderSelector
from ..selectors.policy import PolicySelector
from ..selectors.vector_policy import VectorPolicySelector
from ..video import CandidateRule, Frames
from .eyes import View, through_random_eye
from .objective import entropies


@dataclass(frozen=True)
class PolicyInputs:
    """What the policy reads for one question.

    Attributes:
        frames: vectors [F, h]; for policies that read pictures pooled features [F, T, h], or pixels uint8 [F, H, W, 3].
        times: seconds, float32 [F].
        question: vector of its sentence [s], or token ids int64 [L].
    """

    frames: Tensor
    times: Tensor
    question: Tensor


@dataclass(frozen=True)
class VectorInputs(PolicyInputs):
    """What a policy over the vectors of a dual encoder reads.

    Attributes:
        texts: of the things that the question names, [M, h], zero where there is none.
        unrelated: of `UNRELATED`, [T, h].
        names: of what each frame shows, [F, h], if the training world tells; zero where nothing is known.
        scenes: number of each frame's scene, int64 [F], likewise.
    """

    texts: Tensor
    unrelated: Tensor
    names: Tensor | None = None
    scenes: Tensor | None = None


@dataclass(frozen=True)
class Rollouts:
    """Subsets of B questions, in the order of picking.

    Attributes:
        picks: positions among the candidates, int64 [B, N, K].
        log_probs: of each pick, [B, N, K].
        remaining: what the policy expects further picks to add, before each pick, [B, N, K]; None if it does not say.
        entropy: of each pick's distribution in nats, [B, N, K].
        distributions: log-probabilities of all frames before each pick, [B, N, K, F]; -inf for those picked already.
    """

    picks: Tensor
    log_probs: Tensor
    remaining: Tensor | None
    entropy: Tensor
    distributions: Tensor


class Policy(nn.Module, ABC):
    """A policy under training.

    Attributes:
        model: the network.
        reader: the selector whose encodings hold the frames' features.
    """

    model: RefocusModel | PortablePolicy
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

    def augment(self, inputs: PolicyInputs, generator: torch.Generator) -> PolicyInputs:
        """Inputs with the noise that training adds to them; here, none."""
        return inputs

    @abstractmethod
    def selector(self, name: str) -> FrameSelector:
        """The network behind the interface of a selector, sharing its weights."""

    @abstractmethod
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

    @abstractmethod
    def greedy(self, batch: Sequence[PolicyInputs], steps: int) -> tuple[Tensor, Tensor]:
        """The best frame at every step: picks [B, K], and log-probabilities of the first pick [B, F]."""


def _checked(reading: Reading | PortableReading) -> None:
    if not reading.finite:
        raise FloatingPointError("what the policy reads in the videos is not finite")


class VectorPolicy(Policy):
    """Reads the vectors of a dual encoder; questions about videos of equal length share a batch."""

    model: PortablePolicy

    def __init__(
        self,
        model: PortablePolicy,
        reader: DualEncoderSelector,
        sentences: SentenceEncoder,
        *,
        sentence_noise: float = 0.0,
        sentence_dropout: float = 0.0,
        random_eyes: bool = False,
    ) -> None:
        """Wrap a network.

        Args:
            model: the network.
            reader: whose vectors it reads.
            sentences: who reads the sentences.
            sentence_noise: while learning, the vector of a question's sentence gets a random part of up to so many
                times its own length. What is learned from a few dozen wordings then depends on what they share, and
                other wordings are read by the things that they name.
            sentence_dropout: share of the questions whose sentence is not told while learning.
            random_eyes: while learning, every video is seen as another encoder might (`through_random_eye`).
        """
        super().__init__()
        self.model = model
        self.sentence_noise, self.sentence_dropout, self.random_eyes = sentence_noise, sentence_dropout, random_eyes
        self.reader: DualEncoderSelector = reader
        self._sentence_encoder = (sentences,)  # in a tuple, so that its weights are none of the policy's
        self._texts = TextCache(reader.encoder.encode_text)
        self._sentences = TextCache(sentences.encode)

    def inputs(self, question: Question, clip: Clip) -> VectorInputs:
        vectors = clip.encoding(self.reader).tensors[VECTORS]
        times = torch.from_numpy(np.asarray(clip.timestamps, dtype=np.float32))
        labelled = clip if self.random_eyes and isinstance(clip, LabelledClip) else None
        if labelled is not None:
            self._texts.learn(labelled.vocabulary)
        texts, sentence = read_questions(self._texts, self._sentences, [question.question], self.model.config.entities)
        self._texts.learn(UNRELATED)
        names = scenes = None
        if labelled is not None:
            known = self._texts.encode([label or UNRELATED[0] for label in labelled.labels])
            names = known * torch.tensor([bool(label) for label in labelled.labels])[:, None]
            scenes = torch.from_numpy(labelled.scenes)
        return VectorInputs(vectors, times, sentence[0], texts[0], self._texts.encode(UNRELATED), names, scenes)

    def augment(self, inputs: PolicyInputs, generator: torch.Generator) -> PolicyInputs:
        assert isinstance(inputs, VectorInputs)
        sentence = inputs.question
        if self.sentence_noise:
            random = torch.randn(sentence.shape, generator=generator)
            size = self.sentence_noise * torch.rand((), generator=generator) * sentence.norm() / random.norm()
            sentence = sentence + size * random
        if self.sentence_dropout and torch.rand((), generator=generator) < self.sentence_dropout:
            sentence = torch.zeros_like(sentence)
        view = View(inputs.frames, inputs.texts, inputs.unrelated)
        if self.random_eyes:
            view = through_random_eye(view, generator, names=inputs.names, scenes=inputs.scenes)
        return VectorInputs(view.frames, inputs.times, sentence, view.texts, view.unrelated)

    def group(self, inputs: PolicyInputs) -> Hashable:
        return len(inputs.frames)

    def read(self, batch: Sequence[PolicyInputs]) -> PortableReading:
        """Read a batch, with gradient if it is enabled."""

        def stacked(name: str) -> Tensor:
            return torch.stack([getattr(one, name) for one in batch]).to(self.device).float()

        frames = stacked("frames")
        texts = relative_texts(stacked("texts"), stacked("unrelated").mean(1, keepdim=True))
        return self.model.read(video_cues(frames, stacked("times")), similarities(frames, texts), stacked("question"))

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
        reading = self.read(batch)
        _checked(reading)
        if picks is None:
            picks = self.model.decode(
                reading.detached(), steps, rollouts=rollouts, sample=True, temperature=temperature, generator=generator
            ).picks
        picks = picks.to(self.device)
        scored = self.model.score(reading, picks, temperature=temperature)
        log_probs = scored.log_probs.gather(-1, picks[..., None])[..., 0]
        return Rollouts(picks, log_probs, scored.remaining, entropies(scored.log_probs), scored.log_probs)

    @torch.no_grad()
    def greedy(self, batch: Sequence[PolicyInputs], steps: int) -> tuple[Tensor, Tensor]:
        reading = self.read(batch)
        chosen = self.model.decode(reading, steps)
        return chosen.picks[:, 0], chosen.log_probs[:, 0, 0]

    def selector(self, name: str) -> VectorPolicySelector:
        return VectorPolicySelector(self.model, self.reader.encoder, name=name, sentences=self._sentence_encoder[0])


class TextCache:
    """Vectors of texts, kept.

    Each is encoded alone, or in the vocabulary that it belongs to: in a batch its last digits depend on the others, and
    a resumed run would differ from one that was never interrupted.
    """

    def __init__(self, encode: Callable[[Sequence[str]], Tensor]) -> None:
        self._encode = encode
        self._known: dict[str, Tensor] = {}
        self._learned: set[int] = set()

    def learn(self, vocabulary: Sequence[str]) -> None:
        """Encode all texts of a vocabulary at once, the first time that it is seen."""
        if id(vocabulary) not in self._learned and vocabulary:
            rows = self._encode(list(vocabulary)).float().cpu()
            self._known = dict(zip(vocabulary, rows, strict=True)) | self._known
            self._learned.add(id(vocabulary))

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Float32 [len(texts), h]."""
        for text in texts:
            if text not in self._known:
                self._known[text] = self._encode([text])[0].float().cpu()
        return torch.stack([self._known[text] for text in texts])

    encode_text = encode


class PicturePolicy(Policy):
    """Reads pictures through a SigLIP tower, and questions as text: the network of the paper.

    One question at a time: prompts have a hundred thousand tokens. They are read in segments, which are computed again
    in the backward pass instead of being kept.
    """

    model: RefocusModel

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
        return Reading(torch.cat(keys)[None], torch.cat(values)[None], state)

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
        reading = self.read(batch)
        _checked(reading)
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
                rank=False,
            ).picks
        picks = picks.to(self.device)
        scored = self.model.score(reading.keys, reading.values, reading.state, picks, temperature=temperature)
        return Rollouts(picks, scored.pick_log_probs, None, entropies(scored.log_probs), scored.log_probs)

    @torch.no_grad()
    def greedy(self, batch: Sequence[PolicyInputs], steps: int) -> tuple[Tensor, Tensor]:
        reading = self.read(batch)
        decoded = self.model.decode(reading.keys, reading.values, reading.state, steps=steps, rank=False)
        return decoded.picks[:, 0], decoded.log_probs[:, 0, 0]

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
