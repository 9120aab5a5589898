"""HEVC numbers the order of presentation and says which pictures each one needs (ITU-T H.265, 7.3 and 8.3)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from refocus_select.video._numbers import Bits, Numbered, one_after_the_other, plain, units

_SEQUENCE, _PICTURE = 33, 34  # kinds of parameter sets
_RASL, _LEADING, _BREAKS, _ALONE = {8, 9}, {6, 7, 8, 9}, range(16, 21), range(16, 24)
_IDR = {19, 20}
_MESSAGES = {39, 40}
_SLICES = (*range(10), *range(16, 22))

_Set = list[tuple[int, bool]]
"""Pictures that one refers to: difference of their numbers, and whether it is needed now; before it, then behind it."""


@dataclass(frozen=True)
class _Sequence:
    order_bits: int
    colour_planes: bool
    sets: list[_Set]


@dataclass(frozen=True)
class _Picture:
    sequence: int
    output_flag: bool
    extra_bits: int


class _Parameters:
    """Parameter sets by number."""

    def __init__(self) -> None:
        self.sequences: dict[int, _Sequence] = {}
        self.pictures: dict[int, _Picture] = {}

    def read(self, unit: bytes) -> None:
        """Takes note of a parameter set; other units are left alone."""
        kind = unit[0] >> 1 & 63
        if kind == _SEQUENCE:
            number, sequence = _sequence_of(Bits(plain(unit[2:])))
            self.sequences[number] = sequence
        elif kind == _PICTURE:
            bits = Bits(plain(unit[2:]))
            number, sequence_number = bits.golomb(), bits.golomb()
            bits.take(1)
            self.pictures[number] = _Picture(sequence_number, bool(bits.take(1)), bits.take(3))


def number_hevc(extradata: bytes, heads: Sequence[bytes]) -> Numbered | None:
    """The numbers of pictures from the first bytes of their packets; None for a form that is not known."""
    parameters = _Parameters()
    prefix, first = _configuration(extradata)
    order = np.full(len(heads), -1, dtype=np.int64)
    period = np.full(len(heads), -1, dtype=np.int64)  # order numbers begin anew with each
    references = np.zeros(len(heads), dtype=bool)
    lost: list[int] = []
    there: set[int] = set()  # numbers of the pictures of this period
    periods = before = 0  # before: the number of the last picture of the lowest layer
    begins = 0  # place of the last picture that decodes alone
    skips_leading = True
    try:
        for unit in first:
            parameters.read(unit)
        for position, head in enumerate(heads):
            for unit in units(head, prefix):
                if len(unit) < 3:
                    continue
                kind = unit[0] >> 1 & 63
                parameters.read(unit)
                if kind not in _SLICES or unit[0] & 1 or unit[1] >> 3:
                    continue
                found = _slice(unit, kind, parameters)
                if found is None:
                    break
                low, size, needed = found
                starts = kind in _BREAKS or not periods
                if starts:
                    periods += 1
                    there.clear()
                if kind in _ALONE:
                    begins, skips_leading = position, starts
                number = low if starts else _nearest(low, before, size)
                missing = any(number + delta not in there for delta, is_needed in needed if is_needed)
                if missing and kind not in _RASL:
                    lost.append(position)
                elif missing and not skips_leading:
                    lost.append(max(begins - 1, 0))  # leading pictures alone refer to what lies before
                there.add(number)
                order[position], period[position] = number, periods
                disposable = kind < 16 and kind % 2 == 0
                references[position] = not disposable
                if unit[1] & 7 == 1 and not disposable and kind not in _LEADING:
                    before = number
                break
    except (ValueError, IndexError, KeyError):
        return None
    if not parameters.sequences:
        return None
    return Numbered(one_after_the_other(order, period), references, sorted(set(lost)))


def without_messages(extradata: bytes, packet: bytes) -> bytes:
    """A packet without its supplemental messages (SEI)."""
    prefix, _ = _configuration(extradata)
    kept = [unit for unit in units(packet, prefix) if len(unit) < 2 or unit[0] >> 1 & 63 not in _MESSAGES]
    return b"".join((len(unit).to_bytes(prefix, "big") if prefix else b"\0\0\1") + unit for unit in kept)


def _configuration(extradata: bytes) -> tuple[int, Iterator[bytes]]:
    """Bytes of the lengths before NAL units (0: start codes), and the parameter sets."""
    if extradata[:1] != b"\x01" or len(extradata) < 23:
        return 0, units(extradata, 0)
    return (extradata[21] & 3) + 1, _arrays(extradata)


def _arrays(extradata: bytes) -> Iterator[bytes]:
    place = 23
    for _ in range(extradata[22]):
        count = int.from_bytes(extradata[place + 1 : place + 3], "big")
        place += 3
        for _ in range(count):
            size = int.from_bytes(extradata[place : place + 2], "big")
            if size > 2:
                yield extradata[place + 2 : place + 2 + size]
            place += 2 + size


def _nearest(low: int, before: int, size: int) -> int:
    """The number with these low bits that is nearest to the one before."""
    number = before - before % size + low
    if number - before >= size // 2:
        return number - size
    return number + size if before - number > size // 2 else number


def _slice(unit: bytes, kind: int, parameters: _Parameters) -> tuple[int, int, _Set] | None:
    """Low part of a picture's number, how far that counts, and what it refers to; None if its beginning is missing."""
    bits = Bits(plain(unit[2:128]))
    if not bits.take(1):
        return None
    if kind in _ALONE:
        bits.take(1)
    picture = parameters.pictures[bits.golomb()]
    sequence = parameters.sequences[picture.sequence]
    bits.take(picture.extra_bits)
    bits.golomb()
    bits.take(picture.output_flag)
    bits.take(2 * sequence.colour_planes)
    size = 1 << sequence.order_bits
    if kind in _IDR:
        return 0, size, []
    low = bits.take(sequence.order_bits)
    if kind in _ALONE:
        return low, size, []
    count = len(sequence.sets)
    if not bits.take(1):
        return low, size, _reference_set(bits, count, sequence.sets)
    return low, size, sequence.sets[bits.take((count - 1).bit_length()) if count > 1 else 0]


def _sequence_of(bits: Bits) -> tuple[int, _Sequence]:
    bits.take(4)
    layers = bits.take(3)
    bits.take(1)
    bits.take(96)  # profile, tier and level
    present = [(bits.take(1), bits.take(1)) for _ in range(layers)]
    bits.take(2 * (8 - layers) if layers else 0)
    for profile, level in present:
        bits.take(88 * profile + 8 * level)
    number = bits.golomb()
    chroma = bits.golomb()
    colour_planes = chroma == 3 and bool(bits.take(1))
    bits.golomb()
    bits.golomb()
    if bits.take(1):
        bits.golombs(4)
    bits.golombs(2)
    order_bits = bits.golomb() + 4
    bits.golombs(3 * (layers + 1 if bits.take(1) else 1))
    bits.golombs(6)
    if bits.take(1) and bits.take(1):
        _skip_scaling(bits)
    bits.take(2)
    if bits.take(1):
        bits.take(8)
        bits.golombs(2)
        bits.take(1)
    sets: list[_Set] = []
    for _ in range(bits.golomb()):
        sets.append(_reference_set(bits, len(sets), sets, in_slice=False))
    return number, _Sequence(order_bits, colour_planes, sets)


def _skip_scaling(bits: Bits) -> None:
    for size in range(4):
        for _ in range(2 if size == 3 else 6):
            if not bits.take(1):
                bits.golomb()
                continue
            if size > 1:
                bits.golomb()
            bits.golombs(min(64, 1 << (4 + 2 * size)))


def _reference_set(bits: Bits, number: int, sets: Sequence[_Set], *, in_slice: bool = True) -> _Set:
    """One set: written out, or as the difference to one before."""
    if number and bits.take(1):
        back = bits.golomb() + 1 if in_slice else 1
        negative = bits.take(1)
        shift = (1 - 2 * negative) * (bits.golomb() + 1)
        derived = []
        for delta, _ in [*sets[number - back], (0, True)]:
            is_needed = bool(bits.take(1))
            if is_needed or bits.take(1):
                derived.append((delta + shift, is_needed))
        return sorted((d for d in derived if d[0] < 0), reverse=True) + sorted(d for d in derived if d[0] > 0)
    found: _Set = []
    counts = bits.golomb(), bits.golomb()
    for sign, count in zip((-1, 1), counts, strict=True):
        delta = 0
        for _ in range(count):
            delta += sign * (bits.golomb() + 1)
            found.append((delta, bool(bits.take(1))))
    return found
