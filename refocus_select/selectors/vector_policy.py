"""`VectorPolicySelector`: the trained policy over the vectors of any dual encoder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from ..encoders import DualEncoder, load_encoder_for
from ..encoding import VideoEncoding
from ..errors import InputError, SelectorLoadError
from ..hub import CheckpointFiles, HubOptions, find_checkpoint
from ..models.checkpoint import fingerprint, load_model
from ..models.cues import VideoCues, relative_texts, similarities, standardised, video_cues
from ..models.portable import Choices, PortablePolicy
from ..models.recognition import seen
from ..models.sentences import SentenceEncoder, read_questions, sentences_beside
from ..models.workers import workers
from ..video.candidates import policy_rule
from .algorithms import farthest_first, uniform
from .base import Choice
from .dual_encoder import VECTORS, DualEncoderSelector
from .protocol import marginal_log_probs
from .sharing import Shareable

if TYPE_CHECKING:
    from ..words.match import WordMatch

MAX_QUESTIONS = 32  # answered in one batch

TEMPLATES = {
    "after": "What comes next after the something?",
    "before": "What is shown right before the something?",
    "between": "What appears between the something and the something?",
}
"""Sentences that ask for each relation, as `ParsedQuestion.template` has them."""

UNRECOGNISED = "nothing in the video looks like what this question names; the frames are spread evenly"


class VectorPolicySelector(Shareable, DualEncoderSelector):
    """Selects frames one after another with a `PortablePolicy` over the vectors of frames and question.

    Only the question is read, never the answer options. When none of the things that a question names is to be seen
    (`min_rank` of the configuration), the frames are spread evenly over the video and a warning says so. Where more
    frames are wanted than the policy picks at most (`max_picks`), the rest covers what else the video shows. After how
    many picks it had seen enough is told as `enough`; `num_frames="auto"` ends there.

    Choice arguments of `select`:
        sample: draw from the policy instead of taking its best frame at every step (default False).
        temperature: above 0; flattens or sharpens the distribution (default 1).
        seed: for `sample`.
    """

    choice_arguments: ClassVar[frozenset[str]] = frozenset({"sample", "temperature", "seed"})
    decides_number: ClassVar[bool] = True

    def __init__(
        self, model: PortablePolicy, encoder: DualEncoder, *, name: str, sentences: SentenceEncoder | None = None
    ) -> None:
        """Wrap a network.

        Args:
            model: the network.
            encoder: whose vectors are compared; any.
            name: for people.
            sentences: who reads the questions' sentences (default: the embedded sentence encoder).
        """
        super().__init__(encoder, name=name)
        self.model = model
        config = model.config
        self.sentences = sentences or sentences_beside(encoder)
        self.rule = policy_rule(config.max_fps, config.max_num_frames, config.candidate_method)
        self.fingerprint = f"policy-{fingerprint(model)[:40]}"
        self._video: tuple[VideoEncoding, VideoCues] | None = None

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
        """Load a policy and an encoder.

        Args:
            name_or_path: a folder or a Hub id.
            encoder: whose vectors are compared: a name, a folder, a Hub id, "module:attribute" or an object (default:
                the embedded one).
            revision, device, dtype, token, cache_dir, local_files_only: as for `PolicySelector`.

        Raises:
            SelectorLoadError: naming what is missing, damaged or not supported.
            EncoderError: if the encoder cannot be used.
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
        if not isinstance(model, PortablePolicy):
            raise SelectorLoadError(f"{files.name} reads pictures and text; load it with FrameSelector.from_pretrained")
        loaded = load_encoder_for(
            encoder, device=device, token=token, cache_dir=cache_dir, local_files_only=local_files_only or None
        )
        return cls(model, loaded, name=files.name)

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
        texts, sentences = read_questions(self.encoder, self.sentences, questions, self.model.config.entities)
        frames = encoding.tensors[VECTORS].to(self.model.device).float()
        video = self._video_cues(encoding, frames)
        unrelated = self.unrelated.to(self.model.device)
        size = 1 if sample else MAX_QUESTIONS  # a sample depends on the question and the seed alone
        tasks = [
            partial(self._decide, frames, video, unrelated, *part, sample, temperature, seed)
            for part in zip(texts.split(size), sentences.split(size), strict=True)
        ]
        if self.model.device.type == "cpu":  # a small network is fastest on one core; several parts share the cores
            decided = [future.result() for future in [workers().submit(task) for task in tasks]]
        else:
            decided = [task() for task in tasks]
        return [choice for part in decided for choice in self._choices(encoding, *part, num_frames)]

    def _choices(self, encoding: VideoEncoding, chosen: Choices, found: list[bool], num_frames: int) -> list[Choice]:
        """From what the network decided for some questions to frames."""
        picks, lengths = chosen.picks[:, 0].numpy(), chosen.lengths[:, 0].tolist()
        choices = []
        for row, recognised in enumerate(found):
            scores = marginal_log_probs(chosen.log_probs[row, 0].numpy())
            if not recognised:
                even = uniform(encoding.timestamps, num_frames)
                choices.append(Choice(even, scores, strategy="uniform_fallback", warnings=(UNRECOGNISED,)))
                continue
            shown = farthest_first(encoding.tensors[VECTORS], num_frames, picks[row, :num_frames])
            choices.append(Choice(shown, scores, enough=lengths[row] if lengths[row] < picks.shape[1] else None))
        return choices

    @torch.no_grad()
    def _decide(
        self,
        frames: torch.Tensor,
        video: VideoCues,
        unrelated: torch.Tensor,
        texts: torch.Tensor,
        sentences: torch.Tensor,
        sample: bool,
        temperature: float,
        seed: int | None,
    ) -> tuple[Choices, list[bool]]:
        """What the network decides about questions, on the CPU, and whether what they name is to be seen."""
        texts = texts.to(self.model.device)
        matches = similarities(frames[None], relative_texts(texts, unrelated.mean(0)))
        chosen = self._decode(video, matches, sentences, sample, temperature, seed)
        return chosen, seen(frames, texts, unrelated, self.model.config.min_rank)

    def _decode(
        self,
        video: VideoCues,
        matches: torch.Tensor,
        sentences: torch.Tensor,
        sample: bool = False,
        temperature: float = 1.0,
        seed: int | None = None,
    ) -> Choices:
        """What the network picks for rows of similarity [B, M, F], whatever they come from, on the CPU."""
        device = self.model.device
        return self.model.decode(
            self.model.read(video, matches, sentences.to(device)),
            self.model.config.max_picks,
            sample=sample,
            temperature=temperature,
            generator=None if seed is None else torch.Generator(device).manual_seed(seed),
        ).cpu()

    @torch.no_grad()
    def choose_by_words(
        self, encoding: VideoEncoding, questions: list[str], num_frames: int, matches: list[WordMatch], **kwargs: Any
    ) -> list[Choice]:
        """What is said itself is covered; what comes before, after or between is left to the network.

        For the network the rows of similarity are those of the words, and the sentence is one of those that it was
        trained with: it never heard of saying.
        """
        choices = super().choose_by_words(encoding, questions, num_frames, matches, **kwargs)
        related = [row for row, match in enumerate(matches) if match.relation in TEMPLATES]
        if not related:
            return choices
        entities = self.model.config.entities
        sentences = self.sentences.encode([TEMPLATES[matches[row].relation] for row in related]).float().cpu()
        frames = encoding.tensors[VECTORS].to(self.model.device).float()
        rows = torch.zeros(len(related), entities, len(encoding))
        for place, row in enumerate(related):
            gains = torch.from_numpy(matches[row].gains[:entities]).float()
            rows[place, : len(gains)] = standardised(gains)
        chosen = self._decode(self._video_cues(encoding, frames), rows.to(frames.device), sentences)
        decided = self._choices(encoding, chosen, [True] * len(related), num_frames)
        for row, choice in zip(related, decided, strict=True):
            choices[row] = choice
        return choices

    def _video_cues(self, encoding: VideoEncoding, frames: torch.Tensor) -> VideoCues:
        """Cues of the video; those of the last one are kept for its next question."""
        known = self._video
        if known is None or known[0] is not encoding:
            times = torch.from_numpy(np.asarray(encoding.timestamps)).to(frames.device)
            known = (encoding, video_cues(frames[None], times[None]))
            self._video = known
        return known[1]
