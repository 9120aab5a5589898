"""`train_selector`: from a configuration to a selector that can be loaded, and a report that says what it is worth."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from ..errors import InputError
from ..files import write_text
from ..questions import Question
from ..reference import ReferenceModel
from ..reference.clips import ClipSource
from .config import TrainConfig
from .data import QuestionSet, check_questions, evenly, load_questions, read_object, refuse_problems, source_of_files
from .initialise import make_policy
from .policy import Policy
from .reward import Judge
from .team import Team

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger(__name__)

SETTINGS, IDENTITY = "config.yaml", "identity.json"
RESULT = "selector"
_MAY_CHANGE = ("output", "device", "checkpoint_every", "keep_checkpoints", "push_to_hub", "test_questions")
"""Settings that decide nothing about the weights; all others must stay the same when a run goes on."""


@dataclass(frozen=True)
class TrainResult:
    """What a run leaves.

    Attributes:
        folder: of the selector; `FrameSelector.from_pretrained` loads it.
        report: its comparison with uniform and top-k; also in the folder as report.json and in the model card.
    """

    folder: Path
    report: dict[str, Any]

    @property
    def beats_uniform(self) -> bool:
        """Whether the interval of the difference in accuracy lies above zero at every number of frames."""
        return all(row["policy_minus_uniform"]["low"] > 0 for row in self.report["accuracy"])


@dataclass(frozen=True)
class Ingredients:
    """Everything that a run or a filter is made of."""

    config: TrainConfig
    policy: Policy
    judge: Judge
    train: QuestionSet
    watched: QuestionSet
    tested: QuestionSet
    same_questions: bool


def train_selector(
    config: TrainConfig,
    *,
    train: Sequence[Question] | None = None,
    validation: Sequence[Question] | None = None,
    clips: ClipSource | None = None,
    reference: ReferenceModel | Sequence[ReferenceModel] | None = None,
    policy: Policy | None = None,
    progress: bool | None = None,
) -> TrainResult:
    """Train a policy by reinforcement, or go on with a run that was broken off.

    Started again with the same output folder, a run goes on from its last checkpoint and ends as if it had never been
    broken off; a run that is over only gives its result again.

    Args:
        config: all settings.
        train: questions to learn from, instead of `data.train`.
        validation: held-out questions, instead of `data.validation`.
        clips: source of the videos of both (default: files, or `train` itself if it can be called).
        reference: instead of `reference.model`; rewards of several are averaged.
        policy: instead of the one that `policy` describes; a run that goes on must be given an equal one.
        progress: show a progress bar (default: only on a terminal).

    Raises:
        InputError: for settings, questions or videos that cannot be used, with a table of what is wrong.
        TrainingError: if the run cannot go on; its checkpoints stay.
    """
    from .report import write_result
    from .trainer import Trainer

    folder = Path(config.output)
    team = Team(config.device)
    try:
        with _only_one(folder, team):
            made = gather_ingredients(config, team, train, validation, clips, reference, policy)
            if team.leads:
                _remember(folder, made)
            team.wait()
            trainer = Trainer(
                config, made.policy, made.judge, made.train, made.watched, team=team, folder=folder,
                progress_bar=progress,
            )  # fmt: skip
            trainer.run()
            step = trainer.load_best()
            return write_result(folder / RESULT, made, team, step=step, trainer=trainer)
    finally:
        team.close()


def gather_ingredients(
    config: TrainConfig,
    team: Team,
    train: Sequence[Question] | None = None,
    validation: Sequence[Question] | None = None,
    clips: ClipSource | None = None,
    reference: ReferenceModel | Sequence[ReferenceModel] | None = None,
    policy: Policy | None = None,
) -> Ingredients:
    """Load and check what a run needs; see `train_selector`."""
    learned = _questions(config, "train", train, clips)
    held_out = _questions(config, "validation", validation, clips)
    judge = Judge(_references(config, reference), config.objective.reward)
    count = len(held_out)
    watched = evenly(count, config.watch.questions)
    rest = sorted(set(evenly(count, config.test_questions + len(watched)).tolist()) - set(watched.tolist()))
    same = len(rest) < len(watched) // 2 or not rest  # too few for a test of their own
    tested = watched if same else np.array(rest)[evenly(len(rest), config.test_questions)]
    return Ingredients(
        config=config,
        policy=policy or make_policy(config.policy, config.data, seed=config.seed, device=team.device),
        judge=judge,
        train=learned,
        watched=held_out.part(watched, f"{held_out.name}, watched"),
        tested=held_out.part(tested, f"{held_out.name}, for the report"),
        same_questions=same,
    )


def _questions(
    config: TrainConfig, split: str, given: Sequence[Question] | None, clips: ClipSource | None
) -> QuestionSet:
    spec = getattr(config.data, split)
    cache = Path(config.output) / "features"
    if given is None:
        if not spec:
            raise InputError(f"no questions: set data.{split} to a file, or give {split}= to train_selector")
        return load_questions(spec, split, config.data, cache)
    if clips is None and not callable(given):
        clips = source_of_files(config.data, cache)
    found = QuestionSet(given, clips or given, name=split, listed=isinstance(given, list | tuple))  # type: ignore[arg-type]
    if not len(found):
        raise InputError(f"{split}= holds no questions")
    refuse_problems(check_questions(found, videos=False), split)
    return found


def _references(config: TrainConfig, given: ReferenceModel | Sequence[ReferenceModel] | None) -> list[ReferenceModel]:
    if isinstance(given, ReferenceModel):
        return [given]
    if given is not None:
        return list(given)
    if not config.reference.model:
        raise InputError("no reference model: set reference.model, or give reference= to train_selector")
    from ..reference import load_reference

    names = [config.reference.model, *config.reference.also]
    return [load_reference(name, **config.reference.arguments) for name in names]


def _remember(folder: Path, made: Ingredients) -> None:
    """Write down what the run is made of, or check that a run goes on with the same."""
    identity = {
        "config": made.config.to_dict(),
        "train": made.train.fingerprint,
        "held_out": made.watched.fingerprint,
        "reference": made.judge.fingerprint,
    }
    path = folder / IDENTITY
    if path.exists():
        before = read_object(path)
        settings = TrainConfig.from_dict(before.get("config") or {}).to_dict()  # with those that a later release added
        changed = [*_differences(settings, identity["config"]), *_changed_parts(before, identity)]
        if changed:
            raise InputError(
                f"{folder} holds a run with other settings: {'; '.join(changed[:5])}. Give another output folder, or "
                "remove this one to start anew"
            )
    write_text(path, json.dumps(identity, indent=1))
    write_text(folder / SETTINGS, yaml.safe_dump(made.config.to_dict(), sort_keys=False, allow_unicode=True))


def _changed_parts(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    words = {
        "train": "the training questions are others",
        "held_out": "the held-out questions are others",
        "reference": "the reference model is another",
    }
    return [words[name] for name in words if before[name] != now[name]]


def _differences(before: Any, now: Any, where: str = "") -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        names = [name for name in dict.fromkeys([*before, *now]) if where or name not in _MAY_CHANGE]
        return [
            line
            for name in names
            for line in _differences(before.get(name), now.get(name), f"{where}.{name}" if where else name)
        ]
    return [] if before == now else [f"{where} was {before!r} and is {now!r}"]


@contextmanager
def _only_one(folder: Path, team: Team) -> Iterator[None]:
    """Keep a second run out of the folder; the lock goes with the process, however it ends."""
    from filelock import FileLock, Timeout

    if not team.leads:
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to the output folder {folder}: {error.strerror or error}") from error
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise InputError(
            f"another process is training in {folder}; wait for it, or give another output folder"
        ) from error
    try:
        yield
    finally:
        lock.release()
