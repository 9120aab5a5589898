"""Multiple-choice question answering: every selector in front of the same model, at the same number of frames."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import RefocusError
from ..pictures import quoted
from ..questions import Problem, Question
from .answerers import Answer, Answerer
from .choosers import Chooser
from .records import from_row
from .rows import length_group
from .run import Chosen, Key, choose_frames


@dataclass(frozen=True)
class Prediction:
    """One answer, and from which frames it was given.

    Attributes:
        id: of the question.
        video: its path.
        selector: who chose the frames.
        num_frames: K.
        indices: frame numbers that were chosen.
        timestamps: their times in seconds.
        strategy: see `Selection`.
        choice: position of the option; None if the answer could not be understood.
        target: position of the right option.
        text: what the model generated.
        scores: a number for each option, if there are any.
        tokens: length of the prompt, if known.
        seconds: that the answer took, without the choice of frames.
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
    choice: int | None
    target: int
    text: str = ""
    scores: tuple[float, ...] = ()
    tokens: int | None = None
    seconds: float = 0.0
    categories: tuple[str, ...] = ()
    length: str = ""
    question: str = ""
    duration: float = 0.0
    quotes: tuple[str, ...] = ()

    @property
    def correct(self) -> bool:
        """Whether the right option was chosen; an answer that could not be understood is wrong."""
        return self.choice == self.target

    @property
    def key(self) -> Key:
        """What tells predictions apart."""
        return self.id, self.selector, self.num_frames

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Prediction:
        """From what `to_dict` gave and JSON kept."""
        return from_row(cls, dict(row))


def answer_questions(
    questions: Sequence[Question],
    choosers: Sequence[Chooser],
    answerer: Answerer,
    frames: Sequence[int],
    *,
    done: Collection[Key] = (),
    report: Callable[[Problem], None] = lambda problem: None,
    progress: bool | None = None,
) -> Iterator[Prediction]:
    """Answer every question from the frames of every selector.

    Args:
        questions: with options and answers.
        choosers: selectors to compare.
        answerer: who answers.
        frames: the numbers of frames K.
        done: keys of predictions to leave out, to resume an interrupted run.
        report: told what went wrong; the other questions continue.
        progress: show a progress bar (default: only on a terminal).

    Yields:
        One prediction after the other, video by video.
    """
    prepare = getattr(answerer, "prepare", None)
    for chosen in choose_frames(
        questions,
        choosers,
        frames,
        done=done,
        frames_to_choose=getattr(answerer, "frames_to_choose", None),
        report=report,
        progress=progress,
    ):
        if prepare is not None:
            prepare([item.selection for item in chosen])
        for item in chosen:
            begin = time.perf_counter()
            try:
                answer = answerer.answer(item.question, item.selection)
            except RefocusError as error:
                report(Problem(item.question.id, f"{item.selector}, {item.num_frames} frames: {error}"))
                continue
            yield _prediction(item, answer, time.perf_counter() - begin)


def _prediction(item: Chosen, answer: Answer, seconds: float) -> Prediction:
    question, selection = item.question, item.selection
    assert question.answer is not None  # checked when the questions were read
    categories = question.extra.get("categories") or ([question.category] if question.category else [])
    return Prediction(
        id=question.id,
        video=question.video,
        selector=item.selector,
        num_frames=item.num_frames,
        indices=tuple(int(index) for index in selection.indices),
        timestamps=tuple(round(float(t), 6) for t in selection.timestamps),
        strategy=selection.strategy,
        choice=answer.choice,
        target=question.answer,
        text=answer.text,
        scores=tuple(round(float(score), 6) for score in answer.scores),
        tokens=answer.tokens,
        seconds=round(seconds, 4),
        categories=tuple(str(category) for category in categories),
        length=str(question.extra.get("length") or length_group(selection.duration)),
        question=question.question,
        duration=round(selection.duration, 3),
        quotes=tuple(quoted(quote) for quote in selection.quotes),
    )
