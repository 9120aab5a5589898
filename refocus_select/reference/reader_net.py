"""The networks of small readers: similarities of a few frames with question and options in, option logits out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from ..parsing import MAX_ENTITIES

COUNTS = 6
"""Numbers that can be counted to, from 0."""

_SIMILARITY_SCALE = 0.3  # similarities are in deviations, about -2 to 6


@dataclass(frozen=True)
class ReaderConfig:
    """A reader's network.

    Attributes:
        make: "transformer", "relation" or "recurrent".
        width: of its tokens.
        layers: blocks ("transformer"), or layers of the recurrence.
        dimensions: of the encoder's vectors.
        look: channels in which it sees a frame itself, beside the similarities.
    """

    make: str = "transformer"
    width: int = 64
    layers: int = 3
    dimensions: int = 384
    look: int = 24

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a configuration file."""
        return asdict(self)


class Batch(NamedTuple):
    """N subsets of K frames with O options each.

    Attributes:
        frames: vectors of the frames, float32 [N, K, D].
        place: share of the video's length at which each frame lies, float32 [N, K].
        position: the same counted in candidates, float32 [N, K].
        mentions: vectors of what the question names, zero where there is less, float32 [N, M, D].
        sentence: vector of the question without these, float32 [N, D].
        parts: vectors of what the options list, float32 [N, O, M, D].
        named: which of `mentions` there are, float32 [N, M].
        listed: which of `parts` there are, float32 [N, O, M].
        numbers: that the options say, -1 for none, int64 [N, O].
    """

    frames: Tensor
    place: Tensor
    position: Tensor
    mentions: Tensor
    sentence: Tensor
    parts: Tensor
    named: Tensor
    listed: Tensor
    numbers: Tensor


class ReaderNet(nn.Module):
    """Scores each option by itself, with shared weights, then compares the options.

    A reader knows a thing only by its similarity with frames, so that what it learns holds for things that it never
    saw. Counting has a path of its own: the probability of every count, computed frame by frame.
    """

    def __init__(self, config: ReaderConfig) -> None:
        super().__init__()
        self.config = config
        width, look = config.width, config.look
        self.look = nn.Linear(config.dimensions, look)
        self.ask = nn.Linear(config.dimensions, width)
        self.offer = nn.Linear(config.dimensions, width // 4)
        self.counter = Counter()
        self.frame_in = nn.Sequential(nn.Linear(_FRAME_FEATURES + look, width), nn.GELU(), nn.Linear(width, width))
        self.option_in = nn.Linear(width + width // 4 + _OPTION_FEATURES, width)
        self.body = _BODIES[config.make](width, config.layers)
        self.compare = nn.MultiheadAttention(width, 4, batch_first=True)
        self.compare_norm = nn.LayerNorm(width)
        self.score = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, 1))

    def forward(self, batch: Batch) -> Tensor:
        """Logits of the options, float32 [N, O]."""
        n, k, _ = batch.frames.shape
        o = batch.parts.shape[1]
        asked = torch.einsum("nkd,nmd->nkm", batch.frames, batch.mentions) * _SIMILARITY_SCALE  # [N, K, M]
        offered = torch.einsum("nkd,nomd->nokm", batch.frames, batch.parts) * _SIMILARITY_SCALE  # [N, O, K, M]
        nearby = _neighbours(batch)  # [N, K, 6]
        counted = self.counter(asked[..., 0], nearby, batch.named[:, 0])  # [N, COUNTS], log
        best = offered.masked_fill(batch.listed[:, :, None, :] == 0, -10).amax(-1)  # [N, O, K]
        rival = _best_of_others(best)
        own = torch.cat([offered, (best - rival)[..., None], rival[..., None]], -1)  # [N, O, K, M + 2]
        asked = asked[:, None].expand(-1, o, -1, -1)
        similar = torch.cat([asked, own], -1)  # [N, O, K, 2 M + 2]
        peaks = similar.amax(2, keepdim=True)
        waves = _waves(batch.place)  # [N, K, 8]
        common = torch.cat([nearby, waves, self.look(batch.frames)], -1)[:, None].expand(-1, o, -1, -1)
        features = torch.cat([similar, similar - peaks, _shifted(similar, 1), _shifted(similar, -1), common], -1)
        frames = self.frame_in(features)
        number = batch.numbers
        says = (number >= 0) & (number < COUNTS)
        likely = counted.gather(1, number.clamp(0, COUNTS - 1)) * says  # [N, O]
        about = torch.cat(
            [
                peaks[:, :, 0],
                similar.mean(2),
                batch.named[:, None].expand(-1, o, -1),
                batch.listed,
                likely[..., None],
                says[..., None].float(),
                F.one_hot(number.clamp(-1, COUNTS - 1) + 1, COUNTS + 1).float(),
            ],
            -1,
        )
        sentence = self.ask(batch.sentence)[:, None].expand(-1, o, -1)
        option = self.option_in(torch.cat([sentence, self.offer(batch.parts.sum(2)), about], -1))  # [N, O, W]
        read = self.body(frames.reshape(n * o, k, -1), option.reshape(n * o, -1), batch.position, o).view(n, o, -1)
        compared = self.compare_norm(read)
        read = read + self.compare(compared, compared, compared, need_weights=False)[0]
        logits: Tensor = self.score(read).squeeze(-1) + likely
        return logits


_SIMILAR = 2 * MAX_ENTITIES + 2
_FRAME_FEATURES = 4 * _SIMILAR + 6 + 8
_OPTION_FEATURES = 2 * _SIMILAR + 2 * MAX_ENTITIES + 2 + COUNTS + 1


class Counter(nn.Module):
    """How often a thing appears in a few frames: the distribution of the number of its scenes.

    A frame shows the thing or not; two neighbouring frames that show it belong to one scene or to two. Both are soft,
    and the forward algorithm of a two-state chain sums over all ways, so that every further scene moves the answer.
    """

    def __init__(self) -> None:
        super().__init__()
        self.present = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
        self.same = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))

    def forward(self, similarity: Tensor, nearby: Tensor, named: Tensor) -> Tensor:
        """Log probabilities of 0, 1, … scenes.

        Args:
            similarity: of each frame with the thing, [N, K].
            nearby: how each frame compares with its neighbours in the subset, [N, K, 6].
            named: 0 where there is no thing to count, [N].

        Returns:
            [N, COUNTS].
        """
        seen = torch.stack(
            [similarity, similarity - similarity.amax(1, keepdim=True), similarity - similarity.mean(1, keepdim=True)],
            -1,
        )
        present = torch.sigmoid(self.present(seen).squeeze(-1) + 4 * similarity - 2.5) * named[:, None]
        same = torch.sigmoid(self.same(nearby).squeeze(-1))
        absent_before = F.one_hot(torch.zeros(len(similarity), dtype=torch.long, device=similarity.device), COUNTS)
        absent_before = absent_before.to(similarity)  # [N, COUNTS]: probability of a count, the last frame without it
        present_before = torch.zeros_like(absent_before)
        for k in range(similarity.shape[1]):
            p, s = present[:, k, None], same[:, k, None]
            started = absent_before + present_before * (1 - s)
            grown = torch.cat(
                [torch.zeros_like(started[:, :1]), started[:, :-2], started[:, -2:].sum(1, keepdim=True)], 1
            )
            absent_before, present_before = (
                (absent_before + present_before) * (1 - p),
                (grown + present_before * s) * p,
            )
        return (0.97 * (absent_before + present_before) + 0.03 / COUNTS).log()


class _Transformer(nn.Module):
    """The option's token attends to the frames, and they to each other."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        block = nn.TransformerEncoderLayer(width, 4, 2 * width, 0.1, "gelu", batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, layers, enable_nested_tensor=False)

    def forward(self, frames: Tensor, option: Tensor, position: Tensor, options: int) -> Tensor:
        tokens = torch.cat([option[:, None], frames + option[:, None]], 1)
        out: Tensor = self.blocks(tokens)[:, 0]
        return out


class _Recurrent(nn.Module):
    """Reads the frames forwards and backwards, then pools them by attention."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.scan = nn.GRU(width, width // 2, layers, batch_first=True, bidirectional=True)
        self.weigh = nn.Linear(width, 2)
        self.out = nn.Sequential(nn.Linear(5 * width, width), nn.GELU(), nn.Dropout(0.1), nn.Linear(width, width))

    def forward(self, frames: Tensor, option: Tensor, position: Tensor, options: int) -> Tensor:
        states, _ = self.scan(F.gelu(frames + option[:, None]))  # [S, K, W]
        share = self.weigh(states).softmax(1)
        pooled = torch.einsum("skh,skw->shw", share, states).flatten(1)
        out: Tensor = self.out(torch.cat([pooled, states.amax(1), states[:, -1], option], 1))
        return out + option


class _Relation(nn.Module):
    """A network of pairs (Santoro et al., "A simple neural network module for relational reasoning", 2017)."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)
        self.apart = nn.Linear(2, width)
        deep: list[nn.Module] = []
        for _ in range(layers - 1):
            deep += [nn.GELU(), nn.Linear(width, width)]
        self.deep = nn.Sequential(*deep, nn.GELU())
        self.weigh = nn.Linear(width, 2)
        self.out = nn.Sequential(nn.Linear(5 * width, width), nn.GELU(), nn.Dropout(0.1), nn.Linear(width, width))

    def forward(self, frames: Tensor, option: Tensor, position: Tensor, options: int) -> Tensor:
        frames = F.gelu(frames + option[:, None])
        k = frames.shape[1]
        earlier, later = torch.triu_indices(k, k, device=frames.device)  # a frame is a pair with itself
        gap = torch.log1p(position[:, later] - position[:, earlier])  # [N, P]
        gap = torch.stack([gap / 4, (later - earlier == 1).to(gap).expand_as(gap)], -1)
        apart = self.apart(gap).repeat_interleave(options, 0)
        pairs = self.deep(self.first(frames)[:, earlier] + self.second(frames)[:, later] + apart)  # [S, P, W]
        share = self.weigh(pairs).softmax(1)
        pooled = torch.einsum("sph,spw->shw", share, pairs).flatten(1)
        out: Tensor = self.out(torch.cat([pooled, pairs.amax(1), pairs.mean(1), option], 1))
        return out + option


_BODIES: dict[str, Callable[[int, int], nn.Module]] = {
    "transformer": _Transformer,
    "relation": _Relation,
    "recurrent": _Recurrent,
}


def make_net(config: ReaderConfig) -> ReaderNet:
    """A network with fresh weights.

    Raises:
        InputError: if there is no such make.
    """
    if config.make not in _BODIES:
        raise InputError(f"no reader is made as {config.make!r}; known are {', '.join(_BODIES)}")
    return ReaderNet(config)


def _neighbours(batch: Batch) -> Tensor:
    """Each frame beside the one before and after it in the subset: gaps and likeness, [N, K, 6]."""
    unit = F.normalize(batch.frames, dim=-1)
    like = (unit[:, 1:] * unit[:, :-1]).sum(-1)
    gap = torch.log1p(batch.position.diff(dim=1)) / 4
    wide = 4 * batch.place.diff(dim=1)
    edges = [
        F.pad(part, side, value=edge)
        for part, edge in ((like, 0.0), (gap, 1.5), (wide, 1.0))
        for side in ((1, 0), (0, 1))
    ]
    return torch.stack(edges, -1)


def _waves(place: Tensor) -> Tensor:
    """Time as numbers that a network can use, [..., 8]."""
    angles = place[..., None] * math.pi * torch.tensor([0.5, 1.0, 2.0, 4.0], device=place.device)
    return torch.cat([angles.sin(), angles.cos()], -1)


def _best_of_others(best: Tensor) -> Tensor:
    """For each option the largest similarity of the other ones, [N, O, K]."""
    if best.shape[1] == 1:
        return torch.full_like(best, -3.0)
    top, which = best.topk(2, dim=1)
    first = which[:, :1] == torch.arange(best.shape[1], device=best.device)[None, :, None]
    return torch.where(first, top[:, 1:2], top[:, :1])


def _shifted(similar: Tensor, by: int) -> Tensor:
    """What the frame before (1) or after (-1) has, zero beyond the ends."""
    return F.pad(similar[:, :, :-1], (0, 0, 1, 0)) if by > 0 else F.pad(similar[:, :, 1:], (0, 0, 0, 1))
