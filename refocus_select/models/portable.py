"""`PortablePolicy`: the trained frame selector for every dual encoder, from a video's vectors to picks.

    reading = policy.read(video_cues(frames, times), similarities(frames, texts), sentences)
    chosen = policy.decode(reading, steps=8)

Frames are read as cues that any encoder gives (`models.cues`), the question as the things that it names, which are
compared with the frames, and as the sentence around them, whose vector comes from the embedded sentence encoder
whatever the user's encoder is. A Mamba-2 layer reads the frames from either end, a pointer picks one after another
(the decoder of ReFoCUS, Lee et al. 2025), and before each pick the policy may say that it has seen enough.

Letters in shapes: V videos, B questions (V is B or 1), N selections of each, F frames, M named things, Q picks,
width d.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import SelectorLoadError
from .backbone import Backbone, BackboneState
from .config import RefocusConfig, SSMConfig, check_positive, check_types
from .cues import (
    ENTITY_CUES,
    PICK_CUES,
    VIDEO_CUES,
    PickCues,
    VideoCues,
    all_pick_cues,
    entity_cues,
    mean_similarity,
)
from .pointer import PointerHead

MODEL_TYPE = "refocus-select-portable"
FORMAT_VERSION = 1
SENTENCE_SCALE = 8.0  # unit sentence vectors have entries of .05; with this, layers start with useful outputs


@dataclass(frozen=True)
class PortableConfig:
    """Sizes of the network, and how it is used.

    Attributes:
        d_model: width d.
        n_layer: Mamba-2 layers from either end.
        d_state, headdim: of these layers.
        entities: things that a question names and the network looks for; further ones are not read.
        sentence_size: length of sentence vectors.
        attention_heads: of the attention between frames; 0: none.
        min_gain: it has seen enough when it expects further picks to add less than this to the chance of a right
            answer; None: it never has.
        max_picks: it picks at most so many frames; what is wanted beyond them is not chosen by the network.
        min_rank: the share of unrelated texts that a thing must beat to be seen (`models.recognition.rank`); None: all
            things are taken to be there.
        max_fps, max_num_frames, candidate_method: the candidate rule of this policy.
    """

    d_model: int = 64
    n_layer: int = 1
    d_state: int = 16
    headdim: int = 32
    entities: int = 3
    sentence_size: int = 384
    attention_heads: int = 4
    max_picks: int = 16
    min_gain: float | None = None
    min_rank: float | None = None
    max_fps: float = 2.0
    max_num_frames: int = 256
    candidate_method: str = "time"

    def __post_init__(self) -> None:
        check_types(self, "")
        for name in ("d_model", "n_layer", "d_state", "headdim", "entities", "sentence_size", "max_picks",
                     "max_num_frames"):  # fmt: skip
            check_positive(name, getattr(self, name))
        if self.attention_heads < 0 or self.max_fps <= 0:
            raise SelectorLoadError(
                f"attention_heads must not be negative and max_fps above 0, not {self.attention_heads}, {self.max_fps}"
            )
        if self.candidate_method not in ("time", "paper"):
            raise SelectorLoadError(f"candidate_method must be 'time' or 'paper', not {self.candidate_method!r}")
        if self.attention_heads and self.d_model % self.attention_heads:
            raise SelectorLoadError(f"d_model {self.d_model} cannot be shared by {self.attention_heads} heads")

    def to_dict(self) -> dict[str, Any]:
        """The content of `config.json`."""
        return {"model_type": MODEL_TYPE, "format_version": FORMAT_VERSION, **asdict(self)}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> PortableConfig:
        """Read a `config.json`.

        Raises:
            SelectorLoadError: for another version, or fields that are unknown or wrong.
        """
        if raw.get("format_version") != FORMAT_VERSION:
            raise SelectorLoadError(
                f"config.json has format_version {raw.get('format_version')!r}; this release reads {FORMAT_VERSION}: "
                "update refocus-select"
            )
        values = {name: value for name, value in raw.items() if name not in ("model_type", "format_version")}
        unknown = sorted(values.keys() - {f.name for f in fields(cls)})
        if unknown:
            raise SelectorLoadError(f"config.json has unknown fields: {', '.join(unknown)}")
        return cls(**values)

    @property
    def stack(self) -> RefocusConfig:
        """What the recurrent layers and the pointer are built from."""
        return RefocusConfig(
            d_model=self.d_model,
            n_layer=self.n_layer,
            vocab_size=1,
            ssm=SSMConfig(d_state=self.d_state, headdim=self.headdim),
            frame_encoder="none",
            mm_hidden_size=self.d_model,
            question_hidden_size=self.sentence_size,
        )


@dataclass(frozen=True)
class PortableReading:
    """Questions about videos, read.

    Attributes:
        keys, values: [B, F, d].
        state: behind each question, of B rows.
        similarity: mean standardised similarity of the named things, [B, F].
        alike: of `VideoCues`, [V, F, F].
    """

    keys: Tensor
    values: Tensor
    state: BackboneState
    similarity: Tensor
    alike: Tensor

    @property
    def finite(self) -> bool:
        """Whether all numbers are finite."""
        tensors = [
            self.keys,
            self.values,
            self.similarity,
            *(tensor for layer in self.state.layers for tensor in layer),
        ]
        return bool(torch.stack([tensor.isfinite().all() for tensor in tensors]).all())

    def detached(self) -> PortableReading:
        """The same without gradient."""
        state = BackboneState.unstacked(*(tensor.detach() for tensor in self.state.stacked()))
        return PortableReading(
            self.keys.detach(), self.values.detach(), state, self.similarity.detach(), self.alike.detach()
        )


@dataclass(frozen=True)
class Choices:
    """Selections, and how likely the policy finds them.

    Attributes:
        picks: in the order of picking, int64 [B, N, Q].
        lengths: picks before the policy has seen enough (`PortableConfig.min_gain`); Q if it never has, int64 [B, N].
        log_probs: of all frames before each pick, given that it goes on, [B, N, Q, F]; -inf for those picked already.
        remaining: what the picks from each one on are expected to add, in reward, [B, N, Q].
    """

    picks: Tensor
    lengths: Tensor
    log_probs: Tensor
    remaining: Tensor

    def cpu(self) -> Choices:
        """The same on the CPU."""
        return Choices(self.picks.cpu(), self.lengths.cpu(), self.log_probs.cpu(), self.remaining.cpu())


class FrameTokens(nn.Module):
    """Tokens of frames: cues, scaled and shifted by the question's sentence (FiLM, Perez et al. 2018)."""

    def __init__(self, config: PortableConfig) -> None:
        super().__init__()
        cues, d = VIDEO_CUES + ENTITY_CUES * config.entities, config.d_model
        self.plain, self.sentence = nn.Linear(cues, d), nn.Linear(config.sentence_size, d)
        self.hidden, self.scale = nn.Linear(cues, 2 * d), nn.Linear(config.sentence_size, 2 * d)
        self.out = nn.Linear(2 * d, d)

    def forward(self, video: Tensor, entities: Tensor, sentence: Tensor) -> tuple[Tensor, Tensor]:
        """[V, F, VIDEO_CUES], [B, F, …] and [B, s] to tokens [B, F, d] and the question's token [B, 1, d]."""
        cues = torch.cat([video.expand(len(entities), -1, -1), entities], -1)
        sentence = SENTENCE_SCALE * sentence
        asked = self.sentence(sentence)[:, None]
        scaled = F.silu(self.hidden(cues)) * (1 + self.scale(sentence))[:, None]
        return self.plain(cues) + asked + self.out(scaled), asked


class FrameAttention(nn.Module):
    """Frames look at frames that are alike, or near in time; how much either counts is learned for each head."""

    def __init__(self, config: PortableConfig) -> None:
        super().__init__()
        d, heads = config.d_model, config.attention_heads
        self.heads = heads
        self.alike = nn.Parameter(torch.linspace(4, 2, heads))
        self.near = nn.Parameter(torch.linspace(1, -1, heads))
        self.norm, self.value, self.out = nn.LayerNorm(d), nn.Linear(d, d), nn.Linear(d, d)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, tokens: Tensor, alike: Tensor) -> Tensor:
        """[B, F, d] and [V, F, F] to what is added to the tokens, [B, F, d]."""
        index = torch.arange(tokens.shape[1], device=tokens.device)
        distance = (index[:, None] - index).abs().to(tokens.dtype).log1p()
        logits = self.alike[:, None, None] * alike[:, None] - self.near[:, None, None] * distance  # [V, heads, F, F]
        values = self.value(self.norm(tokens)).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, heads, F, d/heads]
        return self.out(torch.matmul(logits.softmax(-1), values).transpose(1, 2).flatten(2))


class PortablePolicy(nn.Module):
    """Reads cues and questions, and picks frames."""

    def __init__(self, config: PortableConfig) -> None:
        super().__init__()
        self.config = config
        stack = config.stack
        self.tokens = FrameTokens(config)
        self.attention = FrameAttention(config) if config.attention_heads else None
        self.backbone, self.reverse = Backbone(stack), Backbone(stack)
        self.pointer = PointerHead(stack)
        self.similarity_scale = nn.Parameter(torch.ones(()))
        self.pick_scale = nn.Linear(config.d_model, PICK_CUES)
        self.stop = nn.Linear(config.d_model + 2, 1)
        nn.init.zeros_(self.pick_scale.weight)
        nn.init.zeros_(self.stop.weight)
        with torch.no_grad():
            self.pick_scale.bias.copy_(torch.tensor([-0.5, 0.0, -0.2]))  # other frames than those picked
            self.stop.bias.zero_()

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.similarity_scale.device

    def read(self, video: VideoCues, matches: Tensor, sentences: Tensor) -> PortableReading:
        """Read B questions about V videos of equal length; with one video, all questions are about it.

        Args:
            video: of the V videos.
            matches: from `cues.similarities`, [B, entities, F].
            sentences: vectors of the questions without the things that they name, [B, sentence_size].
        """
        tokens, asked = self.tokens(video.frames, entity_cues(matches, video), sentences)
        if self.attention is not None:
            tokens = tokens + self.attention(tokens, video.alike)
        rows = len(tokens)
        hidden, state = self.backbone(tokens, self.backbone.empty_state(rows))
        backwards, _ = self.reverse(tokens.flip(1), self.reverse.empty_state(rows), return_state=False)
        hidden = hidden + backwards.flip(1)
        _, state = self.backbone(asked, state)
        keys, values = self.pointer.keys(hidden), self.pointer.values(hidden)
        return PortableReading(keys, values, state, mean_similarity(matches), video.alike)

    @torch.no_grad()
    def decode(
        self,
        reading: PortableReading,
        steps: int,
        *,
        rollouts: int = 1,
        sample: bool = False,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Choices:
        """Pick frames one after another, N selections of each question.

        All get `steps` picks (at most F); `lengths` says after how many of them the policy had seen enough.

        Args:
            reading: of B questions.
            steps: Q.
            rollouts: N.
            sample: draw from the policy; otherwise the likeliest frame, the first in a tie.
            temperature: above 0; flattens or sharpens the choice of frames.
            generator: source of randomness on the device of the weights.
        """
        rows, count = len(reading.keys) * rollouts, reading.keys.shape[1]
        steps = min(steps, count)
        caches = self.backbone.start_decoding(reading.state, rollouts, steps)
        token = self.backbone.embedding.weight[0].expand(rows, -1)
        values = reading.values.repeat_interleave(rollouts, 0)
        cues = PickCues(reading.alike, rows)
        used = torch.zeros(rows, count, dtype=torch.bool, device=token.device)
        picks, log_probs, expected = [], [], []
        for _ in range(steps):
            hidden = self.backbone.step(token, caches)[:, None]
            frames, remaining = self._outputs(reading, hidden, cues.now[:, None], used[:, None], temperature)
            if sample:
                pick = torch.multinomial(frames[:, 0].exp(), 1, generator=generator)[:, 0]
            else:
                pick = frames[:, 0].argmax(-1)
            used.scatter_(1, pick[:, None], True)
            cues.add(pick)
            token = values[torch.arange(rows, device=pick.device), pick]
            picks.append(pick)
            log_probs.append(frames[:, 0])
            expected.append(remaining[:, 0])
        gains = torch.stack(expected, 1)  # [rows, Q]
        least = float("-inf") if self.config.min_gain is None else self.config.min_gain
        ends = F.pad(gains[:, 1:] < least, (1, 1), value=True)  # never before the first pick
        ends[:, 0] = False
        shape = (len(reading.keys), rollouts)
        return Choices(
            torch.stack(picks, 1).unflatten(0, shape),
            ends.to(torch.int8).argmax(-1).unflatten(0, shape),
            torch.stack(log_probs, 1).unflatten(0, shape),
            gains.unflatten(0, shape),
        )

    def score(self, reading: PortableReading, picks: Tensor, *, temperature: float = 1.0) -> Choices:
        """The distributions before each pick of given selections in one parallel pass, with gradient.

        Args:
            reading: of B questions.
            picks: int64 [B, N, Q], which are all taken to count.
            temperature: as for `decode`.
        """
        rollouts, count = picks.shape[1], reading.keys.shape[1]
        flat = picks.flatten(0, 1)  # [rows, Q]
        values = reading.values.repeat_interleave(rollouts, 0)
        picked = values.gather(1, flat[..., None].expand(-1, -1, values.shape[-1]))
        first = self.backbone.embedding.weight[0].expand(len(flat), 1, -1)
        hidden, _ = self.backbone(torch.cat([first, picked[:, :-1]], 1), reading.state, return_state=False)
        used = F.pad(F.one_hot(flat, count).cumsum(1), (0, 0, 1, 0))[:, :-1] > 0
        cues = all_pick_cues(reading.alike, flat)
        frames, remaining = self._outputs(reading, hidden, cues, used, temperature)
        shape = picks.shape[:2]
        lengths = torch.full_like(picks[..., 0], picks.shape[-1])
        return Choices(picks, lengths, frames.unflatten(0, shape), remaining.unflatten(0, shape))

    def _outputs(
        self, reading: PortableReading, hidden: Tensor, cues: Tensor, used: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        """Log-probabilities of frames [rows, Q, F] and what is expected of further picks [rows, Q].

        Args:
            hidden: of the decoder, [rows, Q, d].
            cues: [rows, Q, F, PICK_CUES].
            used: frames that are picked already, bool [rows, Q, F].
        """
        rows = len(hidden) // len(reading.keys)
        logits = self.pointer.logits(self.pointer.queries(hidden), reading.keys, 1.0, None)
        logits = logits + self.similarity_scale * reading.similarity.repeat_interleave(rows, 0)[:, None]
        logits = logits + (cues * self.pick_scale(hidden)[:, :, None]).sum(-1)
        frames = (logits / temperature).masked_fill(used, -torch.inf).log_softmax(-1)
        sure = frames.detach().masked_fill(used, 0.0)
        unsure = -(sure.exp() * sure * ~used).sum(-1)
        best = frames.detach().amax(-1)
        # The expectation is read off what the decoder knows, and changes nothing of it.
        known = torch.cat([hidden.detach(), best[..., None], unsure[..., None]], -1)
        return frames, self.stop(known)[..., 0]


def beside(picks: Tensor, lengths: Tensor, size: int, count: int) -> Tensor:
    """Fill selections up with the frames beside their picks: nearest in time first, the earlier one in a tie.

    Args:
        picks: positions in the order of picking, int64 [..., Q].
        lengths: how many of them count, at least 1 and at most `size`, int64 [...].
        size: frames K <= F.
        count: frames F of the video.

    Returns:
        Distinct positions, the picks that count first, int64 [..., K].
    """
    steps = torch.arange(picks.shape[-1], device=picks.device)
    counts = steps < lengths[..., None]  # [..., Q]
    index = torch.arange(count, device=picks.device)
    distance = (picks[..., None] - index).abs().masked_fill(~counts[..., None], count)  # [..., Q, F]
    order = distance.amin(-2) + picks.shape[-1]
    place = torch.where(counts, steps - picks.shape[-1], count + 2 * picks.shape[-1])
    order = order.scatter_reduce(-1, picks, place, "amin")  # picks stand in their own order before all others
    return order.argsort(dim=-1, stable=True)[..., :size]
