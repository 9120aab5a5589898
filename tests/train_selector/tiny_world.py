"""A small storyboard world made of random vectors, and an encoder of words that fits it."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

from refocus_select.train_selector.storyboards import Bank, Concept

DIMENSIONS = 32
KINDS = ("animal", "fruit", "vehicle", "tool", "bird", "plant")
SPLITS = ("train", "validation", "test")
CARDS = ("closing credits", "a title card", "a page of text")


def vector(text: str) -> np.ndarray:
    """A vector of length 4 that depends on the words of a text, not on their order."""
    total = np.zeros(DIMENSIONS)
    for word in text.lower().replace("?", "").replace(".", "").split():
        seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big")
        total += np.random.default_rng(seed).normal(size=DIMENSIONS)
    return 4 * total / max(float(np.linalg.norm(total)), 1e-9)


class WordEncoder:
    """Text to vectors; `text` as in `MiniEncoder` gives those of whole sentences."""

    fingerprint = "words-1"
    frame_size = (8, 8)

    @property
    def text(self) -> WordEncoder:
        return self

    def encode_text(self, texts: list[str]) -> Tensor:
        return torch.tensor(np.stack([vector(text) for text in texts]), dtype=torch.float32) / 4

    def encode(self, texts: list[str]) -> Tensor:
        return self.encode_text(texts)

    def encode_frames(self, frames: np.ndarray) -> Tensor:
        raise AssertionError("the tiny world has no pictures")


def tiny_bank(*, each: int = 10, noise: float = 1.0) -> Bank:
    """`each` things of every kind and split; a picture of a thing is its name's vector and noise."""
    rng = np.random.default_rng(0)
    concepts, series, things = [], [], []
    for split in SPLITS:
        for kind in KINDS:
            for i in range(each):
                name = f"{split}{kind}{i}"  # one word, so that no two names are alike
                for turn in range(2):
                    series.append(
                        {"concept": len(concepts), "split": split, "picture": ["drawing", f"{name}-{turn}", 0]}
                    )
                    things.append(vector(name) + noise * rng.normal(size=(3, DIMENSIONS)))
                concepts.append(Concept(name, kind, split))
        for i, card in enumerate(CARDS):
            series.append({"concept": -1 - i, "split": split, "picture": ["cards", card, 0]})
            things.append(vector(card) + noise * rng.normal(size=(3, DIMENSIONS)))
    backgrounds = [
        {"source": "video", "path": f"{split}-{i}", "frames": [0.0, 0.5, 1.0], "split": split, "shows": []}
        for split in SPLITS
        for i in range(12)
    ]
    behind = np.repeat(rng.normal(size=(len(backgrounds), DIMENSIONS)) * 2, 3, axis=0)
    behind += 0.3 * rng.normal(size=behind.shape)
    return Bank(
        encoder=WordEncoder.fingerprint,
        concepts=tuple(concepts),
        cards=CARDS,
        series=tuple(series),
        backgrounds=tuple(backgrounds),
        thing_rows=torch.tensor(np.stack(things), dtype=torch.float32),
        background_rows=torch.tensor(behind, dtype=torch.float32),
        fingerprint="tiny",
    )
