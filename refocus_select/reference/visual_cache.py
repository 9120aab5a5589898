"""`VisualCache`: visual tokens of candidate frames, the least recently used ones dropped beyond a number of bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

from .layouts import Features


class VisualCache:
    """Features by key, bounded in bytes.

    Attributes:
        limit: bytes kept at most.
        size: bytes kept.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        self._kept: OrderedDict[Hashable, Features] = OrderedDict()

    def __len__(self) -> int:
        """Number of frames kept."""
        return len(self._kept)

    def get(self, key: Hashable) -> Features | None:
        """The features of a frame, if they are still here."""
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
        return found

    def put(self, key: Hashable, features: Features) -> None:
        """Keep the features of a frame, dropping others if there is no room."""
        before = self._kept.pop(key, None)
        self.size += _bytes(features) - (_bytes(before) if before is not None else 0)
        self._kept[key] = features
        while self.size > self.limit:
            _, dropped = self._kept.popitem(last=False)
            self.size -= _bytes(dropped)

    def clear(self) -> None:
        """Drop everything."""
        self._kept.clear()
        self.size = 0


def _bytes(features: Features) -> int:
    return sum(part.numel() * part.element_size() for part in features)
