"""`VectorPolicy`: a portable policy under training, which reads the vectors of a dual encoder."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..models.cues import relative_texts, similarities, video_cues
from ..models.portable import PortablePolicy, PortableReading
from ..models.recognition import UNRELATED
from ..models.sentences import SentenceEncoder, read_questions
from ..questions import Question
from ..reference.clips import Clip, LabelledClip
from ..selectors.dual_encoder import VECTORS, DualEncoderSelector
from ..selectors.vector_policy import VectorPolicySelector
from .eyes import View, through_random_eye
from .objective import entropies
from .policy import Policy, PolicyInputs, Rollouts


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

    @torch.no_grad()
    def pick(self, reading: PortableReading, steps: int, **how: Any) -> tuple[Tensor, Tensor]:
        """See `Policy`."""
        chosen = self.model.decode(reading, steps, **how)
        return chosen.picks, chosen.log_probs[:, 0, 0]

    def score(self, reading: PortableReading, picks: Tensor, temperature: float) -> Rollouts:
        """See `Policy`."""
        scored = self.model.score(reading, picks, temperature=temperature)
        log_probs = scored.log_probs.gather(-1, picks[..., None])[..., 0]
        return Rollouts(picks, log_probs, scored.remaining, entropies(scored.log_probs), scored.log_probs)

    def selector(self, name: str) -> VectorPolicySelector:
        return VectorPolicySelector(self.model, self.reader.encoder, name=name, sentences=self._sentence_encoder[0])


class TextCache:
    """Vectors of texts, kept.

    Each is encoded alone, or in the vocabulary that it belongs to: in a batch its last digits depend on the others, and
    a resumed run would differ from one that was never interrupted.
    """

    def __init__(self, encode: Callable[[Sequence[str]], Tensor]) -> None:
        self._encode = encode
        self._lock = threading.RLock()  # items may be loaded by several threads
        self._known: dict[str, Tensor] = {}
        self._learned: set[int] = set()

    def learn(self, vocabulary: Sequence[str]) -> None:
        """Encode all texts of a vocabulary at once, the first time that it is seen."""
        with self._lock:
            if id(vocabulary) not in self._learned and vocabulary:
                rows = self._encode(list(vocabulary)).float().cpu()
                self._known = dict(zip(vocabulary, rows, strict=True)) | self._known
                self._learned.add(id(vocabulary))

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Float32 [len(texts), h]."""
        with self._lock:
            for text in texts:
                if text not in self._known:
                    self._known[text] = self._encode([text])[0].float().cpu()
            return torch.stack([self._known[text] for text in texts])

    encode_text = encode
