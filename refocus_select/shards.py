"""`Shard`: the part of the videos that one of several processes works on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import InputError
from .questions import Question


@dataclass(frozen=True)
class Shard:
    """A part of the videos: number `index` of `count`.

    A video with all its questions belongs to one shard, so that it is encoded once.
    """

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if self.count < 1 or not 0 <= self.index < self.count:
            raise InputError(f"shard {self.index}/{self.count}: the index must lie between 0 and {self.count - 1}")

    @classmethod
    def from_text(cls, text: str) -> Shard:
        """From "i/n", i from 0.

        Raises:
            InputError: if it is something else.
        """
        index, slash, count = text.partition("/")
        if not slash or not index.isdigit() or not count.isdigit():
            raise InputError(f"a shard is written i/n with i from 0, such as 0/4, not {text!r}")
        return cls(int(index), int(count))

    @classmethod
    def from_environment(cls) -> Shard:
        """RANK of WORLD_SIZE, as `accelerate launch` and `torchrun` set them; all if they are not set.

        Raises:
            InputError: if they are not numbers.
        """
        rank, world = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
        if not rank.isdigit() or not world.isdigit():
            raise InputError(f"RANK={rank!r} and WORLD_SIZE={world!r} must be numbers; give --shard i/n instead")
        return cls(int(rank), int(world))

    def of(self, questions: Sequence[Question]) -> list[Question]:
        """The questions of this part, in order."""
        videos = {video: place for place, video in enumerate(dict.fromkeys(q.video for q in questions))}
        return [q for q in questions if videos[q.video] % self.count == self.index]

    def file(self, folder: Path, name: str) -> Path:
        """Where this part writes."""
        return folder / f"{name}-{self.index:05d}-of-{self.count:05d}.jsonl"
