"""The numbers of pictures in MPEG-1 and 2 (ISO/IEC 13818-2, 6.3.8 and 6.3.9) and MPEG-4 (ISO/IEC 14496-2, 6.2.5)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from refocus_select.video._numbers import Bits, Numbered

_PICTURE, _SEQUENCE, _GROUP = 0x00, 0xB3, 0xB8  # start codes
_RATES = (0.0, 23.976, 24, 25, 29.97, 30, 50, 59.94, 60)
_MODULUS = 1024  # pictures are counted up to it
_B = 3


# -- MPEG-1 and MPEG-2 -----------------------------------------------------------------------------------------------


def number_mpeg12(extradata: bytes, heads: Sequence[bytes]) -> Numbered | None:
    """The numbers of pictures from the first bytes of their packets: their order within a group, and its time code."""
    rate = 0.0
    order = np.full(len(heads), -1, dtype=np.int64)
    kinds = np.zeros(len(heads), dtype=np.int64)
    group = np.zeros(len(heads), dtype=np.int64)
    codes: list[int | None] = [None]  # of each group: its time in pictures
    before = 0
    try:
        for position, head in enumerate([extradata, *heads], -1):
            for unit in head.split(b"\0\0\1")[1:]:
                code = unit[0] if unit else -1
                if code == _SEQUENCE:
                    rate = _RATES[unit[4] & 15] if len(unit) > 4 and unit[4] & 15 < len(_RATES) else 0.0
                elif code == _GROUP and position >= 0:
                    codes.append(_time_code(unit, rate))
                    before = 0
                elif code == _PICTURE and position >= 0:
                    bits = Bits(unit[1:4])
                    low = bits.take(10)
                    kinds[position], group[position] = bits.take(3), len(codes) - 1
                    order[position] = low + _MODULUS * round((before - low) / _MODULUS)
                    if kinds[position] != _B:
                        before = int(order[position])
                    break
    except (ValueError, IndexError):
        return None
    if not (kinds > 0).any():
        return None
    lost = _lost_references(order, kinds, group)
    return Numbered(_groups_in_a_row(order, group, codes), (kinds > 0) & (kinds != _B), lost)


def _time_code(unit: bytes, rate: float) -> int | None:
    if not rate:
        return None
    bits = Bits(unit[1:5])
    bits.take(1)
    hours, minutes = bits.take(5), bits.take(6)
    bits.take(1)
    return ((hours * 60 + minutes) * 60 + bits.take(6)) * round(rate) + bits.take(6)


def _groups_in_a_row(
    order: NDArray[np.int64], group: NDArray[np.int64], codes: Sequence[int | None]
) -> NDArray[np.int64]:
    """Numbers that go on from group to group: by the time codes where these are kept, else one after the other."""
    joined = order.copy()
    numbers = np.unique(group[order >= 0])
    lengths = [int(order[group == number].max()) + 1 for number in numbers]
    steps = [_difference(codes[a], codes[b]) for a, b in itertools.pairwise(numbers.tolist())]
    kept = sum(step == length for step, length in zip(steps, lengths, strict=False))
    begin = 0
    for place, number in enumerate(numbers):
        joined[(group == number) & (order >= 0)] += begin
        step = steps[place] if place < len(steps) else None
        is_told = step is not None and kept > 0.7 * len(steps) and lengths[place] <= step < _MODULUS
        begin += step if is_told and step is not None else lengths[place]
    return joined


def _difference(first: int | None, second: int | None) -> int | None:
    return None if first is None or second is None else second - first


def _lost_references(order: NDArray[np.int64], kinds: NDArray[np.int64], group: NDArray[np.int64]) -> list[int]:
    """Pictures whose references are missing: a B picture behind the last one, or references too far apart."""
    places = np.flatnonzero((kinds > 0) & (kinds != _B))
    steps = np.diff(order[places])
    same = np.diff(group[places]) == 0
    usual = int(np.median(steps[same])) if same.any() else 0
    lost = []
    last = -1
    for position in np.flatnonzero(kinds > 0).tolist():
        if kinds[position] == _B:
            if last >= 0 and group[last] == group[position] and order[position] > order[last]:
                lost.append(position)
            continue
        if last >= 0 and group[last] == group[position] and order[position] - order[last] > usual > 0:
            between = (group == group[position]) & (order > order[last]) & (order < order[position])
            if between.sum() < order[position] - order[last] - 1:
                lost.append(position)
        last = position
    return lost


# -- MPEG-4 Part 2 ---------------------------------------------------------------------------------------------------


def number_mpeg4(extradata: bytes, heads: Sequence[bytes]) -> Numbered | None:
    """The numbers of pictures from the first bytes of their packets: the times that they carry."""
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
                bits = Bits(unit[1:24])
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
    return Numbered(order, references, None) if resolution else None


def _resolution(unit: bytes) -> int:
    """Ticks per second from a video object layer."""
    bits = Bits(unit[1:64])
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
