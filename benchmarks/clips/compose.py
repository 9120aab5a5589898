"""Videos joined from real clips at random, and natural questions whose spans are known.

    python -m benchmarks.clips.compose > questions.json      # to read them

clips.json says what each clip shows. A video is 8 to 12 scenes, each a run of 4 to 14 frames of one clip; no two clips
of a video show a common thing, so that a question about one means that one alone. Kinds of questions:

- look-up: a sentence that somebody wrote who had seen the clip;
- people: persons in general, or men, women, children where no other persons are to be seen;
- which person: a man, a woman or a child among other persons;
- after, before, between: what comes next to something; the answer is the neighbour, the anchor the thing that is named;
- first, last: the opening and the closing scene;
- first time, last time: of something that comes twice;
- absent: a look-up about a clip that is not there; it has no answer;
- blank: a look-up in a video with scenes of plain black, white or grey.

Validation and test share no clip and no wording, and neither's wordings may be trained on.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FRAMES = 16
"""Frames that are kept of a clip, evenly over it."""
BLANKS = ("black", "white", "grey")

WORDINGS: dict[str, dict[str, tuple[str, ...]]] = {
    "validation": {
        "people": (
            "When are there people?",
            "Where can I see somebody?",
            "Is anybody in the picture?",
            "Show me the frames with a person in them.",
            "When do people come and go?",
        ),
        "person": ("When is there a {x}?", "What is the {x} doing?", "When does the {x} come into view?"),
        "after": (
            "What happens right after {x}?",
            "Once {x} is over, what can we see?",
            "What do they show straight after {x}?",
            "What comes on screen when {x} is gone?",
        ),
        "before": (
            "What happens right before {x}?",
            "What could be seen until {x} came?",
            "What do they show just ahead of {x}?",
            "Which scene leads up to {x}?",
        ),
        "between": ("What happens between {x} and {y}?", "What is there in between, after {x} and before {y}?"),
        "first": ("How does the video start?", "What is at the very beginning?", "What is the opening scene?"),
        "last": ("How does the video end?", "What is the final scene?", "What do we see right at the end?"),
        "first time": ("When does {x} appear for the first time?", "When do we first see {x}?"),
        "last time": ("When is {x} seen for the last time?", "When did {x} last appear?"),
    },
    "test": {
        "people": (
            "At what times do we see people?",
            "Are there any persons, and where?",
            "Find everybody who comes into the picture.",
            "Does anyone turn up?",
            "Which parts have human beings in them?",
        ),
        "person": (
            "Does a {x} appear, and at what point?",
            "How is the {x} dressed?",
            "Which parts have a {x} in them?",
        ),
        "after": (
            "What scene comes straight after {x}?",
            "What is to be seen once {x} has gone?",
            "Tell me what follows {x}.",
            "What is next, after {x}?",
        ),
        "before": (
            "What scene comes straight before {x}?",
            "What was on just before {x}?",
            "What is to be seen shortly before {x} turns up?",
            "Which shot is the one before {x}?",
        ),
        "between": ("What lies between {x} and {y}?", "After {x} and before {y} there is something else. What is it?"),
        "first": ("What does the clip begin with?", "What is in the opening shot?", "Show me the start."),
        "last": ("What does the clip finish with?", "What is in the closing shot?", "Show me the end."),
        "first time": ("At what point is the first time that {x} can be seen?", "Find the first appearance of {x}."),
        "last time": ("At what point is the last time that {x} can be seen?", "Find the last appearance of {x}."),
    },
}
COUNTS = {
    "people": 36,
    "which person": 20,
    "after": 36,
    "before": 36,
    "between": 20,
    "first": 18,
    "last": 18,
    "first time": 14,
    "last time": 14,
    "absent": 30,
    "blank": 24,
}
Clip = dict[str, Any]


class Composer:
    """Makes the questions of one split."""

    def __init__(self, split: str, clips: Sequence[Clip], seed: int) -> None:
        self.split = split
        self.clips = [clip for clip in clips if clip["split"] == split]
        self.rng = random.Random(seed)
        self._turns: dict[str, int] = {}

    def questions(self) -> list[dict[str, Any]]:
        """All of the split."""
        rows = [self._look_up(clip, text) for clip in self.clips for text in clip["ask"]]
        makers = {
            "people": self._people, "which person": self._which_person, "after": self._neighbour,
            "before": self._neighbour, "between": self._between, "first": self._end, "last": self._end,
            "first time": self._occurrence, "last time": self._occurrence, "absent": self._absent, "blank": self._blank,
        }  # fmt: skip
        for kind, count in COUNTS.items():
            rows += [makers[kind](kind) for _ in range(count)]
        return [{"id": f"{self.split}-{number}", "split": self.split} | row for number, row in enumerate(rows)]

    def _look_up(self, clip: Clip, text: str, kind: str = "look-up") -> dict[str, Any]:
        video = self._video([clip])
        return self._row(kind, text, video, [video.index(clip)])

    def _people(self, kind: str) -> dict[str, Any]:
        who = self.rng.choice(("person", "person", "woman", "man"))
        shown = [clip for clip in self.clips if (self._persons(clip) if who == "person" else clip["people"] == [who])]
        first = self._disjoint(shown, self.rng.randint(2, 4))
        video = self._video(first, [clip for clip in self.clips if not clip["people"]])
        answer = [number for number, clip in enumerate(video) if clip["people"]]
        text = self._wording("people") if who == "person" else self._wording("person").format(x=who)
        return self._row(kind, text, video, answer)

    def _which_person(self, kind: str) -> dict[str, Any]:
        who, other = self.rng.sample(("woman", "man"), 2)
        right = self._disjoint([clip for clip in self.clips if clip["people"] == [who]], 2)
        others = [clip for clip in self.clips if clip["people"] == [other]]
        video = self._video(self._disjoint(others, 2, right), [clip for clip in self.clips if not clip["people"]])
        answer = [number for number, clip in enumerate(video) if who in clip["people"]]
        return self._row(kind, self._wording("person").format(x=who), video, answer)

    def _neighbour(self, kind: str) -> dict[str, Any]:
        video = self._video([])
        step = 1 if kind == "after" else -1
        anchor = self.rng.randrange(1, len(video) - 1)
        text = self._wording(kind).format(x=video[anchor]["name"])
        return self._row(kind, text, video, [anchor + step], [anchor])

    def _between(self, kind: str) -> dict[str, Any]:
        video = self._video([])
        middle = self.rng.randrange(1, len(video) - 1)
        text = self._wording(kind).format(x=video[middle - 1]["name"], y=video[middle + 1]["name"])
        return self._row(kind, text, video, [middle], [middle - 1, middle + 1])

    def _end(self, kind: str) -> dict[str, Any]:
        video = self._video([])
        return self._row(kind, self._wording(kind), video, [0 if kind == "first" else len(video) - 1])

    def _occurrence(self, kind: str) -> dict[str, Any]:
        video = self._video([])
        clip = self.rng.choice(video)
        others = [one for one in video if one is not clip]
        places = range(len(others) + 2)
        first, second = self.rng.choice([(i, j) for i in places for j in places if i + 2 <= j])
        others.insert(first, clip)
        others.insert(second, clip)
        at = [number for number, one in enumerate(others) if one is clip]
        return self._row(kind, self._wording(kind).format(x=clip["name"]), others, [at[0 if "first" in kind else 1]])

    def _absent(self, kind: str) -> dict[str, Any]:
        missing = self.rng.choice([clip for clip in self.clips if "unsure" not in clip["people"]])
        alike = [clip for clip in self.clips if set(clip["things"]) & set(missing["things"])]
        video = self._video([], [clip for clip in self.clips if clip not in alike])
        return self._row(kind, self.rng.choice(missing["ask"]), video, [])

    def _blank(self, kind: str) -> dict[str, Any]:
        clip = self.rng.choice(self.clips)
        row = self._look_up(clip, self.rng.choice(clip["ask"]), kind)
        answer = row["scenes"][row["answer"][0]]
        for colour in self.rng.sample(BLANKS, 2):
            row["scenes"].insert(self.rng.randrange(len(row["scenes"]) + 1), [colour, 0, self.rng.randint(3, 8)])
        return row | {"answer": [row["scenes"].index(answer)]}

    def _persons(self, clip: Clip) -> bool:
        return bool(clip["people"]) and clip["people"] != ["unsure"]

    def _disjoint(self, clips: Sequence[Clip], count: int, given: Sequence[Clip] = ()) -> list[Clip]:
        """`given` and `count` more that show nothing in common, as far as there are any."""
        chosen, wanted = list(given), len(given) + count
        for clip in self.rng.sample(list(clips), len(clips)):
            if len(chosen) < wanted and not any(set(clip["things"]) & set(other["things"]) for other in chosen):
                chosen.append(clip)
        return chosen

    def _video(self, first: Sequence[Clip], others: Sequence[Clip] | None = None) -> list[Clip]:
        others = self.clips if others is None else others
        scenes = self._disjoint(others, max(0, self.rng.randint(8, 12) - len(first)), first)
        return self.rng.sample(scenes, len(scenes))

    def _wording(self, kind: str) -> str:
        """One after the other."""
        options = WORDINGS[self.split][kind]
        self._turns[kind] = self._turns.get(kind, -1) + 1
        return options[self._turns[kind] % len(options)]

    def _row(
        self, kind: str, text: str, video: Sequence[Clip], answer: list[int], anchor: Sequence[int] = ()
    ) -> dict[str, Any]:
        scenes, seen = [], set()
        for clip in video:
            again = clip["id"] in seen or sum(one is clip for one in video) > 1
            half = FRAMES // 2 if again else FRAMES  # what comes twice shows two parts of its clip
            length = self.rng.randint(4, 8 if again else 14)
            start = self.rng.randint(0, half - length) + (half if clip["id"] in seen else 0)
            scenes.append([clip["id"], start, length])
            seen.add(clip["id"])
        return {"kind": kind, "question": text, "scenes": scenes, "answer": answer, "anchor": list(anchor)}


def read_clips() -> list[Clip]:
    """The clips of both splits."""
    return list(json.loads((HERE / "clips.json").read_text(encoding="utf-8"))["clips"])


def compose() -> list[dict[str, Any]]:
    """The questions of both splits; always the same (`tests/evaluation/test_real_clips.py` holds their hash)."""
    clips = read_clips()
    return [row for seed, split in enumerate(WORDINGS) for row in Composer(split, clips, seed).questions()]


def main() -> None:
    print("[\n" + ",\n".join(json.dumps(row, separators=(",", ":")) for row in compose()) + "\n]")


if __name__ == "__main__":
    main()
