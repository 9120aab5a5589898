"""`VectorPolicySelector`: a trained policy that reads the vectors of a dual encoder, one token per frame."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from ..encoding import VideoEncoding
from ..errors import InputError, SelectorLoadError
from ..models.checkpoint import fingerprint, save_model
from ..models.refocus import RefocusModel
from ..models.vectors import Reading, question_parts, read_vectors
from ..video import CandidateRule
from .base import Choice
from .card import model_card
from .protocol import marginal_log_probs
from .training_free import DualEncoder, VectorReader

MAX_QUESTIONS = 64  # answered in one batch


class VectorPolicySelector(VectorReader):
    """Selects frames one after another with a small `RefocusModel` over the vectors of frames and question.

    An encoding holds the encoder's vectors only: one encoding of a video serves this and every algorithm with the same
    encoder. Only the question is read, never the answer options.

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
        self.rule = CandidateRule(config.max_fps, config.max_num_frames, config.candidate_method)  # type: ignore[arg-type]
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

    @torch.no_grad()
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
        choices = []
        size = 1 if sample else MAX_QUESTIONS  # a sample depends on the question and the seed alone
        for start in range(0, len(questions), size):
            reading = self._reading(encoding, questions[start : start + size])
            generator = None if seed is None else torch.Generator(self.model.device).manual_seed(seed)
            decoded = self.model.decode(
                reading.keys,
                reading.values,
                reading.state,
                steps=min(num_frames, len(encoding)),
                sample=sample,
                temperature=temperature,
                generator=generator,
                similarity=reading.similarity,
                rank=False,
            )
            for picks, log_probs in zip(decoded.picks[:, 0].cpu(), decoded.log_probs[:, 0].cpu(), strict=True):
                choices.append(Choice(picks.numpy(), marginal_log_probs(log_probs.numpy())))
        return choices

    def _reading(self, encoding: VideoEncoding, questions: list[str]) -> Reading:
        device, count = self.model.device, len(questions)
        features = encoding.tensors["embeddings"].to(device).expand(count, -1, -1)
        times = torch.from_numpy(np.asarray(encoding.timestamps)).to(device).expand(count, -1)
        asked = question_parts(self.encoder, questions, self.model.config.question_mentions)
        return read_vectors(self.model, features, asked.to(device), times)
