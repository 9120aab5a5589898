"""What selectors are worth on storyboards: `python -m benchmarks.quality --policy FOLDER [--out FILE.md]`.

Held-out questions (names, wordings, pictures and backgrounds of the test split) are answered by small readers from the
frames that each selector chooses, at equal numbers of frames. All selectors see the same vectors of the embedded
encoder:

- uniform, random, k-centre (farthest first, blind to the question);
- the training-free algorithms with their default settings, over the similarity of the whole question, and again over
  that of the things which the question names, as the policy gets it;
- the policy, its best frame at every step;
- the evidence itself, filled up with other frames (oracle).

Accuracy with 95 % bootstrap intervals, and the policy's paired difference to the best method that was not trained.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from refocus_select import FrameSelector
from refocus_select.encoding import VideoEncoding
from refocus_select.evaluation.statistics import bootstrap_interval, paired_difference
from refocus_select.models.vectors import likeness, question_parts
from refocus_select.questions import Question
from refocus_select.selectors.algorithms import SCORED, random, uniform
from refocus_select.selectors.vector_policy import VectorPolicySelector
from refocus_select.train_selector.imitate import evidence_targets
from refocus_select.train_selector.reference import Request, load_reference
from refocus_select.train_selector.storyboards import Bank, Storyboards

HERE = Path(__file__).parent
ALGORITHMS = ("topk", "topk-nms", "mmr", "aks", "bolt", "mdp3", "adaq")
Picker = Callable[[Question, VideoEncoding, int], np.ndarray]


def k_centre(embeddings: np.ndarray, num_frames: int) -> np.ndarray:
    """Farthest-first traversal over unit vectors, from the frame that is least like the mean, [K]."""
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    picks = [int((unit @ unit.mean(0)).argmin())]
    nearest = unit @ unit[picks[0]]
    while len(picks) < num_frames:
        picks.append(int(nearest.argmin()))
        nearest = np.maximum(nearest, unit @ unit[picks[-1]])
    return np.sort(np.array(picks))


def methods(policies: dict[str, VectorPolicySelector]) -> dict[str, Picker]:
    """Everybody who chooses, by name."""
    selector = next(iter(policies.values()))
    memo: dict[str, torch.Tensor] = {}

    def scores(question: Question, encoding: VideoEncoding, named: bool) -> np.ndarray:
        vectors = encoding.tensors["embeddings"].float()
        key = f"{named}{question.question}"
        if key not in memo:
            memo[key] = question_parts(selector.encoder, [question.question], 2 * named)
        if named:
            return likeness(vectors[None], memo[key])[0].double().numpy()
        return (vectors @ memo[key][0, 0]).double().numpy()

    def algorithm(name: str, named: bool) -> Picker:
        import inspect

        function = SCORED[name]
        wanted = inspect.signature(function).parameters

        def pick(question: Question, encoding: VideoEncoding, num_frames: int) -> np.ndarray:
            given = {"timestamps": encoding.timestamps, "embeddings": encoding.tensors["embeddings"].numpy()}
            inputs = {key: value for key, value in given.items() if key in wanted}
            return function(scores(question, encoding, named), num_frames, **inputs)

        return pick

    def policy(chooser: VectorPolicySelector) -> Picker:
        def pick(question: Question, encoding: VideoEncoding, num_frames: int) -> np.ndarray:
            chosen = chooser.select(encoding, question.question, num_frames=num_frames)
            return np.searchsorted(encoding.indices, chosen.indices)

        return pick

    def oracle(question: Question, encoding: VideoEncoding, num_frames: int) -> np.ndarray:
        rng = np.random.default_rng(int.from_bytes(question.id.encode()[-6:], "big"))
        return np.sort(evidence_targets(question, encoding.timestamps, num_frames, rng)[0].numpy())

    def drawn(question: Question, encoding: VideoEncoding, num_frames: int) -> np.ndarray:
        return random(encoding.timestamps, num_frames, seed=int.from_bytes(question.id.encode()[-6:], "big"))

    return {
        "uniform": lambda q, e, k: uniform(e.timestamps, k),
        "random": drawn,
        "k-centre": lambda q, e, k: k_centre(e.tensors["embeddings"].numpy(), k),
        **{name: algorithm(name, False) for name in ALGORITHMS},
        **{f"{name}, named things": algorithm(name, True) for name in ALGORITHMS},
        **{name: policy(chooser) for name, chooser in policies.items()},
        "oracle": oracle,
    }


def answers(
    boards: Storyboards, pickers: dict[str, Picker], readers: Sequence[Any], sizes: Sequence[int]
) -> tuple[dict[tuple[str, int, str], list[float]], list[str]]:
    """Whether each question is answered right, by (method, K, reader), and the questions' types."""
    found: dict[tuple[str, int, str], list[float]] = {}
    kinds = []
    for place in range(len(boards)):
        question = boards[place]
        clip = boards(question.video)
        encoding = clip.encoding(readers[0].selector)
        kinds.append(question.category)
        for size in sizes:
            picks = np.stack([pick(question, encoding, size) for pick in pickers.values()])
            request = Request(question, clip, torch.from_numpy(picks))
            for reader in readers:
                best = reader.option_logits([request])[0].argmax(1)
                for name, answer in zip(pickers, best.tolist(), strict=True):
                    found.setdefault((name, size, reader.name), []).append(float(answer == question.answer))
    return found, kinds


def report(
    found: dict[tuple[str, int, str], list[float]], kinds: list[str], pickers: Sequence[str], trained: Sequence[str]
) -> dict[str, Any]:
    """Means, intervals, and the paired differences that matter."""
    sizes = sorted({key[1] for key in found})
    readers = list(dict.fromkeys(key[2] for key in found))
    free = [name for name in pickers if name not in (*trained, "oracle")]
    rows = []
    for reader in readers:
        for size in sizes:
            values = {name: np.array(found[name, size, reader]) for name in pickers}
            best = max(free, key=lambda name: values[name].mean())
            for name in pickers:
                interval = bootstrap_interval(values[name])
                row = {"reader": reader, "K": size, "method": name, "mean": interval.mean, "low": interval.low,
                       "high": interval.high}  # fmt: skip
                if name in trained:
                    gap = paired_difference(values[name], values[best])
                    gain = values["oracle"].mean() - values["uniform"].mean()
                    share = (values[name].mean() - values["uniform"].mean()) / gain
                    row |= {"best_free": best, "over_best": [gap.mean, gap.low, gap.high], "share_of_oracle": share}
                row["by_type"] = {
                    kind: float(values[name][[k == kind for k in kinds]].mean()) for kind in sorted(set(kinds))
                }
                rows.append(row)
    return {"rows": rows, "types": {kind: kinds.count(kind) for kind in sorted(set(kinds))}}


def markdown(result: dict[str, Any], title: str) -> list[str]:
    """Tables of one setting."""
    rows = result["rows"]
    readers = list(dict.fromkeys(row["reader"] for row in rows))
    sizes = sorted({row["K"] for row in rows})
    names = list(dict.fromkeys(row["method"] for row in rows))
    at = {(row["reader"], row["K"], row["method"]): row for row in rows}
    lines = [f"## {title}", ""]
    for reader in readers:
        lines += [f"Reader *{reader}*:", "", "| method | " + " | ".join(f"K = {k}" for k in sizes) + " |",
                  "|---" * (1 + len(sizes)) + "|"]  # fmt: skip
        for name in names:
            cells = [f"{r['mean']:.3f} [{r['low']:.3f}, {r['high']:.3f}]" for r in (at[reader, k, name] for k in sizes)]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        for name in (n for n in names if "over_best" in at[reader, sizes[0], n]):
            for k in sizes:
                row = at[reader, k, name]
                gap = row["over_best"]
                lines.append(
                    f"\nK = {k}: {name} is {gap[0]:+.3f} [{gap[1]:+.3f}, {gap[2]:+.3f}] over {row['best_free']}, the "
                    "best that was not trained, and has "
                    f"{row['share_of_oracle']:.0%} of the oracle's gain over uniform."
                )
        lines.append("")
    middle = 8 if 8 in sizes else sizes[0]
    kinds = list(result["types"])
    lines += [f"By type, K = {middle}, reader *{readers[0]}*:", "", "| method | " + " | ".join(kinds) + " |",
              "|---" * (1 + len(kinds)) + "|",
              "| *questions* | " + " | ".join(str(result["types"][kind]) for kind in kinds) + " |"]  # fmt: skip
    for name in names:
        by_type = at[readers[0], middle, name]["by_type"]
        lines.append(f"| {name} | " + " | ".join(f"{by_type[kind]:.2f}" for kind in kinds) + " |")
    return [*lines, ""]


def main() -> int:
    """Run everything, print and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--policy", nargs="+", required=True, metavar="FOLDER", help="trained policies, each with a name"
    )
    parser.add_argument("--questions", type=int, default=1000)
    parser.add_argument("--split", default="test", choices=("validation", "test"))
    parser.add_argument("--frames", nargs="+", type=int, default=[4, 8, 16], metavar="K")
    parser.add_argument("--candidates", nargs="+", type=int, default=[64], metavar="F")
    parser.add_argument("--bank", default=str(HERE / "storyboards" / "bank"))
    shipped = [str(path.parent) for path in sorted((HERE / "storyboards" / "readers").glob("*/config.json"))]
    parser.add_argument("--readers", nargs="+", default=shipped)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    policies = {}
    for folder in arguments.policy:
        loaded = FrameSelector.from_pretrained(folder)
        if not isinstance(loaded, VectorPolicySelector):
            raise SystemExit(f"{folder} is no policy over vectors")
        name = Path(folder).name if Path(folder).name != "selector" else Path(folder).parent.name
        policies[f"policy {name}"] = loaded
    readers = [load_reference(folder) for folder in arguments.readers]
    bank = Bank.load(arguments.bank)
    pickers = methods(policies)
    lines, results = [], {}
    for count in arguments.candidates:
        boards = Storyboards(bank, arguments.split, num_questions=arguments.questions, num_candidates=count)
        result = report(*answers(boards, pickers, readers, arguments.frames), list(pickers), list(policies))
        results[str(count)] = result
        lines += markdown(result, f"{count} candidates, {arguments.questions} questions of the {arguments.split} split")
    text = "\n".join(lines)
    print(text)
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")
        arguments.out.with_suffix(".json").write_text(json.dumps(results), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
