"""Words beside pictures: `python -m benchmarks.words [--materials FOLDER]`.

Videos are made by a seeded script from texts of this benchmark (`compose.py`), and their slides and headlines are read
by RapidOCR (extra `ocr`), once: encodings stay below `--materials`. Writes `results/words.md` and `words.json`.

Parts: evidence recall of spoken and written spans on the test split; the gate on the validation split, on which its
thresholds were chosen; and questions about pictures of a real film that is given a foreign transcript.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from refocus_select import FrameSelector, Selection, VideoEncoding
from refocus_select.evaluation.evidence import evidence_measures
from refocus_select.files import write_text
from refocus_select.selectors.dual_encoder import DualEncoderSelector
from refocus_select.selectors.words import UNSURE, word_matches
from refocus_select.words.asking import what_is_asked
from refocus_select.words.sentences import sentences_for

from ..quality.figures import gap_of, mean_of
from ..quality.film import MARKED
from .compose import FILM, KINDS, Made, make
from .page import METHODS, SIZES, TOLERANCE, page
from .peers import bm25, frames_of_lines, fused_ranks, said_at

RESULTS = Path(__file__).parents[1] / "results"
SPOKEN = ("said", "who says", "shown while said")


@dataclass(frozen=True)
class Outcome:
    """What came out for one question: recall by (method, K), whether words decided, and whether that was claimed."""

    split: str
    kind: str
    recall: dict[tuple[str, int], float]
    decided: bool
    claimed: bool


def measure(made: Made, encoding: VideoEncoding, policy: DualEncoderSelector, uniform: FrameSelector) -> list[Outcome]:
    """Ask everybody all questions about one video."""
    assert encoding.words is not None
    asked = list(made.questions)
    texts = [question.question for question in asked]
    index = encoding.words.index(sentences_for(policy.encoder))
    similar = policy.similarity(encoding, texts)
    silent = replace(encoding, words=None)
    vectors = sentences_for(policy.encoder).encode(texts).numpy()
    spread = replace(silent, encoder_fingerprint=uniform.encoding_fingerprint)
    frames: dict[tuple[str, int], list[np.ndarray]] = {}
    said: list[Selection] = []
    for size in SIZES:
        heard = policy.select(encoding, texts, num_frames=size)
        frames["words", size] = [selection.timestamps for selection in heard]
        frames["pictures", size] = [s.timestamps for s in policy.select(silent, texts, num_frames=size)]
        frames["uniform", size] = [s.timestamps for s in uniform.select(spread, texts, num_frames=size)]
        times = encoding.timestamps
        for row, text in enumerate(texts):
            cosines = index.vectors @ vectors[row]
            by_words = bm25([line.text for line in index.lines], text)
            frames.setdefault(("BM25", size), []).append(times[frames_of_lines(by_words, index, times, size)])
            near = frames_of_lines(cosines - cosines.min() + 1e-6, index, times, size)
            frames.setdefault(("nearest lines", size), []).append(times[near])
            both = fused_ranks(similar[row], said_at(cosines, index, encoding), size)
            frames.setdefault(("rank fusion", size), []).append(times[both])
        said = heard
    outcomes = []
    for row, question in enumerate(asked):
        recall = {
            key: evidence_measures(found[row], question.evidence, tolerance=TOLERANCE)[0]
            for key, found in frames.items()
            if question.evidence
        }
        quoted = bool(said[row].quotes)
        outcomes.append(
            Outcome(made.split, question.category, recall, quoted, quoted and UNSURE not in said[row].warnings)
        )
    return outcomes


def film_control(encodings: Sequence[VideoEncoding], policy: DualEncoderSelector) -> dict[str, Any]:
    """Questions about the pictures of a film, asked while a foreign transcript lies beside it: what is lost."""
    entries = [entry for path in MARKED for entry in json.loads(path.read_text(encoding="utf-8"))["film"]]
    texts = [entry["question"] for entry in entries]
    silent = policy.encode(FILM, progress=False)

    def hits(selections: Sequence[Selection], asked: Sequence[Any] = entries) -> np.ndarray:
        return np.array([
            float(any(start <= t <= end for t in selection.timestamps for start, end in entry["moments"]))
            for selection, entry in zip(selections, asked, strict=True)
        ])  # fmt: skip

    alone = hits(policy.select(silent, texts, num_frames=8))
    with_words, opened = [], []
    for encoding in encodings:
        assert encoding.words is not None
        scale = silent.video.duration / encoding.video.duration
        lines = tuple(
            replace(line, start=line.start * scale, end=line.end * scale, best=line.best and line.best * scale)
            for line in encoding.words.passages
        )
        heard = replace(silent, words=replace(encoding.words, passages=replace(encoding.words.passages, lines=lines)))
        decided = [d for _, d in word_matches(heard, texts, policy.encoder, policy.picture_prominence)]
        opened.append(decided)
        found = alone.copy()  # where the pictures decide, the choice is that without words (tests/words)
        rows = np.flatnonzero(decided)
        if len(rows):
            selections = policy.select(heard, [texts[row] for row in rows], num_frames=8)
            found[rows] = hits(selections, [entries[row] for row in rows])
        with_words.append(found)
    unasked = [not what_is_asked(text).for_words for text in texts]
    return {
        "questions": len(texts),
        "transcripts": len(with_words),
        "hit without words": round(float(alone.mean()), 4),
        "hit with words": round(float(np.mean(with_words)), 4),
        "decided by words": round(float(np.mean(opened)), 4),
        "decided by words, of those that do not ask for words": round(float(np.array(opened)[:, unasked].mean()), 4),
    }


def film_words(encoding: VideoEncoding, policy: FrameSelector, uniform: FrameSelector) -> dict[str, Any]:
    """Titles and credits of the film, of 8 frames: how often one shows what is asked for."""
    entries = json.loads((Path(__file__).parent / "film.json").read_text(encoding="utf-8"))["film"]
    texts = [entry["question"] for entry in entries]
    silent = replace(encoding, words=None)
    spread = replace(silent, encoder_fingerprint=uniform.encoding_fingerprint)
    found: dict[str, Any] = {"questions": len(texts)}
    for name, selector, seen in (
        ("uniform", uniform, spread),
        ("pictures", policy, silent),
        ("words", policy, encoding),
    ):
        selections = selector.select(seen, texts, num_frames=8)
        found[name] = mean_of([
            evidence_measures(selection.timestamps, entry["moments"], tolerance=TOLERANCE)[0]
            for selection, entry in zip(selections, entries, strict=True)
        ])  # fmt: skip
    return found


def summary(outcomes: Sequence[Outcome], split: str) -> dict[str, Any]:
    """Recall by kind, method and K, and how often words were claimed."""
    own = [outcome for outcome in outcomes if outcome.split == split]
    kinds: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in own:
        kinds[outcome.kind].append(outcome)
        if outcome.kind in SPOKEN:
            kinds["all spoken"].append(outcome)
    found: dict[str, Any] = {}
    for kind in ("all spoken", *KINDS):
        rows = kinds[kind]
        if not rows:
            continue
        recall = {
            f"{method} {size}": mean_of([row.recall[method, size] for row in rows])
            for method in METHODS for size in SIZES if rows[0].recall
        }  # fmt: skip
        gap = {}
        if rows[0].recall:
            pair = [np.array([row.recall[method, 8] for row in rows]) for method in ("words", "pictures")]
            gap = {"words over pictures at 8": gap_of(*pair)}
        found[kind] = {
            "questions": len(rows),
            "recall": recall,
            **gap,
            "decided by words": round(float(np.mean([row.decided for row in rows])), 4),
            "claimed": round(float(np.mean([row.claimed for row in rows])), 4),
        }
    return found


def _write(folder: Path, results: dict[str, Any]) -> None:
    """Keep what there is so far."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "words.json", json.dumps(results, indent=1) + "\n")
    write_text(folder / "words.md", page(results))


def main() -> int:
    """Make, ask, and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.words", description=__doc__)
    parser.add_argument("--materials", type=Path, default=Path("build/words"), help="videos and encodings stay there")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the page")
    parser.add_argument("--questions", action="store_true", help="print all questions, and do nothing else")
    arguments = parser.parse_args()
    videos = make(arguments.materials / "videos")
    if arguments.questions:
        for made in videos:
            for question in made.questions:
                print(f"{made.split}\t{question.category}\t{question.question}\t{list(question.evidence)}")
        return 0
    if find_spec("rapidocr") is None:
        print("RapidOCR is not installed (pip install 'refocus-select[ocr]'): slides cannot be read", file=sys.stderr)
        return 2
    policy, uniform = FrameSelector.from_pretrained("mini-policy"), FrameSelector.from_pretrained("uniform")
    assert isinstance(policy, DualEncoderSelector)
    outcomes: list[Outcome] = []
    encodings: dict[str, list[VideoEncoding]] = defaultdict(list)
    for made in videos:
        encoding = policy.encode(
            made.video, words=made.transcript, ocr=True, cache=arguments.materials / "cache", progress=False
        )
        encodings[made.split].append(encoding)
        outcomes += measure(made, encoding, policy, uniform)
        print(f"{made.name}: {len(made.questions)} questions", file=sys.stderr, flush=True)
    results = {split: summary(outcomes, split) for split in ("test", "validation")}
    _write(arguments.out, results)
    results["film"] = film_control(encodings["test"], policy)
    results["film, validation transcripts"] = film_control(encodings["validation"], policy)
    _write(arguments.out, results)
    film = policy.encode(FILM, ocr=True, cache=arguments.materials / "cache", progress=False)
    results["film, titles and credits"] = film_words(film, policy, uniform)
    _write(arguments.out, results)
    print(page(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
