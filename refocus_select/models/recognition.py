"""Whether a thing that a question names is to be seen in a video at all, for any dual encoder.

Similarities of one encoder cannot be compared with those of another. So the thing is compared with unrelated texts on
the same video: with how many of them does the video agree less? That says nothing where an encoder likes some texts
better than others whatever it sees; hence a thing also counts as seen where it stands out against the rest of the video
more than they do.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .cues import relative_texts

UNRELATED: tuple[str, ...] = (
    "anvil", "aquarium", "archery target", "barcode", "beehive", "bonfire", "bowling pins", "cactus", "candelabra",
    "chandelier", "chess board", "circuit board", "coral reef", "crossword puzzle", "dartboard", "dentist", "dinosaur",
    "envelope", "escalator", "fire hydrant", "fossil", "glacier", "globe", "gondola", "hammock", "harp",
    "hot air balloon", "igloo", "jellyfish", "keyboard", "lava", "lighthouse", "loom", "map", "microscope",
    "moon surface", "mosaic", "origami", "parachute", "piano keys", "pyramid", "receipt", "sheet music", "skeleton",
    "stained glass", "submarine", "telescope", "thermometer",
)  # fmt: skip
"""Things of many kinds that few videos show. Their mean is what all texts have in common."""


def peak_size(frames: int) -> int:
    """How many of the best frames tell whether something is to be seen: one, one more for each 32, at most four."""
    return min(4, 1 + frames // 32)


def prominence(frames: Tensor, texts: Tensor, unrelated: Tensor) -> Tensor:
    """How far texts stand out among unrelated ones where they match best.

    Args:
        frames: vectors [F, h].
        texts: vectors [..., h].
        unrelated: vectors of unrelated texts, [T, h].

    Returns:
        Mean over the best frames (`peak_size`), in deviations of the unrelated texts' similarities with each, [...].
    """
    apart = _apart(frames, texts.reshape(-1, texts.shape[-1]), unrelated)
    return _peak(apart).view(texts.shape[:-1])


def rank(frames: Tensor, texts: Tensor, unrelated: Tensor) -> Tensor:
    """The share of unrelated texts that stand out less in a video than a text does, 0 to 1.

    The larger of two: of those whose best frames match less, and of those whose best frames are less apart from the
    video's mean.

    Args:
        frames: vectors [F, h].
        texts: vectors [..., h].
        unrelated: vectors of unrelated texts, [T, h].

    Returns:
        [...].
    """
    own, others = _apart(frames, texts.reshape(-1, texts.shape[-1]), unrelated), _apart(frames, unrelated, unrelated)
    shares = [
        (_peak(mine)[:, None] > _peak(theirs)).float().mean(-1)
        for mine, theirs in ((own, others), (own - own.mean(0), others - others.mean(0)))
    ]
    return torch.maximum(*shares).view(texts.shape[:-1])


def seen(frames: Tensor, texts: Tensor, unrelated: Tensor, least: float | None) -> list[bool]:
    """Whether a video shows one of the things that a question names; True for questions that name nothing.

    Args:
        frames: vectors [F, h].
        texts: of the named things, [B, M, h], zero where there is none.
        unrelated: vectors of `UNRELATED`, [T, h].
        least: `rank` that one of them must reach; None: everything is taken to be there.
    """
    named = texts.abs().sum(-1) > 0
    if least is None:
        return [True] * len(texts)
    found = (rank(frames, texts, unrelated) >= least) & named
    return (found.any(-1) | ~named.any(-1)).tolist()


def _apart(frames: Tensor, texts: Tensor, unrelated: Tensor) -> Tensor:
    """Similarities [F, N] in deviations of the unrelated texts' similarities with each frame."""
    null = unrelated.mean(0)
    unit = F.normalize(frames.float(), dim=-1)
    others = unit @ relative_texts(unrelated, null).mT  # [F, T]
    own = unit @ relative_texts(texts, null).mT  # [F, N]
    return (own - others.mean(-1, keepdim=True)) / others.std(-1, keepdim=True).clamp(min=1e-6)


def _peak(rows: Tensor) -> Tensor:  # [F, N] -> [N]
    return rows.topk(peak_size(len(rows)), 0).values.mean(0)
