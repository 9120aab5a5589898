"""What the selectors are worth: `python -m benchmarks.quality [--policies FOLDER …] [--materials FOLDER]`.

Writes `benchmarks/quality.md`, with pictures and raw figures in `benchmarks/results`. Parts (`--parts`):

- tune: settings of the training-free algorithms, on the validation split;
- worlds: readers answer questions about composed videos of the test split from everybody's frames;
- needle: hidden pictures among up to 1,024 frames of a real film;
- film: Big Buck Bunny, with moments that were marked by eye;
- clips: real clips joined at random, with natural questions (benchmarks/clips);
- pixels, blur: from the files of composed videos, and with blurred evidence. These and `clips` need the pictures that
  `benchmarks/storyboards/fetch.sh` fetches (`--materials`).

Each part is stored when it is done; the page is made of all parts that are there.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from refocus_select import FrameSelector
from refocus_select.evaluation.needle import load_needles, run_needles
from refocus_select.evaluation.needle_trials import draw_heat_maps, recall_grid, summarise
from refocus_select.files import write_text
from refocus_select.reference.reader import ReaderReference
from refocus_select.selectors.vector_policy import VectorPolicySelector
from refocus_select.train_selector.storyboards import Bank, Storyboards

from . import film as real
from . import pixels
from .contenders import COVER_AFTER, Scores, algorithm, blind, covering, oracle, policy
from .page import write_page
from .real_clips import compare_clips
from .storyboards import UNSEEN, WORLDS, compare, draw_places, summary, tune

HERE = Path(__file__).parents[1]
RESULTS = HERE / "results"
PARTS = ("tune", "worlds", "needle", "film", "pixels", "blur", "clips")
NEEDLE_LENGTHS = (64, 128, 256, 512, 1024)


class Run:
    """One run of the comparison: what is loaded, and what is found."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.bank = Bank.load(HERE / "storyboards" / "bank")
        self.policies: dict[str, VectorPolicySelector] = {}
        for number, folder in enumerate(arguments.policies):
            loaded = FrameSelector.from_pretrained(folder)
            if not isinstance(loaded, VectorPolicySelector):
                raise SystemExit(f"{folder} is not a policy over vectors")
            loaded.name = f"policy {number + 1}" if len(arguments.policies) > 1 else "policy"
            self.policies[loaded.name] = loaded
        encoder = next(iter(self.policies.values())).encoder
        self.scores = Scores(encoder)
        folders = sorted(path.parent for path in (HERE / "storyboards" / "readers").glob("*/config.json"))
        self.readers = sorted((ReaderReference.from_pretrained(f, encoder=encoder) for f in folders), key=_unseen_first)  # type: ignore[arg-type]

    @cached_property
    def selectors(self) -> dict[str, FrameSelector]:
        """Those who see a film, by name."""
        names = ("uniform", "topk", "mmr", "aks", "bolt", "mdp3", "mini")
        return {name: FrameSelector.from_pretrained(name) for name in names} | dict(self.policies)

    def tune(self) -> dict[str, Any]:
        return tune(self.bank, self.readers, self.scores, self.arguments.tuning_questions)

    def worlds(self) -> dict[str, Any]:
        tuned = _stored()["tune"]["algorithms"]
        pickers = blind(self.scores)
        pickers |= {name: algorithm(name, self.scores, **found["settings"]) for name, found in tuned.items()}
        pickers |= {f"{name}, then cover": covering(pickers[name], COVER_AFTER) for name in ("mmr", "mdp3")}
        pickers |= {name: policy(chooser) for name, chooser in self.policies.items()}
        pickers["oracle"] = oracle
        results = {}
        for world in WORLDS:
            count = max(13, round(self.arguments.scale * world.questions))
            boards = Storyboards(self.bank, self.arguments.split, seed=0, num_questions=count, **world.settings)
            results[world.name] = summary(compare(boards, pickers, self.readers, world.sizes), list(self.policies))
            print(f"{world.name}: done", flush=True)
        first = next(iter(self.policies))
        draw_places(results[WORLDS[0].name], first, 8, RESULTS / "quality-places.png")
        return results

    def needle(self) -> dict[str, Any]:
        chosen = [self.selectors[name] for name in ("uniform", "topk", "mmr", "mini", next(iter(self.policies)))]
        needles = load_needles(HERE.parent / "examples/needles")
        trials = list(run_needles(real.FILM, needles, chosen, lengths=NEEDLE_LENGTHS, num_frames=8))
        draw_heat_maps(trials, RESULTS / "quality-needle.png")
        longest = {s.name: recall_grid([t for t in trials if t.selector == s.name])[0][:, -1].mean() for s in chosen}
        return {
            "needles": len(needles),
            "scores": [asdict(score) for score in summarise(trials)],
            "longest": {name: round(float(recall), 4) for name, recall in longest.items()},
        }

    def film(self) -> dict[str, Any]:
        return real.film(self.selectors, (4, 8, 16))

    def clips(self) -> dict[str, Any]:
        pickers = {name: policy(chooser) for name, chooser in self.policies.items()}
        return compare_clips(self.arguments.materials, self.arguments.split, self.scores, pickers, self.policies)

    def pixels(self) -> dict[str, Any]:
        tuned = _stored()["tune"]["algorithms"]["mmr"]["settings"]
        first = next(iter(self.policies))
        pickers = {"uniform": blind(self.scores)["uniform"], "mmr": algorithm("mmr", self.scores, **tuned),
                   first: policy(self.policies[first]), "oracle": oracle}  # fmt: skip
        return pixels.end_to_end(self._few(11), self.arguments.materials, pickers, self.readers[0], 8)

    def blur(self) -> dict[str, Any]:
        chooser = next(iter(self.policies.values()))
        return pixels.blur_test(self._few(12), self.arguments.materials, chooser, 8)

    def _few(self, seed: int) -> Storyboards:
        return Storyboards(
            self.bank, self.arguments.split, seed=seed, num_questions=max(13, round(self.arguments.scale * 60))
        )


def _unseen_first(reader: ReaderReference) -> bool:
    return reader.name != UNSEEN


def _stored() -> dict[str, Any]:
    path = RESULTS / "quality.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def main() -> int:
    """Run the parts that are asked for, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policies", nargs="+", default=["mini-policy"], metavar="FOLDER", help="seeds of one recipe")
    parser.add_argument("--parts", nargs="*", choices=PARTS, help="default: all that can be run")
    parser.add_argument("--materials", type=Path, help="folder of pictures and clips, see storyboards/fetch.sh")
    parser.add_argument("--split", default="test", choices=("validation", "test"))
    parser.add_argument("--tuning-questions", type=int, default=400)
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of questions, for a quick look")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    RESULTS.mkdir(exist_ok=True)
    parts = PARTS if arguments.parts is None else arguments.parts
    run = Run(arguments) if parts else None
    for part in parts:
        if part in ("pixels", "blur", "clips") and arguments.materials is None:
            print(f"{part}: left out, needs --materials", flush=True)
            continue
        started = time.perf_counter()
        found = getattr(run, part)()
        found["seconds"] = round(time.perf_counter() - started)
        if part != "tune":
            found["split"] = arguments.split
        results = _stored() | {part: found}
        write_text(RESULTS / "quality.json", json.dumps(results, separators=(",", ":")))
        print(f"{part}: {found['seconds']} s", flush=True)
    write_page(_stored(), HERE / "quality.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
