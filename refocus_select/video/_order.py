"""Gaps in the numbers that codecs give their pictures: where packets are missing although nothing else says so.

H.264 numbers its reference pictures (`frame_num`) and the order of presentation (`pic_order_cnt_lsb`; ITU-T H.264, 7.3
and 8.2.1); MPEG-4 Part 2 writes the time of every picture (ISO/IEC 14496-2, 6.2.5).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

HEAD = 4096  # bytes of a packet in which its first slice is looked for
CODECS = {"h264", "mpeg4"}


@dataclass(frozen=True)
class Numbered:
    """P packets. `order` grows in the order of presentation; -1 where it cannot be read.

    `references` says which pictures others may refer to, `lost` before which packets reference pictures are missing.
    """

    order: NDArray[np.int64]
    references: NDArray[np.bool_]
    lost: list[int]


def numbered(codec: str, extradata: bytes | None, heads: Sequence[bytes]) -> Numbered | None:
    """Reads the numbers of pictures from the first bytes of their packets; None for a codec or form not known."""
    if codec == "h264":
        return _h264(extradata or b"", heads)
    if codec == "mpeg4":
        return _mpeg4(extradata or b"", heads)
    return None


def slots(order: NDArray[np.int64], shown: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """Places in a regular sequence of pictures, with room for those that are missing.

    Args:
        order: `[P]` as in `Numbered`.
        shown: `[N]`, packets of the pictures in order of presentation.

    Returns:
        int64 `[N]`, 0, 1, 2, ... with jumps where pictures are missing; None if the numbers are not a regular sequence.
    """
    numbers = order[shown]
    if len(numbers) < 3 or (numbers < 0).any():
        return None
    steps = np.diff(numbers)
    usual = int(np.median(steps))
    if usual <= 0 or (steps <= 0).any() or (steps == usual).mean() < 0.8:
        return None
    return np.concatenate([[0], np.cumsum(np.maximum(np.rint(steps / usual), 1))]).astype(np.int64)


class _Bits:
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

    def signed(self) -> int:
        number = self.golomb()
        return (number + 1) // 2 if number % 2 else -(number // 2)


# -- H.264 -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Sequence:
    """What a sequence parameter set says about slice headers."""

    frame_num_bits: int
    order_type: int
    order_bits: int
    frames_only: bool
    colour_planes: bool
    gaps_allowed: bool


def _units(data: bytes, prefix: int) -> Iterator[bytes]:
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


def _plain(unit: bytes) -> bytes:
    return unit.replace(b"\0\0\3", b"\0\0")


def _sequence_of(unit: bytes) -> _Sequence:
    bits = _Bits(_plain(unit[1:96]))
    profile = bits.take(8)
    bits.take(16)
    bits.golomb()
    colour_planes = False
    if profile in (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135):
        chroma = bits.golomb()
        if chroma == 3:
            colour_planes = bool(bits.take(1))
        bits.golomb()
        bits.golomb()
        bits.take(1)
        if bits.take(1):
            for number in range(8 if chroma != 3 else 12):
                if bits.take(1):
                    _skip_scaling(bits, 16 if number < 6 else 64)
    frame_num_bits = bits.golomb() + 4
    order_type = bits.golomb()
    order_bits = 0
    if order_type == 0:
        order_bits = bits.golomb() + 4
    elif order_type == 1:
        bits.take(1)
        bits.signed()
        bits.signed()
        for _ in range(bits.golomb()):
            bits.signed()
    bits.golomb()
    gaps_allowed = bool(bits.take(1))
    bits.golomb()
    bits.golomb()
    return _Sequence(frame_num_bits, order_type, order_bits, bool(bits.take(1)), colour_planes, gaps_allowed)


def _skip_scaling(bits: _Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + bits.signed()) % 256
        last = following or last


def _h264(extradata: bytes, heads: Sequence[bytes]) -> Numbered | None:
    prefix = 0
    sequence: _Sequence | None = None
    first: Iterator[bytes] = _units(extradata, 0)
    if extradata[:1] == b"\x01" and len(extradata) > 8:
        prefix = (extradata[4] & 3) + 1
        size = int.from_bytes(extradata[6:8], "big")
        first = iter([extradata[8 : 8 + size]])
    order = np.full(len(heads), -1, dtype=np.int64)
    references = np.zeros(len(heads), dtype=bool)
    lost: list[int] = []
    expected: int | None = None  # the number of the last reference picture
    period = np.full(len(heads), -1, dtype=np.int64)  # order numbers begin anew with each
    periods = count = 0
    high = low = 0  # the last order number in parts
    try:
        for unit in first:
            if unit[:1] and unit[0] & 31 == 7:
                sequence = _sequence_of(unit)
        for position, head in enumerate(heads):
            for unit in _units(head, prefix):
                kind = unit[0] & 31 if unit else 0
                if kind == 7:
                    sequence = _sequence_of(unit)
                if kind not in (1, 5) or sequence is None:
                    continue
                number, lsb, second = _slice(unit, kind, sequence)
                modulus = 1 << sequence.frame_num_bits
                references[position] = is_reference = bool(unit[0] & 0x60)
                is_next = expected is None or number in (expected, (expected + 1) % modulus)
                if kind == 5:
                    periods += 1
                    high = low = 0
                elif not is_next and not second and not sequence.gaps_allowed:
                    lost.append(position)
                if sequence.order_type == 0:
                    size = 1 << sequence.order_bits
                    turn = size if lsb < low - size // 2 else -size if lsb > low + size // 2 else 0
                    order[position], period[position] = high + turn + lsb, periods
                    if is_reference:
                        high, low = high + turn, lsb
                elif sequence.order_type == 2:  # shown in the order of the file
                    ahead = (number - expected) % modulus if kind == 1 and expected is not None else 0
                    count = 0 if kind == 5 else count + max(ahead, 1)
                    order[position], period[position] = count, periods
                if is_reference:
                    expected = number
                break
    except (ValueError, IndexError):
        return None
    return None if sequence is None else Numbered(_one_after_the_other(order, period), references, lost)


def _one_after_the_other(order: NDArray[np.int64], period: NDArray[np.int64]) -> NDArray[np.int64]:
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


def _slice(unit: bytes, kind: int, sequence: _Sequence) -> tuple[int, int, bool]:
    """Frame number, low part of the order number, and whether it may be a second field."""
    bits = _Bits(_plain(unit[1:40]))
    bits.golomb()
    bits.golomb()
    bits.golomb()
    if sequence.colour_planes:
        bits.take(2)
    number = bits.take(sequence.frame_num_bits)
    is_field = not sequence.frames_only and bool(bits.take(1))
    if is_field:
        bits.take(1)
    if kind == 5:
        bits.golomb()
    lsb = bits.take(sequence.order_bits) if sequence.order_type == 0 else 0
    return number, lsb, is_field


# -- MPEG-4 Part 2 ---------------------------------------------------------------------------------------------------


def _mpeg4(extradata: bytes, heads: Sequence[bytes]) -> Numbered | None:
    resolution = 0
    order = np.full(len(heads), -1, dtype=np.int64)
    references = np.zeros(len(heads), dtype=bool)
    seconds = last_seconds = last = before = 0  # of the last two pictures that others refer to
    try:
        for position, head in enumerate([extradata, *heads], -1):
            for unit in head.split(b"\0\0\1")[1:]:
                if unit[:1] and 0x20 <= unit[0] <= 0x2F:
                    resolution = _resolution(unit) or resolution
                if unit[:1] != b"\xb6" or not resolution or position < 0:
                    continue
                bits = _Bits(unit[1:24])
                kind = bits.take(2)
                ahead = 0
                while bits.take(1):
                    ahead += 1
                bits.take(1)
                part = bits.take(max(1, (resolution - 1).bit_length()))
                if kind == 2:
                    time = (last_seconds + ahead) * resolution + part
                    order[position] = time + resolution * (time <= before)
                else:
                    references[position] = True
                    last_seconds = seconds
                    # A second's count is lost with the picture that began it.
                    seconds += ahead + (position > 0 and (seconds + ahead) * resolution + part <= last)
                    before, last = last, seconds * resolution + part
                    order[position] = last
                break
    except (ValueError, IndexError):
        return None
    return Numbered(order, references, []) if resolution else None


def _resolution(unit: bytes) -> int:
    """Ticks per second from a video object layer."""
    bits = _Bits(unit[1:64])
    bits.take(9)
    if bits.take(1):
        bits.take(7)
    if bits.take(4) == 15:
        bits.take(16)
    if bits.take(1):
        bits.take(3)
        if bits.take(1):
            bits.take(79)
    bits.take(3)
    return bits.take(16)
