"""The result of a run: the selector, its model card, and a comparison with uniform and top-k on held-out questions."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml

from .. import __version__
from ..files import write_text
from ..hub import HubOptions, is_hub_id, upload_folder
from ..plain_text import markdown_block, markdown_code, markdown_text
from ..selectors.card import model_card
from ..selectors.policy import PolicySelector
from ..statistics import Interval, bootstrap_interval, paired_difference
from .compare import Outcome, compared
from .metrics import draw_curves, read_log
from .process_group import ProcessGroup

if TYPE_CHECKING:
    from .run_setup import RunSetup
    from .trainer import Trainer

METHODS = ("uniform", "top-k", "policy")


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


def write_result(folder: Path, setup: RunSetup, processes: ProcessGroup, *, step: int, trainer: Trainer) -> TrainResult:
    """Compare the trained policy, and write the folder that `FrameSelector.from_pretrained` loads.

    Args:
        folder: of the result.
        setup: of the run; the policy holds its final weights.
        processes: all processes take part in the comparison; one writes.
        step: that the weights are from.
        trainer: for the settings of the run and its log.
    """
    setup.policy.eval()
    comparison = compared(setup.config, setup.policy, setup.reward_model, setup.test, processes)
    frames = sorted({k for stage in setup.config.stages for k in stage.num_frames})
    answers = comparison.outcomes(frames)
    log = read_log(trainer.folder)
    report = make_report(answers, setup, step=step, steps=trainer.progress.step, skipped=len(trainer.progress.skipped))
    report["stages"] = by_stage(log)
    if processes.is_main_process:
        selector = setup.policy.selector(folder.name)
        selector.save_pretrained(folder)  # type: ignore[attr-defined]
        if "authors" in setup.config.formats and isinstance(selector, PolicySelector):
            selector.save_author_format(folder.with_name(f"{folder.name}-authors"))
        draw_curves(log, folder / "curves.png")
        write_text(folder / "report.json", json.dumps(_strict(report), indent=1))
        settings = yaml.safe_dump(setup.config.to_dict(), sort_keys=False, allow_unicode=True)
        write_text(folder / "training.yaml", settings)
        name = setup.config.push_to_hub or folder.name
        facts = card_facts(report, encoder=setup.config.policy.encoder)
        card = model_card(setup.policy.model, name, training=training_section(report, settings), facts=facts)
        write_text(folder / "README.md", card)
        if setup.config.push_to_hub:
            upload_folder(folder, setup.config.push_to_hub, HubOptions())
    processes.barrier()
    return TrainResult(folder, report)


def make_report(
    answers: dict[int, list[Outcome]], setup: RunSetup, *, step: int, steps: int, skipped: int
) -> dict[str, Any]:
    """Accuracy and reward of each method at each number of frames, with intervals and paired differences."""
    return {
        "accuracy": [_row(k, outcomes, "correct") for k, outcomes in sorted(answers.items())],
        "reward": [_row(k, outcomes, "reward") for k, outcomes in sorted(answers.items())],
        "categories": [
            {"category": name, **_row(k, [o for o in outcomes if o.category == name], "correct")}
            for k, outcomes in sorted(answers.items())
            for name in sorted({o.category for o in outcomes})
            if name
        ],
        "step": step,
        "steps": steps,
        "skipped": skipped,
        "questions": {
            "train": {"name": setup.train.name, "count": len(setup.train), "fingerprint": setup.train.fingerprint},
            "test": {"name": setup.test.name, "count": len(setup.test), "fingerprint": setup.test.fingerprint},
            "also_chose_the_checkpoint": setup.same_questions,
        },
        "reference": [{"name": r.name, "fingerprint": r.fingerprint} for r in setup.reward_model.references],
        "seed": setup.config.seed,
        "versions": {
            "refocus-select": __version__, "torch": str(torch.__version__), "python": platform.python_version(),
        },
    }  # fmt: skip


def card_facts(report: dict[str, Any], *, encoder: str | None) -> dict[str, Any]:
    """What the metadata block of the model card says of a run, as the Hub reads it.

    Args:
        report: what `make_report` gave.
        encoder: whose vectors the policy was trained with; named if it lies on the Hub.
    """
    data = report["questions"]
    names = dict.fromkeys(str(data[part]["name"]) for part in ("train", "test"))
    return {
        **({"base_model": encoder} if encoder and is_hub_id(encoder) else {}),
        **({"datasets": found} if (found := [name for name in names if is_hub_id(name)]) else {}),
        "results": {
            "dataset": str(data["test"]["name"]),
            "metrics": {f"accuracy, {row['num_frames']} frames": row["policy"]["mean"] for row in report["accuracy"]},
        },
    }


def by_stage(log: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Held-out reward at the end of every stage, by number of frames, to see what later stages forget.

    Returns:
        For each stage its number, the step, and "reward": {K: reward}.
    """
    ends: dict[int, dict[str, Any]] = {}
    for row in log:
        if row["kind"] == "held_out" and row["stage"] > 0:  # the first look behind a stage belongs to its end
            end = ends.setdefault(row["stage"], {"stage": row["stage"] - 1, "step": row["step"], "reward": {}})
            if row["step"] == end["step"]:
                end["reward"][str(row["num_frames"])] = row["reward"]
    return [ends[stage] for stage in sorted(ends)]


def _forgetting(stages: list[dict[str, Any]]) -> list[str]:
    """A table of `by_stage`, and what was lost again."""
    if len(stages) < 2:
        return []
    frames = sorted({int(k) for end in stages for k in end["reward"]})
    lines = ["", "Held-out reward at the end of each stage:", "",
             "| stage | step | " + " | ".join(f"{k} frames" for k in frames) + " |",
             "|---|---|" + "---|" * len(frames)]  # fmt: skip
    for end in stages:
        cells = [f"{end['reward'][str(k)]:.3f}" if str(k) in end["reward"] else "" for k in frames]
        lines.append(f"| {end['stage']} | {end['step']} | " + " | ".join(cells) + " |")
    lost = []
    for k in frames:
        known = [(end["reward"][str(k)], end["stage"]) for end in stages if str(k) in end["reward"]]
        best, stage = max(known)
        if best > known[-1][0] + 0.005:
            lost.append(f"{best - known[-1][0]:.3f} at {k} frames since stage {stage}")
    lines += ["", f"Forgotten by later stages: {'; '.join(lost)}." if lost else "Later stages forgot nothing."]
    return lines


def training_section(report: dict[str, Any], settings: str) -> str:
    """The part of the model card that says how the policy was trained and what it is worth."""
    lines = ["## Does it help?", "", verdict(report), ""]
    lines += [
        "Accuracy of the reference model on held-out questions, from the same number of frames, with 95 % bootstrap "
        "intervals over videos:",
        "",
        "| frames | uniform | top-k | this policy | policy minus uniform | policy minus top-k |",
        "|---|---|---|---|---|---|",
    ]
    for row in report["accuracy"]:
        cells = [_shown(row[m]) for m in METHODS]
        cells += [_shown(row[f"policy_minus_{m}"], sign=True) for m in ("uniform", "top-k")]
        lines.append(f"| {row['num_frames']} | " + " | ".join(cells) + " |")
    released = [row for row in report["accuracy"] if "released" in row]
    if released:
        shown = "; ".join(f"{_shown(row['released'])} at {row['num_frames']} frames" for row in released)
        lines += ["", f"By the protocol of the released evaluation (frames drawn from the policy): {shown}."]
    largest = max(row["num_frames"] for row in report["accuracy"])
    by_category = [row for row in report["categories"] if row["num_frames"] == largest]
    if len(by_category) > 1:
        lines += ["", f"By category, {largest} frames:", "", "| category | n | uniform | top-k | this policy |",
                  "|---|---|---|---|---|"]  # fmt: skip
        for row in by_category:
            means = " | ".join(f"{row[m]['mean']:.3f}" for m in METHODS)
            lines.append(f"| {markdown_text(row['category'])} | {row['policy']['count']} | {means} |")
    lines += _forgetting(report.get("stages", []))
    test, train = report["questions"]["test"], report["questions"]["train"]
    chosen = (
        "The same questions chose the checkpoint, so these numbers are a little optimistic."
        if report["questions"]["also_chose_the_checkpoint"]
        else "None of these questions took part in training or in the choice of the checkpoint."
    )
    answerers = ", ".join(markdown_code(r["name"]) for r in report["reference"])
    lines += [
        "",
        f"{test['count']} held-out questions ({markdown_text(test['name'])}, fingerprint "
        f"{markdown_code(test['fingerprint'])}). {chosen}",
        f"Answers are those of the reference model that gave the rewards ({answerers}); another may gain less.",
        "",
        "## Training",
        "",
        f"Reinforcement learning from the answers of {answerers} on {train['count']} questions "
        f"({markdown_text(train['name'])}, fingerprint {markdown_code(train['fingerprint'])}), "
        f"{report['steps']} steps; these weights are from step {report['step']},"
        f" the best on the validation questions. {report['skipped']} questions could not be used (skipped.json). "
        f"Seed {report['seed']}; "
        + ", ".join(f"{name} {version}" for name, version in report["versions"].items())
        + ".",
        "",
        "![learning curves](curves.png)",
        "",
        "<details><summary>Settings (training.yaml)</summary>",
        "",
        markdown_block(settings, "yaml"),
        "",
        "</details>",
        "",
        "## Licence",
        "",
        "Not recorded in this file: whoever publishes the weights should name it.",
    ]
    return "\n".join(lines)


def verdict(report: dict[str, Any]) -> str:
    """One sentence: better than uniform or not."""
    better = [row["num_frames"] for row in report["accuracy"] if row["policy_minus_uniform"]["low"] > 0]
    worse = [row["num_frames"] for row in report["accuracy"] if row["policy_minus_uniform"]["high"] < 0]
    if worse:
        return f"**Worse than uniform sampling** at {_listed(worse)} frames."
    if not better:
        return "**No better than uniform sampling** as far as these questions can tell."
    count = len(report["accuracy"])
    return f"**Better than uniform sampling** at {_listed(better)} frames" + (
        "." if len(better) == count else "; elsewhere no difference can be told."
    )


def _row(num_frames: int, outcomes: list[Outcome], what: str) -> dict[str, Any]:
    videos = [o.video for o in outcomes]
    methods = [*METHODS, *(["released"] if all("released" in o.reward for o in outcomes) else [])]
    values = {m: [getattr(o, what)[m] for o in outcomes] for m in methods}
    return {
        "num_frames": num_frames,
        **{m: asdict(bootstrap_interval(values[m], videos)) for m in methods},
        **{
            f"policy_minus_{m}": asdict(paired_difference(values["policy"], values[m], videos))
            for m in ("uniform", "top-k")
        },
    }


def _shown(row: dict[str, Any], *, sign: bool = False) -> str:
    names = ("mean", "low", "high", "count", "groups", "level")
    return Interval(**{name: row[name] for name in names}).text(sign=sign)


def _strict(value: Any) -> Any:
    """JSON has no NaN: an interval of a single video has no ends."""
    if isinstance(value, dict):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_strict(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))
