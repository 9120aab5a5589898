"""`train_selector`: from a configuration to a selector that can be loaded, and a report of how good it is."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ..errors import InputError
from ..files import remove_leftovers, write_text
from ..questions import Question
from ..reference import ReferenceModel
from ..reference.clips import ClipSource
from .checkpoints import STATE, numbered
from .config import TrainConfig
from .data import read_object
from .policy import Policy
from .process_group import ProcessGroup
from .report import TrainResult, write_result
from .run_setup import RunSetup, prepare_run

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger(__name__)

SETTINGS, IDENTITY = "config.yaml", "identity.json"
RESULT = "selector"
_MAY_CHANGE = (
    "output", "device", "checkpoint_every", "keep_checkpoints", "push_to_hub", "test_questions", "trackers", "formats",
)  # fmt: skip
"""Settings that do not affect the weights; evaluations may be others too (`_fixed`), and stages longer."""


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
    """Train a policy by reinforcement, or resume a run that was interrupted.

    Started again with the same output folder, a run resumes from its last checkpoint and ends as if it had never been
    interrupted; a finished run only gives its result again. It goes on if its last stage has got more steps or stages
    have been added; evaluations and the number of processes may change, and what that means is said.

    Args:
        config: all settings.
        train: questions to learn from, instead of `data.train`.
        validation: held-out questions, instead of `data.validation`.
        clips: source of the videos of both (default: files, or `train` itself if it can be called).
        reference: instead of `reference.model`; rewards of several are averaged.
        policy: instead of the one that `policy` describes; a resumed run must be given an equal one.
        progress: show a progress bar (default: only on a terminal).

    Raises:
        InputError: for settings, questions or videos that cannot be used, with a table of what is wrong.
        TrainingError: if training fails; its checkpoints stay.
    """
    from .trainer import Trainer

    folder = Path(config.output)
    processes = ProcessGroup(config.device)
    try:
        with _only_one(folder, processes):
            setup = prepare_run(config, processes, train, validation, clips, reference, policy)
            if processes.is_main_process:
                remove_leftovers(folder)
                _check_identity(folder, setup)
            processes.barrier()
            trainer = Trainer(
                config, setup.policy, setup.reward_model, setup.train, setup.validation,
                processes=processes, folder=folder, progress_bar=progress,
            )  # fmt: skip
            trainer.run()
            step = trainer.load_best()
            return write_result(folder / RESULT, setup, processes, step=step, trainer=trainer)
    finally:
        processes.close()


def _check_identity(folder: Path, setup: RunSetup) -> None:
    """Write down the identity of the run, or check that a resumed run has the same."""
    identity: dict[str, Any] = {
        "config": setup.config.to_dict(),
        "train": setup.train.fingerprint,
        "held_out": setup.validation.fingerprint,
        "reference": setup.reward_model.fingerprint,
    }
    path = folder / IDENTITY
    if path.exists():
        before = read_object(path)
        try:  # settings that a later release added get their defaults
            settings = TrainConfig.from_dict(before.get("config") or {}).to_dict()
        except InputError as error:
            raise InputError(
                f"{folder} holds a run of an older release ({error}), which cannot be resumed. Give another output "
                "folder, or remove this one to start over"
            ) from error
        changed = [
            *_differences(_fixed(settings), _fixed(identity["config"])),
            *_changed_stages(settings["stages"], identity["config"]["stages"], _progress(folder)),
            *_changed_parts(before, identity),
        ]
        if changed:
            raise InputError(
                f"{folder} holds a run with other settings: {'; '.join(changed[:5])}. Give another output folder, or "
                "remove this one to start over"
            )
    write_text(path, json.dumps(identity, indent=1))
    write_text(folder / SETTINGS, yaml.safe_dump(setup.config.to_dict(), sort_keys=False, allow_unicode=True))


def _changed_parts(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    words = {
        "train": "the training questions are others",
        "reference": "the reference model is another",
    }
    return [words[name] for name in words if before[name] != now[name]]


def _fixed(settings: dict[str, Any]) -> dict[str, Any]:
    """Without what may change in other ways than by staying the same: evaluations may be others, stages may grow."""
    data = {name: value for name, value in settings["data"].items() if name not in ("validation", "workers")}
    left = {name: value for name, value in settings.items() if name not in ("validation", "stages")}
    return {**left, "data": data}


def _progress(folder: Path) -> tuple[int, int, bool]:
    """Stage of the last checkpoint, steps in it, and whether the run is over."""
    found = numbered(folder / "checkpoints")
    if not found:
        return 0, 0, False
    state = read_object(found[-1] / STATE)
    planned = state.get("planned") or []
    return int(state["stage"]), int(state["stage_step"]), bool(planned) and state["stage"] == len(planned)


def _changed_stages(before: list[Any], now: list[Any], progress: tuple[int, int, bool]) -> list[str]:
    """Why stages are not those of before with more steps, or others behind them."""
    at, done, over = progress
    found = [] if len(now) >= len(before) else [f"stages[{len(now)}] is missing"]
    for place, (old, new) in enumerate(zip(before, now, strict=False)):
        found += _differences({**old, "steps": 0}, {**new, "steps": 0}, f"stages[{place}]")
        last = over and place == len(before) - 1
        if new["steps"] != old["steps"] and ((place < at and not last) or (place == at and new["steps"] <= done)):
            found.append(f"stages[{place}].steps was {old['steps']} and is {new['steps']}, but those are behind")
        if last and new["steps"] < old["steps"]:
            found.append(f"stages[{place}].steps was {old['steps']} and is {new['steps']}")
    return found


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
def _only_one(folder: Path, processes: ProcessGroup) -> Iterator[None]:
    """Keep a second run out of the folder; the lock goes with the process, however it ends."""
    from filelock import FileLock, Timeout

    if not processes.is_main_process:
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
