"""What question answering and evidence recall have in common: the walk over videos, questions, selectors and K."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError, RefocusError
from ..questions import Problem, Question
from ..selection import Selection
from .choosers import Chooser
from .records import read_json, read_records, write_json

logger = logging.getLogger(__name__)

Key = tuple[str, str, int]  # question, selector, K


def read_parts(folder: Path, name: str) -> list[dict[str, Any]]:
    """The lines of all parts, whoever wrote them; of lines with the same question, selector and K the first."""
    rows: dict[Key, dict[str, Any]] = {}
    for path in sorted(folder.glob(f"{name}-*-of-*.jsonl")):
        for row in read_records(path):
            try:
                key = (str(row["id"]), str(row["selector"]), int(row["num_frames"]))
            except (KeyError, TypeError, ValueError) as error:
                raise InputError(f"{path} holds lines of something else ({error}); choose another folder") from error
            rows.setdefault(key, row)
    return list(rows.values())


@dataclass(frozen=True)
class Chosen:
    """Frames for one question.

    Attributes:
        question: what is asked.
        selector: who chose.
        num_frames: K.
        selection: the frames.
    """

    question: Question
    selector: str
    num_frames: int
    selection: Selection

    @property
    def key(self) -> Key:
        """What tells it from others."""
        return self.question.id, self.selector, self.num_frames


def choose_frames(
    questions: Sequence[Question],
    choosers: Sequence[Chooser],
    frames: Sequence[int],
    *,
    done: Collection[Key] = (),
    frames_to_choose: Callable[[int], int] | None = None,
    report: Callable[[Problem], None] = lambda problem: None,
    progress: bool | None = None,
) -> Iterator[list[Chosen]]:
    """Walk over the videos, and let everybody choose frames for every question.

    Args:
        questions: the questions of a video need not follow each other.
        choosers: selectors to compare.
        frames: the numbers of frames K.
        done: what is left out, to resume an interrupted run.
        frames_to_choose: from K to the number of frames that selectors are asked for (default: K).
        report: told what went wrong with a video or a question; the others continue.
        progress: show a progress bar (default: only on a terminal).

    Yields:
        For each video with something left to do, all of it.
    """
    from tqdm import tqdm

    by_video: dict[str, list[Question]] = {}
    for question in questions:
        by_video.setdefault(question.video, []).append(question)
    disable = None if progress is None else not progress
    for video, asked in tqdm(by_video.items(), desc="videos", unit="video", disable=disable, leave=False):
        chosen: list[Chosen] = []
        for chooser in choosers:
            for num_frames in frames:
                left = [q for q in asked if (q.id, chooser.name, num_frames) not in done]
                count = num_frames if frames_to_choose is None else frames_to_choose(num_frames)
                if left and count in getattr(chooser, "sizes", (count,)):
                    chosen += _choose(chooser, video, left, num_frames, count, report)
        if chosen:
            yield chosen


def _choose(
    chooser: Chooser,
    video: str,
    questions: list[Question],
    num_frames: int,
    count: int,
    report: Callable[[Problem], None],
) -> list[Chosen]:
    try:
        selections = chooser.choose(video, questions, count)
    except RefocusError as error:
        logger.warning("%s, %s: %s", chooser.name, video, error)
        for question in questions:
            report(Problem(question.id, f"{chooser.name}, {num_frames} frames: {error}"))
        return []
    for question, selection in zip(questions, selections, strict=True):
        if selection is None:
            report(Problem(question.id, f"{chooser.name} has no selection of {count} frames"))
    return [
        Chosen(question, chooser.name, num_frames, selection)
        for question, selection in zip(questions, selections, strict=True)
        if selection is not None
    ]


def read_setup(path: Path) -> dict[str, Any]:
    """What an evaluation wrote down about itself.

    Raises:
        InputError: if it is damaged, or of something else.
    """
    facts = read_json(path)
    if not isinstance(facts, dict) or facts.get("kind", "needle") not in list(_SETUPS):
        raise InputError(f"{path} does not describe an evaluation; choose another folder")
    known = _SETUPS[facts.get("kind", "needle")] | {"selectors": dict}
    wrong = [name for name, types in known.items() if not isinstance(facts.get(name), types)]
    if not isinstance(facts.get("answerer", {}), dict):
        wrong.append("answerer")
    if wrong or not all(isinstance(item, dict | str) for item in facts["selectors"].values()):
        raise InputError(f"{path} is damaged ({', '.join(wrong) or 'selectors'}); choose another folder")
    return facts


_SETUPS: dict[str, dict[str, Any]] = {
    "qa": {"benchmark": str},
    "evidence": {"benchmark": str, "tolerance": int | float, "reach": int | float},
    "needle": {"needles": dict},
}


def check_setup(path: Path, facts: dict[str, Any]) -> None:
    """Refuse to mix results of different questions, answerers or weights in one folder; more selectors may join.

    Args:
        path: a JSON file of the folder; made if it is not there.
        facts: "selectors" maps names to fingerprints and settings; everything else must stay the same.

    Raises:
        InputError: naming what is different.
    """
    if path.is_file():
        before = read_setup(path)
        for part in facts.keys() - {"selectors", "frames"}:
            if before.get(part) != json.loads(json.dumps(facts[part])):
                raise InputError(f"{path.parent} holds results with another {part}; choose another folder with --out")
        for name, description in facts["selectors"].items():
            if name in before["selectors"] and before["selectors"][name] != json.loads(json.dumps(description)):
                raise InputError(
                    f"{path.parent} holds results of {name} with other weights or settings; choose another --out"
                )
        facts = {
            **facts,
            "selectors": {**before["selectors"], **facts["selectors"]},
            "frames": sorted({*before.get("frames", []), *facts.get("frames", [])}),
        }
    write_json(path, facts)
