"""Whether a thing that a question names is to be seen in a video at all, for any dual encoder.

Similarities of one encoder cannot be compared with those of another. So they are measured in deviations over unrelated
texts: how much better does the thing match a frame than anything else would?
"""

from __future__ import annotations

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
    null = unrelated.mean(0)
    unit = F.normalize(frames.float(), dim=-1)
    others = unit @ relative_texts(unrelated, null).mT  # [F, T]
    own = unit @ relative_texts(texts, null).reshape(-1, texts.shape[-1]).mT  # [F, texts]
    apart = (own - others.mean(-1, keepdim=True)) / others.std(-1, keepdim=True).clamp(min=1e-6)
    return apart.topk(peak_size(len(unit)), 0).values.mean(0).view(texts.shape[:-1])


def seen(frames: Tensor, texts: Tensor, unrelated: Tensor, least: float | None) -> list[bool]:
    """Whether a video shows one of the things that a question names; True for questions that name nothing.

    Args:
        frames: vectors [F, h].
        texts: of the named things, [B, M, h], zero where there is none.
        unrelated: vectors of `UNRELATED`, [T, h].
        least: `prominence` that one of them must reach; None: everything is taken to be there.
    """
    named = texts.abs().sum(-1) > 0
    if least is None:
        return [True] * len(texts)
    found = (prominence(frames, texts, unrelated) >= least) & named
    return (found.any(-1) | ~named.any(-1)).tolist()
