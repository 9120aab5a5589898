"""Selection algorithms: pure functions of scores, embeddings, times, K and a seed.

Each is called as `algorithm(scores, num_frames, *, timestamps, …)` (`uniform` and `random` take timestamps instead of
scores) and returns exactly min(K, T) distinct positions, sorted; the same input and seed give the same answer.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .adaq import adaq
from .aks import aks
from .bolt import bolt
from .contract import complete_picks
from .coverage import farthest_first
from .focus import focus
from .gift import gift
from .markey import markey
from .mdp3 import mdp3
from .mmr import mmr
from .qframe import qframe
from .random import random
from .topk import topk, topk_nms
from .uniform import uniform

SCORED: dict[str, Callable[..., np.ndarray]] = {
    "topk": topk,
    "topk-nms": topk_nms,
    "mmr": mmr,
    "aks": aks,
    "bolt": bolt,
    "mdp3": mdp3,
    "qframe": qframe,
    "focus": focus,
    "adaq": adaq,
    "markey": markey,
    "gift": gift,
}
"""The algorithms that need scores, by the name that `FrameSelector.from_pretrained` knows."""

__all__ = [
    "SCORED",
    "adaq",
    "aks",
    "bolt",
    "complete_picks",
    "farthest_first",
    "focus",
    "gift",
    "markey",
    "mdp3",
    "mmr",
    "qframe",
    "random",
    "topk",
    "topk_nms",
    "uniform",
]
