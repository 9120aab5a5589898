"""Farthest-first traversal: frames that cover what a video shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .contract import check_num_frames, unit_rows


def farthest_first(
    embeddings: Any, num_frames: int, first: Sequence[int] | np.ndarray = (), bonus: np.ndarray | None = None
) -> np.ndarray:
    """Again and again the frame that is least like all that were picked: the greedy answer to the k-centre problem.

    Gonzalez, "Clustering to Minimize the Maximum Intercluster Distance" (1985); as a core-set of pictures, Sener and
    Savarese (ICLR 2018). It needs no question; with a bonus for relevance it is MMR that goes on from `first`.

    Args:
        embeddings: of the candidates, [T, D]; compared by their cosine.
        num_frames: K.
        first: picks that are made already, at most K; without any, the frame least like the mean comes first.
        bonus: subtracted from a frame's cosine with the pick that is most like it, [T].

    Returns:
        Distinct positions in the order of picking, `first` included, int64 [min(K, T)]; ties go to the earlier frame.
    """
    check_num_frames(num_frames)
    unit = unit_rows(embeddings)
    if not len(unit):
        return np.zeros(0, np.int64)
    picks = [int(i) for i in first] or [int((unit @ unit.mean(0)).argmin())]
    nearest = (unit @ unit[picks].T).max(1)
    while len(picks) < min(num_frames, len(unit)):
        nearest[picks] = np.inf
        picks.append(int((nearest if bonus is None else nearest - bonus).argmin()))
        nearest = np.maximum(nearest, unit @ unit[picks[-1]])
    return np.array(picks, dtype=np.int64)
