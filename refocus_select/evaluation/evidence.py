"""Evidence recall: do the chosen frames lie where a question is answered? No model answers anything here."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..errors import InputError
from ..pictures import quoted
from ..questions import Problem, Question
from .choosers import Chooser
from .records import from_row
from .rows import length_group
from .run import Key, choose_frames

MEASURES = ("recall", "precision", "coverage")
REACH = 1.0  # seconds around a chosen frame that it is taken to show


@dataclass(frozen=True)
class EvidenceScore:
    """What the frames of one question are worth.

    Attributes:
        id: of the question.
        video: its path.
        selector: who chose the frames.
        num_frames: K.
        indices: frame numbers that were chosen.
        timestamps: their times in seconds.
        strategy: see `Selection`.
        evidence: (start, end) in seconds.
        recall: share of the spans that hold a chosen frame.
        precision: share of the chosen frames that lie in a span.
        coverage: share of the evidence's time that lies within the reach of a chosen frame.
        categories: of the question.
        length: group of the video's length.
        question: what was asked.
        duration: of the video in seconds.
        quotes: lines that decided, with their times.
    """

    id: str
    video: str
    selector: str
    num_frames: int
    indices: tuple[int, ...]
    timestamps: tuple[float, ...]
    strategy: str
    evidence: tuple[tuple[float, float], ...]
    recall: float
    precision: float
    coverage: float
    categories: tuple[str, ...] = ()
    length: str = ""
    question: str = ""
    duration: float = 0.0
    quotes: tuple[str, ...] = ()

    @property
    def key(self) -> Key:
        """What tells results apart."""
        return self.id, self.selector, self.num_frames

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> EvidenceScore:
        """From what `to_dict` gave and JSON kept."""
        return from_row(cls, dict(row))


def evidence_measures(
    timestamps: Sequence[float] | np.ndarray,
    spans: Sequence[tuple[float, float]],
    *,
    tolerance: float = 0.0,
    reach: float = REACH,
) -> tuple[float, float, float]:
    """Recall, precision and coverage of chosen frames.

    Args:
        timestamps: of the chosen frames in seconds, [K].
        spans: (start, end) of the evidence in seconds; they may overlap, and a single moment has start = end.
        tolerance: seconds by which a frame may miss a span and still count for recall and precision.
        reach: seconds around a frame that count as covered; spans are not widened by the tolerance here. Of evidence
            that consists of single moments, the share of moments within reach.

    Raises:
        InputError: without spans or frames, or for a negative number.
    """
    times = np.asarray(timestamps, dtype=np.float64)
    edges = np.asarray(spans, dtype=np.float64).reshape(-1, 2)
    if not len(times) or not len(edges):
        raise InputError("evidence is measured with at least one frame and one span")
    if tolerance < 0 or reach < 0:
        raise InputError(f"tolerance and reach must not be negative, not {tolerance:g} and {reach:g}")
    inside = (times[:, None] >= edges[:, 0] - tolerance) & (times[:, None] <= edges[:, 1] + tolerance)  # [K, spans]
    recall, precision = inside.any(axis=0).mean(), inside.any(axis=1).mean()
    wanted = _merged(edges)
    total = float(np.diff(wanted, axis=1).sum())
    if total == 0:
        near = np.abs(times[:, None] - edges[:, 0]) <= reach
        return float(recall), float(precision), float(near.any(axis=0).mean())
    seen = _merged(np.stack([times - reach, times + reach], axis=1))
    begin = np.maximum(wanted[:, None, 0], seen[None, :, 0])
    end = np.minimum(wanted[:, None, 1], seen[None, :, 1])
    return float(recall), float(precision), float(np.clip(end - begin, 0, None).sum()) / total


def _merged(spans: np.ndarray) -> np.ndarray:
    """Disjoint spans with the same union, sorted, [n, 2]."""
    merged: list[list[float]] = []
    for start, end in sorted(spans.tolist()):
        if merged and start <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], end)
        else:
            merged.append([start, end])
    return np.array(merged)


def score_evidence(
    questions: Sequence[Question],
    choosers: Sequence[Chooser],
    frames: Sequence[int],
    *,
    tolerance: float = 0.0,
    reach: float = REACH,
    done: Collection[Key] = (),
    report: Callable[[Problem], None] = lambda problem: None,
    progress: bool | None = None,
) -> Iterator[EvidenceScore]:
    """Measure every selector on every question with evidence.

    Args:
        questions: with evidence.
        choosers: selectors to compare.
        frames: the numbers of frames K.
        tolerance: see `evidence_measures`.
        reach: see `evidence_measures`.
        done: keys of results to leave out, to resume an interrupted run.
        report: told what went wrong; the other questions continue.
        progress: show a progress bar (default: only on a terminal).
    """
    for chosen in choose_frames(questions, choosers, frames, done=done, report=report, progress=progress):
        for item in chosen:
            question, selection = item.question, item.selection
            recall, precision, coverage = evidence_measures(
                selection.timestamps, question.evidence, tolerance=tolerance, reach=reach
            )
            categories = question.extra.get("categories") or ([question.category] if question.category else [])
            yield EvidenceScore(
                id=question.id,
                video=question.video,
                selector=item.selector,
                num_frames=item.num_frames,
                indices=tuple(int(index) for index in selection.indices),
                timestamps=tuple(round(float(t), 6) for t in selection.timestamps),
                strategy=selection.strategy,
                evidence=question.evidence,
                recall=recall,
                precision=precision,
                coverage=coverage,
                categories=tuple(str(category) for category in categories),
                length=str(question.extra.get("length") or length_group(selection.duration)),
                question=question.question,
                duration=round(selection.duration, 3),
                quotes=tuple(quoted(quote) for quote in selection.quotes),
            )
