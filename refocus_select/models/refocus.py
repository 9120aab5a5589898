"""`RefocusModel`: the frame selector of ReFoCUS, from pixels and a question to picks.

    state = model.start(prefix_ids)                          # the prompt before the frames
    keys, values, state = model.read_frames(model.embed_frames(pixels), state)     # in segments, any length
    state = model.read_text(suffix_ids, state)               # the question
    picks = model.decode(keys, values, state, steps=8).picks

Frames precede the question and the network is causal: keys, values and the state behind the last frame hold for every
question. Source: Lee et al., "ReFoCUS" (2025), and the authors' release.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from .backbone import Backbone, BackboneState
from .config import RefocusConfig
from .pointer import PointerHead
from .vision import SiglipTower, make_projector, pool_patches

TEXT_SEGMENT = 2048  # tokens


@dataclass(frozen=True)
class Reading:
    """Videos and questions, read; B questions about videos of F frames each.

    Attributes:
        keys: [B, F, d].
        values: [B, F, d].
        state: behind each question, of B rows.
    """

    keys: Tensor
    values: Tensor
    state: BackboneState

    @property
    def finite(self) -> bool:
        """Whether all numbers are finite."""
        tensors = [self.keys, self.values, *(tensor for layer in self.state.layers for tensor in layer)]
        return bool(torch.stack([tensor.isfinite().all() for tensor in tensors]).all())

    def detached(self) -> Reading:
        """The same without gradient."""
        state = BackboneState.unstacked(*(tensor.detach() for tensor in self.state.stacked()))
        return Reading(self.keys.detach(), self.values.detach(), state)


@dataclass(frozen=True)
class Decoded:
    """Selections of n questions with C samples of Q picks each, among F frames.

    Attributes:
        picks: frame positions in the order of selection, int64 [n, C, Q].
        pick_log_probs: log-probability of each pick, float32 [n, C, Q]; -inf for a forced pick that was masked.
        log_probs: the whole distributions, float32 [n, C, Q, F]; -inf where masked.
        rank_logits: output of the rank head, float32 [n, C]; None without one.
    """

    picks: Tensor
    pick_log_probs: Tensor
    log_probs: Tensor
    rank_logits: Tensor | None


@dataclass(frozen=True)
class Scored(Decoded):
    """`Decoded` from the parallel pass, with what lies between (for training and for checks).

    Attributes:
        inputs: what was fed, [n * C, Q + 1, d].
        hidden: backbone outputs, [n * C, Q + 1, d]; the last position is the rank head's input.
        queries: [n * C, Q, d].
    """

    inputs: Tensor
    hidden: Tensor
    queries: Tensor


class RefocusModel(nn.Module):
    """Vision tower, projector, recurrent stack and pointer head, built from a `RefocusConfig`."""

    def __init__(self, config: RefocusConfig) -> None:
        super().__init__()
        self.config = config
        self.vision = SiglipTower(config.vision) if config.frame_encoder == "siglip" else None
        self.projector = make_projector(config.mm_projector_type, config.mm_hidden_size, config.d_model)
        self.question_projector = (
            nn.Linear(config.question_hidden_size, config.d_model) if config.question_hidden_size else None
        )
        self.backbone = Backbone(config)
        self.pointer = PointerHead(config)

    @property
    def device(self) -> torch.device:
        return self.backbone.embedding.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the activations (`A_log` may be kept in float32 beside bfloat16 weights)."""
        return self.backbone.embedding.weight.dtype

    # -- reading the video --------------------------------------------------------------------------

    def embed_frames(self, frames: Tensor) -> Tensor:
        """Visual tokens of pictures, or of features when the frame encoder lies outside.

        Args:
            frames: normalised pixels [n, 3, S, S]; or features [n, T', mm_hidden_size] if `frame_encoder` is "none".

        Returns:
            [n, T, d].
        """
        return self.projector(self.pool_frames(frames))

    def pool_frames(self, frames: Tensor) -> Tensor:
        """What the projector of `embed_frames` reads: pooled features, [n, T, mm_hidden_size]."""
        if self.vision is None:
            features = frames.to(self.dtype)
        else:
            pieces = frames.split(self.config.vision_encode_chunk_size)
            features = torch.cat([self.vision(piece) for piece in pieces])
        return pool_patches(features, self.config.mm_spatial_pool_mode)

    def start(self, prefix_ids: Tensor) -> BackboneState:
        """Read the prompt before the frames.

        Args:
            prefix_ids: token ids, int64 [L], L >= 0.
        """
        state = self.backbone.empty_state()
        return self.read_text(prefix_ids[None], state) if len(prefix_ids) else state

    def read_frames(self, tokens: Tensor, state: BackboneState) -> tuple[Tensor, Tensor, BackboneState]:
        """Read the tokens of the next n frames of one video.

        Args:
            tokens: [n, T, d].
            state: behind the frame before, of one row.

        Returns:
            Keys [n, d], values [n, d], and the state behind the n frames.
        """
        count, per_frame, _ = tokens.shape
        hidden, state = self.backbone(tokens.flatten(0, 1)[None], state)
        tails = hidden[0].unflatten(0, (count, per_frame))[:, -1]  # [n, d], output at the last token of each frame
        return self.pointer.keys(tails), self.pointer.values(tails), state

    # -- reading the question -----------------------------------------------------------------------

    def read_text(self, ids: Tensor, state: BackboneState) -> BackboneState:
        """Read token ids, int64 [n, L], n questions of equal length behind one state (or n states)."""
        for piece in ids.split(TEXT_SEGMENT, 1):  # bounded memory for any length of text
            _, state = self.backbone(self.backbone.embedding(piece), state)
        return state

    def read_question_vectors(self, vectors: Tensor, state: BackboneState) -> BackboneState:
        """Read n questions given as vectors [n, question_hidden_size], for models made for that."""
        if self.question_projector is None:
            raise InputError("this selector reads questions as text tokens (its question_hidden_size is 0)")
        _, state = self.backbone(self.question_projector(vectors.to(self.dtype))[:, None], state)
        return state

    # -- choosing -----------------------------------------------------------------------------------

    @torch.no_grad()
    def decode(
        self,
        keys: Tensor,
        values: Tensor,
        state: BackboneState,
        *,
        steps: int | None = None,
        num_samples: int = 1,
        sample: bool = False,
        temperature: float = 1.0,
        replace: bool = False,
        forced: Tensor | None = None,
        generator: torch.Generator | None = None,
        similarity: Tensor | None = None,
        rank: bool = True,
    ) -> Decoded:
        """Pick frames one after another, for n questions and C samples of each at once.

        Args:
            keys: [F, d] of one video, or [n, F, d] of a video per question.
            values: as the keys.
            state: behind each question, of n rows.
            steps: picks Q per sample (default `query_frames`); at most F unless `replace`.
            num_samples: independent selections C per question.
            sample: draw from the distribution; otherwise the largest probability wins, the first frame in a tie.
            temperature: above 0.
            replace: allow a frame to be picked again.
            forced: picks that are given, int64 [n, C, Q], -1 where free.
            generator: source of randomness on the model's device.
            similarity: frame-question similarity [n, F], for models with `similarity_residual`.
            rank: feed the last pick too, for the rank logit.

        Raises:
            InputError: for steps, num_samples, a temperature or forced picks out of range.
        """
        n, frames = state.rows, keys.shape[-2]
        steps = self._checked_steps(steps, frames, num_samples, temperature, replace)
        rows = n * num_samples
        if forced is not None and (forced.shape[:2] != (n, num_samples) or forced.shape[2] < steps):
            raise InputError(f"forced picks must be [{n}, {num_samples}, {steps}], not {list(forced.shape)}")
        if forced is not None and (int(forced.min()) < -1 or int(forced.max()) >= frames):
            raise InputError(f"forced picks must be positions 0..{frames - 1}, or -1 where free")
        given = None if forced is None else forced.to(keys.device).reshape(rows, -1)
        residual = None if similarity is None else similarity.repeat_interleave(num_samples, 0)[:, None]

        caches = self.backbone.start_decoding(state, num_samples, steps + 1)
        token = self.backbone.embedding.weight[self.config.start_of_frame_token_id].expand(rows, -1)
        used = torch.zeros(rows, frames, dtype=torch.bool, device=keys.device)
        picks, all_log_probs = [], []
        for t in range(steps):
            queries = self.pointer.queries(self.backbone.step(token, caches))[:, None]
            logits = self.pointer.logits(queries, keys, temperature, residual)[:, 0]
            if not replace:
                logits = logits.masked_fill(used, -torch.inf)
            log_probs = logits.log_softmax(-1)
            pick = _draw(log_probs, generator) if sample else log_probs.argmax(-1)
            if given is not None:
                pick = torch.where(given[:, t] >= 0, given[:, t], pick)
            used.scatter_(1, pick[:, None], True)
            token = _of_picks(values, pick[:, None])[:, 0]
            picks.append(pick)
            all_log_probs.append(log_probs)
        ranked = rank and self.config.use_rank_head
        rank_logits = self.pointer.rank(self.backbone.step(token, caches)) if ranked else None

        chosen, distributions = torch.stack(picks, 1), torch.stack(all_log_probs, 1)
        pick_log_probs = distributions.gather(-1, chosen[..., None])[..., 0]
        shape = (n, num_samples)
        return Decoded(
            chosen.unflatten(0, shape),
            pick_log_probs.unflatten(0, shape),
            distributions.unflatten(0, shape),
            None if rank_logits is None else rank_logits.unflatten(0, shape),
        )

    def score(
        self,
        keys: Tensor,
        values: Tensor,
        state: BackboneState,
        picks: Tensor,
        *,
        temperature: float = 1.0,
        replace: bool = False,
        similarity: Tensor | None = None,
    ) -> Scored:
        """Distributions of given selections in one parallel pass, with gradients into the state, keys and values.

        Args:
            picks: [n, C, Q] int64, all of them given.
            keys, values, state, temperature, replace, similarity: as for `decode`.

        Raises:
            InputError: for picks of the wrong shape or outside the frames.
        """
        n, samples, steps = picks.shape
        frames = keys.shape[-2]
        if n != state.rows:
            raise InputError(f"picks of {n} questions but states of {state.rows}")
        if steps < 1 or int(picks.min()) < 0 or int(picks.max()) >= frames:
            raise InputError(f"picks must be positions 0..{frames - 1}, at least one per selection")
        flat = picks.flatten(0, 1)  # [n*C, Q]
        first = self.backbone.embedding.weight[self.config.start_of_frame_token_id].expand(len(flat), 1, -1)
        inputs = torch.cat([first, _of_picks(values, flat)], 1)  # [n*C, Q+1, d]
        hidden, _ = self.backbone(inputs, state, return_state=False)
        queries = self.pointer.queries(hidden[:, :-1])  # [n*C, Q, d]
        residual = None if similarity is None else similarity.repeat_interleave(samples, 0)[:, None]
        logits = self.pointer.logits(queries, keys, temperature, residual)
        if not replace:
            chosen = F.one_hot(flat, frames).cumsum(1)  # [n*C, Q, F]
            used = F.pad(chosen, (0, 0, 1, 0))[:, :-1] > 0
            logits = logits.masked_fill(used, -torch.inf)
        log_probs = logits.log_softmax(-1)
        rank_logits = self.pointer.rank(hidden[:, -1])
        shape = (n, samples)
        return Scored(
            picks,
            log_probs.gather(-1, flat[..., None])[..., 0].unflatten(0, shape),
            log_probs.unflatten(0, shape),
            None if rank_logits is None else rank_logits.unflatten(0, shape),
            inputs,
            hidden,
            queries,
        )

    def _checked_steps(
        self, steps: int | None, frames: int, num_samples: int, temperature: float, replace: bool
    ) -> int:
        steps = self.config.query_frames if steps is None else steps
        if steps < 1 or num_samples < 1:
            raise InputError(f"steps and num_samples must be at least 1, not {steps} and {num_samples}")
        if not temperature > 0:
            raise InputError(f"temperature must be above 0, not {temperature}; use sample=False for greedy selection")
        # Without replacement nothing is left after F picks (the authors' code fails there).
        return steps if replace else min(steps, frames)


def _of_picks(values: Tensor, picks: Tensor) -> Tensor:
    """Values of picked frames: [F, d] or [n, F, d] and picks [rows, Q] to [rows, Q, d]."""
    if values.ndim == 2:
        return values[picks]
    grouped = picks.reshape(len(values), -1, 1).expand(-1, -1, values.shape[-1])
    return values.gather(1, grouped).view(*picks.shape, -1)


def _draw(log_probs: Tensor, generator: torch.Generator | None) -> Tensor:
    """One frame per row, [rows, F] to [rows]; on a CPU the same random stream as drawing row by row."""
    return torch.multinomial(log_probs.exp(), 1, generator=generator)[:, 0]
