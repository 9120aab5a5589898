"""What a token budget is worth: `python -m benchmarks.budget [curve] [tokens]`.

Writes `benchmarks/results/budget.md` and `budget.json`. Parts:

- curve: questions about composed videos (benchmarks/storyboards, test split), answered by three readers from the frames
  of the shipped policy and of training-free methods, at fixed K and with a stop. What stops, and at which value, is
  chosen on the validation split; so is the best fixed K. Tokens are frames times the cost of one (one size for all).
- tokens: 100 random videos and budgets for ten families of real processors: the measured prompt against the budget.

Each part is stored when it is done; the page is made of the parts that are there.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from refocus_select import FrameSelector
from refocus_select.budget import frames_needed
from refocus_select.encoding import VideoEncoding
from refocus_select.files import write_text
from refocus_select.questions import Question
from refocus_select.reference import Request
from refocus_select.reference.reader import ReaderReference
from refocus_select.selectors.vector_policy import VectorPolicySelector
from refocus_select.statistics import bootstrap_interval, paired_difference
from refocus_select.train_selector.storyboards import Bank, Storyboards

from .quality.contenders import Scores, algorithm

HERE = Path(__file__).parent
RESULTS = HERE / "results"
SIZES = (1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 24, 32)
GAINS = (0.005, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.12, 0.2)
MASSES = (0.2, 0.35, 0.5, 0.65, 0.8)
SHARES = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
UNSEEN = "recurrent"  # the reader that never gave a reward
WORLD = {"num_candidates": (64, 128), "haze": 0.5}


# -- the curve ----------------------------------------------------------------------------------------


class Contest:
    """Everybody's frames for the questions of one split, and what the readers make of them."""

    def __init__(self, chooser: VectorPolicySelector, readers: Sequence[ReaderReference]) -> None:
        self.chooser, self.readers = chooser, readers
        scores = Scores(chooser.encoder)
        stored = json.loads((RESULTS / "quality.json").read_text(encoding="utf-8"))["tune"]["sizes"]["8"]
        self.free = {
            name: algorithm(name, scores, **stored[name]["settings"]) for name in ("topk", "mmr", "mdp3", "aks")
        }
        self.named = scores

    def of(self, boards: Storyboards) -> Iterator[dict[str, dict[str, tuple[float, dict[str, float]]]]]:
        """For each question, for each method and setting: the number of frames, and whether each reader is right."""
        for question in boards:
            clip = boards(question.video)
            encoding = clip.encoding(self.readers[0].selector)
            chosen = dict(self._settings(question, encoding))
            picks = {key: np.sort(value) for key, value in chosen.items()}
            by_length: dict[int, list[tuple[str, str]]] = {}
            for key, value in picks.items():
                by_length.setdefault(len(value), []).append(key)
            found: dict[str, dict[str, tuple[float, dict[str, float]]]] = {}
            for length, keys in by_length.items():
                request = Request(question, clip, torch.from_numpy(np.stack([picks[key] for key in keys])))
                answers = {r.name: r.option_logits([request])[0].argmax(1).tolist() for r in self.readers}
                for row, (method, setting) in enumerate(keys):
                    right = {name: float(given[row] == question.answer) for name, given in answers.items()}
                    found.setdefault(method, {})[setting] = (length, right)
            yield found

    def _settings(self, question: Question, encoding: VideoEncoding) -> Iterator[tuple[tuple[str, str], np.ndarray]]:
        even = FrameSelector.from_pretrained("uniform")
        for size in SIZES:
            yield ("uniform", f"K={size}"), even.choose(encoding, [""], size, [None])[0].picks
            yield ("policy", f"K={size}"), self._policy(question, encoding, size)
        yield from self._stopped(question, encoding)
        for name, pick in self.free.items():
            for size in SIZES:
                yield (name, f"K={size}"), pick(question, encoding, size)
        scores = self.named(question, encoding, "named")
        for mass in MASSES:  # training-free: as many frames as cover a share of the relevance
            count = min(needed_by_mass(scores, encoding, mass), 32)
            for name in ("mmr", "mdp3"):
                yield (f"{name}, stop", f"mass={mass}"), self.free[name](question, encoding, count)

    def _policy(self, question: Question, encoding: VideoEncoding, size: int) -> np.ndarray:
        return self.chooser.choose(encoding, [question.question], size, [None])[0].picks[:size]

    def _stopped(self, question: Question, encoding: VideoEncoding) -> Iterator[tuple[tuple[str, str], np.ndarray]]:
        """The policy with its learned stop at several thresholds, and multiples of what the shipped one needs."""
        gains = self._expected(question, encoding)
        picks = self._policy(question, encoding, len(gains))
        for least in GAINS:
            below = np.flatnonzero(gains[1:] < least)
            yield ("policy, stop", f"gain={least}"), picks[: int(below[0]) + 1 if len(below) else len(gains)]
        needed = frames_needed(self.chooser.select(encoding, question.question, num_frames=len(gains)))
        for share in SHARES:
            count = min(len(encoding), max(1, round(share * needed)))
            yield ("policy, need", f"x{share}"), self._policy(question, encoding, count)

    def _expected(self, question: Question, encoding: VideoEncoding) -> np.ndarray:
        """What the picks from each one on are expected to add to the chance of a right answer, [Q]."""
        frames = encoding.tensors["embeddings"].float()
        model = self.chooser.model
        from refocus_select.models.cues import relative_texts, similarities, video_cues
        from refocus_select.models.sentences import read_questions

        texts, sentences = read_questions(
            self.chooser.encoder, self.chooser.sentences, [question.question], model.config.entities
        )
        unrelated = self.chooser._unrelated
        cues = video_cues(frames[None], torch.from_numpy(np.asarray(encoding.timestamps))[None])
        matches = similarities(frames[None], relative_texts(texts, unrelated.mean(0)))
        with torch.no_grad():
            chosen = model.decode(model.read(cues, matches, sentences), model.config.max_picks)
        return np.asarray(chosen.remaining[0, 0].double())


def needed_by_mass(scores: np.ndarray, encoding: VideoEncoding, mass: float) -> int:
    """The fewest frames that cover a share of the relevance, each with a second to either side."""
    from refocus_select.budget import REACH, relevance

    left = relevance(scores)
    total, covered, count = float(left.sum()), 0.0, 0
    times = np.asarray(encoding.timestamps)
    while total > 0 and covered < mass * total and count < len(left):
        near = np.abs(times - times[int(left.argmax())]) <= REACH
        covered += float(left[near].sum())
        left = np.where(near, 0.0, left)
        count += 1
    return max(1, count)


def curve(arguments: argparse.Namespace) -> dict[str, Any]:
    chooser = FrameSelector.from_pretrained("mini-policy")
    if not isinstance(chooser, VectorPolicySelector):
        raise SystemExit("mini-policy is not a policy over vectors")
    folders = sorted(path.parent for path in (HERE / "storyboards" / "readers").glob("*/config.json"))
    readers = [ReaderReference.from_pretrained(folder, encoder=chooser.encoder) for folder in folders]
    contest, bank = Contest(chooser, readers), Bank.load(HERE / "storyboards" / "bank")
    splits = {}
    for split, seed in (("validation", 11), ("test", 0)):
        boards = Storyboards(bank, split, seed=seed, num_questions=arguments.questions, **WORLD)
        splits[split] = list(contest.of(boards))
        print(f"{split}: {len(splits[split])} questions", flush=True)
    names = [reader.name for reader in readers]
    means = {split: _means(rows, names) for split, rows in splits.items()}
    return {
        "questions": arguments.questions, "world": WORLD, "readers": names, "policy": chooser.fingerprint,
        "points": means["test"], "validation": means["validation"],
        "verdicts": {name: _verdict(splits, means["validation"], [name]) for name in names}
        | {"all readers": _verdict(splits, means["validation"], names)},
    }  # fmt: skip


def _means(rows: Sequence[Any], names: Sequence[str]) -> dict[str, dict[str, dict[str, float]]]:
    found: dict[str, dict[str, dict[str, float]]] = {}
    for method, settings in rows[0].items():
        for setting in settings:
            point = {"frames": float(np.mean([row[method][setting][0] for row in rows]))}
            point |= {name: float(np.mean([row[method][setting][1][name] for row in rows])) for name in names}
            found.setdefault(method, {})[setting] = {key: round(value, 4) for key, value in point.items()}
    return found


def _verdict(splits: dict[str, list[Any]], validation: Any, names: Sequence[str]) -> dict[str, Any]:
    """The best fixed K of any method, and the cheapest stop that is as good on validation; measured on test."""

    def value(method: str, setting: str) -> float:
        return float(np.mean([validation[method][setting][name] for name in names]))

    fixed = [(value(m, s), m, s) for m, points in validation.items() for s in points if s.startswith("K=")]
    best = max(fixed)
    stops = [
        (validation[m][s]["frames"], m, s)
        for m in ("policy, stop", "mmr, stop", "mdp3, stop")
        for s in validation[m]
        if value(m, s) >= best[0] - 0.005
    ]
    found: dict[str, Any] = {"best fixed": {"method": best[1], "setting": best[2]}}
    chosen = min(stops) if stops else max((value(m, s), m, s) for m in ("policy, stop",) for s in validation[m])
    found["stop"] = {"method": chosen[1], "setting": chosen[2], "as good on validation": bool(stops)}
    rows = splits["test"]

    def right(method: str, setting: str) -> list[float]:
        return [float(np.mean([row[method][setting][1][name] for name in names])) for row in rows]

    a, b = right(chosen[1], chosen[2]), right(best[1], best[2])
    for key, values, (method, setting) in (("stop", a, chosen[1:]), ("best fixed", b, best[1:])):
        found[key] |= {
            "frames": float(np.mean([row[method][setting][0] for row in rows])),
            "accuracy": asdict(bootstrap_interval(values)),
        }
    found["difference"] = asdict(paired_difference(a, b))
    found["share of frames"] = round(found["stop"]["frames"] / found["best fixed"]["frames"], 4)
    return found


# -- tokens -------------------------------------------------------------------------------------------


def tokens(arguments: argparse.Namespace) -> dict[str, Any]:
    """Every family, on the same random videos and budgets."""
    from refocus_select.adapters import last_selection, with_frame_selection
    from refocus_select.budget import TokenBudget
    from tests.adapters import full_size

    logging.disable(logging.WARNING)
    rng = np.random.default_rng(2026)
    used: dict[str, list[float]] = {name: [] for name in full_size.FAMILIES}
    stock = {name: full_size.processor(name) for name in full_size.FAMILIES}
    seconds = 0.0
    for _ in range(arguments.videos):
        video, budget = full_size.random_video(rng), int(rng.integers(2500, 8001))
        for name, processor in stock.items():
            of = ("video", "prompt")[int(rng.integers(2))]
            selecting = with_frame_selection(processor, "uniform", token_budget=TokenBudget(budget, of=of))
            words = [{"type": "text", "text": "What happens here?"}]
            ask = {"tokenize": True, "return_dict": True, "return_tensors": "pt", "add_generation_prompt": True}
            more = {"processor_kwargs": {"do_resize": True}} if name == "minimax_m3_vl" else {}
            begin = time.process_time()
            whole = selecting.apply_chat_template(
                [{"role": "user", "content": [{"type": "video", "video": video}, *words]}], **ask, **more
            )
            seconds += time.process_time() - begin
            text = selecting.apply_chat_template(
                [{"role": "user", "content": words}], tokenize=False, add_generation_prompt=True
            )
            spent = len(whole["input_ids"][0])
            spent -= len(processor.tokenizer(text)["input_ids"]) if of == "video" else 0
            used[name].append(spent / budget)
            assert last_selection(selecting).plan is not None
        video.close()
    return {
        "videos": arguments.videos,
        "cpu_seconds_per_call": round(seconds / arguments.videos / len(stock), 2),
        "families": {
            name: {
                "least": round(min(v), 4), "median": round(float(np.median(v)), 4), "most": round(max(v), 4),
                "within": float(np.mean([x <= 1.0 for x in v])), "above 85 %": float(np.mean([x > 0.85 for x in v])),
            }
            for name, v in used.items()
        },
    }  # fmt: skip


# -- the page -----------------------------------------------------------------------------------------


def page(found: dict[str, Any]) -> str:
    lines = ["# Token budgets", "", "Made by `python -m benchmarks.budget`.", ""]
    if "curve" in found:
        lines += _curve_page(found["curve"])
    if "tokens" in found:
        lines += _tokens_page(found["tokens"])
    return "\n".join(lines) + "\n"


def _curve_page(found: dict[str, Any]) -> list[str]:
    names = found["readers"]
    lines = [
        "## Accuracy over frames",
        "",
        f"{found['questions']} questions about composed videos of the test split ({json.dumps(found['world'])}), "
        f"answered by {len(names)} readers; *{UNSEEN}* never gave a reward. With one size for all frames, tokens are "
        "proportional to frames. “stop”: the policy ends when it expects the further frames to add less than this to "
        "the chance of a right answer; a training-free method ends when its frames cover this share of the relevance. "
        "“need”: a multiple of the frames that the shipped policy asks for. Settings of the training-free methods are "
        "those tuned at K = 8.",
        "",
        "| method | setting | mean frames | " + " | ".join(names) + " |",
        "|---|---|---|" + "---|" * len(names),
    ]
    for method, points in found["points"].items():
        for setting, point in points.items():
            values = " | ".join(f"{point[name]:.3f}" for name in names)
            lines.append(f"| {method} | {setting} | {point['frames']:.2f} | {values} |")
    lines += [
        "",
        "Best fixed K of any method, and the cheapest stop that was as good (within half a point) on the validation "
        "split; both chosen there, measured here:",
        "",
        "| reader | best fixed | accuracy | stop | accuracy | difference | frames, % of fixed |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, verdict in found["verdicts"].items():
        fixed, stop, gap = verdict["best fixed"], verdict["stop"], verdict["difference"]
        note = "" if stop["as good on validation"] else " (none was as good)"
        lines.append(
            f"| {name} | {fixed['method']}, {fixed['setting']} | {fixed['accuracy']['mean']:.3f} | {stop['method']}, "
            f"{stop['setting']}{note} ({stop['frames']:.2f} frames) | {stop['accuracy']['mean']:.3f} | "
            f"{gap['mean']:+.3f} [{gap['low']:+.3f}, {gap['high']:+.3f}] | {100 * verdict['share of frames']:.0f} |"
        )
    return [*lines, ""]


def _tokens_page(found: dict[str, Any]) -> list[str]:
    lines = [
        "## Budgets kept",
        "",
        f"{found['videos']} random videos (20 s to an hour, 240 lines to full HD, any shape) and budgets (2,500 to "
        "8,000 tokens, of the videos or of the whole prompt), uniform frames; real processor classes with byte-level "
        "tokenizers. Measured tokens over the budget; "
        f"{found['cpu_seconds_per_call']} CPU seconds per call.",
        "",
        "| family | least | median | most | within | above 85 % |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in found["families"].items():
        lines.append(
            f"| {name} | {row['least']:.3f} | {row['median']:.3f} | {row['most']:.3f} | {100 * row['within']:.0f} % | "
            f"{100 * row['above 85 %']:.0f} % |"
        )
    return [*lines, ""]


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {"curve": curve, "tokens": tokens}


def main() -> int:
    """Run the parts that are asked for, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=[], help="curve, tokens (default: both)")
    parser.add_argument("--questions", type=int, default=600, help="of each split")
    parser.add_argument("--videos", type=int, default=100)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    path = RESULTS / "budget.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for part in arguments.parts or PARTS:
        if part not in PARTS:
            parser.error(f"no part {part!r}; there are {', '.join(PARTS)}")
        begin = time.process_time()
        found[part] = PARTS[part](arguments) | {"cpu_seconds": 0}
        found[part]["cpu_seconds"] = round(time.process_time() - begin)
        write_text(path, json.dumps(found, separators=(",", ":")))
        print(f"{part}: {found[part]['cpu_seconds']} CPU seconds", flush=True)
    write_text(RESULTS / "budget.md", page(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
