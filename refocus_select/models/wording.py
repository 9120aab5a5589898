"""Taking a question apart: the things it names, and the sentence around them.

A sentence vector of "What comes right after the red car?" is mostly about cars. Apart, "red car" can be compared with
frames, and "What comes right after the something?" says what to do with the likeness.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

MENTIONS = 3
"""Things that a question may name; further ones are not read."""

# Words that ask, point, or say when; runs of other words name things.
_FUNCTION = frozenset(
    """
    a about above according after again all also always among an and any anything appear appeared appearing appears
    are around as asked at away be been before begin beginning begins being below beside between bottom but by came
    camera can clip close close-up come comes coming could count counting depict depicted depicts did directly
    display displayed do does during each earlier earliest early either else end ending ends ever every exactly
    fifth film final finally find first follow following follows footage for fourth frame frames from get gets go
    goes gone had half halfway happen happened happens has have how identify if immediately in into is it its itself
    just kind kinds last late later latest least left length like long main mainly many maximum mentioned mid middle
    midpoint minute minutes missing moment moments more most mostly movie much must name named near nearly never
    next no not nothing now number occur occurred occurs of off often on once one ones only open opens or order
    other over part parts period picture pictures point portion precede preceded precedes present previous put
    quarter quarter-way quarters question right roughly same saw say scene scenes screen second seconds see seen
    separate sequence several shall shortly should show showed showing shown shows since some something sometimes
    somewhere soon sort sorts start started starting starts subsequent tell than that the their them then there
    these they thing things third this those three through throughout time times to top total towards turn two type
    types up us use very via video viewer visible visually was way we were what when where whether which while who
    whole whom whose why will with within without would you your
    """.split()  # noqa: SIM905
)
_LINKS = frozenset({"of", "with", "in", "and", "on"})  # inside a name: "pot of food"
_PLACEHOLDER = "something"


@dataclass(frozen=True)
class Wording:
    """A question taken apart.

    Attributes:
        mentions: names of things, in the order that the question has them.
        frame: the question with "something" in the place of each.
    """

    mentions: tuple[str, ...]
    frame: str


@lru_cache(maxsize=65536)
def take_apart(question: str) -> Wording:
    """Find the things that a question names.

    >>> take_apart("What is shown between the pot of food and the red car?")
    Wording(mentions=('pot of food', 'red car'), frame='What is shown between the something and the something?')
    """
    tokens = list(re.finditer(r"\w+(?:['’\-]\w+)*", question))
    words = [token.group().lower() for token in tokens]
    named = [word not in _FUNCTION for word in words]
    for i in range(1, len(words) - 1):
        touching = not question[tokens[i - 1].end() : tokens[i + 1].start()].strip(" \t" + tokens[i].group())
        named[i] = named[i] or (words[i] in _LINKS and named[i - 1] and named[i + 1] and touching)
    mentions, pieces, done, i = [], [], 0, 0
    while i < len(words):
        if not named[i]:
            i += 1
            continue
        last = i
        while (
            last + 1 < len(words)
            and named[last + 1]
            and not question[tokens[last].end() : tokens[last + 1].start()].strip()
        ):
            last += 1
        mentions.append(question[tokens[i].start() : tokens[last].end()])
        pieces += [question[done : tokens[i].start()], _PLACEHOLDER]
        done = tokens[last].end()
        i = last + 1
    pieces.append(question[done:])
    return Wording(tuple(mentions), "".join(pieces))
