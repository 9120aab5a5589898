"""The questions of a run: read, checked before anything starts, and dealt out in batches that a seed decides."""

from __future__ import annotations

import hashlib
import importlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..cache import EncodingCache, parse_size
from ..errors import InputError, RefocusError
from ..plain_text import parse_json
from ..questions import Problem, Question, check_choices, problem_table, read_questions
from ..reference.clips import ClipSource, VideoFiles
from ..video import CandidateRule
from .config import DataConfig, StageConfig

logger = logging.getLogger(__name__)

_CHECKED = 2000  # of a generated set, whose questions come out of one program


@dataclass(frozen=True)
class QuestionSet:
    """Questions and where their videos come from.

    Attributes:
        questions: any sequence; items may be generated when they are asked for.
        clips: from the video of a question to its candidates.
        name: for people.
        listed: whether the questions are a list that can be gone through cheaply.
    """

    questions: Sequence[Question]
    clips: ClipSource
    name: str
    listed: bool = True

    def __len__(self) -> int:
        return len(self.questions)

    @property
    def fingerprint(self) -> str:
        """Identity of the questions: the generator's own, or a hash over all rows."""
        own = getattr(self.questions, "fingerprint", None)
        if isinstance(own, str):
            return own
        digest = hashlib.sha256()
        for q in self.questions:
            row = [q.id, Path(q.video).name, q.question, q.options, q.answer, q.evidence, q.category]
            digest.update(json.dumps(row).encode())
        return digest.hexdigest()[:16]

    def positions(self, categories: Sequence[str] | None) -> np.ndarray:
        """Positions of the questions of some categories (all if None), int64.

        Raises:
            InputError: if there are none.
        """
        if categories is None:
            return np.arange(len(self.questions))
        known = getattr(self.questions, "categories", None)
        if known is None:
            known = [q.category for q in self.questions]
        found = np.flatnonzero(np.isin(np.asarray(known), list(categories)))
        if not len(found):
            there = ", ".join(sorted(set(known))[:12])
            raise InputError(f"no question of {self.name} has a category of {', '.join(categories)}; there are {there}")
        return found

    def part(self, positions: np.ndarray, name: str) -> QuestionSet:
        """Some of the questions, as a list."""
        return replace(self, questions=[self.questions[int(i)] for i in positions], name=name, listed=True)


def load_questions(spec: str, split: str, config: DataConfig, cache_folder: Path) -> QuestionSet:
    """The questions that a configuration names.

    Args:
        spec: a file or folder of questions, or "module:attribute": a function that takes `split` and
            `data.arguments`, and returns a sequence of `Question`; if that can be called, it gives the clips.
        split: "train" or "validation".
        config: for the root, the candidates and the cache.
        cache_folder: where features are kept if the configuration names no folder.

    Raises:
        InputError: with a table of everything that is wrong.
    """
    files = source_of_files(config, cache_folder)
    if is_object(spec):
        made = load_object(spec)(split=split, **config.arguments)
        given = QuestionSet(made, made if callable(made) else files, name=spec, listed=isinstance(made, list))
        refuse_problems(check_questions(given, videos=False), spec)
        return given
    if config.format != "refocus":
        questions, problems = _published(spec, config)
        found = QuestionSet(questions, files, name=f"{spec} ({config.format})")
    elif config.clips is not None:  # videos have names that only their source understands
        questions, problems = read_questions(spec, root=config.root or "")
        found = QuestionSet(questions, load_object(config.clips)(split=split, **config.arguments), name=spec)
    else:
        questions, problems = read_questions(spec, root=config.root)
        found = QuestionSet(questions, files, name=spec)
    problems += check_questions(found, videos=config.check_videos)
    if not questions and not problems:
        raise InputError(f"{spec} holds no questions")
    refuse_problems(problems, spec)
    return found


def _published(spec: str, config: DataConfig) -> tuple[list[Question], list[Problem]]:
    """The questions of a published set: a folder, or one of its files."""
    from ..evaluation.benchmarks import read_benchmark
    from ..evaluation.training_sets import OPEN_ANSWER

    path = Path(spec)
    single = path.is_file()
    found = read_benchmark(
        config.format, path.parent if single else path, annotations=path if single else None, videos=config.root
    )
    left_out = Counter(found.left_out)
    if found.missing:
        left_out["video not there"] = sum(found.missing.values())
    questions = found.questions
    if config.distractors:
        questions = with_distractors(questions, config.distractors, OPEN_ANSWER)
    scored = [question for question in questions if question.options]
    if len(scored) < len(questions):
        left_out["open question (see data.distractors)"] = len(questions) - len(scored)
    for reason, count in left_out.items():
        logger.warning("%s: %d questions are left out: %s", spec, count, reason)
    return scored, list(found.problems)


def with_distractors(questions: Sequence[Question], count: int, field: str) -> list[Question]:
    """Open questions as multiple choice, with the right answers to other questions of their category as wrong options.

    Which ones, and in which order, depends on the question's id alone. Questions for which there are too few other
    answers stay open.

    Args:
        questions: of any kind; those with options are left as they are.
        count: wrong options of each.
        field: of `extra`, where an open question has its right answer.
    """
    pools: dict[str, list[str]] = {}
    for question in questions:
        if not question.options and field in question.extra:
            pools.setdefault(question.category, []).append(str(question.extra[field]))
    distinct = {name: sorted({text.casefold(): text for text in pool}.values()) for name, pool in pools.items()}
    made = []
    for question in questions:
        others = [
            text for text in distinct.get(question.category, ())
            if text.casefold() != str(question.extra.get(field, "")).casefold()
        ]  # fmt: skip
        if question.options or field not in question.extra or len(others) < count:
            made.append(question)
            continue
        digest = hashlib.sha256(question.id.encode()).digest()
        rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
        options = [others[i] for i in rng.choice(len(others), count, replace=False)]
        answer = int(rng.integers(count + 1))
        options.insert(answer, str(question.extra[field]))
        made.append(replace(question, options=tuple(options), answer=answer))
    return made


def source_of_files(config: DataConfig, cache_folder: Path) -> VideoFiles:
    """Videos on disk, their features kept in `data.cache` or else in `cache_folder`."""
    rule = CandidateRule(config.fps, config.max_frames, config.method)
    cache = EncodingCache(config.cache or cache_folder, max_bytes=parse_size(config.cache_size))
    return VideoFiles(rule, cache=cache)


def check_questions(questions: QuestionSet, *, videos: bool) -> list[Problem]:
    """Everything that keeps questions from being learned from; `videos` opens every video too."""
    rows = list(questions.questions if questions.listed else islice(iter(questions.questions), _CHECKED))
    problems = [problem for row in rows for problem in check_choices(row)]
    if videos:
        distinct = list(dict.fromkeys(row.video for row in rows))
        with ThreadPoolExecutor() as pool:
            problems += [p for p in pool.map(lambda video: _video_problem(questions.clips, video), distinct) if p]
    return problems


def refuse_problems(problems: Sequence[Problem], name: str) -> None:
    """Raise with a table if there are problems."""
    if problems:
        raise InputError(
            f"{len(problems)} things are wrong with {name}; nothing was started:\n{problem_table(problems)}\n"
            "Correct or remove these rows."
        )


def load_object(spec: str) -> Callable[..., Any]:
    """What "module:attribute" names.

    Raises:
        InputError: if it cannot be imported or called.
    """
    module, _, attribute = spec.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InputError(f"{spec!r} cannot be imported ({error}); write module:attribute") from error
    if not callable(found):
        raise InputError(f"{spec!r} is a {type(found).__name__}; a function or class is needed")
    made: Callable[..., Any] = found
    return made


class Batches:
    """Deals out questions: every epoch is a new order, and step and seed alone decide a batch."""

    def __init__(self, positions: np.ndarray, size: int, seed: Sequence[int]) -> None:
        """Deal out `positions` in batches of `size`."""
        self._positions, self._size = positions, size
        self._order = lru_cache(maxsize=2)(
            lambda epoch: np.random.default_rng([*seed, epoch]).permutation(len(positions))
        )

    def __getitem__(self, step: int) -> np.ndarray:
        """Positions of the questions of a step, int64 [size]."""
        places = np.arange(step * self._size, (step + 1) * self._size)
        return np.array(
            [self._positions[self._order(p // len(self._positions))[p % len(self._positions)]] for p in places]
        )


def usable(questions: QuestionSet, stage: StageConfig) -> np.ndarray:
    """Positions of the questions that a stage can learn from, int64.

    Raises:
        InputError: if there are none.
    """
    positions = questions.positions(stage.categories)
    if stage.method == "evidence" and questions.listed:  # a generated set has it everywhere or nowhere
        positions = positions[[bool(questions.questions[i].evidence) for i in positions]]
        if not len(positions):
            raise InputError(f"a stage imitates evidence, but no question of {questions.name} tells where it is")
    return positions


def evenly(count: int, wanted: int) -> np.ndarray:
    """At most `wanted` positions spread over `count`, int64."""
    return np.unique(np.linspace(0, count - 1, min(count, wanted)).round().astype(np.int64))


def is_object(spec: str) -> bool:
    """Whether this is "module:attribute", not a path (which on Windows may hold a colon too)."""
    module, colon, attribute = spec.partition(":")
    return bool(colon) and attribute.isidentifier() and all(part.isidentifier() for part in module.split("."))


def _video_problem(clips: ClipSource, video: str) -> Problem | None:
    try:
        clips(video)
    except RefocusError as error:
        return Problem(video, str(error))
    return None


def seeded(*parts: int) -> int:
    """One seed out of several numbers."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object that a run wrote.

    Raises:
        InputError: if it cannot be read.
    """
    try:
        content = parse_json(path.read_bytes())
        if not isinstance(content, dict):
            raise ValueError("it holds no JSON object")
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); remove its folder to start anew") from error
    return content


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a JSON-lines file that may end in the middle of a line."""
    if not path.exists():
        return
    for line in path.read_bytes().splitlines():
        try:
            row = parse_json(line)
        except ValueError:
            return
        if not isinstance(row, dict):
            return
        yield row
