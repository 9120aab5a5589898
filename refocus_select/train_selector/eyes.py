"""Random eyes: while it learns, a portable policy sees every video as another dual encoder might.

Encoders differ in how near pictures lie to their names, in what they mistake, in how their dimensions are scaled
(anisotropy), and in the gap between pictures and texts (Liang et al. 2022). A video is changed in all of these at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

PLAIN = 0.25  # of the videos are seen as they are
NAMED, SCENE, FRAME, TEXT, SCALES, GAP = 0.6, 0.7, 0.3, 0.5, 2.0, 1.5  # the most of each change


@dataclass(frozen=True)
class View:
    """A video and a question in the space of an encoder.

    Attributes:
        frames: [F, h].
        texts: of named things, [M, h], zero where there is none.
        unrelated: unrelated texts, [T, h].
    """

    frames: Tensor
    texts: Tensor
    unrelated: Tensor


def through_random_eye(
    view: View, generator: torch.Generator, *, names: Tensor | None = None, scenes: Tensor | None = None
) -> View:
    """The same video through another eye, or as it is.

    Args:
        view: in the space of the encoder at hand.
        generator: decides everything.
        names: vector of the name of what each frame shows, [F, h], zero where that is unknown.
        scenes: number of each frame's scene, int64 [F]; each scene is misperceived in its own way.
    """

    def chance(probability: float) -> float:
        return float(torch.rand((), generator=generator) < probability)

    def up_to(most: float) -> float:
        return most * float(torch.rand((), generator=generator))

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) / shape[-1] ** 0.5

    if chance(PLAIN):
        return view
    frames, width = F.normalize(view.frames.float(), dim=-1), view.frames.shape[-1]
    texts, unrelated = F.normalize(view.texts.float(), dim=-1), F.normalize(view.unrelated.float(), dim=-1)
    there = texts.abs().sum(-1, keepdim=True) > 0
    if names is not None:
        share = chance(0.6) * up_to(NAMED) * (names.abs().sum(-1, keepdim=True) > 0)
        frames = F.normalize((1 - share) * frames + share * F.normalize(names, dim=-1), dim=-1)
    if scenes is not None:
        _, which = scenes.unique(return_inverse=True)
        frames = frames + chance(0.5) * up_to(SCENE) * noise(int(which.max()) + 1, width)[which]
    frames = frames + up_to(FRAME) * noise(*frames.shape)
    texts = texts + chance(0.5) * up_to(TEXT) * noise(*texts.shape)
    scales = torch.exp(-chance(0.5) * up_to(SCALES) * torch.rand(width, generator=generator))
    frames, texts, unrelated = (F.normalize(part * scales, dim=-1) for part in (frames, texts, unrelated))
    gap = chance(0.6)
    frames = frames + gap * up_to(GAP) * F.normalize(noise(1, width), dim=-1)
    aside = gap * up_to(GAP) * F.normalize(noise(1, width), dim=-1)
    return View(F.normalize(frames, dim=-1), (texts + aside) * there, unrelated + aside)
