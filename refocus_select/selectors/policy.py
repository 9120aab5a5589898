"""`PolicySelector`: a trained ReFoCUS policy behind the selector interface: encode a video once, ask many questions."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ..encoding import VideoEncoding, check_tensors
from ..errors import EncodingError, InputError, SelectorLoadError
from ..files import replacing
from ..hub import CheckpointFiles, HubOptions, find_checkpoint, hub_file
from ..locations import is_here
from ..models.author_format import save_author_model
from ..models.backbone import BackboneState
from ..models.checkpoint import fingerprint, load_model
from ..models.portable import PortablePolicy
from ..models.preprocess import prepare_frames
from ..models.prompt import TOKENIZER_FILE, TOKENIZER_ID, PromptTokenizer, multiple_choice_text
from ..models.refocus import Decoded, RefocusModel
from ..selection import Selection
from ..video import Frames, Video, open_video
from ..video.candidates import policy_rule
from .base import Choice, FrameSelector
from .protocol import PICKS, marginal_log_probs, released_frames, uses_policy
from .sharing import Shareable

SEGMENT_TOKENS = {"cpu": 2048, "cuda": 8192}  # visual tokens that pass through the network at once
MAX_QUESTIONS = 16  # answered in one batch; each needs a recurrent state of its own


@dataclass(frozen=True)
class _ReleasedChoice(Choice):
    """What the released evaluation would pass on: frame numbers, which need not be candidates.

    Attributes:
        frames: frame numbers, sorted, possibly with repeats, int64 [K].
    """

    frames: np.ndarray | None = None


class PolicySelector(Shareable, FrameSelector):
    """Selects frames one after another with a `RefocusModel`.

    Choice arguments of `select`:
        sample: draw from the policy instead of taking its best frame at every step (default False).
        temperature: above 0; flattens or sharpens the distribution (default 1).
        seed: for `sample`; equal seeds give equal selections on the same kind of device.
        num_samples: with `sample`, draw so many selections and keep one (default 1).
        choose_by: "likelihood" or "rank" (the checkpoint's rank head): which of the samples is kept.
        protocol: "paper" for the released evaluation: 64 picks drawn without replacement, the first `num_frames` used
            (the release uses 32), and evenly spaced frames for videos of at most 128 candidates.
    """

    ordered: ClassVar[bool] = True
    choice_arguments: ClassVar[frozenset[str]] = frozenset(
        {"sample", "temperature", "seed", "num_samples", "choose_by", "protocol"}
    )

    def __init__(self, model: RefocusModel, tokenizer: PromptTokenizer, *, name: str) -> None:
        """Wrap a network.

        Args:
            model: with a vision tower, reading questions as text.
            tokenizer: of the vocabulary that the network was trained with.
            name: for people.

        Raises:
            SelectorLoadError: if the network needs inputs that a selector does not have, or the tokenizer does not fit.
        """
        config = model.config
        if config.frame_encoder == "none" or config.question_hidden_size or config.similarity_residual:
            raise SelectorLoadError(
                f"{name} reads features that are computed outside of it, not pictures and text; load it with "
                "FrameSelector.from_pretrained, or use refocus_select.models.refocus.RefocusModel directly"
            )
        self.model = model
        self.tokenizer = tokenizer
        self.name = name
        self.rule = policy_rule(config.max_fps, config.max_num_frames, config.candidate_method)
        self._prefix = self._checked_ids(tokenizer.prefix())
        self.fingerprint = f"policy-{fingerprint(model)[:40]}"

    # -- loading and saving ---------------------------------------------------------------------------

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        revision: str | None = None,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
    ) -> PolicySelector:
        """Load a policy in the authors' format or ours.

        Args:
            name_or_path: a folder, or a Hub id such as "interlive/ReFoCUS-1.3B".
            revision: branch, tag or commit on the Hub.
            device: "cpu", "cuda", …; by default the GPU if there is one.
            dtype: "float32", "bfloat16", "float16" or "auto"; by default float32 on a CPU, else as stored.
            token: Hub token; None for the stored one.
            cache_dir: where downloads are kept.
            local_files_only: never use the network.

        Raises:
            SelectorLoadError: naming what is missing, gated, damaged or not supported, and the remedy.
        """
        files = find_checkpoint(name_or_path, HubOptions(revision, token, cache_dir, local_files_only))
        return cls.from_checkpoint(
            files, device=device, dtype=dtype, token=token, cache_dir=cache_dir, local_files_only=local_files_only
        )

    @classmethod
    def from_checkpoint(
        cls,
        files: CheckpointFiles,
        *,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        new_heads: bool = False,
    ) -> PolicySelector:
        """Load a policy whose files are found already; `new_heads` as for `load_model`, all else `from_pretrained`."""
        model = load_model(files, device=device, dtype=dtype, new_heads=new_heads)
        if isinstance(model, PortablePolicy):
            raise SelectorLoadError(
                f"{files.name} reads vectors of an encoder; load it with FrameSelector.from_pretrained"
            )
        options = HubOptions(None, token, cache_dir, local_files_only)
        tokenizer = PromptTokenizer.from_file(files.tokenizer or default_tokenizer(files.name, options))
        return cls(model, tokenizer, name=files.name)

    def _save_more(self, folder: Path) -> None:
        with replacing(folder / TOKENIZER_FILE) as temporary:
            self.tokenizer.tokenizer.save(str(temporary))

    def save_author_format(self, folder: str | os.PathLike[str]) -> None:
        """Write the policy in the authors' format, with its tokenizer, for their code (and this one).

        Raises:
            InputError: for a network that their code does not compute.
        """
        target = Path(folder)
        save_author_model(self.model, target)
        self._save_more(target)

    # -- encoding -------------------------------------------------------------------------------------

    @torch.no_grad()
    def encode_frames(self, frames: Iterator[Frames], total: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        model = self.model
        state = model.start(self._prefix.to(model.device))
        keys, values = [], []
        for piece in frames:
            for segment in np.array_split(piece.data, -(-len(piece.data) // self._segment())):
                pixels = prepare_frames(segment, model.config.vision).to(model.device)
                k, v, state = model.read_frames(model.embed_frames(pixels), state)
                keys.append(k)
                values.append(v)
        if not keys:
            return {}, {}
        conv, ssm = state.stacked()
        return (
            {"keys": torch.cat(keys), "values": torch.cat(values)},
            {"conv_state": conv[:, 0], "ssm_state": ssm[:, 0]},
        )

    def _segment(self) -> int:
        """Frames that are computed at once: whole batches of the tower, of a bounded number of tokens in all."""
        config = self.model.config
        batch = config.vision_encode_chunk_size
        frames = SEGMENT_TOKENS.get(self.model.device.type, 2048) // config.tokens_per_frame
        return max(frames // batch * batch, min(batch, max(1, frames)))

    # -- choosing -------------------------------------------------------------------------------------

    def check_encoding(self, encoding: VideoEncoding) -> None:
        width = self.model.config.d_model
        shapes: dict[str, tuple[int, ...]] = {"keys": (len(encoding), width), "values": (len(encoding), width)}
        states = self.model.backbone.empty_state().stacked()
        shapes |= {name: tuple(t[:, 0].shape) for name, t in zip(("conv_state", "ssm_state"), states, strict=True)}
        kinds = (torch.float32, torch.float16, torch.bfloat16)
        check_tensors(encoding, {name: (shape, kinds) for name, shape in shapes.items()})

    @torch.no_grad()
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
        num_samples: int = 1,
        choose_by: str = "likelihood",
        protocol: str | None = None,
        **_: Any,
    ) -> list[Choice]:
        _check_choice(sample, num_samples, choose_by, protocol, num_frames, self.model.config.use_rank_head)
        texts = [self._text(q, o) for q, o in zip(questions, options, strict=True)]
        suffixes = [self._checked_ids(self.tokenizer.suffix(text)) for text in texts]
        if protocol == "paper":
            if not uses_policy(len(encoding)):
                return [_evenly_spaced(encoding, num_frames)] * len(questions)
            decode = partial(self._decode, encoding, steps=PICKS, sample=True, seed=seed, num_samples=num_samples)
            return [_released(encoding, decode([suffix])[0], num_frames) for suffix in suffixes]
        decode = partial(
            self._decode, encoding, steps=num_frames, sample=sample, temperature=temperature, seed=seed,
            num_samples=num_samples,
        )  # fmt: skip
        # A sample depends on the question and the seed alone, not on the other questions of the call.
        size = 1 if sample else MAX_QUESTIONS
        batches = [suffixes[i : i + size] for i in range(0, len(suffixes), size)]
        return [_best(result, choose_by) for batch in batches for result in decode(batch)]

    def _decode(
        self,
        encoding: VideoEncoding,
        suffixes: list[Tensor],
        *,
        steps: int,
        num_samples: int,
        seed: int | None,
        **kwargs: Any,
    ) -> list[Decoded]:
        """Answer several questions on one encoding in one batch."""
        device = self.model.device
        # An encoding may come from a machine that computes in another type.
        tensors = {
            name: encoding.tensors[name].to(device, self.model.dtype) for name in ("keys", "values", "conv_state")
        }
        ssm = encoding.tensors["ssm_state"].to(device, torch.float32)
        video = BackboneState.unstacked(tensors["conv_state"][:, None], ssm[:, None])
        state = self._read_questions(suffixes, video)
        generator = None if seed is None else torch.Generator(device).manual_seed(seed)
        result = self.model.decode(
            tensors["keys"],
            tensors["values"],
            state,
            steps=steps,
            num_samples=num_samples,
            generator=generator,
            **kwargs,
        )
        ranks = result.rank_logits
        return [
            Decoded(
                result.picks[i].cpu(),
                result.pick_log_probs[i].cpu(),
                result.log_probs[i].cpu(),
                None if ranks is None else ranks[i].cpu(),
            )
            for i in range(len(suffixes))
        ]

    def _read_questions(self, suffixes: list[Tensor], video: BackboneState) -> BackboneState:
        """The states behind the questions, in their order. Questions of equal length are read together.

        A recurrence must not see padding, so questions of different lengths never share a pass.
        """
        by_length: dict[int, list[int]] = {}
        for row, suffix in enumerate(suffixes):
            by_length.setdefault(len(suffix), []).append(row)
        states, order = [], []
        for rows in by_length.values():
            ids = torch.stack([suffixes[row] for row in rows]).to(self.model.device)
            states.append(self.model.read_text(ids, video))
            order.extend(rows)
        if len(states) == 1:
            return states[0]
        return BackboneState.concat(states).select_rows(torch.tensor(order).argsort().to(self.model.device))

    def _text(self, question: str, options: Sequence[str] | None) -> str:
        if options is None or not self.model.config.answer_options:
            return question
        return multiple_choice_text(question, options)

    def _checked_ids(self, ids: Tensor) -> Tensor:
        rows = self.model.config.embedding_rows
        if len(ids) and int(ids.max()) >= rows:
            raise SelectorLoadError(
                f"{self.name}: the tokenizer gives id {int(ids.max())} but the network knows {rows}; put the "
                f"{TOKENIZER_FILE} that the network was trained with beside config.json"
            )
        return ids

    # -- the released evaluation ----------------------------------------------------------------------

    def _selection(self, encoding: VideoEncoding, question: str, choice: Choice, num_frames: int) -> Selection:
        if not isinstance(choice, _ReleasedChoice) or choice.frames is None:
            return super()._selection(encoding, question, choice, num_frames)
        frames = np.unique(choice.frames)
        warnings = [*encoding.warnings, *choice.warnings]
        if len(frames) < num_frames:
            warnings.append(
                f"protocol 'paper' gives {num_frames} frames with repeats; the {len(frames)} distinct ones are returned"
            )
        evenly = choice.strategy == "uniform_fallback"
        timestamps = _frame_times(encoding, frames)
        return Selection(
            question=question,
            selector=self.name,
            indices=frames,
            timestamps=timestamps,
            scores=np.zeros(len(frames)) if evenly else choice.scores,
            candidate_indices=frames if evenly else encoding.indices,
            candidate_timestamps=timestamps if evenly else encoding.timestamps,
            video=encoding.video,
            video_fingerprint=encoding.video_fingerprint,
            strategy=choice.strategy,
            warnings=tuple(warnings),
            origin=encoding.origin,
        )


def _check_choice(
    sample: bool, num_samples: int, choose_by: str, protocol: str | None, num_frames: int, has_rank_head: bool
) -> None:
    if protocol not in (None, "paper"):
        raise InputError(f"protocol must be None or 'paper', not {protocol!r}")
    if isinstance(num_samples, bool) or not isinstance(num_samples, int) or num_samples < 1:
        raise InputError(f"num_samples must be a whole number of at least 1, not {num_samples!r}")
    if protocol == "paper" and num_frames > PICKS:
        raise InputError(
            f"protocol 'paper' draws {PICKS} picks, so num_frames can be at most {PICKS}, not {num_frames}"
        )
    if num_samples > 1 and not sample and protocol is None:
        raise InputError("num_samples above 1 needs sample=True; without sampling there is one selection")
    if choose_by not in ("likelihood", "rank"):
        raise InputError(f"choose_by must be 'likelihood' or 'rank', not {choose_by!r}")
    if choose_by == "rank" and not has_rank_head:
        raise InputError("this checkpoint has no rank head; use choose_by='likelihood'")


def _best(result: Decoded, choose_by: str) -> Choice:
    """The likeliest or best ranked of the samples of one question."""
    quality = result.rank_logits if choose_by == "rank" else result.pick_log_probs.sum(-1)
    assert quality is not None
    winner = int(quality.argmax())
    return Choice(result.picks[winner].numpy(), marginal_log_probs(result.log_probs[winner].numpy()))


def _released(encoding: VideoEncoding, result: Decoded, num_frames: int) -> Choice:
    """The first sample: its first picks, sorted; scores over all candidates and steps, as in the released database."""
    picks = result.picks[0].numpy()
    return _ReleasedChoice(
        picks[:num_frames],
        marginal_log_probs(result.log_probs.numpy()),
        frames=released_frames(encoding.indices, picks, num_frames=num_frames),
    )


def _evenly_spaced(encoding: VideoEncoding, num_frames: int) -> Choice:
    return _ReleasedChoice(
        np.zeros(0, np.int64),
        np.zeros(len(encoding)),
        strategy="uniform_fallback",
        warnings=(
            f"protocol 'paper' spaces the frames evenly when there are at most 128 candidates, here {len(encoding)}",
        ),
        frames=released_frames(encoding.indices, None, num_frames=num_frames),
    )


def _frame_times(encoding: VideoEncoding, frames: np.ndarray) -> np.ndarray:
    """Times of frames in seconds; those that are not candidates are looked up in the video."""
    place = np.searchsorted(encoding.indices, frames).clip(max=len(encoding) - 1)
    if np.array_equal(encoding.indices[place], frames):
        return encoding.timestamps[place]
    with _video_of(encoding) as video:
        return video.timestamps[frames]


@contextmanager
def _video_of(encoding: VideoEncoding) -> Iterator[Video]:
    if isinstance(encoding.origin, Video):
        yield encoding.origin
        return
    source = encoding.origin or encoding.video.source
    if not is_here(source):
        raise EncodingError(
            f"protocol 'paper' takes frames of a short video that are not candidates, and their times must be read "
            f"from the video {source!r}, which is not here; give the video instead of its encoding"
        )
    video = open_video(source)
    try:
        if video.fingerprint != encoding.video_fingerprint:
            raise EncodingError(f"{source} is not the video that was encoded; encode it again")
        yield video
    finally:
        video.close()


def default_tokenizer(name: str, options: HubOptions) -> Path:
    """The tokenizer that the authors' checkpoints use, from the Hub."""
    remedy = f"put the {TOKENIZER_FILE} of {TOKENIZER_ID} into the folder of the checkpoint"
    here = HubOptions(None, options.token, options.cache_dir, options.local_files_only)
    try:
        path = hub_file(TOKENIZER_ID, TOKENIZER_FILE, options=here)
    except SelectorLoadError as error:
        raise SelectorLoadError(f"{name} has no {TOKENIZER_FILE}, and {error}; or {remedy}") from error
    if path is None:
        raise SelectorLoadError(f"{name} has no {TOKENIZER_FILE}: {remedy}")
    return path
