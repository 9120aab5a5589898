"""How questions are worded, by type and split: validation and test use wordings that training never saw.

`{x}`, `{y}`, `{z}` are names, `{kind}` and `{kinds}` a kind of thing, `{moment}` a part of the video.
"""

from __future__ import annotations

from collections.abc import Mapping

PHRASINGS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "kind": {
        "train": (
            "Which {kind} appears in the video?",
            "What {kind} can be seen?",
            "There is one {kind} in this video. Which one?",
            "Name the {kind} that is shown.",
            "Which {kind} do you see?",
            "What sort of {kind} is shown at some point?",
        ),
        "validation": ("Which {kind} shows up?", "What {kind} is in this clip?"),
        "test": ("Which {kind} is visible at some point?", "What is the {kind} in the film?"),
    },
    "after": {
        "train": (
            "What is shown right after the {x}?",
            "What comes next after the {x}?",
            "After the {x}, which thing appears?",
            "Which thing follows the {x}?",
            "What do we see immediately after the {x}?",
            "The {x} is gone. What is the next thing to be seen?",
        ),
        "validation": ("What appears directly after the {x}?", "Once the {x} has been shown, what comes next?"),
        "test": ("Which thing is seen just after the {x}?", "What follows after the {x}?"),
    },
    "before": {
        "train": (
            "What is shown right before the {x}?",
            "What comes just before the {x}?",
            "Before the {x}, which thing appears?",
            "Which thing precedes the {x}?",
            "What do we see immediately before the {x}?",
            "The {x} comes on. What was the thing seen before it?",
        ),
        "validation": ("What appears directly before the {x}?", "What was shown last before the {x} came?"),
        "test": ("Which thing is seen just before the {x}?", "What precedes the {x}?"),
    },
    "between": {
        "train": (
            "What appears between the {x} and the {y}?",
            "What is shown after the {x} and before the {y}?",
            "Which thing comes between the {x} and the {y}?",
            "Between the {x} and the {y}, what do we see?",
            "What follows the {x} and precedes the {y}?",
        ),
        "validation": ("What can be seen between the {x} and the {y}?",),
        "test": (
            "Which thing is shown in between the {x} and the {y}?",
            "After the {x} but before the {y}: what is shown?",
        ),
    },
    "count": {
        "train": (
            "How many times does the {x} appear?",
            "How often is the {x} shown?",
            "In how many scenes do we see the {x}?",
            "How many separate times can the {x} be seen?",
            "Count the scenes with the {x}.",
        ),
        "validation": ("How often does the {x} come up?", "How many scenes show the {x}?"),
        "test": ("How many times is the {x} seen?", "How often can the {x} be seen?"),
    },
    "first": {
        "train": (
            "What is the first thing that is shown?",
            "Which thing appears first in the video?",
            "What do we see first?",
            "With which thing does the video open?",
            "Which of the things comes first?",
        ),
        "validation": ("What is the first thing to appear?",),
        "test": ("Which thing is shown first?", "What thing is seen first of all?"),
    },
    "last": {
        "train": (
            "What is the last thing that is shown?",
            "Which thing appears last in the video?",
            "What do we see last?",
            "With which thing does the video close?",
            "Which of the things comes last?",
        ),
        "validation": ("What is the last thing to appear?",),
        "test": ("Which thing is shown last?", "What thing is seen last of all?"),
    },
    "first of kind": {
        "train": (
            "Which {kind} appears first?",
            "What is the first {kind} in the video?",
            "Of the {kinds}, which one is shown first?",
            "Several {kinds} are shown. Which comes first?",
        ),
        "validation": ("What is the first {kind} to be seen?",),
        "test": ("Which {kind} do we see first?",),
    },
    "last of kind": {
        "train": (
            "Which {kind} appears last?",
            "What is the last {kind} in the video?",
            "Of the {kinds}, which one is shown last?",
            "Several {kinds} are shown. Which comes last?",
        ),
        "validation": ("What is the last {kind} to be seen?",),
        "test": ("Which {kind} do we see last?",),
    },
    "order": {
        "train": (
            "In which order do the {x}, the {y} and the {z} appear?",
            "What is the order of the {x}, the {y} and the {z}?",
            "The {x}, the {y}, the {z}: in which order are they shown?",
            "Put the {x}, the {y} and the {z} in the order of the video.",
        ),
        "validation": ("In which order do we see the {x}, the {y} and the {z}?",),
        "test": ("In what order are the {x}, the {y} and the {z} shown?",),
    },
    "never": {
        "train": (
            "Which of these never appears?",
            "Which of these things is not in the video?",
            "What is never shown?",
            "Which thing can not be seen at any time?",
            "Which of the following is missing from the video?",
        ),
        "validation": ("Which of these is not shown?",),
        "test": ("Which of these things does not appear?", "Which one is never seen?"),
    },
    "text": {
        "train": (
            "What kind of writing is shown?",
            "What sort of written text appears on the screen?",
            "Words are written on the screen at some point. What are they?",
            "There is text in the video. What is it?",
            "What is the written text?",
        ),
        "validation": ("Which kind of text is on the screen?",),
        "test": ("What kind of written words can be seen?",),
    },
    "moment": {
        "train": (
            "What is shown {moment}?",
            "What do we see {moment}?",
            "Which thing appears {moment}?",
            "{moment}, what can be seen?",
        ),
        "validation": ("What appears {moment}?",),
        "test": ("Which thing is visible {moment}?",),
    },
    "gist": {
        "train": (
            "What kind of things does the video mostly show?",
            "What is the video mainly about?",
            "Which kind of things appears most often?",
            "What is most of the video about?",
        ),
        "validation": ("What does the video show most of the time?",),
        "test": ("What kind of things is this video mostly about?",),
    },
    "kind after": {
        "train": (
            "What kind of thing is shown right after the {x}?",
            "What kind of thing comes next after the {x}?",
            "Of what kind is the thing that follows the {x}?",
            "After the {x}, what sort of thing appears?",
        ),
        "validation": ("What kind of thing appears directly after the {x}?",),
        "test": ("What sort of thing is seen just after the {x}?",),
    },
}  # fmt: skip

MOMENTS: Mapping[str, tuple[tuple[float, tuple[str, ...]], ...]] = {
    "train": (
        (0.06, ("near the beginning", "shortly after the start", "at the beginning of the video")),
        (0.25, ("about a quarter of the way through", "after a quarter of the video")),
        (0.50, ("in the middle of the video", "halfway through", "at half time")),
        (0.75, ("about three quarters of the way through", "after three quarters of the video")),
        (0.94, ("near the end", "shortly before the end", "at the end of the video")),
    ),
    "validation": (
        (0.06, ("close to the start",)),
        (0.25, ("when a quarter of the video is over",)),
        (0.50, ("around the middle",)),
        (0.75, ("when three quarters of the video are over",)),
        (0.94, ("close to the end",)),
    ),
    "test": (
        (0.06, ("near the start of the video",)),
        (0.25, ("roughly a quarter of the way in",)),
        (0.50, ("at the midpoint",)),
        (0.75, ("roughly three quarters of the way in",)),
        (0.94, ("near the end of the video",)),
    ),
}
"""Parts of the video: where (share of its length), and how that is said."""

COUNTS: tuple[tuple[str, ...], ...] = (
    ("once", "twice", "three times", "four times"),
    ("1", "2", "3", "4"),
    ("one", "two", "three", "four"),
)

PLURALS: Mapping[str, str] = {
    "aircraft": "aircraft", "award": "awards", "body part": "body parts", "dish": "dishes", "fruit": "fruits",
    "kitchenware": "kitchenware", "person": "people", "piece of clothing": "clothes",
    "piece of furniture": "pieces of furniture", "sports equipment": "sports equipment", "weather": "weather",
}  # fmt: skip
"""Kinds whose plural is not made with an s."""

NOT_ASKED = frozenset(
    {"", "thing", "award", "body part", "dish", "game", "household item", "kitchenware", "toy", "weather"}
)
"""Kinds whose names say too little of what they look like; the encoder does not find their members by them."""


def plural(kind: str) -> str:
    """A kind of thing in the plural."""
    return PLURALS.get(kind, f"{kind}s")


def article(phrase: str) -> str:
    """The phrase with "a" or "an"."""
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"
