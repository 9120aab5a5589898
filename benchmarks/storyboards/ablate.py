"""What the parts of the recipe are worth: short trainings that differ in one thing each.

    python -m benchmarks.storyboards.ablate OUT [--only NAME …] [--steps 600]

Every run starts from new weights and sees the same questions. Runs that are done are not repeated; one that was broken
off goes on. Writes `runs/ablations.md`, `runs/ablations.json` and `runs/ablations.png` beside this file: accuracy on
validation questions, K = 4, 8, 16, with a reader that gave no reward, and rewards and entropies over the steps.
"""

# ruff: noqa: E501 (sentences of the page)
from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from refocus_select import FrameSelector
from refocus_select.files import write_text
from refocus_select.models.mini import MiniEncoder
from refocus_select.reference.reader import ReaderReference
from refocus_select.selectors.vector_policy import VectorPolicySelector
from refocus_select.train_selector import TrainConfig, train_selector
from refocus_select.train_selector.logbook import read_log
from refocus_select.train_selector.storyboards import Bank, Storyboards
from refocus_select.weights import resolve

from ..quality.contenders import Scores as Similarity
from ..quality.contenders import blind, oracle, policy
from ..quality.figures import gap_of, mean_of
from ..quality.storyboards import UNSEEN, compare

HERE = Path(__file__).parent
SIZES = (4, 8, 16)
REWARDING = ("transformer", "relation")
QUESTIONS = 400


def base(steps: int) -> dict[str, Any]:
    """The recipe before `policy.yaml`, shortened: rewards of whole subsets, few frames first, a bonus that falls."""
    first, second, third = round(0.25 * steps), round(0.35 * steps), round(0.4 * steps)
    return {
        "device": "cpu",
        "data": {
            "train": "refocus_select.train_selector.storyboards:storyboards",
            "validation": "refocus_select.train_selector.storyboards:storyboards",
            "arguments": {"bank": str(HERE / "bank"), "num_questions": 40000, "validation_num_questions": 400},
        },
        "policy": {"d_model": 96, "n_layer": 2, "question_fusion": "before", "bidirectional": True},
        "reference": {"model": str(HERE / "readers" / REWARDING[0]), "also": [str(HERE / "readers" / REWARDING[1])]},
        "objective": {"reward": "probability", "advantage": "batch"},
        "stages": [
            {"num_frames": [4], "steps": first, "rollouts": 8, "entropy_bonus": 0.06, "entropy_bonus_end": 0.04},
            {"num_frames": [8], "steps": second, "rollouts": 8, "entropy_bonus": 0.04, "entropy_bonus_end": 0.02},
            {"num_frames": [8, 16], "steps": third, "rollouts": 8, "entropy_bonus": 0.02, "entropy_bonus_end": 0.005},
        ],
        "optimiser": {"lr": 1.0e-3, "batch": 16, "decay_from": 0.6},
        "watch": {"every": 10**6, "questions": 100, "num_frames": [8], "max_drop": None, "min_entropy": 0.0},
        "test_questions": 16,
        "checkpoint_every": 200,
    }


def variants(steps: int) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Name, what is different, configuration."""

    def changed(**sections: dict[str, Any]) -> dict[str, Any]:
        config = copy.deepcopy(base(steps))
        for name, values in sections.items():
            config[name] = config[name] | values
        return config

    def stages(**values: Any) -> dict[str, Any]:
        config = base(steps)
        config["stages"] = [stage | values for stage in config["stages"]]
        return config

    direct = base(steps)
    bonus = {"entropy_bonus": 0.06, "entropy_bonus_end": 0.005}
    direct["stages"] = [{"num_frames": [16], "steps": steps, "rollouts": 8, **bonus}]
    warm = base(steps)
    warm["stages"] = [
        {"num_frames": [8], "steps": warm["stages"][0]["steps"], "method": "evidence"},
        *warm["stages"][1:],
    ]
    paper = changed(objective={"reward": "tanh_margin", "advantage": "group"})
    paper["stages"] = [stage | {"entropy_bonus": 0.001, "entropy_bonus_end": 0.001} for stage in paper["stages"]]
    yield "recipe", "", base(steps)
    yield "recipe, another seed", "seed 1", base(steps) | {"seed": 1}
    yield "no entropy bonus", "entropy bonus 0", stages(entropy_bonus=0.0, entropy_bonus_end=0.0)
    yield "no curriculum", "K = 16 from the first step", direct
    yield "margin reward", "tanh of half the margin (the paper's reward)", changed(objective={"reward": "tanh_margin"})
    yield "the paper's objective", "margin reward, each question's own deviation, entropy bonus .001", paper
    yield "correctness reward", "1 for a right answer", changed(objective={"reward": "correct"})
    yield "one reader", "rewards of one reader only", changed(reference={"also": []})
    yield "question after", "one reading of a video serves all questions", changed(policy={"question_fusion": "after"})
    picks = stages(rollouts=4)
    picks["objective"] = picks["objective"] | {"credit": "pick"}
    yield "credit of each pick", "4 rollouts; a pick earns what the reward gains by it", picks
    yield (
        "noise on wordings",
        "the vector of the question's sentence is disturbed while learning",
        changed(policy={"wording_noise": 1.0}),
    )
    causal = {"question_fusion": "after", "bidirectional": False}
    yield (
        "causal",
        "the question after the frames, and frames do not see later ones (encode once, stream)",
        changed(policy=causal),
    )
    yield "GRU", "GRU instead of Mamba-2", changed(policy={"backbone": "gru"})
    yield "evidence first", "first stage imitates labelled evidence instead", warm


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
        "They are short, and *recipe* is the one that was shipped first; `policy.yaml` has the credit of each pick and the noise on",
        "wordings, and goes on for 3,000 steps.",
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
