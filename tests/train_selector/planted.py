"""A small world with a planted rule: the answer is told by one frame, which similarity alone does not find.

Every video is a row of vectors. One frame bears the question's direction (the cue), the frame behind it the evidence,
and two others (the lures) bear the question's direction too, with a mark that tells them apart. The reference model
answers right if the evidence is among its frames.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from refocus_select.encoding import VideoEncoding
from refocus_select.questions import Question
from refocus_select.train_selector import EncodedClip, ReferenceModel, Request
from refocus_select.video import VideoMetadata

WIDTH = 8


class Vectors:
    """A dual encoder whose texts are directions ("topic 3") and whose frames are given as pictures of one pixel row."""

    fingerprint = "planted-1"
    frame_size = None

    def encode_frames(self, frames: np.ndarray) -> Tensor:
        flat = torch.from_numpy(frames.reshape(len(frames), -1)[:, :WIDTH].astype(np.float32)) / 128 - 1
        return torch.nn.functional.normalize(flat, dim=-1)

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        rows = []
        for text in texts:  # unrelated things all lie in a direction that no frame has
            topic = text.split()[-1]
            rows.append(torch.eye(WIDTH)[int(topic) if topic.isdecimal() else 5])
        return torch.stack(rows)


class World(Sequence):
    """Questions and their videos, each a function of seed and number."""

    def __init__(self, count: int, seed: int, frames: int = 12, lengths: Sequence[int] = ()) -> None:
        self.count, self.seed, self.lengths = count, seed, list(lengths) or [frames]
        self.fingerprint = f"world-{count}-{seed}-{self.lengths}"
        self.categories = ["even" if i % 2 == 0 else "odd" for i in range(count)]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> Question:
        if not 0 <= i < self.count:
            raise IndexError(i)
        topic, evidence, _ = self._layout(i)
        return Question(
            id=f"q{i}",
            video=str(i),
            question=f"what follows topic {topic}",
            options=("yes", "no", "maybe"),
            answer=i % 3,
            evidence=((float(evidence), float(evidence)),),
            category=self.categories[i],
        )

    def __call__(self, video: str) -> EncodedClip:
        _, _, vectors = self._layout(int(video))
        return EncodedClip(
            VideoEncoding(
                tensors={"embeddings": vectors}, indices=np.arange(len(vectors)),
                timestamps=np.arange(len(vectors), dtype=np.float64),
                video=VideoMetadata(video, len(vectors), len(vectors) - 1.0),
                video_fingerprint=f"{self.seed}-{video}", encoder="vectors",
                encoder_fingerprint=Vectors.fingerprint,
            )
        )  # fmt: skip

    def evidence(self, video: str) -> int:
        return self._layout(int(video))[1]

    def _layout(self, i: int) -> tuple[int, int, Tensor]:
        rng = np.random.default_rng([self.seed, i])
        frames = self.lengths[i % len(self.lengths)]
        topic = int(rng.integers(4))
        cue = int(rng.integers(frames - 1))
        others = rng.permutation([f for f in range(frames) if f not in (cue, cue + 1)])[:2]
        vectors = 0.15 * rng.standard_normal((frames, WIDTH))
        vectors[cue, topic] += 1.0
        vectors[cue + 1, 6] += 1.0
        vectors[others, topic] += 1.0
        vectors[others, 7] += 1.2
        return topic, cue + 1, torch.from_numpy(vectors).float()


class Answerer(ReferenceModel):
    """Right if it sees the evidence, else it knows nothing."""

    name = "answerer"

    def __init__(self, world: World, fingerprint: str = "answerer-1") -> None:
        self.world, self.fingerprint = world, fingerprint
        self.asked = 0

    def option_logits(self, requests: Sequence[Request]) -> list[Tensor]:
        found = []
        for request in requests:
            self.asked += len(request.subsets)
            seen = (request.subsets == self.world.evidence(request.question.video)).any(1)
            logits = torch.zeros(len(request.subsets), len(request.question.options))
            logits[:, request.question.answer] = torch.where(seen, 3.0, -0.5)
            found.append(logits)
        return found


def train_world(split: str, count: int = 400) -> World:
    """For "tests.train_selector.planted:train_world" in configurations."""
    return World(count, 1 if split == "train" else 2)
