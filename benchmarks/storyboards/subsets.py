"""Subsets of every kind: what a reader is trained on, and what its reports compare."""

from __future__ import annotations

import numpy as np

from refocus_select.questions import Question
from refocus_select.selectors.algorithms import uniform
from refocus_select.train_selector.storyboards import NOTHING, Layout

KINDS = ("oracle", "half", "uniform", "random", "similar", "things", "none", "background")


def subset(
    kind: str, rng: np.random.Generator, question: Question, layout: Layout, num_frames: int, similarity: np.ndarray
) -> np.ndarray:
    """K sorted positions among the candidates.

    Args:
        kind: "oracle" shows every scene of the evidence, then more of it and other frames; "half" leaves out about
            half of these scenes; "none" all of them, and "background" everything but background; "similar" takes the
            frames most similar to the question, "things" shows as many different scenes as it can.
        similarity: of each candidate with the question, [F].
    """
    count = len(layout.timestamps)
    k = min(num_frames, count)
    if kind == "uniform":
        return uniform(layout.timestamps, k)
    if kind == "random":
        return np.sort(rng.permutation(count)[:k])
    evidence = _scenes(question, layout)
    if kind == "similar":
        return np.sort(np.argsort(-similarity, kind="stable")[:k])
    inside = np.zeros(count, bool)
    for scene in evidence:
        inside[scene.start : scene.stop] = True
    if kind in ("none", "background"):
        allowed = ~inside if kind == "none" else layout.shown == NOTHING
        return _filled(rng, [], np.flatnonzero(allowed), np.flatnonzero(~inside), k)
    if kind == "things":
        chosen = [layout.scenes[i] for i in rng.permutation(len(layout.scenes))]
        allowed = np.arange(count)
    elif kind == "half":
        keep = rng.random(len(evidence)) < 0.5
        chosen = [scene for scene, kept in zip(evidence, keep, strict=True) if kept]
        allowed = np.flatnonzero(~inside)
    else:
        chosen = [evidence[i] for i in rng.permutation(len(evidence))]
        allowed = np.flatnonzero(inside)
    first = [int(rng.integers(scene.start, scene.stop)) for scene in chosen][:k]
    return _filled(rng, first, allowed, np.arange(count), k)


def _scenes(question: Question, layout: Layout) -> list:
    starts = {start for start, _ in question.evidence}
    return [scene for scene in layout.scenes if float(layout.timestamps[scene.start]) in starts]


def _filled(rng: np.random.Generator, first: list[int], allowed: np.ndarray, spare: np.ndarray, k: int) -> np.ndarray:
    """`first`, then random ones of `allowed`, then of `spare`, until there are k."""
    rest = np.setdiff1d(allowed, first)
    chosen = [*first, *rest[rng.permutation(len(rest))]][:k]
    if len(chosen) < k:
        more = np.setdiff1d(spare, chosen)
        chosen += more[rng.permutation(len(more))][: k - len(chosen)].tolist()
    return np.sort(np.array(chosen[:k], np.int64))
