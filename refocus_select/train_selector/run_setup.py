"""What a run needs, loaded and checked before it starts: policy, reference models, questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..models.author_format import author_config
from ..models.refocus import RefocusModel
from ..questions import Question
from ..reference import ReferenceModel, load_reference
from ..reference.clips import ClipSource
from .config import DataConfig, ReferenceConfig, TrainConfig
from .data import (
    QuestionSet,
    check_questions,
    evenly,
    is_object,
    load_questions,
    refuse_problems,
    source_of_files,
)
from .features import keep_useful
from .initialise import make_policy
from .policy import Policy
from .process_group import ProcessGroup
from .reward import RewardModel


@dataclass(frozen=True)
class RunSetup:
    """Everything that a run needs, loaded and checked.

    Attributes:
        config: all settings.
        policy: to train.
        reward_model: gives the rewards.
        train: questions to learn from.
        validation: held-out questions of the evaluations during training, which choose the checkpoint.
        test: held-out questions of the report.
        same_questions: whether `test` is `validation`, because there are too few for both.
    """

    config: TrainConfig
    policy: Policy
    reward_model: RewardModel
    train: QuestionSet
    validation: QuestionSet
    test: QuestionSet
    same_questions: bool


def prepare_run(
    config: TrainConfig,
    processes: ProcessGroup,
    train: Sequence[Question] | None = None,
    validation: Sequence[Question] | None = None,
    clips: ClipSource | None = None,
    reference: ReferenceModel | Sequence[ReferenceModel] | None = None,
    policy: Policy | None = None,
) -> RunSetup:
    """Load and check what a run needs; see `train_selector`."""
    learned = _questions(config, "train", train, clips, processes)
    held_out = _questions(config, "validation", validation, clips, processes)
    reward_model = RewardModel(_references(config, reference), config.objective.reward)
    count = len(held_out)
    chosen = evenly(count, config.validation.questions)
    rest = sorted(set(evenly(count, config.test_questions + len(chosen)).tolist()) - set(chosen.tolist()))
    same = len(rest) < len(chosen) // 2 or not rest  # too few for a test of their own
    test = chosen if same else np.array(rest)[evenly(len(rest), config.test_questions)]
    policy = policy or make_policy(config.policy, config.data, seed=config.seed, device=processes.device)
    if isinstance(policy.model, RefocusModel) and learned.clips is not held_out.clips:
        keep_useful(policy.model.config, config, learned, held_out)
    if "authors" in config.formats:
        if not isinstance(policy.model, RefocusModel):
            raise InputError("formats: the authors' format is for the network of the paper, not for a portable policy")
        author_config(policy.model.config)  # refuses what it cannot hold, before anything is learned
    return RunSetup(
        config=config,
        policy=policy,
        reward_model=reward_model,
        train=learned,
        validation=held_out.part(chosen, f"{held_out.name}, for validation"),
        test=held_out.part(test, f"{held_out.name}, for the report"),
        same_questions=same,
    )


def _questions(
    config: TrainConfig, split: str, given: Sequence[Question] | None, clips: ClipSource | None, processes: ProcessGroup
) -> QuestionSet:
    spec = getattr(config.data, split)
    cache = Path(config.output) / "features"
    if given is None:
        if not spec:
            raise InputError(f"no questions: set data.{split} to a file, or give {split}= to train_selector")
        return _read_once(spec, split, config.data, cache, processes)
    if clips is None and not callable(given):
        clips = source_of_files(config.data, cache)
    found = QuestionSet(given, clips or given, name=split, listed=isinstance(given, list | tuple))  # type: ignore[arg-type]
    if not len(found):
        raise InputError(f"{split}= holds no questions")
    refuse_problems(check_questions(found, videos=False), split)
    return found


def _read_once(spec: str, split: str, config: DataConfig, cache: Path, processes: ProcessGroup) -> QuestionSet:
    """`load_questions`, files read and checked by one process for all."""
    if processes.size == 1 or is_object(spec) or config.clips is not None:
        return load_questions(spec, split, config, cache)
    found: QuestionSet | InputError | None = None
    if processes.is_main_process:
        try:
            found = load_questions(spec, split, config, cache)
        except InputError as error:
            found = error
    told = (list(found.questions), found.name) if isinstance(found, QuestionSet) else found
    told = processes.broadcast(told)
    if isinstance(told, InputError):
        raise told
    assert isinstance(told, tuple)
    return QuestionSet(told[0], source_of_files(config, cache), name=told[1])


def _references(config: TrainConfig, given: ReferenceModel | Sequence[ReferenceModel] | None) -> list[ReferenceModel]:
    if isinstance(given, ReferenceModel):
        return [given]
    if given is not None:
        return list(given)
    return load_references(config.reference)


def load_references(config: ReferenceConfig) -> list[ReferenceModel]:
    """The reference models that settings name, here or behind servers.

    Raises:
        InputError: if none is named, or the settings contradict each other.
        ReferenceServerError: if no server can be reached.
    """
    if config.url is not None:
        from ..reference.remote import OpenAIReference, ServedReference

        if config.also:
            raise InputError("reference.url and reference.also exclude each other")
        if config.engine == "openai":
            return [OpenAIReference(config.url, model=config.model, **config.arguments)]
        return [ServedReference(config.url, **config.arguments)]
    if not config.model:
        raise InputError("no reference model: set reference.model, or give reference= to train_selector")
    return [load_reference(name, **config.arguments) for name in (config.model, *config.also)]
