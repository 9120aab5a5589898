"""Questions of public benchmarks, read from local folders in the formats in which they are published.

Nothing is downloaded.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import InputError
from ..questions import Problem, Question, read_questions
from .formats import BAD_ROW, BENCHMARKS, Benchmark
from .rows import Row
from .training_sets import TRAINING_SETS
from .videos import SubtitleFolder, VideoFolder


@dataclass(frozen=True)
class QuestionSet:
    """What was read.

    Attributes:
        name: of the benchmark.
        questions: those whose video is there, in the order of the files.
        problems: rows that cannot be used, and why.
        missing: videos that are not there, with the number of their questions.
        left_out: rows of other kinds (open-ended tasks, queries by picture), by kind.
        tolerance: seconds by which a frame may miss the evidence in this benchmark's own measure.
        digest: identity of the annotation files.
        order: ids of all rows in the order of the files, for selections that are stored by position.
    """

    name: str
    questions: list[Question]
    problems: list[Problem] = field(default_factory=list)
    missing: Mapping[str, int] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)
    tolerance: float = 0.0
    digest: str = ""
    order: tuple[str, ...] = ()


def read_benchmark(
    name: str,
    folder: str | os.PathLike[str],
    *,
    annotations: str | os.PathLike[str] | None = None,
    videos: str | os.PathLike[str] | None = None,
    split: str | None = None,
) -> QuestionSet:
    """Read a benchmark from a local folder.

    Args:
        name: one of `BENCHMARKS` or `TRAINING_SETS`, or "questions" for a table of your own (see
            `refocus_select.questions`).
        folder: where it was unpacked; for "questions" the file itself.
        annotations: the annotation file, if it is not where it is published.
        videos: folder of the videos (default: `folder`, with all folders below it).
        split: which part, e.g. "val" (default: the benchmark's usual one).

    Raises:
        InputError: if the name is unknown, or annotations or videos are not there.
        MissingDependencyError: for Parquet without pyarrow.
    """
    if name == "questions":
        return _own_questions(folder, videos)
    known = BENCHMARKS | TRAINING_SETS
    if name not in known:
        raise InputError(f"no benchmark {name!r}; known are {', '.join(BENCHMARKS)}, and 'questions' for your own")
    benchmark = known[name]
    files = _annotation_files(benchmark, Path(folder), annotations, split)
    found = VideoFolder(videos if videos is not None else folder)
    subtitles = SubtitleFolder(folder) if benchmark.subtitles and Path(folder).is_dir() else None
    questions: list[Question] = []
    problems: list[Problem] = []
    missing: Counter[str] = Counter()
    left_out: Counter[str] = Counter()
    order: list[str] = []
    for number, row in enumerate(benchmark.read(files), start=1):
        where = f"row {number}"
        try:
            converted = benchmark.convert(row)
            if isinstance(converted, str):
                left_out[converted] += 1
                continue
            question = converted.question
            order.append(question.id)
            where = question.id
            path = found.find(question.video, near=converted.near)
            said = _words(converted, subtitles)
        except BAD_ROW as error:
            told = (
                str(error)
                if isinstance(error, InputError)
                else f"not a row of {benchmark.title}: {type(error).__name__} {error}"
            )
            problems.append(Problem(where, told))
            order += [""] * (len(problems) + len(questions) + sum(missing.values()) - len(order))
            continue
        if path is None:
            missing[question.video] += 1
        else:
            questions.append(replace(question, video=str(path), extra={**question.extra, **said}))
    _check_ids(questions, benchmark.title)
    return QuestionSet(
        name, questions, problems, dict(missing), dict(left_out), benchmark.tolerance, _digest(files), tuple(order)
    )


def _words(row: Row, subtitles: SubtitleFolder | None) -> dict[str, object]:
    """The subtitles of a question's video, as its further fields (see `refocus_select.questions.words_of`)."""
    path = subtitles.find(row.subtitles, near="subtitle") if subtitles is not None and row.subtitles else None
    if path is None:
        return {}
    return {"words": str(path)} | ({"words_start": row.subtitles_start} if row.subtitles_start else {})


def _own_questions(source: str | os.PathLike[str], videos: str | os.PathLike[str] | None) -> QuestionSet:
    questions, problems = read_questions(source, root=videos)
    _check_ids(questions, str(source))
    there = [q for q in questions if "://" in q.video or Path(q.video).exists()]
    kept = {id(q) for q in there}
    missing = Counter(q.video for q in questions if id(q) not in kept)
    path = Path(source)
    digest = _digest([path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()))
    return QuestionSet("questions", there, problems, dict(missing), digest=digest, order=tuple(q.id for q in questions))


def _check_ids(questions: Iterable[Question], where: str) -> None:
    repeated = [name for name, count in Counter(question.id for question in questions).items() if count > 1]
    if repeated:
        raise InputError(f"{where}: the id {repeated[0]!r} occurs twice; every question needs an id of its own")


def _annotation_files(
    benchmark: Benchmark, folder: Path, annotations: str | os.PathLike[str] | None, split: str | None
) -> list[Path]:
    if annotations is not None:
        if not Path(annotations).is_file():
            raise InputError(f"no annotations at {annotations}")
        return [Path(annotations)]
    if not folder.is_dir():
        raise InputError(f"no folder {folder}; give the folder where {benchmark.title} was unpacked")
    patterns = [pattern.format(split=split or benchmark.split) for pattern in benchmark.files]
    for pattern in patterns:
        files = sorted(path for path in folder.glob(pattern) if path.is_file())
        if files:
            return files
    raise InputError(
        f"{folder} holds no annotations of {benchmark.title}: none of {', '.join(patterns)} is there; "
        "name the file with --annotations"
    )


def _digest(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
