"""What the numbers of pictures are read with, in every codec."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Numbered:
    """P packets. `order` grows in the order of presentation; -1 where it cannot be read.

    `references` says which pictures others may refer to, `lost` before which packets reference pictures are missing:
    None if these numbers do not tell.
    """

    order: NDArray[np.int64]
    references: NDArray[np.bool_]
    lost: list[int] | None


def one_after_the_other(order: NDArray[np.int64], period: NDArray[np.int64]) -> NDArray[np.int64]:
    """Order numbers that go on where they begin anew, by their usual step."""
    parts = [np.flatnonzero(period == number) for number in np.unique(period[period >= 0])]
    steps = np.concatenate([np.diff(np.sort(order[part])) for part in parts]) if parts else np.zeros(0)
    usual = max(1, int(np.median(steps))) if len(steps) else 1
    joined = np.full(len(order), -1, dtype=np.int64)
    following = 0
    for part in parts:
        joined[part] = order[part] - order[part].min() + following
        following = int(joined[part].max()) + usual
    return joined


class Bits:
    """Reads bits and Exp-Golomb numbers."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "big")
        self._left = 8 * len(data)

    def take(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise ValueError("too short")
        return self._value >> self._left & ((1 << count) - 1)

    def golomb(self) -> int:
        zeros = 0
        while not self.take(1):
            zeros += 1
            if zeros > 31:
                raise ValueError("not a number")
        return (1 << zeros) - 1 + self.take(zeros)

    def golombs(self, count: int) -> None:
        """Passes over Exp-Golomb numbers."""
        for _ in range(count):
            self.golomb()

    def signed(self) -> int:
        number = self.golomb()
        return (number + 1) // 2 if number % 2 else -(number // 2)


def units(data: bytes, prefix: int) -> Iterator[bytes]:
    """NAL units, with lengths of `prefix` bytes before them, or start codes if `prefix` is 0."""
    if prefix:
        place = 0
        while place + prefix < len(data):
            size = int.from_bytes(data[place : place + prefix], "big")
            yield data[place + prefix : place + prefix + size]
            place += prefix + size
        return
    pieces = data.split(b"\0\0\1")
    yield from (piece for piece in pieces[1:] if piece)


def plain(unit: bytes) -> bytes:
    return unit.replace(b"\0\0\3", b"\0\0")
