"""H.264 numbers its reference pictures (`frame_num`) and the order of presentation (ITU-T H.264, 7.3 and 8.2.1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from refocus_select.video._numbers import Bits, Numbered, one_after_the_other, plain, units


@dataclass(frozen=True)
class _Sequence:
    """What a sequence parameter set says about slice headers."""

    frame_num_bits: int
    order_type: int
    order_bits: int
    frames_only: bool
    colour_planes: bool
    gaps_allowed: bool


def _sequence_of(unit: bytes) -> _Sequence:
    bits = Bits(plain(unit[1:96]))
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


def _skip_scaling(bits: Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + bits.signed()) % 256
        last = following or last


def number_h264(extradata: bytes, heads: Sequence[bytes]) -> Numbered | None:
    """The numbers of pictures from the first bytes of their packets; None for a form that is not known."""
    prefix = 0
    sequence: _Sequence | None = None
    first: Iterator[bytes] = units(extradata, 0)
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
            for unit in units(head, prefix):
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
    return None if sequence is None else Numbered(one_after_the_other(order, period), references, lost or None)


def _slice(unit: bytes, kind: int, sequence: _Sequence) -> tuple[int, int, bool]:
    """Frame number, low part of the order number, and whether it may be a second field."""
    bits = Bits(plain(unit[1:40]))
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
