"""What is said, shown and asked in the videos of this benchmark: three text files written for it, and templates.

A file holds programmes (`# split | title | who speaks`). Below a programme stand parts (`## title | picture`), bullets
(`-`), spoken lines (`>`, or `Name | line` in dialogues), and what is asked: `about 1 | phrase`, `that 2 | clause` and
`who 3 | clause` name a spoken line by its number and say it in other words; `picture | question` is about the part's
picture, and `absent | phrase` about something that does not come up.

Validation and test share no programme and no template.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent

TEMPLATES: dict[str, dict[str, tuple[str, ...]]] = {
    "validation": {
        "about": ("Where does {he} explain {x}?", "When is {x} discussed?", "What do we hear about {x}?"),
        "that": ("What is on the screen while {he} says that {x}?", "What is shown when somebody states that {x}?"),
        "who": ("Who says that {x}?", "Who remarks that {x}?"),
        "title": ("Which slide is titled “{x}”?", "When does the headline “{x}” come up?"),
        "bullet": ("Where can one read “{x}”?", "Find the slide with the words “{x}”."),
        "after": ("What comes right after {he} says that {x}?", "Which slide follows when {he} has said that {x}?"),
        "before": ("What was shown right before {he} explains {x}?", "Which slide precedes the talk about {x}?"),
        "absent": ("Where does {he} explain {x}?", "When is {x} discussed?"),
    },
    "test": {
        "about": (
            "At which point does {he} talk about {x}?", "What does {he} tell us on the subject of {x}?",
            "In which passage is {x} mentioned?", "Find the part on {x}.",
        ),
        "that": (
            "What can be seen while {he} mentions that {x}?", "Which picture goes with the remark that {x}?",
            "What does the screen show as {he} points out that {x}?",
        ),
        "who": (
            "From whom do we hear that {x}?", "Which speaker reports that {x}?", "Who lets the other know that {x}?",
        ),
        "title": ("When is the title “{x}” displayed?", "At what time does the heading “{x}” appear?"),
        "bullet": ("Which slide reads “{x}”?", "When is “{x}” written on the screen?", "Where is the text “{x}” seen?"),
        "after": (
            "What is on the next slide after {he} mentions that {x}?", "After the remark that {x}, what comes next?",
        ),
        "before": (
            "Before {he} talks about {x}, what is on the previous slide?", "What comes just before {x} is mentioned?",
        ),
        "absent": ("When does {he} speak about {x}?", "At what moment is {x} mentioned?", "Find the part on {x}."),
    },
}  # fmt: skip
"""Question templates by split and kind; {he} is who speaks, {x} what is asked about."""


@dataclass
class Part:
    """One slide, one item of the news, or a whole dialogue.

    Attributes:
        title: its heading.
        picture: name of what is shown; "" for a slide.
        bullets: lines below the heading.
        said: spoken lines, with the name of who speaks ("" for the only speaker).
        asked: (kind, number of the spoken line or -1, text).
    """

    title: str
    picture: str = ""
    bullets: list[str] = field(default_factory=list)
    said: list[tuple[str, str]] = field(default_factory=list)
    asked: list[tuple[str, int, str]] = field(default_factory=list)


@dataclass
class Programme:
    """What becomes one video.

    Attributes:
        kind: "lectures", "news" or "dialogues".
        split: "validation" or "test".
        title: of the whole.
        speaker: how questions call who speaks.
        parts: in order.
        absent: what does not come up.
    """

    kind: str
    split: str
    title: str
    speaker: str
    parts: list[Part] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)


def programmes() -> list[Programme]:
    """All of them, from the text files."""
    return [programme for kind in ("lectures", "news", "dialogues") for programme in _read(kind)]


def _read(kind: str) -> Iterator[Programme]:
    programme: Programme | None = None
    for line in (HERE / f"{kind}.txt").read_text(encoding="utf-8").splitlines():
        mark, _, rest = line.partition(" ")
        pieces = [piece.strip() for piece in line.split(" | ")]
        if mark == "#":
            if programme is not None:
                yield programme
            split, title, speaker = [piece.strip() for piece in rest.split(" | ")]
            programme = Programme(kind, split, title, speaker)
            if kind == "dialogues":
                programme.parts.append(Part(title, "dialogue"))
            continue
        assert programme is not None, line
        if mark == "##":
            title, _, picture = rest.partition(" | ")
            programme.parts.append(Part(title, picture))
        elif mark == "-":
            programme.parts[-1].bullets.append(rest)
        elif mark == ">":
            programme.parts[-1].said.append(("", rest))
        elif mark == "absent":
            programme.absent.append(pieces[1])
        elif mark == "picture":
            programme.parts[-1].asked.append(("picture", -1, pieces[1]))
        elif mark in ("about", "that", "who"):
            programme.parts[-1].asked.append((mark, int(pieces[0].split()[1]), pieces[1]))
        else:
            programme.parts[-1].said.append((pieces[0], pieces[1]))
    if programme is not None:
        yield programme
