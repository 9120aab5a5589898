"""What the parts of the recipe are worth: short trainings that differ in one thing each.

    python -m benchmarks.storyboards.ablate OUT [--only NAME …] [--steps 600]

Every run starts from new weights and sees the same questions. Runs that are done are not repeated; one that was
interrupted goes on. Writes `runs/ablations.md`, `runs/ablations.json` and `runs/ablations.png` beside this file: accuracy on
validation questions, K = 4, 8, 16, with a reader that gave no reward, and rewards and entropies over the steps.
"""

# ruff: noqa: E501 (sentences of the page)
from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from refocus_select import FrameSelector
from refocus_select.files import write_text
from refocus_select.models.mini import MiniEncoder
from refocus_select.reference.reader import ReaderReference
from refocus_select.selectors.vector_policy import VectorPolicySelector
from refocus_select.train_selector import TrainConfig, train_selector
from refocus_select.train_selector.metrics import read_log
from refocus_select.train_selector.storyboards import Bank, Storyboards
from refocus_select.weights import resolve

from ..quality.contenders import Scores as Similarity
from ..quality.contenders import blind, oracle, policy
from ..quality.figures import gap_of, mean_of
from ..quality.storyboards import UNSEEN, compare

HERE = Path(__file__).parent
SIZES = (4, 8, 16)
REWARDING = ("relation",)
QUESTIONS = 400


def base(steps: int) -> dict[str, Any]:
    """The recipe of `policy.yaml`, shortened."""
    config = yaml.safe_load((HERE / "policy.yaml").read_text(encoding="utf-8"))
    total = sum(stage["steps"] for stage in config["stages"])
    config["stages"] = [stage | {"steps": max(1, round(stage["steps"] * steps / total))} for stage in config["stages"]]
    config["data"]["arguments"] |= {"bank": str(HERE / "bank"), "num_questions": 40000}
    config["reference"] = {"model": str(HERE / "readers" / REWARDING[0])}
    config["validation"] |= {"every": 10**6, "questions": 100}
    return config | {"test_questions": 16, "checkpoint_every": 200}


def variants(steps: int) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Name, what is different, configuration."""

    def changed(**sections: dict[str, Any]) -> dict[str, Any]:
        config = base(steps)
        for name, values in sections.items():
            config[name] = config[name] | values
        return config

    def world(**values: Any) -> dict[str, Any]:
        config = base(steps)
        config["data"]["arguments"] |= values
        return config

    types = dict(base(steps)["data"]["arguments"]["types"])
    del types["look up"]
    bonus = base(steps)
    bonus["stages"] = [stage | {"entropy_bonus": 0.0, "entropy_bonus_end": 0.0} for stage in bonus["stages"]]
    yield "recipe", "", base(steps)
    yield "recipe, another seed", "seed 1", base(steps) | {"seed": 1}
    yield "unbiased credit", "later picks count in full", changed(objective={"credit_decay": 1.0})
    yield "credit of the subset", "8 rollouts share the reward of the subset", subset(steps)
    yield (
        "no attention",
        "frames do not look at each other before the recurrence",
        changed(policy={"attention_heads": 0}),
    )
    yield "plain eyes", "videos are seen as the embedded encoder sees them", changed(policy={"random_eyes": False})
    yield "all sentences", "no sentence is left out", changed(policy={"sentence_dropout": 0.0})
    yield "no look-ups", "no question asks for the named thing itself", world(types=types)
    yield "templates only", "no question in ordinary words but look-ups", world(natural=0.0)
    yield "short scenes", "no slow scenes, no videos without background", world(pace=1.0, joined=0.0)
    yield "no entropy bonus", "entropy bonus 0", bonus


def subset(steps: int) -> dict[str, Any]:
    """The recipe with one reward for all picks of a subset."""
    config = base(steps)
    config["objective"] = config["objective"] | {"credit": "subset"}
    config["stages"] = [stage | {"rollouts": 8} for stage in config["stages"]]
    return config


def run(name: str, config: dict[str, Any], out: Path, readers: list[ReaderReference]) -> Path:
    """Train one variant with rewards of `readers`, or take what is there."""
    folder = out / name.replace(" ", "-").replace(",", "").replace("'", "")
    if not (folder / "selector" / "model.safetensors").exists():
        named = TrainConfig.from_dict(config | {"output": str(folder)})
        train_selector(named, reference=readers[: 1 + len(named.reference.also)], progress=False)
    return folder


def measure(folders: dict[str, Path]) -> dict[str, Any]:
    """Accuracy of every variant on the same validation questions."""
    policies = {}
    for name, folder in folders.items():
        loaded = FrameSelector.from_pretrained(str(folder / "selector"))
        assert isinstance(loaded, VectorPolicySelector)
        policies[name] = loaded
    encoder = next(iter(policies.values())).encoder
    readers = [ReaderReference.from_pretrained(HERE / "readers" / name, encoder=encoder)
               for name in (UNSEEN, "transformer")]  # fmt: skip
    boards = Storyboards(Bank.load(HERE / "bank"), "validation", seed=9, num_questions=QUESTIONS)
    pickers = {"uniform": blind(Similarity(encoder))["uniform"], **{n: policy(p) for n, p in policies.items()}}
    outcomes = compare(boards, pickers | {"oracle": oracle}, readers, SIZES)
    rows = []
    for name in (*pickers, "oracle"):
        row: dict[str, Any] = {"name": name}
        for size in SIZES:
            mine = outcomes.right[name, size, UNSEEN]
            row[f"K={size}"] = mean_of(mine)
            if "recipe" in pickers:
                row[f"K={size} over recipe"] = gap_of(mine, outcomes.right["recipe", size, UNSEEN])
            row[f"K={size} rewarding reader"] = round(float(outcomes.right[name, size, "transformer"].mean()), 4)
        rows.append(row)
    return {"questions": QUESTIONS, "rows": rows}


def draw(folders: dict[str, Path], path: Path) -> None:
    """Accuracy of the rollouts and entropy per pick over the steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for number, (name, folder) in enumerate(folders.items()):
        steps = [row for row in read_log(folder) if row["kind"] == "train" and "entropy" in row]
        for axis, key in ((left, "accuracy"), (right, "entropy")):
            values = np.array([row[key] for row in steps])
            window = min(50, len(values))
            smooth = np.convolve(values, np.ones(window) / window, "valid")
            at = np.array([row["step"] for row in steps])[len(values) - len(smooth) :]
            axis.plot(at, smooth, label=name, color=f"C{number % 10}", linestyle="-" if number < 10 else "--")
    left.set_title("right answers from the rollouts, mean of 50 steps")
    right.set_title("entropy per pick, nats")
    for axis in (left, right):
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
    right.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
    figure.savefig(path, dpi=110)


def page(found: dict[str, Any], notes: dict[str, str], steps: int) -> str:
    """The table."""
    lines = [
        "# What the parts of the recipe are worth",
        "",
        f"`python -m benchmarks.storyboards.ablate OUT`: trainings of {steps} steps from new weights, 64 candidates, one seed each",
        f"(two of the recipe, which shows the noise between seeds). Accuracy on {found['questions']} validation questions with the reader",
        f"*{UNSEEN}*, which gave no reward; in brackets the paired difference to the recipe with its 95 % interval over questions.",
        "They are short: `policy.yaml` goes on for 1,500 steps.",
        "",
        "| | what is different | " + " | ".join(f"K = {k}" for k in SIZES) + " |",
        "|---" * (2 + len(SIZES)) + "|",
    ]
    for row in found["rows"]:
        cells = []
        for size in SIZES:
            cell = f"{row[f'K={size}'][0]:.3f}"
            if row["name"] in notes and row["name"] != "recipe" and f"K={size} over recipe" in row:
                gap = row[f"K={size} over recipe"]
                cell += f" ({gap[0]:+.3f} [{gap[1]:+.3f}, {gap[2]:+.3f}])"
            cells.append(cell)
        lines.append(f"| {row['name']} | {notes.get(row['name'], '')} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", "![curves](ablations.png)", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder of the runs")
    parser.add_argument("--only", nargs="+", help="names of variants")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--train-only", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    encoder = MiniEncoder.from_pretrained(resolve("mini"))
    readers = [ReaderReference.from_pretrained(HERE / f"readers/{n}", encoder=encoder) for n in REWARDING]  # texts once
    folders, notes = {}, {}
    for name, note, config in variants(arguments.steps):
        if arguments.only is None or name in arguments.only:
            folders[name], notes[name] = run(name, config, arguments.out, readers), note
            print(f"{name}: {folders[name]}", flush=True)
    if arguments.train_only:
        return
    found = measure(folders)
    draw(folders, HERE / "runs/ablations.png")
    for file, text in (("json", json.dumps(found, indent=1)), ("md", page(found, notes, arguments.steps))):
        write_text(HERE / f"runs/ablations.{file}", text)


if __name__ == "__main__":
    main()
