"""`VectorPolicySelector`: a trained policy that reads the vectors of a dual encoder, one token per frame."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from ..encoders import DualEncoder, load_encoder
from ..encoding import VideoEncoding, check_tensors
from ..errors import EncoderError, InputError, SelectorLoadError
from ..files import write_text
from ..hub import CheckpointFiles, HubOptions, find_checkpoint
from ..models.checkpoint import fingerprint, load_model, save_model
from ..models.cues import entity_similarity, match
from ..models.refocus import RefocusModel
from ..models.vectors import question_parts, read_vectors
from ..models.workers import workers
from ..video.candidates import policy_rule
from .algorithms import farthest_first, uniform
from .algorithms.contract import minmax
from .base import Choice
from .card import model_card
from .dual_encoder import VECTORS, DualEncoderSelector
from .protocol import marginal_log_probs
from .similarity import peak_size

MAX_QUESTIONS = 64  # answered in one batch

SENTENCE = 1.5  # see `recognised`

RELEVANCE = 1.0
"""Bonus of the most relevant frame, in cosine, where coverage chooses: better than none on real pictures, a little
worse on composed videos (benchmarks/storyboards/runs/README.md)."""

UNRECOGNISED = "nothing in the video looks like what this question names; the frames are spread evenly"


class VectorPolicySelector(DualEncoderSelector):
    """Selects frames one after another with a small `RefocusModel` over the vectors of frames and question.

    Only the question is read, never the answer options. When none of the things that a question names is to be seen
    (`spread_below` of the configuration), the frames are spread evenly over the video and a warning says so. Where more
    frames are wanted than the policy chooses well (`cover_after`), the rest covers what else the video shows, with a
    bonus for relevance.

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
        self.fingerprint = f"policy-{fingerprint(model)[:40]}"

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        encoder: str | os.PathLike[str] | DualEncoder | None = None,
        revision: str | None = None,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
    ) -> VectorPolicySelector:
        """Load a policy and the encoder that its configuration names.

        Args:
            name_or_path: a folder or a Hub id.
            encoder: the one that the policy was trained with, if it is loaded already or lies elsewhere.
            revision, device, dtype, token, cache_dir, local_files_only: as for `PolicySelector`.

        Raises:
            SelectorLoadError: naming what is missing, damaged or not supported.
            EncoderError: if the policy was trained with another encoder.
        """
        files = find_checkpoint(name_or_path, HubOptions(revision, token, cache_dir, local_files_only))
        return cls.from_checkpoint(
            files,
            encoder=encoder,
            device=device,
            dtype=dtype,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
        )

    @classmethod
    def from_checkpoint(
        cls,
        files: CheckpointFiles,
        *,
        encoder: str | os.PathLike[str] | DualEncoder | None = None,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
    ) -> VectorPolicySelector:
        """Load a policy whose files are found already; arguments and errors as for `from_pretrained`."""
        model = load_model(files, device=device, dtype=dtype)
        own = model.config.feature_encoder
        if model.config.frame_encoder != "none":
            raise SelectorLoadError(f"{files.name} reads pictures and text; load it with FrameSelector.from_pretrained")
        if isinstance(encoder, str) and own and encoder != own:
            raise EncoderError(
                f"{files.name} was trained with the encoder {own!r} and reads no vectors of {encoder!r}; leave "
                f"encoder= out, or use an algorithm such as 'mmr' with {encoder!r}"
            )
        arguments: dict[str, Any] = {}
        if encoder is None or isinstance(encoder, str | os.PathLike):
            encoder = encoder or own or None
            arguments = {} if device is None else {"device": device}
            if encoder not in (None, "mini"):
                arguments |= {"token": token, "cache_dir": cache_dir, "local_files_only": local_files_only}
        return cls(model, load_encoder(encoder, **arguments), name=files.name)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write config.json, model.safetensors and, if there is none yet, a model card."""
        target = Path(folder)
        save_model(self.model, target)
        card = target / "README.md"
        if not card.exists():
            write_text(card, model_card(self.model, self.name))

    def check_encoding(self, encoding: VideoEncoding) -> None:
        shape = (len(encoding), self.model.config.mm_hidden_size)
        check_tensors(encoding, {VECTORS: (shape, (torch.float32, torch.float16))})

    def choose(
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
        embeddings = encoding.tensors[VECTORS]
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
                    choices.append(Choice(even, scores, strategy="uniform_fallback", warnings=(UNRECOGNISED,)))
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
        features = encoding.tensors[VECTORS].to(device).expand(len(asked), -1, -1)
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
        relevance = entity_similarity(features, asked).double().cpu()
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
