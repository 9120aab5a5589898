"""Taking questions and answer options apart, by rules alone: no model is loaded.

- `parse_question`: the entities that a question names, and its template, the sentence around them. A sentence vector of
  "What comes right after the red car?" is mostly about cars. Apart, "red car" can be compared with frames, and "What
  comes right after the something?" says what to do with the similarity.
- `content_phrase`: the words of a question that name what to look for, as one phrase.
- `option_parts`, `option_number`: what an answer option lists, and the number that it says.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

MAX_ENTITIES = 3
"""Entities of a question that are read; further ones are not."""

# Words that ask, point, or say when; runs of other words name things.
_FUNCTION = frozenset(
    """
    a about above according across action after again ahead all along also always among an and any anybody anyone
    anything anywhere appear appeared appearing appears are around arrive arrived arrives as asked at away be been
    before begin beginning begins being below beside between bits bottom but by called came camera can can't clearly
    clip close close-up color colors colour colours come comes coming could count counting depart departs depict
    depicted depicts describe did didn't directly disappear disappeared disappears display displayed do does doesn't
    doing don't during each earlier earliest early either else emerge emerges end ending ends enter entered enters
    ever every everybody everyone everywhere exactly exit exits featured fifth film final finally find finish
    finished finishes first follow following follows footage for found fourth frame frames from get gets give go
    goes going gone good had half halfway happen happened happening happens has have he he's hear hello her hers
    herself hi him himself his how how's i i'd i'm identify if immediately in inside into is isn't it it's its
    itself just kind kinds last late later latest lead leading leads least leave leaves left length let lie lies
    like list locate located long look looked looking looks made main mainly many maximum me mentioned mid middle
    midpoint minute minutes missing moment moments more most mostly move moved moves movie much must my name named
    near nearly never next no nobody not nothing now number occur occurred occurs of off often okay on once one ones
    only onto open opens or order other our out over part parts past period picture pictures please point portion
    precede preceded precedes preceding presence present previous prior put quarter quarter-way quarters question
    really reappear reappears return returned returns right roughly same saw say scene scenes screen second seconds
    see seem seems seen separate separates sequence several shall she she's shortly shot shots should show showed
    showing shown shows since some somebody someone something sometimes somewhere soon sort sorts spot spotted start
    started starting starts still subsequent summarise summarize summary tell than that the their them then there
    these they thing things third this those three through throughout time times to top total towards turn turned
    turns two type types under until up upon us use used uses using vanish vanished vanishes very via video viewer
    visible visually want was wasn't way we were what what's when when's where where's whether which which's while
    who who's whole whom whose why will with within without would you you'd your
    """.split()  # noqa: SIM905
)
_LINKS = frozenset({"of", "with", "in", "and", "on"})  # inside a name: "pot of food"
_FIRM_LINKS = frozenset({"of", "with", "in", "on", "at"})  # these hold across an article: "man in the red car"
_ARTICLES = frozenset({"a", "an", "the"})
_PLACEHOLDER = "something"
_PERSONS = frozenset({"anybody", "anyone", "everybody", "everyone", "somebody", "someone", "who", "whom"})

# Words that frame a question but name nothing that a picture could show.
_FRAMING = frozenset(
    """
    a about actually after all also am an and any anybody anyone anything anywhere appear appeared appearing
    appears are as at be been before begin beginning begins being both but by camera can clip come comes
    contain contains could depict depicted describe did display displayed do does doing done during each
    either end ending ends every exactly film find first footage for frame frames from get gets give go goes
    going had happen happened happening happens has have having he her here him his how i identify if image
    images in into is it its itself just know last later like list locate look looking looks made make makes
    many may me mention moment moments movie much must my name named next no not now occur occurs of off on
    once one only or other our out over part picture pictures place please point question same say scene
    scenes screen see seen several shall she should show showed showing shown shows so some somebody someone
    something somewhere specific start starts tell than that the their them then there these they thing
    things this those through time times to turn up us use used using very video visible want was we were
    what when where whether which while who whom whose why will with within would you your
    """.split()  # noqa: SIM905
)

_NUMBERS = {
    "zero": 0, "never": 0, "none": 0, "once": 1, "one": 1, "twice": 2, "two": 2, "thrice": 3, "three": 3, "four": 4,
    "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
}  # fmt: skip


@dataclass(frozen=True)
class ParsedQuestion:
    """A question taken apart.

    Attributes:
        entities: names of things, in the order that the question has them.
        template: the question with "something" in the place of each.
    """

    entities: tuple[str, ...]
    template: str


@lru_cache(maxsize=65536)
def parse_question(question: str) -> ParsedQuestion:
    """Separate the things that a question names from the sentence around them.

    Who asks for somebody and names nothing, asks for a person.

    >>> parse_question("What comes after the pot of food?")
    ParsedQuestion(entities=('pot of food',), template='What comes after the something?')
    >>> parse_question("What is the man with the cigar doing?").entities
    ('man with the cigar',)
    >>> parse_question("Is anybody there?")
    ParsedQuestion(entities=('person',), template='Is something there?')
    """
    tokens = list(re.finditer(r"\w+(?:['’\-]\w+)*", question))
    words = [token.group().lower() for token in tokens]
    named = [word not in _FUNCTION for word in words]
    for i in range(1, len(words) - 1):
        touching = not question[tokens[i - 1].end() : tokens[i + 1].start()].strip(" \t" + tokens[i].group())
        named[i] = named[i] or (words[i] in _LINKS and named[i - 1] and named[i + 1] and touching)
    for i in range(1, len(words) - 2):
        gap = question[tokens[i - 1].end() : tokens[i + 2].start()].split()
        if words[i] in _FIRM_LINKS and words[i + 1] in _ARTICLES and named[i - 1] and named[i + 2] and len(gap) == 2:
            named[i] = named[i + 1] = True
    entities, pieces, done, i = [], [], 0, 0
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
        entities.append(question[tokens[i].start() : tokens[last].end()])
        pieces += [question[done : tokens[i].start()], _PLACEHOLDER]
        done = tokens[last].end()
        i = last + 1
    person = next((token for token, word in zip(tokens, words, strict=True) if word in _PERSONS), None)
    if not entities and person is not None:
        entities, pieces, done = ["person"], [question[: person.start()], _PLACEHOLDER], person.end()
    pieces.append(question[done:])
    return ParsedQuestion(tuple(entities), "".join(pieces))


def content_phrase(question: str) -> str:
    """The words of a question that name what to look for, in their order.

        >>> content_phrase("When does the rabbit pick up a red apple?")
        'rabbit pick red apple'

    A question without such words, or in a script without spaces, is returned as it is.
    """
    words = re.findall(r"\w+(?:['’-]\w+)*", question)
    kept = [word for word in words if re.sub(r"['’]s$", "", word.lower()) not in _FRAMING]
    return " ".join(kept) if kept else question.strip()


@lru_cache(maxsize=65536)
def option_parts(option: str) -> tuple[str, ...]:
    """What an option lists: the parts between commas."""
    return tuple(part.strip() for part in option.split(",") if part.strip()) or (option,)


def option_number(option: str) -> int | None:
    """The number that an option says ("twice", "3", "four times"), or None."""
    words = re.sub(r"\b(times|scenes|time|scene)\b", " ", option.lower()).split()
    if len(words) != 1:
        return None
    word = words[0].strip(".")
    return int(word) if word.isascii() and word.isdecimal() and len(word) < 3 else _NUMBERS.get(word)
