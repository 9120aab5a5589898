"""Stories: which things a video shows in which order, and a question whose answer follows from that alone.

Each function below builds one type of question. Wrong options of questions about time occur in the same video; those of
questions about presence are of the same kind as the answer, so that nothing but the frames tells them apart.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from .phrasings import COUNTS, MOMENTS, NOT_ASKED, article, plural

OPTIONS = 4


@dataclass(frozen=True)
class Story:
    """A video before it is laid out.

    Attributes:
        phrasing: key of `PHRASINGS`.
        slots: what its wording needs.
        sequence: concepts in the order of their scenes; negative for cards.
        options: in the order that they are shown.
        answer: position of the right option.
        evidence: scenes (by place in the sequence) that one must see to answer.
        pinned: a scene and the share of the video's length where its middle must lie.
        natural: key of `NATURAL`, if a selector is always asked in ordinary words.
        named: slots of such a wording.
    """

    phrasing: str
    slots: Mapping[str, str]
    sequence: tuple[int, ...]
    options: tuple[str, ...]
    answer: int
    evidence: tuple[int, ...]
    pinned: tuple[int, float] | None = None
    natural: str = ""
    named: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Cast:
    """The things of one split, and which of them can be told apart.

    Attributes:
        names: of all concepts of the bank.
        kinds: of all concepts of the bank.
        near: for each concept, those too similar in meaning to be in one video with it.
        members: the concepts of this split by kind.
        everyone: the concepts of this split.
        cards: names of the kinds of cards.
        split: for the wording of moments.
    """

    names: Sequence[str]
    kinds: Sequence[str]
    near: Sequence[frozenset[int]]
    members: Mapping[str, np.ndarray]
    everyone: np.ndarray
    cards: Sequence[str]
    split: str
    askable: tuple[str, ...] = field(default=())

    def draw(
        self,
        rng: np.random.Generator,
        count: int,
        *,
        taken: Collection[int] = (),
        kind: str | None = None,
        not_kind: str | None = None,
    ) -> list[int]:
        """Different things, not too similar to each other or to those `taken`; fewer if there are not enough."""
        pool = self.everyone if kind is None else self.members[kind]
        refused = set(taken).union(*(self.near[c] for c in taken if c >= 0))
        found: list[int] = []
        for candidate in pool[rng.permutation(len(pool))[: 40 + 20 * count]].tolist():
            if len(found) == count:
                break
            if candidate not in refused and self.kinds[candidate] != not_kind:
                found.append(candidate)
                refused |= self.near[candidate] | {candidate}
        return found

    def mixed(self, rng: np.random.Generator, count: int, *, taken: Collection[int]) -> list[int]:
        """Things of which about half are of the kind of one that is `taken`: hard distractors."""
        kinds = [self.kinds[c] for c in taken if c >= 0 and self.kinds[c] not in NOT_ASKED]
        same = []
        if kinds:
            same = self.draw(rng, int(rng.binomial(count, 0.5)), taken=taken, kind=kinds[0])
        rest = self.draw(rng, count - len(same), taken=[*taken, *same])
        found = [*same, *rest]
        return [found[i] for i in rng.permutation(len(found))]

    def name(self, concept: int) -> str:
        """What a thing or card is called."""
        return self.names[concept] if concept >= 0 else self.cards[-1 - concept]


Builder = Callable[[np.random.Generator, Cast, int], "Story | None"]


def _kind(rng: np.random.Generator, cast: Cast, scenes: int) -> Story | None:
    kind = str(rng.choice(cast.askable))
    choices = cast.draw(rng, OPTIONS, kind=kind)
    others = cast.draw(rng, scenes - 1, taken=choices, not_kind=kind)
    if len(choices) < OPTIONS:
        return None
    at = int(rng.integers(len(others) + 1))
    sequence = (*others[:at], choices[0], *others[at:])
    return _story(rng, cast, "kind", {"kind": kind}, sequence, choices[0], choices[1:], (at,))


def _next_to(rng: np.random.Generator, cast: Cast, scenes: int, *, side: int, ask_kind: bool = False) -> Story | None:
    """Right after (side 1) or right before (side -1) a thing that occurs once; sometimes the thing is a card."""
    anchor = -1 - int(rng.integers(len(cast.cards))) if rng.random() < 0.12 else cast.draw(rng, 1)[0]
    sequence = [anchor, *cast.mixed(rng, scenes - 1, taken=[anchor])]
    at = int(rng.integers(1, len(sequence) - 1))  # a neighbour on either side
    sequence[0], sequence[at] = sequence[at], sequence[0]
    answer, wrong_side = sequence[at + side], sequence[at - side]
    rest = [c for c in sequence if c not in (anchor, answer, wrong_side)]
    evidence = tuple(sorted((at, at + side)))
    slots = {"x": _bare(cast.name(anchor))}
    if not ask_kind:
        wrong = [wrong_side, *(rest[i] for i in rng.permutation(len(rest))[: OPTIONS - 2])]
        if len(wrong) < OPTIONS - 1:
            return None
        return _story(rng, cast, "after" if side > 0 else "before", slots, sequence, answer, wrong, evidence)
    kinds = [cast.kinds[c] for c in (answer, wrong_side, *rest)]
    kinds = [kind for kind in dict.fromkeys(kinds) if kind not in NOT_ASKED]
    if cast.kinds[answer] in NOT_ASKED or cast.kinds[answer] == cast.kinds[wrong_side]:
        return None
    spare = [k for k in cast.askable if k not in kinds]
    kinds += [spare[i] for i in rng.permutation(len(spare))]
    texts = [_of_kind(kind) for kind in kinds[:OPTIONS]]
    return _chosen(rng, "kind after", slots, sequence, texts, evidence)


def _between(rng: np.random.Generator, cast: Cast, scenes: int) -> Story | None:
    first = cast.draw(rng, 1)
    sequence = [*first, *cast.mixed(rng, scenes - 1, taken=first)]
    if len(sequence) < OPTIONS + 2:
        return None
    sequence = [sequence[i] for i in rng.permutation(len(sequence))]
    at = int(rng.integers(1, len(sequence) - 1))
    beside = [sequence[i] for i in (at - 2, at + 2) if 0 <= i < len(sequence)]
    far = [c for i, c in enumerate(sequence) if abs(i - at) > 2]
    wrong = [*beside, *(far[i] for i in rng.permutation(len(far)))][: OPTIONS - 1]
    if len(wrong) < OPTIONS - 1:
        return None
    slots = {"x": cast.name(sequence[at - 1]), "y": cast.name(sequence[at + 1])}
    return _story(rng, cast, "between", slots, sequence, sequence[at], wrong, (at - 1, at, at + 1))


def _count(rng: np.random.Generator, cast: Cast, scenes: int) -> Story | None:
    thing = cast.draw(rng, 1)[0]
    times = int(rng.integers(1, OPTIONS + 1))
    others = cast.mixed(rng, max(times + 1, scenes - times), taken=[thing])
    if len(others) < times:
        return None
    places = set(rng.permutation(len(others) + 1)[:times].tolist())  # never two scenes of it in a row
    sequence: list[int] = []
    for i in range(len(others) + 1):
        if i in places:
            sequence.append(thing)
        if i < len(others):
            sequence.append(others[i])
    words = COUNTS[int(rng.integers(len(COUNTS)))]
    evidence = tuple(i for i, c in enumerate(sequence) if c == thing)
    return Story("count", {"x": cast.name(thing)}, tuple(sequence), words, times - 1, evidence)


def _look_up(rng: np.random.Generator, cast: Cast, scenes: int) -> Story | None:
    """The named thing itself, as people ask for it; answered by telling it apart from its like, or by counting it."""
    if rng.random() < 0.4:
        story = _kind(rng, cast, scenes)
        if story is None:
            return None
        return replace(story, natural="look up", named={"x": story.options[story.answer]})
    story = _count(rng, cast, scenes)
    return None if story is None else replace(story, natural="look up", named=story.slots)


def _end(rng: np.random.Generator, cast: Cast, scenes: int, *, last: bool) -> Story | None:
    """First or last: of all things, or of those of one kind."""
    which = "last" if last else "first"
    if rng.random() < 0.5:
        kind = str(rng.choice(cast.askable))
        group = cast.draw(rng, OPTIONS, kind=kind)
        if len(group) < OPTIONS:
            return None
        others = cast.draw(rng, max(2, scenes - OPTIONS), taken=group, not_kind=kind)
        sequence = [*group, *others]
        sequence = [sequence[i] for i in rng.permutation(len(sequence))]
        order = [c for c in sequence if c in group]
        answer = order[-1] if last else order[0]
        slots = {"kind": kind, "kinds": plural(kind)}
        evidence = (sequence.index(answer),)
        return _story(
            rng, cast, f"{which} of kind", slots, sequence, answer, [c for c in order if c != answer], evidence
        )
    start = cast.draw(rng, 1)
    sequence = [*start, *cast.mixed(rng, scenes - 1, taken=start)]
    if len(sequence) < OPTIONS:
        return None
    sequence = [sequence[i] for i in rng.permutation(len(sequence))]
    order = sequence[::-1] if last else sequence
    wrong = [order[1], *(order[2 + i] for i in rng.permutation(len(order) - 2)[: OPTIONS - 2])]
    evidence = (len(sequence) - 1 if last else 0,)
    return _story(rng, cast, which, {}, sequence, order[0], wrong, evidence)


def _order(rng: np.random.Generator, cast: Cast, scenes: int) -> Story | None:
    start = cast.draw(rng, 1)
    sequence = [*start, *cast.mixed(rng, scenes - 1, taken=start)]
    if len(sequence) < 3:
        return None
    sequence = [sequence[i] for i in rng.permutation(len(sequence))]
    places = sorted(rng.permutation(len(sequence))[:3].tolist())
    named = [cast.name(sequence[i]) for i in places]
    asked = [named[i] for i in rng.permutation(3)]
    orders = [", ".join(named[i] for i in p) for p in itertools.permutations(range(3))]
    wrong = [orders[1 + i] for i in rng.permutation(5)[: OPTIONS - 1]]
    slots = dict(zip("xyz", asked, strict=True))
    return _chosen(rng, "order", slots, sequence, [orders[0], *wrong], tuple(places))


def _never(rng: np.random.Generator, cast: Cast, scenes: int) -> Story | None:
    start = cast.draw(rng, 1)
    cast_of_video = [*start, *cast.mixed(rng, scenes, taken=start)]
    if len(cast_of_video) < OPTIONS + 1:
        return None
    cast_of_video = [cast_of_video[i] for i in rng.permutation(len(cast_of_video))]
    missing, sequence = cast_of_video[0], cast_of_video[1:]
    places = sorted(rng.permutation(len(sequence))[: OPTIONS - 1].tolist())
    return _story(rng, cast, "never", {}, sequence, missing, [sequence[i] for i in places], tuple(places))


def _text(rng: np.random.Generator, cast: Cast, scenes: int) -> Story | None:
    card = -1 - int(rng.integers(len(cast.cards)))
    others = cast.draw(rng, scenes - 1)
    at = int(rng.integers(len(others) + 1))
    texts = [cast.name(card), *(name for name in cast.cards if name != cast.name(card))]
    return _chosen(rng, "text", {}, (*others[:at], card, *others[at:]), texts, (at,))


def _moment(rng: np.random.Generator, cast: Cast, scenes: int) -> Story | None:
    share, words = MOMENTS[cast.split][int(rng.integers(len(MOMENTS[cast.split])))]
    start = cast.draw(rng, 1)
    sequence = [*start, *cast.mixed(rng, max(scenes - 1, OPTIONS), taken=start)]
    if len(sequence) < OPTIONS:
        return None
    at = round(share * (len(sequence) - 1)) if 0.1 < share < 0.9 else (0 if share < 0.5 else len(sequence) - 1)
    beside = [sequence[i] for i in (at - 1, at + 1) if 0 <= i < len(sequence)]
    far = [c for i, c in enumerate(sequence) if abs(i - at) > 1]
    wrong = [*beside, *(far[i] for i in rng.permutation(len(far)))][: OPTIONS - 1]
    jitter = float(rng.uniform(-0.02, 0.02))
    slots = {"moment": str(rng.choice(words))}
    return _story(rng, cast, "moment", slots, sequence, sequence[at], wrong, (at,), pinned=(at, share + jitter))


def _gist(rng: np.random.Generator, cast: Cast, scenes: int) -> Story | None:
    kinds = [str(kind) for kind in rng.permutation(cast.askable)[:OPTIONS]]
    most = cast.draw(rng, max(4, round(0.55 * scenes)), kind=kinds[0])
    if len(most) < 4:
        return None
    sequence = list(most)
    for kind in kinds[1:]:
        sequence += cast.draw(rng, int(rng.integers(0, 1 + len(most) // 3)), taken=sequence, kind=kind)
    sequence = [sequence[i] for i in rng.permutation(len(sequence))]
    evidence = tuple(i for i, c in enumerate(sequence) if c in most)
    return _chosen(rng, "gist", {}, sequence, [plural(kind) for kind in kinds], evidence)


def _story(
    rng: np.random.Generator,
    cast: Cast,
    phrasing: str,
    slots: Mapping[str, str],
    sequence: Sequence[int],
    answer: int,
    wrong: Sequence[int],
    evidence: tuple[int, ...],
    *,
    pinned: tuple[int, float] | None = None,
) -> Story:
    return _chosen(rng, phrasing, slots, sequence, [cast.name(c) for c in (answer, *wrong)], evidence, pinned=pinned)


def _chosen(
    rng: np.random.Generator,
    phrasing: str,
    slots: Mapping[str, str],
    sequence: Sequence[int],
    texts: Sequence[str],
    evidence: tuple[int, ...],
    *,
    pinned: tuple[int, float] | None = None,
) -> Story:
    """The story with shuffled options; the first of `texts` is right."""
    order = rng.permutation(len(texts)).tolist()
    options = tuple(texts[i] for i in order)
    return Story(phrasing, slots, tuple(sequence), options, order.index(0), evidence, pinned)


def _bare(name: str) -> str:
    """A card's name without its article, for "the {x}"."""
    return name.removeprefix("a ")


def _of_kind(kind: str) -> str:
    return kind if plural(kind) == kind else article(kind)


TYPES: Mapping[str, tuple[float, Builder]] = {
    "kind": (0.12, _kind),
    "after": (0.12, lambda rng, cast, scenes: _next_to(rng, cast, scenes, side=1)),
    "before": (0.12, lambda rng, cast, scenes: _next_to(rng, cast, scenes, side=-1)),
    "between": (0.09, _between),
    "count": (0.12, _count),
    "first": (0.07, lambda rng, cast, scenes: _end(rng, cast, scenes, last=False)),
    "last": (0.07, lambda rng, cast, scenes: _end(rng, cast, scenes, last=True)),
    "order": (0.07, _order),
    "never": (0.06, _never),
    "text": (0.03, _text),
    "moment": (0.06, _moment),
    "gist": (0.03, _gist),
    "kind after": (0.04, lambda rng, cast, scenes: _next_to(rng, cast, scenes, side=1, ask_kind=True)),
    "look up": (0.0, _look_up),
}
"""Types of question: default share (0: only where it is asked for), and who builds them."""
