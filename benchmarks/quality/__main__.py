"""What the selectors are worth: `python -m benchmarks.quality [--policies FOLDER …] [--materials FOLDER]`.

Writes `benchmarks/quality.md`, with pictures and raw figures in `benchmarks/results`. Parts (`--parts`):

- tune: settings of the training-free algorithms, on the validation split;
- worlds: readers answer questions about composed videos of the test split from everybody's frames;
- needle: hidden pictures among up to 1,024 frames of a real film;
- eyes: composed videos of the test split through four simulated encoders, and recognition for each;
- film: Big Buck Bunny, with moments that were marked by eye;
- clips: real clips joined at random, with natural questions (benchmarks/clips), seen by both real pairs of encoders;
- second-pair: composed videos through a real second pair of encoders (second_pair.py);
- pixels, blur: from the files of composed videos, and with blurred evidence. These, `clips` and `second-pair` need the
  pictures that `benchmarks/storyboards/fetch.sh` fetches (`--materials`).

Each part is stored when it is done, eyes one by one; the page is made of all parts that are there. `--resume` leaves
out what is stored already and was made with the same policies.
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
from refocus_select.encoding import VideoEncoding
from refocus_select.evaluation.needle import load_needles, run_needles
from refocus_select.evaluation.needle_trials import draw_heat_maps, recall_grid, summarise
from refocus_select.files import write_text
from refocus_select.reference.reader import ReaderReference
from refocus_select.selectors.vector_policy import VectorPolicySelector
from refocus_select.train_selector.storyboards import Bank, Storyboards

from . import film as real
from . import pixels
from .contenders import COVER_AFTER, Scores, algorithm, blind, covering, oracle, policy
from .encoders import SIZES, Eye, alarms, composed, second, simulated
from .page import write_page
from .real_clips import compare_clips
from .second_pair import SecondPair
from .storyboards import UNSEEN, WORLDS, compare, draw_places, summary, tune, tuned_pickers

HERE = Path(__file__).parents[1]
RESULTS = HERE / "results"
PARTS = ("tune", "worlds", "eyes", "needle", "film", "clips", "second-pair", "pixels", "blur")
NEED_MATERIALS = ("clips", "second-pair", "pixels", "blur")
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
        return tune(self.bank, self.readers, self.scores, self.arguments.tuning_questions, SIZES, self._own_view)

    def worlds(self) -> dict[str, Any]:
        pickers = blind(self.scores) | tuned_pickers(_stored()["tune"], self.scores)
        pickers |= {f"{name}, then cover": covering(pickers[name], COVER_AFTER) for name in ("mmr", "mdp3")}
        pickers |= {name: policy(chooser) for name, chooser in self.policies.items()}
        pickers["oracle"] = oracle
        results = {}
        for world in WORLDS:
            count = self._count(world.questions)
            boards = Storyboards(self.bank, self.arguments.split, seed=0, num_questions=count, **world.settings)
            outcomes = compare(boards, pickers, self.readers, world.sizes, self._own_view)
            results[world.name] = summary(outcomes, list(self.policies))
            if world is WORLDS[0]:
                few = Storyboards(self.bank, self.arguments.split, seed=1, num_questions=self._count(150))
                results["alarms"] = {
                    name: alarms(few, self._own_view, chooser, self.readers[0])
                    for name, chooser in self.policies.items()
                }
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
        found = {"embedded": self._clips(self.scores, self.policies)}
        pair = SecondPair(self.arguments.materials)
        found["second pair"] = self._clips(Scores(pair), self._with(pair))
        return found

    def _clips(self, scores: Scores, policies: dict[str, VectorPolicySelector]) -> dict[str, Any]:
        pickers = {name: policy(chooser) for name, chooser in policies.items()}
        return compare_clips(self.arguments.materials, self.arguments.split, scores, pickers, policies)

    def eyes(self) -> dict[str, Any]:
        found = self._before("eyes")
        for name, eye in simulated(self.scores.encoder, self.bank).items():
            if name not in found:
                found[name] = self._composed(eye)
                _store("eyes", found | self.identity)
                print(f"eyes, {name}: done", flush=True)
        return found

    def second_pair(self) -> dict[str, Any]:
        return self._composed(second(self.bank, self.arguments.materials, ("validation", self.arguments.split)))

    def _composed(self, eye: Eye) -> dict[str, Any]:
        return composed(
            eye, self.bank, self.readers, self._with(eye.encoder), self.arguments.split,
            tuning=self._count(100), questions=self._count(300),
        )  # fmt: skip

    def _with(self, encoder: Any) -> dict[str, VectorPolicySelector]:
        """The policies with another encoder."""
        loaded = {}
        for name, folder in zip(self.policies, self.arguments.policies, strict=True):
            loaded[name] = FrameSelector.from_pretrained(folder, encoder=encoder)
            loaded[name].name = name
        return loaded  # type: ignore[return-value]

    def _own_view(self, boards: Storyboards, index: int, encoding: VideoEncoding) -> VideoEncoding:
        """Composed videos as the embedded encoder sees them."""
        return encoding

    def _before(self, part: str) -> dict[str, Any]:
        """What an interrupted run of a part has found already."""
        stored = _stored().get(part, {})
        same = all(stored.get(key) == value for key, value in self.identity.items())
        return {k: v for k, v in stored.items() if k not in self.identity} if same and self.arguments.resume else {}

    def done(self, part: str) -> bool:
        """Whether a part is stored already, and shall be left out."""
        stored = _stored().get(part, {})
        same = all(stored.get(key) == value for key, value in self.identity.items())
        return bool(self.arguments.resume and "seconds" in stored and same)

    def _count(self, questions: int) -> int:
        return max(13, round(self.arguments.scale * questions))

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What a part's figures depend on besides the code."""
        return {
            "policies": [chooser.fingerprint for chooser in self.policies.values()],
            "encoder": self.scores.encoder.fingerprint,
            "split": self.arguments.split,
            "scale": self.arguments.scale,
        }

    def pixels(self) -> dict[str, Any]:
        tuned = _stored()["tune"]["sizes"]["8"]["mmr"]["settings"]
        first = next(iter(self.policies))
        pickers = {"uniform": blind(self.scores)["uniform"], "mmr": algorithm("mmr", self.scores, **tuned),
                   first: policy(self.policies[first]), "oracle": oracle}  # fmt: skip
        return pixels.end_to_end(self._few(11), self.arguments.materials, pickers, self.readers[0], 8)

    def blur(self) -> dict[str, Any]:
        chooser = next(iter(self.policies.values()))
        return pixels.blur_test(self._few(12), self.arguments.materials, chooser, 8)

    def _few(self, seed: int) -> Storyboards:
        return Storyboards(self.bank, self.arguments.split, seed=seed, num_questions=self._count(60))


def _unseen_first(reader: ReaderReference) -> bool:
    return reader.name != UNSEEN


def _stored() -> dict[str, Any]:
    path = RESULTS / "quality.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _store(part: str, found: dict[str, Any]) -> None:
    write_text(RESULTS / "quality.json", json.dumps(_stored() | {part: found}, separators=(",", ":")))


def main() -> int:
    """Run the parts that are asked for, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policies", nargs="+", default=["mini-policy"], metavar="FOLDER", help="seeds of one recipe")
    parser.add_argument("--parts", nargs="*", choices=PARTS, help="default: all that can be run")
    parser.add_argument("--materials", type=Path, help="folder of pictures and clips, see storyboards/fetch.sh")
    parser.add_argument("--split", default="test", choices=("validation", "test"))
    parser.add_argument("--tuning-questions", type=int, default=200)
    parser.add_argument("--resume", action="store_true", help="leave out what is stored already")
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of questions, for a quick look")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    RESULTS.mkdir(exist_ok=True)
    parts = PARTS if arguments.parts is None else arguments.parts
    run = Run(arguments) if parts else None
    for part in parts:
        if part in NEED_MATERIALS and arguments.materials is None:
            print(f"{part}: left out, needs --materials", flush=True)
            continue
        assert run is not None
        if run.done(part):
            print(f"{part}: stored already", flush=True)
            continue
        started = time.perf_counter()
        found = getattr(run, part.replace("-", "_"))()
        _store(part, found | run.identity | {"seconds": round(time.perf_counter() - started)})
        print(f"{part}: {time.perf_counter() - started:.0f} s", flush=True)
    write_page(_stored(), HERE / "quality.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
