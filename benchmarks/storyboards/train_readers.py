"""Trains the reference readers and reports what they need to see.

    nice python -m benchmarks.storyboards.train_readers benchmarks/storyboards/bank transformer
    nice python -m benchmarks.storyboards.train_readers benchmarks/storyboards/bank transformer --report-only

Writes `readers/NAME/` (config.json, model.safetensors, report.json, log.jsonl). One thread of one core needs about ten
minutes for each reader. A reader may give rewards when, on the validation split and for counting as well, evidence
makes it right at least 25 points more often than uniform frames.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from refocus_select.models.mini import MiniEncoder
from refocus_select.parsing import parse_question
from refocus_select.reference import Request
from refocus_select.reference.reader import ReaderReference
from refocus_select.reference.reader_net import ReaderConfig, make_net
from refocus_select.train_selector.storyboards import Bank, Storyboards
from refocus_select.weights import resolve

from .subsets import subset

READERS = Path(__file__).parent / "readers"
GATE = 25.0  # points between oracle and uniform


@dataclass(frozen=True)
class Recipe:
    """How a reader is trained.

    Attributes:
        net: its network.
        seed: of weights, questions and subsets.
        steps: of AdamW.
        rate: peak learning rate.
        mix: share of each kind of subset.
        sizes: subset sizes, drawn alike.
        candidates: sizes of the videos, drawn alike.
        role: what the reader is for.
    """

    net: ReaderConfig
    seed: int
    steps: int
    rate: float
    mix: dict[str, float]
    sizes: tuple[int, ...] = (4, 8, 8, 16)
    candidates: tuple[int, ...] = (64,)
    role: str = "reward"
    videos: int = 24  # in a batch, with two subsets each


RECIPES = {
    "transformer": Recipe(
        ReaderConfig("transformer", width=64, layers=2), seed=1, steps=2400, rate=2e-3,
        mix={"oracle": 0.28, "half": 0.22, "things": 0.1, "uniform": 0.08, "random": 0.1, "similar": 0.1, "none": 0.08,
             "background": 0.04},
    ),
    "relation": Recipe(
        ReaderConfig("relation", width=48, layers=2, look=16), seed=2, steps=3000, rate=2e-3,
        mix={"oracle": 0.25, "half": 0.2, "things": 0.15, "uniform": 0.1, "random": 0.1, "similar": 0.08, "none": 0.08,
             "background": 0.04},
        candidates=(64, 96, 128),
    ),
    "recurrent": Recipe(
        ReaderConfig("recurrent", width=80, layers=2, look=32), seed=3, steps=3000, rate=2e-3,
        mix={"oracle": 0.3, "half": 0.15, "things": 0.15, "uniform": 0.1, "random": 0.15, "similar": 0.05, "none": 0.05,
             "background": 0.05},
        candidates=(64, 128, 256), role="evaluation only: never gives a reward",
    ),
}  # fmt: skip


class Sampler:
    """Questions with subsets, as readers are trained on them."""

    def __init__(self, boards: Storyboards, reader: ReaderReference, recipe: Recipe) -> None:
        self.boards, self.reader, self.recipe = boards, reader, recipe
        self.rng = np.random.default_rng(recipe.seed)
        self.next = 0

    def requests(self, count: int, num_frames: int, options: int) -> list[Request]:
        """`count` further questions with so many options, each with two subsets."""
        kinds, shares = list(self.recipe.mix), list(self.recipe.mix.values())
        found = []
        while len(found) < count:
            question, layout = self.boards.item(self.next)
            clip = self.boards(question.video)
            self.next += 1
            if len(question.options) != options:
                continue
            scores = similarity(self.reader, clip, question.question)
            drawn = self.rng.choice(kinds, size=2, p=np.array(shares) / sum(shares))
            rows = [subset(str(k), self.rng, question, layout, num_frames, scores) for k in drawn]
            found.append(Request(question, clip, torch.from_numpy(np.stack(rows))))
        return found


def similarity(reader: ReaderReference, clip: Any, question: str) -> np.ndarray:
    """Of each candidate with what the question names, [F]."""
    mentions = parse_question(question).entities
    if not mentions:
        return np.zeros(len(clip))
    frames = clip.encoding(reader.selector).tensors["embeddings"]
    return np.asarray(frames @ reader.thing_vectors(mentions).mean(0))


def train(name: str, bank: Bank, encoder: MiniEncoder, out: Path) -> ReaderReference:
    """Train one reader and save it."""
    recipe = RECIPES[name]
    torch.manual_seed(recipe.seed)
    reader = ReaderReference(make_net(recipe.net), encoder, name=name)
    boards = Storyboards(bank, "train", seed=1000 + recipe.seed, num_questions=2**31, num_candidates=recipe.candidates)
    sampler = Sampler(boards, reader, recipe)
    net = reader.net.train()
    optimiser = torch.optim.AdamW(net.parameters(), lr=recipe.rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.rate, recipe.steps, pct_start=0.1)
    started, log, recent = time.time(), [], []
    for step in range(recipe.steps):
        options = 3 if step % 32 == 31 else 4
        requests = sampler.requests(recipe.videos, int(sampler.rng.choice(recipe.sizes)), options)
        batch = reader.batch(requests)
        answers = torch.tensor([r.question.answer for r in requests for _ in r.subsets])
        logits = net(batch)
        loss = F.cross_entropy(logits, answers)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        recent.append((loss.item(), (logits.argmax(1) == answers).float().mean().item()))
        if step % 100 == 99:
            mean_loss, accuracy = np.mean(recent, axis=0)
            log.append({"step": step + 1, "loss": round(mean_loss, 4), "accuracy": round(accuracy, 4),
                        "seconds": round(time.time() - started)})  # fmt: skip
            print(json.dumps(log[-1]), flush=True)
            recent = []
    net.eval().requires_grad_(False)
    reader = ReaderReference(net, encoder, name=name)
    training = {
        "seed": recipe.seed, "steps": recipe.steps, "rate": recipe.rate, "mix": recipe.mix, "sizes": recipe.sizes,
        "candidates": recipe.candidates, "videos": recipe.videos, "bank": bank.fingerprint, "role": recipe.role,
    }  # fmt: skip
    reader.save_pretrained(out, training=training)
    (out / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log), encoding="utf-8")
    return reader


CHECKS = ("oracle", "half", "uniform", "random", "similar", "things", "none", "background", "question only")


def report(reader: ReaderReference, bank: Bank, *, questions: int = 2000, sizes: tuple[int, ...] = (4, 8, 16)) -> dict:
    """Accuracy by split, subset size, kind of subset and question type, with 95 % bootstrap intervals."""
    found: dict[str, Any] = {"reader": reader.fingerprint, "bank": bank.fingerprint, "questions": questions}
    splits = [split for split in ("validation", "test", "train") if any(c.split == split for c in bank.concepts)]
    for split in splits:
        boards = Storyboards(bank, split, seed=77, num_questions=questions)
        for num_frames in sizes if split != "train" else (8,):
            right, types = _right(reader, boards, num_frames)
            table = {check: _summary(right[check], types) for check in right}
            found[f"{split} K={num_frames}"] = table
    if "validation" not in splits:
        return found
    gaps = {
        kind: 100 * (found["validation K=8"]["oracle"][kind][0] - found["validation K=8"]["uniform"][kind][0])
        for kind in found["validation K=8"]["oracle"]
    }
    found["oracle minus uniform, points, validation, K=8"] = {kind: round(gap, 1) for kind, gap in gaps.items()}
    found["gate"] = bool(gaps["all"] > GATE and gaps["count"] > GATE)
    return found


def _right(reader: ReaderReference, boards: Storyboards, num_frames: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Whether each question is answered rightly, for every kind of subset, and the questions' types."""
    right: dict[str, list[float]] = {check: [] for check in CHECKS}
    types = []
    shown = [check for check in CHECKS if check != "question only"]
    for start in range(0, len(boards), 100):
        requests, blind = [], []
        for index in range(start, min(start + 100, len(boards))):
            question, layout = boards.item(index)
            clip, rng = boards(question.video), np.random.default_rng(index)
            scores = similarity(reader, clip, question.question)
            rows = [subset(kind, rng, question, layout, num_frames, scores) for kind in shown]
            requests.append(Request(question, clip, torch.from_numpy(np.stack(rows))))
            blind.append(question)
            types.append(question.category)
        logits = reader.option_logits(requests)
        for row, request in zip(logits, requests, strict=True):
            for check, best in zip(shown, row.argmax(1).tolist(), strict=True):
                right[check].append(best == request.question.answer)
        right["question only"] += _blind(reader, requests)
    return {check: np.array(values, float) for check, values in right.items()}, np.array(types)


@torch.inference_mode()
def _blind(reader: ReaderReference, requests: list[Request]) -> list[bool]:
    """Answers when every frame is black to the reader: vectors of zeros."""
    found = []
    for request in requests:
        batch = reader.batch([Request(request.question, request.clip, request.subsets[:1])])
        logits: Tensor = reader.net(batch._replace(frames=torch.zeros_like(batch.frames)))
        found.append(logits.argmax().item() == request.question.answer)
    return found


def _summary(right: np.ndarray, types: np.ndarray) -> dict[str, list[float]]:
    """Accuracy and interval of all questions, and accuracy and number of each type."""
    rng = np.random.default_rng(0)
    means = right[rng.integers(0, len(right), (1000, len(right)))].mean(1)
    low, high = np.quantile(means, (0.025, 0.975))
    table = {"all": [round(float(x), 4) for x in (right.mean(), low, high)]}
    for kind in sorted(set(types)):
        mine = right[types == kind]
        table[str(kind)] = [round(float(mine.mean()), 4), len(mine)]
    return table


def write_table(folder: Path) -> None:
    """Write README.md beside the readers: what each needs to see, from their reports."""
    reports = {path.parent.name: json.loads(path.read_text()) for path in sorted(folder.glob("*/report.json"))}
    configs = {name: json.loads((folder / name / "config.json").read_text()) for name in reports}
    lines = [
        "# Reference readers",
        "",
        "Made by `python -m benchmarks.storyboards.train_readers` (see ../README.md); raw figures: each `report.json`.",
        "Accuracy on videos of 64 candidates with 95 % intervals; chance is .25 (.33 for text). Names, wordings,",
        "pictures and backgrounds of the validation and test splits were not trained on.",
        "",
        "| reader | role | parameters | gate passed |",
        "|---|---|---|---|",
    ]
    for name, config in configs.items():
        size = sum(t.numel() for t in load_file(folder / name / "model.safetensors").values())
        passed = "yes" if reports[name]["gate"] else "no"
        lines.append(f"| {name} | {config['training']['role']} | {size / 1000:.0f} k | {passed} |")
    for split in ("validation", "test", "train"):
        lines += [
            "",
            f"## {split.capitalize()} split",
            "",
            f"| reader | K | {' | '.join(CHECKS)} |",
            "|---" * (2 + len(CHECKS)) + "|",
        ]
        for name, found in reports.items():
            for key, table in found.items():
                if key.startswith(f"{split} K="):
                    cells = " | ".join(_dotted(table[check]["all"]) for check in CHECKS)
                    lines.append(f"| {name} | {key.partition('=')[2]} | {cells} |")
    for split in ("validation", "test"):
        types = [kind for kind in next(iter(reports.values()))[f"{split} K=8"]["oracle"] if kind != "all"]
        lines += ["", f"## By type, {split} split, K = 8: oracle / uniform / question only", ""]
        lines += [f"| reader | {' | '.join(types)} |", "|---" * (1 + len(types)) + "|"]
        for name, found in reports.items():
            table = found[f"{split} K=8"]
            triples = [[table[check][kind][0] for check in ("oracle", "uniform", "question only")] for kind in types]
            cells = " | ".join(" / ".join(f"{x:.2f}".lstrip("0") for x in triple) for triple in triples)
            lines.append(f"| {name} | {cells} |")
    (folder / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _dotted(summary: list[float]) -> str:
    mean, low, high = (f"{x:.2f}".lstrip("0") for x in summary)
    return f"{mean} ({low} to {high})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bank", type=Path)
    parser.add_argument("names", nargs="+", choices=list(RECIPES))
    parser.add_argument("--out", type=Path, default=READERS)
    parser.add_argument("--report-only", action="store_true")
    parser.add_argument(
        "--label", default="", help="ending of the report's name, for another bank than that of training"
    )
    parser.add_argument("--questions", type=int, default=2000, help="of each split for the report")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    bank = Bank.load(arguments.bank)
    encoder = MiniEncoder.from_pretrained(resolve("mini"))
    for name in arguments.names:
        folder = arguments.out / name
        if arguments.report_only:
            reader = ReaderReference.from_pretrained(folder, encoder=encoder)
        else:
            reader = train(name, bank, encoder, folder)
        result = report(reader, bank, questions=arguments.questions)
        file = f"report-{arguments.label}.json" if arguments.label else "report.json"
        (folder / file).write_text(json.dumps(result, separators=(",", ":")) + "\n", encoding="utf-8")
        for key in (key for key in result if key.endswith(" K=8") and "minus" not in key):
            print(name, key, {check: result[key][check]["all"][0] for check in CHECKS}, flush=True)
        print(name, "gate:", result.get("gate"), flush=True)
    if not arguments.label:
        write_table(arguments.out)


if __name__ == "__main__":
    main()
