"""`VectorPolicySelector`: a trained policy that reads the vectors of a dual encoder, one token per frame."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from ..encoding import VideoEncoding
from ..errors import InputError, SelectorLoadError
from ..models.checkpoint import fingerprint, save_model
from ..models.refocus import RefocusModel
from ..models.vectors import likeness, match, question_parts, read_vectors
from ..models.workers import workers
from ..video.candidates import policy_rule
from .algorithms import farthest_first, uniform
from .algorithms.contract import minmax
from .base import Choice
from .card import model_card
from .protocol import marginal_log_probs
from .similarity import peak_size
from .training_free import DualEncoder, VectorReader

MAX_QUESTIONS = 64  # answered in one batch

SENTENCE = 1.5  # see `recognised`

RELEVANCE = 1.0
"""Bonus of the most relevant frame, in cosine, where coverage chooses: better than none on real pictures, a little
worse on composed videos (benchmarks/storyboards/runs/README.md)."""

UNRECOGNISED = "nothing in the video looks like what this question names; the frames are spread evenly"


class VectorPolicySelector(VectorReader):
    """Selects frames one after another with a small `RefocusModel` over the vectors of frames and question.

    An encoding holds the encoder's vectors only: one encoding of a video serves this and every algorithm with the same
    encoder. Only the question is read, never the answer options. When none of the things that a question names is to be
    seen (`spread_below` of the configuration), the frames are spread evenly over the video and a warning says so. Where
    more frames are wanted than the policy chooses well (`cover_after`), the rest covers what else the video shows, with
    a bonus for relevance.

    Choice arguments of `select`:
        sample: draw from the policy instead of taking its best frame at every step (default False).
        temperature: above 0; flattens or sharpens the distribution (default 1).
        seed: for `sample`.
    """

    choice_arguments: ClassVar[frozenset[str]] = frozenset({"sample", "temperature", "seed"})

    def __init__(self, model: RefocusModel, encoder: DualEncoder, *, name: str) -> None:
        """Wrap a network.

        Args:
            model: with `frame_encoder` "none" and a `question_hidden_size`.
            encoder: the one that the network was trained with.
            name: for people.

        Raises:
            SelectorLoadError: if the network reads pictures and text.
        """
        config = model.config
        if config.frame_encoder != "none" or not config.question_hidden_size:
            raise SelectorLoadError(f"{name} reads pictures and text; load it with PolicySelector")
        super().__init__(encoder, name=name)
        self.model = model
        self.rule = policy_rule(config.max_fps, config.max_num_frames, config.candidate_method)
        self.policy_fingerprint = f"policy-{fingerprint(model)[:40]}"

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> VectorPolicySelector:
        """Load a policy and the encoder that its configuration names; arguments as for `PolicySelector`.

        Raises:
            SelectorLoadError: naming what is missing, damaged or not supported.
        """
        from .registry import load_policy

        selector = load_policy(name_or_path, **kwargs)
        if not isinstance(selector, cls):
            raise SelectorLoadError(f"{os.fspath(name_or_path)} reads pictures and text; load it with PolicySelector")
        return selector

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write config.json, model.safetensors and, if there is none yet, a model card."""
        target = Path(folder)
        save_model(self.model, target)
        card = target / "README.md"
        if not card.exists():
            card.write_text(model_card(self.model, self.name), encoding="utf-8")

    def _choose(
        self,
        encoding: VideoEncoding,
        questions: list[str],
        num_frames: int,
        options: list[Sequence[str] | None],
        *,
        sample: bool = False,
        temperature: float = 1.0,
        seed: int | None = None,
        **_: Any,
    ) -> list[Choice]:
        if not temperature > 0:
            raise InputError(f"temperature must be above 0, not {temperature}; use sample=False for greedy selection")
        embeddings = encoding.tensors["embeddings"]
        steps = min(num_frames, len(encoding), self.model.config.cover_after or num_frames)
        choices = []
        size = 1 if sample else MAX_QUESTIONS  # a sample depends on the question and the seed alone
        for start in range(0, len(questions), size):
            asked = question_parts(self.encoder, questions[start : start + size], self.model.config.question_mentions)
            decide = partial(self._decide, encoding, asked, steps, sample=sample, temperature=temperature, seed=seed)
            decided = workers().submit(decide).result() if self.model.device.type == "cpu" else decide()
            for picks, log_probs, seen, relevance in zip(*decided, strict=True):
                scores = marginal_log_probs(log_probs.numpy())
                if seen:
                    picked = farthest_first(embeddings, num_frames, picks, RELEVANCE * minmax(relevance.numpy()))
                    choices.append(Choice(picked, scores))
                else:
                    even = uniform(encoding.timestamps, num_frames)
                    choices.append(Choice(even, scores, strategy="spread", warnings=(UNRECOGNISED,)))
        return choices

    @torch.no_grad()
    def _decide(
        self,
        encoding: VideoEncoding,
        asked: torch.Tensor,
        steps: int,
        *,
        sample: bool,
        temperature: float,
        seed: int | None,
    ) -> tuple[torch.Tensor, torch.Tensor, list[bool], torch.Tensor]:
        """What the network picks for questions in parts [B, 1 + M, h], all on the CPU.

        Picks [B, steps], their log probabilities [B, steps, F], whether the question was recognised, relevance [B, F].
        """
        device = self.model.device
        asked = asked.to(device)
        features = encoding.tensors["embeddings"].to(device).expand(len(asked), -1, -1)
        times = torch.from_numpy(np.asarray(encoding.timestamps)).to(device).expand(len(asked), -1)
        reading = read_vectors(self.model, features, asked, times)
        decoded = self.model.decode(
            reading.keys,
            reading.values,
            reading.state,
            steps=steps,
            sample=sample,
            temperature=temperature,
            generator=None if seed is None else torch.Generator(device).manual_seed(seed),
            similarity=reading.similarity,
            rank=False,
        )
        found = recognised(features, asked, self.model.config.spread_below)
        relevance = likeness(features, asked).double().cpu()
        return decoded.picks[:, 0].cpu(), decoded.log_probs[:, 0].cpu(), found, relevance


def recognised(features: torch.Tensor, questions: torch.Tensor, least: float) -> list[bool]:
    """Whether a video shows one of the things that a question names; True for questions that name nothing.

    Args:
        features: of the frames, [B, F, h].
        questions: in parts, [B, 1 + M, h], zero for things that are not there.
        least: similarity that the best frames (`peak_size` of them, in the mean) must reach for one of the things, or
            1.5 times that for the whole sentence, which always has something of its words; 0 recognises everything.
    """
    if not least:
        return [True] * len(questions)
    named = questions[:, 1:].abs().sum(-1) > 0  # [B, M]
    count = peak_size(features.shape[1])
    peaks = torch.stack([match(features, part).topk(count, -1).values.mean(-1) for part in questions.unbind(1)], -1)
    seen = (peaks[:, 1:] >= least) & named
    return (seen.any(-1) | (peaks[:, 0] >= SENTENCE * least) | ~named.any(-1)).tolist()
