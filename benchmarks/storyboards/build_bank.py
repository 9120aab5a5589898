"""Builds the bank of the storyboard world: features of things on moving backgrounds, and of backgrounds alone.

    sh benchmarks/mini/fetch.sh MATERIALS      # and WordNet: see README.md
    nice python -m benchmarks.storyboards.build_bank MATERIALS benchmarks/storyboards/bank

One core needs about eight minutes. The result is `bank.safetensors` (int8 rows with a scale each) and `bank.json.gz`
(names, kinds, splits, and the record of every picture, from which `views.draw_series` draws it again).
"""

from __future__ import annotations

import argparse
import hashlib
import random
import re
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.mini.materials import Pair, compose, load_rgba
from refocus_select.models.mini import MiniEncoder
from refocus_select.train_selector.storyboards.bank import FORMAT, VERSION, write_bank
from refocus_select.weights import resolve

from .concepts import Concept, read_concepts, read_stamps
from .views import background_frames, draw_series

SEED = 0
RANK = 20  # a picture stays if its name is among this many nearest names: the encoder must know the thing at all
PICTURES, SERIES = 4, 4
RECOGNISED = 60  # a series stays if its name is among this many nearest of all names
ALIKE = 0.8  # names at least this similar (cosine) go to the same split
SHARES = {"train": 0.64, "validation": 0.14, "test": 0.22}
CARD_KINDS = {"credits": "closing credits", "title": "a title card", "page": "a page of text"}
CARD_SERIES = 12  # of each kind and split
NEAR = 0.55  # names at least this similar are not in one video
_UNFIT = re.compile(r"^(an?|the|another) |\b(one|two|three|four|five|once|twice|\d+)\b|^(un)?locked|^(first|last) ")
LIKELY = 4.5  # deviations from which a background is taken to show the thing
SHOWN = {  # what is to be seen in the films that are backgrounds
    "bbb.mp4": "rabbit|bunny|bird|squirrel|butterfly|apple|flower|tree|chinchilla|fox|bow|cherry|blossom|leaf|log",
    "vtest": "person|man|woman|pedestrian|walking|street",
    "tree.avi": "tree|leaf|plant|hand",
    "bikes": "bicycle|taxi|car|street|bus|person|man|woman",
    "carphone": "man|necktie|car|person|face",
    "city": "building|skyscraper|city|cityscape|office|night",
    "world": "earth|globe|planet|world|moon",
    "oa4": "rocket|space|shuttle|satellite|tower",
    "traffic": "car|tram|bus|street|traffic|junction|automobile|road|truck",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("materials", type=Path)
    parser.add_argument("out", type=Path, help="path without ending; .safetensors and .json.gz are written")
    parser.add_argument(
        "--stamps",
        action="store_true",
        help="a test split of Tux Paint's pictures, which no encoder or reader has seen",
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    root, started = arguments.materials, time.time()
    encoder = MiniEncoder.from_pretrained(resolve("mini"))
    size = encoder.frame_size[0]

    found = read_stamps(root) if arguments.stamps else read_concepts(root)
    concepts = _known(encoder, found, root, size)
    names = encoder.text.encode([concept.name for concept in concepts])
    splits = ["test"] * len(concepts)
    backgrounds = list(_backgrounds(root))
    if arguments.stamps:
        backgrounds = [clip for clip in backgrounds if clip["split"] == "test"]
    else:
        splits = _split(names, [concept.kind for concept in concepts])
    by_split = defaultdict(list)
    for number, clip in enumerate(backgrounds):
        by_split[clip["split"]].append(number)
    print(f"{time.time() - started:.0f} s: {len(concepts)} concepts {dict(Counter(splits))}", flush=True)

    series = list(_series(concepts, splits, by_split, root)) + list(_cards(by_split))
    rows = [encoder.encode_frames(draw_series(root, record, backgrounds, size)) for record in _told(series, "series")]
    behind = [
        encoder.encode_frames(background_frames(root, (clip["source"], clip["path"], tuple(clip["frames"])), size))
        for clip in _told(backgrounds, "backgrounds")
    ]
    things = torch.stack(rows)
    kept_concepts, kept_series = _recognised(encoder, concepts, series, things)
    number = {old: new for new, old in enumerate(kept_concepts)}
    series = [{**series[i], "concept": number.get(series[i]["concept"], series[i]["concept"])} for i in kept_series]
    concepts, splits = [concepts[i] for i in kept_concepts], [splits[i] for i in kept_concepts]
    names = names[kept_concepts]
    entries = [
        {"name": concept.name, "kind": concept.kind, "split": split, "near": near}
        for concept, split, near in zip(concepts, splits, _near(names), strict=True)
    ]
    _mark_shown(backgrounds, behind, concepts, encoder.encode_text([concept.name for concept in concepts]))
    index = {
        "format": FORMAT,
        "version": VERSION,
        "encoder": encoder.fingerprint,
        "concepts": entries,
        "cards": list(CARD_KINDS.values()),
        "series": series,
        "backgrounds": backgrounds,
    }
    write_bank(arguments.out, index, things=things[kept_series], backgrounds=torch.cat(behind))
    print(
        f"{time.time() - started:.0f} s in all: {len(concepts)} concepts {dict(Counter(splits))}, "
        f"{len(series)} series, {len(backgrounds)} backgrounds"
    )


def _told(items: list[Any], what: str) -> Any:
    for number, item in enumerate(items):
        if number % 500 == 0:
            print(f"{what} {number}/{len(items)}", flush=True)
        yield item


def _known(encoder: MiniEncoder, concepts: list[Concept], root: Path, size: int) -> list[Concept]:
    """Concepts with the pictures that the encoder recognises at all, on white; others would be noise to everybody."""
    names = encoder.encode_text([concept.name for concept in concepts])
    kept = []
    for number, concept in enumerate(concepts):
        pictures = _varied(concept.pictures)
        clean = np.stack([compose(load_rgba(p), size, (255, 255, 255), (0.08, 0.08, 0.84, 0.84)) for p in pictures])
        similarity = encoder.encode_frames(clean) @ names.T
        rank = (similarity > similarity[:, number, None]).sum(1)
        best = [pictures[i] for i in rank.argsort(stable=True).tolist() if rank[i] < RANK]
        if best:
            kept.append(Concept(concept.name, concept.kind, best[:PICTURES]))
    return kept


def _varied(pictures: list[Pair]) -> list[Pair]:
    """At most three drawings or stamps and one emoji of each make."""
    sources = defaultdict(list)
    for picture in pictures:
        sources[picture.source].append(picture)
    return [*sources["openclipart"][:3], *sources["tuxpaint"][:3], *sources["fluent"][:1], *sources["noto"][:1]]


def _split(names: Tensor, kinds: list[str]) -> list[str]:
    """A split for each concept, in like shares of every kind; near-synonyms (also by a chain) share it.

    Args:
        names: unit sentence vectors, [C, D].
    """
    group = list(range(len(names)))

    def head(i: int) -> int:
        while group[i] != i:
            i = group[i]
        return i

    for a, b in (names @ names.T > ALIKE).nonzero().tolist():
        group[head(a)] = head(b)
    members = defaultdict(list)
    for i in range(len(names)):
        members[head(i)].append(i)
    order = list(members.values())
    random.Random(SEED).shuffle(order)
    order.sort(key=len, reverse=True)
    splits = ["train"] * len(names)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for alike in order:
        mine = counts[kinds[alike[0]]]
        # a long chain would fill a small split with one topic
        split = "train" if len(alike) > 6 else min(SHARES, key=lambda s: (mine[s] + 0.5) / SHARES[s])
        mine[split] += len(alike)
        for i in alike:
            splits[i] = split
    return splits


def _recognised(
    encoder: MiniEncoder, concepts: list[Concept], series: list[dict[str, Any]], rows: Tensor
) -> tuple[list[int], list[int]]:
    """Which concepts and series stay: those that the encoder still knows in front of their backgrounds, and whose names
    cannot be taken for a kind of thing or a number.

    Args:
        rows: features of each series, [series, STEPS, D].
    """
    names = encoder.encode_text([concept.name for concept in concepts])
    owner = torch.tensor([record["concept"] for record in series])
    similarity = rows.mean(1) @ names.T
    own = similarity.gather(1, owner.clamp_min(0)[:, None])
    stays = ((similarity > own).sum(1) < RECOGNISED) | (owner < 0)
    kinds = {concept.kind for concept in concepts}
    unfit = {i for i, concept in enumerate(concepts) if concept.name in kinds or _UNFIT.search(concept.name)}
    stays &= torch.tensor([int(i) not in unfit for i in owner])
    kept = stays.nonzero().flatten().tolist()
    return sorted({int(owner[i]) for i in kept if owner[i] >= 0}), kept


def _near(names: Tensor) -> list[list[int]]:
    """For each name those too similar to be told apart in one video."""
    close = names @ names.T > NEAR
    close.fill_diagonal_(False)
    return [row.nonzero().flatten().tolist() for row in close]


def _mark_shown(backgrounds: list[dict[str, Any]], rows: list[Tensor], concepts: list[Concept], names: Tensor) -> None:
    """Note what each clip shows besides: known from the file, or so similar that it is likely."""
    for clip, own in zip(backgrounds, rows, strict=True):
        words = next((words for file, words in SHOWN.items() if file in clip["path"]), "")
        told = re.compile(rf"\b({words})s?\b") if words else None
        likely = (own @ names.T).amax(0) > LIKELY
        clip["shows"] = [
            i for i, concept in enumerate(concepts) if likely[i] or (told is not None and told.search(concept.name))
        ]


def _series(concepts: list[Concept], splits: list[str], by_split: dict[str, list[int]], root: Path) -> Any:
    for number, (concept, split) in enumerate(zip(concepts, splits, strict=True)):
        count = SERIES if len(concept.pictures) > 1 else SERIES - 1
        for turn in range(count):
            picture = concept.pictures[turn % len(concept.pictures)]
            rng = random.Random(f"{SEED} {concept.name} {turn}")
            yield {
                "concept": number,
                "picture": [picture.source, picture.path.relative_to(root).as_posix(), picture.frame],
                "seed": rng.randrange(2**31),
                "background": rng.choice(by_split[split]) if turn else -1,
                "split": split,
            }


def _cards(by_split: dict[str, list[int]]) -> Any:
    """Written words: cards of three kinds; `concept` counts on from -1 downwards."""
    for place, split in enumerate(SHARES):
        if split not in by_split:
            continue
        for kind, name in enumerate(CARD_KINDS):
            for turn in range(CARD_SERIES):
                rng = random.Random(f"{SEED} card {split} {kind} {turn}")
                yield {
                    "concept": -1 - kind,
                    "picture": ["cards", name, 10_000 + 1_000 * place + 10 * turn + kind],
                    "seed": rng.randrange(2**31),
                    "background": rng.choice(by_split[split]),
                    "split": split,
                }


def _backgrounds(root: Path) -> Any:
    """Clips without a question of their own. All frames of one template, film or file go to one split."""
    for path in sorted((root / "whl").glob("comfyui_workflow_templates_media*/*/templates/*.webp")):
        template = re.sub(r"[-_]?\d+$", "", path.stem)
        draw = int.from_bytes(hashlib.sha256(template.encode()).digest()[:4], "big") / 2**32
        split = "train" if draw < SHARES["train"] else "validation" if draw < 1 - SHARES["test"] else "test"
        with Image.open(path) as image:
            length, still_size = getattr(image, "n_frames", 1), min(image.size)
        if length >= 8:
            frames = np.linspace(0, length - 1, 6).round().astype(int).tolist()
            yield {"source": "animation", "path": path.relative_to(root).as_posix(), "frames": frames, "split": split}
        elif still_size >= 225 and draw * 1000 % 1 < 0.6:
            path_text = path.relative_to(root).as_posix()
            yield {"source": "still", "path": path_text, "frames": [0.2, 0.5, 0.8], "split": split}
    for start in np.arange(14.0, 575.0, 4.2):
        seconds = [round(float(start + 0.5 * step), 1) for step in range(3)]
        yield {"source": "video", "path": "film/bbb.mp4", "frames": seconds, "split": "test"}
    for name, seconds, starts in (
        ("vtest.avi", 0.5, range(0, 70, 7)), ("tree.avi", 0.3, (0, 2)), ("bikes.mp4", 0.5, (0, 3, 6)),
        ("carphone_pristine.mp4", 0.5, (0, 2)), ("cityCC0.mpg", 0.5, (0, 3)), ("world.mp4", 1.0, (0, 10, 20)),
        ("oa4_launch.webm", 0.5, (0, 4)), ("traffic_sequence.mp4", 0.5, (0, 4, 8)),
    ):  # fmt: skip
        path = next(root.rglob(name))
        for start in starts:
            times = [round(start + seconds * step, 1) for step in range(4)]
            yield {"source": "video", "path": path.relative_to(root).as_posix(), "frames": times, "split": "test"}


if __name__ == "__main__":
    main()
