"""Gaps in the numbers that codecs give their pictures: where packets are missing although nothing else says so."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from refocus_select.video._numbers import Numbered
from refocus_select.video._order_h264 import number_h264
from refocus_select.video._order_hevc import number_hevc
from refocus_select.video._order_mpeg import number_mpeg4, number_mpeg12

HEAD = 4096  # bytes of a packet in which its first slice is looked for
_READERS: dict[str, Callable[[bytes, Sequence[bytes]], Numbered | None]] = {
    "h264": number_h264,
    "hevc": number_hevc,
    "mpeg1video": number_mpeg12,
    "mpeg2video": number_mpeg12,
    "mpeg4": number_mpeg4,
}
CODECS = frozenset(_READERS)


def numbered(codec: str, extradata: bytes | None, heads: Sequence[bytes]) -> Numbered | None:
    """Reads the numbers of pictures from the first bytes of their packets; None for a codec or form not known."""
    return _READERS[codec](extradata or b"", heads) if codec in _READERS else None


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
