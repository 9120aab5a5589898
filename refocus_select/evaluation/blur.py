"""The blur test: does a selector look at the pictures, or has it learned where answers usually lie?

Frames that it would choose (or that are known to answer, where questions have evidence) are blurred, and it chooses
anew. One that looks leaves frames that show nothing any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from ..errors import VideoError
from ..questions import Question
from ..selectors import FrameSelector
from ..statistics import bootstrap_interval
from ..video import CandidatePlan, open_video, sample_candidates

BLURS = (0.0, 0.01, 0.03, 0.1)
"""Standard deviations of the Gaussian, in widths of the picture; ours."""


def blur_test(
    selector: FrameSelector, questions: Sequence[Question], num_frames: int, blurs: Sequence[float] = BLURS
) -> dict[str, Any]:
    """How much of what was blurred is chosen still.

    Args:
        selector: any that looks at frames.
        questions: with `evidence`, its frames are blurred, else those that the selector chooses from clear ones.
        num_frames: K.
        blurs: strengths, in widths of the picture.

    Returns:
        "questions", "unreadable", "K" and "chosen": for each strength an interval of the share of blurred frames (of
        the selector's own choice) or of blurred spans (of evidence) that are chosen still.
    """
    found: dict[float, list[float]] = {blur: [] for blur in blurs}
    videos, unreadable = [], 0
    for question in questions:
        try:
            shares = _shares(selector, question, num_frames, blurs)
        except VideoError:
            unreadable += 1
            continue
        videos.append(question.video)
        for blur, share in shares.items():
            found[blur].append(share)
    chosen = {f"{blur:g}": asdict(bootstrap_interval(values, videos)) for blur, values in found.items() if values}
    return {"questions": len(videos), "unreadable": unreadable, "K": num_frames, "chosen": chosen}


def _shares(selector: FrameSelector, question: Question, num_frames: int, blurs: Sequence[float]) -> dict[float, float]:
    with open_video(question.video) as video:
        candidates = sample_candidates(video, selector.rule)
        frames = video.get_frames(candidates.indices, size=selector.decode_size(video.metadata))
    plan = CandidatePlan(np.arange(len(frames.data)), candidates.timestamps)

    def choice(pictures: np.ndarray) -> np.ndarray:
        with open_video(pictures, timestamps=plan.timestamps) as changed:
            encoding = selector.encode(changed, candidates=plan, cache=False, progress=False)
        return selector.select(encoding, question.question, num_frames=num_frames).indices

    times = plan.timestamps
    spans = [np.flatnonzero((times >= start) & (times <= end)) for start, end in question.evidence]
    spans = [span for span in spans if len(span)] or [np.array([place]) for place in choice(frames.data)]
    hidden = np.unique(np.concatenate(spans))
    shares = {}
    for blur in blurs:
        picks = choice(_blurred(frames.data, hidden, blur))
        shares[blur] = float(np.mean([np.isin(span, picks).any() for span in spans]))
    return shares


def _blurred(pictures: np.ndarray, which: np.ndarray, blur: float) -> np.ndarray:
    """A copy with some pictures blurred."""
    import cv2

    changed = pictures.copy()
    if blur > 0:
        for place in which:
            changed[place] = cv2.GaussianBlur(pictures[place], (0, 0), blur * pictures.shape[2])
    return changed


def blur_table(found: dict[str, Any]) -> str:
    """The result as text."""
    lines = [f"{found['questions']} questions, {found['K']} frames", "", "blur, widths   blurred and chosen still"]
    lines += [
        f"{blur:>12}   {one['mean']:.3f} [{one['low']:.3f}, {one['high']:.3f}]" for blur, one in found["chosen"].items()
    ]
    return "\n".join(lines)
