"""The released evaluation of ReFoCUS after its candidates (`CandidateRule`, method "paper"), as pure functions."""

from __future__ import annotations

import numpy as np

PICKS = 64  # drawn by the policy
EXPORTED = 32  # of them used, in the order of selection
SHORT_VIDEO = 128  # up to so many candidates, frames are taken uniformly instead


def uses_policy(candidates: int) -> bool:
    """Whether the released export looks at the policy's picks at all for so many candidates."""
    return candidates > SHORT_VIDEO


def released_frames(
    indices: np.ndarray, picks: np.ndarray | None, *, num_frames: int = EXPORTED, ordered: bool = True
) -> np.ndarray:
    """Frame numbers that the released evaluation passes on.

    Args:
        indices: frame numbers of the candidates, [F].
        picks: positions among the candidates in the order of selection; None if the policy was not run.
        num_frames: how many of the picks are used.
        ordered: sort them in time.

    Returns:
        int64 [num_frames]; for a short video evenly spaced frame numbers, which need not be candidates and repeat
        when the video has fewer frames.
    """
    if picks is None or not uses_policy(len(indices)):
        return np.linspace(indices[0], indices[-1], num_frames, dtype=int).astype(np.int64)
    frames = np.asarray(indices)[np.asarray(picks)[:num_frames]]
    return np.sort(frames) if ordered else frames


def marginal_log_probs(log_probs: np.ndarray) -> np.ndarray:
    """Log of the average selection probability of each frame.

    Args:
        log_probs: distributions of all candidates and steps, [..., F]; -inf where a frame was masked.

    Returns:
        float64 [F].
    """
    rows = np.asarray(log_probs, dtype=np.float64).reshape(-1, np.shape(log_probs)[-1])
    return np.logaddexp.reduce(rows, axis=0) - np.log(len(rows))
