"""`Storyboards`: endless questions about composed videos, and the videos themselves as features."""

from __future__ import annotations

import hashlib
import json
import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, overload

import numpy as np
import torch

from ...encoding import VideoEncoding
from ...errors import InputError
from ...questions import Question
from ...reference.clips import REFERENCE_VIEW, LabelledClip
from ...video import VideoMetadata
from .bank import SPLITS, Bank
from .layout import NOTHING, Layout, fill, join, place
from .natural import NATURAL
from .phrasings import NOT_ASKED, PHRASINGS
from .stories import OPTIONS, TYPES, Cast, Story

_TRIES = 50
_RARE = 0.1  # share of a type that is only asked where it is named
_KEPT = 256  # recent items that are not made again


class Storyboards(Sequence[Question]):
    """Questions about videos that are composed from a bank of pictures; item i is always the same.

        boards = Storyboards(Bank.load("benchmarks/storyboards/bank"), "train", seed=0)
        question = boards[17]
        clip = boards(question.video)        # features of its candidates, as `AlgorithmSelector` with the mini encoder

    Each question has a video of its own. Names, wordings, pictures and backgrounds of the three splits are disjoint.
    """

    def __init__(
        self,
        bank: Bank,
        split: str = "train",
        *,
        seed: int = 0,
        num_questions: int = 8192,
        num_candidates: int | Sequence[int] = 64,
        num_scenes: tuple[int, int] = (5, 9),
        types: Mapping[str, float] | Sequence[str] | None = None,
        noise: float = 0.15,
        haze: float = 0.0,
        pace: float = 1.0,
        natural: float = 0.0,
        joined: float = 0.0,
    ) -> None:
        """Choose a world.

        Args:
            bank: the pictures.
            split: "train", "validation" or "test".
            seed: another seed makes other videos and questions.
            num_questions: length of the sequence.
            num_candidates: F, or several of which each video draws one; at least 32.
            num_scenes: fewest and most scenes of a video of 64 candidates; longer ones have up to 2 more for each
                doubling, and some questions need a few more.
            types: question types with their shares, or only their names (default shares); None for all.
            noise: length of the random part that each frame's feature gets, relative to the feature's own.
            haze: how much worse than a reference model the selector sees, 0 to 1. Each video draws its own haze up to
                this; that share of the frames that show a thing looks like something else to the selector, and a
                quarter of that share of the background looks like a thing of the same video, or another. Readers
                always see clearly.
            pace: scenes are up to so many times longer; each video draws its own from 1 on.
            natural: share of the questions that are put in ordinary words (`NATURAL`); readers are asked in words that
                they know (`Question.extra["reference_question"]`).
            joined: share of the videos that are things only, scene after scene as long as the video lasts.

        Raises:
            InputError: if an argument is out of range.
        """
        sizes = (num_candidates,) if isinstance(num_candidates, int) else tuple(num_candidates)
        if split not in SPLITS:
            raise InputError(f"split must be one of {', '.join(SPLITS)}, not {split!r}")
        if not sizes or min(sizes) < 32:
            raise InputError(f"num_candidates must be at least 32, not {num_candidates}")
        if num_questions < 1 or noise < 0:
            raise InputError(f"num_questions must be positive and noise not negative: {num_questions}, {noise}")
        if not 5 <= num_scenes[0] <= num_scenes[1] <= min(sizes) // 3:
            raise InputError(f"num_scenes must be between 5 and a third of the candidates, not {num_scenes}")
        if not 0 <= haze <= 1 or pace < 1:
            raise InputError(f"haze must be between 0 and 1, and pace at least 1: {haze}, {pace}")
        if not 0 <= natural <= 1 or not 0 <= joined <= 1:
            raise InputError(f"natural and joined are shares between 0 and 1, not {natural} and {joined}")
        self.bank, self.split, self.seed, self.sizes, self.noise = bank, split, seed, sizes, noise
        self.scenes, self.haze, self.pace, self.natural, self.joined = num_scenes, haze, pace, natural, joined
        self.types = _shares(types)
        self._length = num_questions
        self.cast = _cast(bank, split)
        self._names = tuple(dict.fromkeys([*(bank.concepts[i].name for i in self.cast.everyone), *bank.cards]))
        self._clips = [i for i, clip in enumerate(bank.backgrounds) if clip["split"] == split]
        self._cards = [
            [i for i in bank.series_of[-1 - kind] if bank.series[i]["split"] == split]
            for kind in range(len(bank.cards))
        ]
        film_like = [haze, pace] if haze or pace != 1 else []
        new = [natural, joined] if natural or joined else []
        settings = json.dumps([bank.fingerprint, split, seed, sizes, num_scenes, self.types, noise, *film_like, *new])
        self.fingerprint = hashlib.sha256(settings.encode()).hexdigest()[:16]
        self._kept: OrderedDict[int, tuple[Question, Layout]] = OrderedDict()

    @cached_property
    def categories(self) -> list[str]:
        """The type of every question, without making the questions."""
        return [self._kind(self._rng(index, 0))[1] for index in range(self._length)]

    def __len__(self) -> int:
        """Number of questions."""
        return self._length

    @overload
    def __getitem__(self, index: int) -> Question: ...
    @overload
    def __getitem__(self, index: slice) -> list[Question]: ...
    def __getitem__(self, index: int | slice) -> Question | list[Question]:
        """Question `index`, with options, answer, evidence in seconds, and its type as category."""
        if isinstance(index, slice):
            return [self.item(i)[0] for i in range(*index.indices(self._length))]
        return self.item(index)[0]

    def __iter__(self) -> Iterator[Question]:
        return (self.item(i)[0] for i in range(self._length))

    def __call__(self, video: str) -> LabelledClip:
        """The features of a question's video.

        Raises:
            InputError: if the video is none of these questions'.
        """
        start, _, number = video.rpartition("/")
        if start != f"storyboard/{self.fingerprint}" or not number.isdecimal() or int(number) >= self._length:
            raise InputError(f"{video!r} is no video of these storyboards ({self.split}, seed {self.seed})")
        encoding, layout = self._encoding(int(number), video), self.item(int(number))[1]
        labels = ["" if shown == NOTHING else self.cast.name(int(shown)) for shown in layout.shown]
        return LabelledClip(encoding, labels, layout.series, vocabulary=self._names, name=video)

    def item(self, index: int) -> tuple[Question, Layout]:
        """A question and how its video is laid out.

        Raises:
            IndexError: if there are fewer questions.
        """
        index = index + self._length if index < 0 else index
        if not 0 <= index < self._length:
            raise IndexError(f"question {index} of {self._length}")
        if index not in self._kept:
            self._kept[index] = self._made(index)
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return self._kept[index]

    def _made(self, index: int) -> tuple[Question, Layout]:
        rng = self._rng(index, 0)
        size, kind = self._kind(rng)
        clips = self._palette(rng, size)
        story = self._story(rng, kind, size, clips)
        pace = float(self._rng(index, 2).uniform(1, self.pace))
        ordinary = self._rng(index, 4)
        if ordinary.random() < self.joined and story.pinned is None:
            spans = join(rng, len(story.sequence), size)
        else:
            spans = place(rng, story.sequence, size, pinned=story.pinned, pace=pace)
        layout = fill(rng, self.bank, story.sequence, spans, clips, self._cards, size)
        usual = _sentence(rng, PHRASINGS[story.phrasing][self.split], story.slots)
        asked, extra = usual, {}
        wordings = NATURAL.get(story.natural or story.phrasing, {}).get(self.split)
        if wordings and (story.natural or ordinary.random() < self.natural):
            asked = _sentence(ordinary, wordings, {**story.slots, **story.named})
            extra = {"reference_question": usual}
        times = layout.timestamps
        evidence = [layout.scenes[i] for i in story.evidence]
        question = Question(
            id=f"{self.split}-{self.seed}-{index}",
            video=f"storyboard/{self.fingerprint}/{index}",
            question=asked,
            options=story.options,
            answer=story.answer,
            evidence=tuple((float(times[scene.start]), float(times[scene.stop - 1])) for scene in evidence),
            category=kind,
            extra=extra,
        )
        return question, layout

    def _kind(self, rng: np.random.Generator) -> tuple[int, str]:
        """Number of candidates and question type: what an item's generator decides first."""
        return int(rng.choice(self.sizes)), str(rng.choice(list(self.types), p=list(self.types.values())))

    def _story(self, rng: np.random.Generator, kind: str, size: int, clips: Sequence[int]) -> Story:
        longer = int(2 * np.log2(max(1, size / 64)))
        seen = set().union(*(self.bank.backgrounds[clip].get("shows", ()) for clip in clips))
        names = {self.cast.names[concept] for concept in seen}
        for _ in range(_TRIES):
            scenes = int(rng.integers(self.scenes[0], self.scenes[1] + 1)) + int(rng.integers(0, longer + 1))
            story = TYPES[kind][1](rng, self.cast, scenes)
            if story is not None and not seen.intersection(story.sequence) and not names.intersection(story.options):
                return story
        raise InputError(f"the {self.split} split has too few different things for questions of type {kind!r}")

    def _palette(self, rng: np.random.Generator, size: int) -> list[int]:
        """Background clips of one video: it comes back to the same few places."""
        count = int(rng.integers(2, 5 + size // 64))
        return [self._clips[i] for i in rng.permutation(len(self._clips))[:count]]

    def _encoding(self, index: int, video: str) -> VideoEncoding:
        _, layout = self.item(index)
        clear = self._rows(layout.series, layout.step)
        count = len(clear)
        random = torch.from_numpy(self._rng(index, 1).standard_normal(clear.shape, dtype=np.float32))
        tensors = {"embeddings": self._noisy(clear, random)}
        if self.haze:
            hazy = self._rows(*self._mistaken(self._rng(index, 3), layout))
            tensors = {"embeddings": self._noisy(hazy, random), REFERENCE_VIEW: tensors["embeddings"]}
        step = float(layout.timestamps[1])
        return VideoEncoding(
            tensors=tensors,
            indices=np.arange(count),
            timestamps=layout.timestamps,
            video=VideoMetadata(video, count, count * step, average_fps=1 / step),
            video_fingerprint=f"{self.fingerprint}-{index}",
            encoder="mini",
            encoder_fingerprint=self.bank.encoder,
        )

    def _rows(self, series: np.ndarray, step: np.ndarray) -> torch.Tensor:
        """Features of pictures as `Layout` names them, float32 [F, D]."""
        bank, thing = self.bank, torch.from_numpy(series >= 0)
        at = torch.from_numpy(step)
        rows = bank.background_rows[torch.where(thing, 0, at)]
        rows[thing] = bank.thing_rows[torch.from_numpy(series)[thing], at[thing]]
        return rows

    def _noisy(self, rows: torch.Tensor, random: torch.Tensor) -> torch.Tensor:
        return rows + random * (self.noise * rows.norm(dim=1, keepdim=True) / rows.shape[1] ** 0.5)

    def _mistaken(self, rng: np.random.Generator, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
        """`series` and `step` of a video as a weak encoder sees them."""
        series, step = layout.series.copy(), layout.step.copy()
        haze = rng.uniform(0, self.haze)
        thing = layout.series >= 0
        places = layout.step[~thing]
        present = [scene.concept for scene in layout.scenes if scene.concept >= 0]
        for i in np.flatnonzero(rng.random(len(series)) < np.where(thing, haze, haze / 4)):
            kind = rng.random()
            if thing[i] and kind < 0.5 and len(places):
                series[i], step[i] = -1, places[rng.integers(len(places))]
                continue
            concept = int(rng.choice(present)) if kind > 0.75 and present else int(rng.choice(self.cast.everyone))
            series[i] = rng.choice(self.bank.series_of[concept])
            step[i] = rng.integers(self.bank.thing_rows.shape[1])
        return series, step

    def _rng(self, index: int, stream: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, SPLITS.index(self.split), index, stream])


def storyboards(split: str, bank: str | os.PathLike[str], **settings: Any) -> Storyboards:
    """For configurations of `train_selector`: "refocus_select.train_selector.storyboards:storyboards".

    Args:
        split: "train", "validation" or "test".
        bank: path of the bank.
        **settings: of `Storyboards`; those of the form `{split}_{name}` replace `name` for one split.
    """
    own = {name.removeprefix(f"{split}_"): value for name, value in settings.items() if name.startswith(f"{split}_")}
    general = {name: value for name, value in settings.items() if not name.startswith(tuple(f"{s}_" for s in SPLITS))}
    return Storyboards(Bank.load(bank), split, **(general | own))


def _sentence(rng: np.random.Generator, wordings: Sequence[str], slots: Mapping[str, str]) -> str:
    """One of the wordings, filled in."""
    sentence = str(rng.choice(wordings)).format(**slots)
    return sentence[0].upper() + sentence[1:]


def _shares(types: Mapping[str, float] | Sequence[str] | None) -> dict[str, float]:
    chosen = [name for name, (share, _) in TYPES.items() if share] if types is None else list(types)
    unknown = [name for name in chosen if name not in TYPES]
    if unknown or not chosen:
        raise InputError(f"no question types {unknown}; known are {', '.join(TYPES)}")
    weights = [types[name] if isinstance(types, Mapping) else TYPES[name][0] or _RARE for name in chosen]
    if min(weights) < 0 or sum(weights) <= 0:
        raise InputError(f"shares of question types must not be negative, and not all 0: {weights}")
    return {name: weight / sum(weights) for name, weight in zip(chosen, weights, strict=True)}


def _cast(bank: Bank, split: str) -> Cast:
    ours = [i for i, concept in enumerate(bank.concepts) if concept.split == split]
    members: dict[str, list[int]] = {}
    for i in ours:
        members.setdefault(bank.concepts[i].kind, []).append(i)
    askable = tuple(sorted(kind for kind, m in members.items() if kind not in NOT_ASKED and len(m) > OPTIONS))
    if not askable:
        raise InputError(f"the bank has no kind with enough things in its {split} split")
    return Cast(
        names=[concept.name for concept in bank.concepts],
        kinds=[concept.kind for concept in bank.concepts],
        near=[frozenset(concept.near) for concept in bank.concepts],
        members={kind: np.array(m) for kind, m in members.items()},
        everyone=np.array(ours),
        cards=bank.cards,
        split=split,
        askable=askable,
    )
