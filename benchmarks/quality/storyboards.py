"""Accuracy of readers on storyboards, for everybody's frames; and the tuning of what can be tuned."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from refocus_select.encoding import VideoEncoding
from refocus_select.reference import Request
from refocus_select.reference.reader import ReaderReference
from refocus_select.train_selector.storyboards import Bank, Storyboards

from .contenders import GRIDS, Picker, Scores, algorithm, settings
from .figures import gap_of, mean_of

View = Callable[[Storyboards, int, VideoEncoding], VideoEncoding]
"""How an encoder sees a composed video: (world, number of the question, the embedded encoder's encoding) -> its own."""

UNSEEN = "recurrent"
"""The reader that never gave a reward; every figure of the page is its, unless said otherwise."""


@dataclass(frozen=True)
class World:
    """Where the selectors are compared.

    Attributes:
        name: for tables.
        settings: of `Storyboards`.
        questions: how many.
        sizes: numbers of frames K.
    """

    name: str
    settings: Mapping[str, Any]
    questions: int
    sizes: tuple[int, ...] = (4, 8, 16, 32)


WORLDS = (
    World("64 candidates", {"num_candidates": 64}, 800),
    World("256 candidates", {"num_candidates": 256}, 300),
    World("1,024 candidates", {"num_candidates": 1024}, 150),
    World("film-like", {"num_candidates": 128, "num_scenes": (6, 12), "haze": 0.8, "pace": 4.0}, 300),
)


@dataclass(frozen=True)
class Outcomes:
    """What came out in one world.

    Attributes:
        right: 1 where a question was answered right, by (method, K, reader), float64 [questions].
        kinds: type of each question.
        hits: share of the scenes of evidence that the frames show, by (method, K), float64 [questions].
        places: share of the picks in each sixteenth of the video, by (method, type, K), and of the evidence under the
            name "evidence".
    """

    right: dict[tuple[str, int, str], np.ndarray]
    kinds: np.ndarray
    hits: dict[tuple[str, int], np.ndarray]
    places: dict[tuple[str, str, int], np.ndarray]


def compare(
    boards: Storyboards,
    pickers: Mapping[str, Picker],
    readers: Sequence[ReaderReference],
    sizes: Sequence[int],
    view: View | None = None,
) -> Outcomes:
    """Let the readers answer every question from everybody's frames; pickers see a video through `view`."""
    right: dict[tuple[str, int, str], list[float]] = {}
    places: dict[tuple[str, str, int], np.ndarray] = {}
    hits: dict[tuple[str, int], list[float]] = {}
    kinds = []
    for index, question in enumerate(boards):
        clip = boards(question.video)
        encoding = clip.encoding(readers[0].selector)
        if view is not None:
            encoding = view(boards, index, encoding)
        kinds.append(question.category)
        length = len(encoding.timestamps)
        spans = [(encoding.timestamps >= a) & (encoding.timestamps <= b) for a, b in question.evidence]
        requests = []
        for size in sizes:
            picks = np.stack([pick(question, encoding, size) for pick in pickers.values()])
            requests.append(Request(question, clip, torch.from_numpy(picks)))
            for name, row in zip(pickers, picks, strict=True):
                _count(places, (name, str(question.category), size), row, length)
                hits.setdefault((name, size), []).append(float(np.mean([span[row].any() for span in spans])))
        _count(places, ("evidence", str(question.category), 0), np.flatnonzero(np.any(spans, axis=0)), length)
        for reader in readers:
            for size, logits in zip(sizes, reader.option_logits(requests), strict=True):
                for name, answer in zip(pickers, logits.argmax(1).tolist(), strict=True):
                    right.setdefault((name, size, reader.name), []).append(float(answer == question.answer))
    shares = {key: counts / counts.sum() for key, counts in places.items()}
    return Outcomes(
        {key: np.array(values) for key, values in right.items()},
        np.array(kinds),
        {key: np.array(values) for key, values in hits.items()},
        shares,
    )


def tune(
    bank: Bank,
    readers: Sequence[ReaderReference],
    scores: Scores,
    questions: int,
    sizes: Sequence[int],
    view: View | None = None,
) -> dict[str, Any]:
    """The best setting of every algorithm for each K on the validation split, 64 candidates, all readers' mean."""
    boards = Storyboards(bank, "validation", seed=5, num_questions=questions)
    options = {f"{name} {json.dumps(given)}": (name, given) for name in GRIDS for given in settings(name)}
    pickers = {key: algorithm(name, scores, **given) for key, (name, given) in options.items()}
    outcomes = compare(boards, pickers, readers, sizes, view)
    found: dict[str, dict[str, Any]] = {str(size): {} for size in sizes}
    for size in sizes:
        best = found[str(size)]
        for key, (name, given) in options.items():
            mean = float(np.mean([outcomes.right[key, size, reader.name].mean() for reader in readers]))
            if name not in best or mean > best[name]["accuracy"]:
                tried = sum(other == name for other, _ in options.values())
                best[name] = {"settings": given, "accuracy": round(mean, 4), "tried": tried}
    return {"questions": questions, "sizes": found}


def tuned_pickers(tuned: Mapping[str, Any], scores: Scores) -> dict[str, Picker]:
    """Every training-free algorithm with the setting that was best for the K that is asked for, or the nearest K."""
    known = sorted(int(size) for size in tuned["sizes"])

    def picker(name: str) -> Picker:
        at = {size: algorithm(name, scores, **tuned["sizes"][str(size)][name]["settings"]) for size in known}
        return lambda question, encoding, k: at[min(known, key=lambda size: abs(size - k))](question, encoding, k)

    return {name: picker(name) for name in tuned["sizes"][str(known[0])]}


def summary(outcomes: Outcomes, policies: Sequence[str]) -> dict[str, Any]:
    """Means with 95 % intervals over questions, by type, and what the policies have over the others.

    The policies are one recipe with several seeds; their mean over seeds is compared.
    """
    right, hits = dict(outcomes.right), dict(outcomes.hits)
    sizes = sorted({key[1] for key in right})
    readers = list(dict.fromkeys(key[2] for key in right))
    names = list(dict.fromkeys(key[0] for key in right))
    if len(policies) > 1:
        names.insert(names.index("oracle"), "policy, mean")
        for size in sizes:
            hits["policy, mean", size] = np.mean([hits[name, size] for name in policies], axis=0)
            for reader in readers:
                right["policy, mean", size, reader] = np.mean([right[name, size, reader] for name in policies], axis=0)
    trained = [name for name in names if name in policies or name == "policy, mean"]
    rows = []
    for reader in readers:
        for size in sizes:
            at = {name: right[name, size, reader] for name in names}
            free = [name for name in names if name not in (*trained, "oracle")]
            best = max(free, key=lambda name: at[name].mean())
            gain = at["oracle"].mean() - at["uniform"].mean()
            for name in names:
                row: dict[str, Any] = {
                    "reader": reader, "K": size, "method": name,
                    "accuracy": mean_of(at[name]),
                    "evidence": round(float(hits[name, size].mean()), 4),
                }  # fmt: skip
                if (size, reader) == (8, UNSEEN):
                    row["types"] = {
                        kind: round(float(at[name][outcomes.kinds == kind].mean()), 4)
                        for kind in sorted(set(outcomes.kinds.tolist()))
                    }
                if name in trained:
                    share = (at[name].mean() - at["uniform"].mean()) / gain if gain else 0.0
                    row |= {
                        "share_of_oracle": round(float(share), 4),
                        "best": best,
                        "over_best": gap_of(at[name], at[best]),
                    }
                rows.append(row)
    kinds, counts = np.unique(outcomes.kinds, return_counts=True)
    return {
        "rows": rows,
        "types": dict(zip(kinds.tolist(), counts.tolist(), strict=True)),
        "places": [
            [*key, [round(float(x), 4) for x in share]]
            for key, share in outcomes.places.items()
            if key[0] == "evidence" or (key[0] in policies and key[2] == 8)
        ],
    }


def draw_places(found: dict[str, Any], method: str, size: int, path: Path) -> None:
    """Where in the video the picks lie, beside where the evidence lies, by type of question."""
    from matplotlib.figure import Figure

    shares = {(name, kind, k): share for name, kind, k, share in found["places"]}
    kinds = sorted({kind for name, kind, _ in shares if name == method})
    figure = Figure(figsize=(9, 0.3 * len(kinds) + 1.4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axis, (title, name, k) in zip(
        panels, (("evidence", "evidence", 0), (f"picks, K = {size}", method, size)), strict=True
    ):
        picture = axis.imshow(
            np.array([shares[name, kind, k] for kind in kinds]), aspect="auto", vmin=0, cmap="viridis"
        )
        axis.set_title(title)
        axis.set_xticks([-0.5, 7.5, 15.5], ["begin", "middle", "end"])
        axis.set_yticks(range(len(kinds)), kinds)
        figure.colorbar(picture, ax=axis, label="share in a sixteenth")
    figure.savefig(path, dpi=110)


def _count(
    places: dict[tuple[str, str, int], np.ndarray], key: tuple[str, str, int], at: np.ndarray, length: int
) -> None:
    places.setdefault(key, np.zeros(16))
    np.add.at(places[key], np.minimum(at * 16 // length, 15), 1)
