"""What cannot be trusted in a damaged stream, and what to show instead."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import av
import numpy as np

from refocus_select.video._decoder import STEPS_BACK, Decoder
from refocus_select.video.index import FrameIndex
from refocus_select.video.plan import find_anchors

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.frame import VideoFrame

LATE = 16  # pictures that may come out before one with an earlier time: what a decoder holds at most


def rank_of(index: FrameIndex, key: int | None) -> int | None:
    """Frame number of a packet or picture by its key; None for one that is not presented."""
    if key is None:
        return None
    if index.counted:
        return index.ranks.get(key)
    place = int(index.pts.searchsorted(key))
    return place if place < len(index.pts) and index.pts[place] == key else None


class Damage:
    """Which pictures cannot be trusted: from an error to the next keyframe, in decoding order."""

    def __init__(self, index: FrameIndex, delay: int) -> None:
        """`delay`: an error may come out so many packets after the one that it belongs to (frame threads)."""
        self.index = index
        # A guessed index knows places in decoding order only up to the reordering of pictures.
        self.slack = delay + (LATE if index.guessed else 0)
        self.spans: list[tuple[int, float]] = []
        self._last = 0  # the last known place of an error

    def note(self, key: int | None) -> None:
        """An error at the packet or picture with this key."""
        rank = rank_of(self.index, key)
        position = int(self.index.positions[rank]) if rank is not None else self._last
        self._last = position
        following = int(self.index.key_positions.searchsorted(position, side="right"))
        end = float(self.index.key_positions[following]) if following < len(self.index.key_positions) else np.inf
        self.spans.append((max(0, position - self.slack), end))

    def touches(self, key: int | None) -> bool:
        """Whether a picture was decoded after an error and before the next keyframe shown no later than it."""
        if not self.spans:
            return False
        rank = rank_of(self.index, key)
        if rank is None:
            return True
        position, pts = int(self.index.positions[rank]), int(self.index.pts[rank])
        for start, end in self.spans:
            if start <= position < end:
                return True
            if position >= end:  # a leading picture refers to what lies before its keyframe
                number = int(self.index.key_positions.searchsorted(int(end)))
                if pts < self.index.key_pts[number]:
                    return True
        return False


@dataclass(frozen=True)
class Rescued:
    """`picture` shows frame `rank`; there is nothing better for the frames `first` to `last`."""

    first: int
    last: int
    rank: int
    picture: VideoFrame


class Rescuer:
    """Finds stand-ins for frames before which nothing good was decoded in their own GOP."""

    def __init__(self, path: str, name: str, index: FrameIndex) -> None:
        self.path, self.name, self.index = path, name, index
        self.known: tuple[Rescued, ...] = ()  # replaced as a whole, so that threads may read it

    def find(self, rank: int) -> Rescued | None:
        """The nearest earlier good picture, else the nearest later one; None if there is neither.

        Keyframes are tried at growing distances, so the search is short even where most of the file is lost.
        """
        for rescued in self.known:
            if rescued.first <= rank <= rescued.last:
                return rescued
        index = self.index
        at = slice(rank, rank + 1)
        anchor = int(find_anchors(index.positions[at], index.pts[at], index.key_positions, index.key_pts)[0])
        decoder = Decoder(self.path, self.name, 1)
        try:
            found = self._before(decoder, anchor, rank) or self._after(decoder, anchor)
        finally:
            decoder.close()
        if found is None:
            return None
        rescued = Rescued(min(found[0] + 1, rank), rank, *found)
        self.known = (*self.known[-3:], rescued)
        return rescued

    def _before(self, decoder: Decoder, anchor: int, rank: int) -> tuple[int, VideoFrame] | None:
        for back in (0, *STEPS_BACK, anchor):
            if back > anchor:
                continue
            best: tuple[int, VideoFrame] | None = None
            for number, picture in good_pictures(decoder, self.index, anchor - back, rank):
                if number < rank and (best is None or number > best[0]):
                    best = (number, picture)
            if best is not None:
                return best
        return None

    def _after(self, decoder: Decoder, anchor: int) -> tuple[int, VideoFrame] | None:
        for ahead in STEPS_BACK:
            if anchor + ahead < len(self.index.key_pts):
                found = first_good(decoder, self.index, anchor + ahead)
                if found is not None:
                    return found
        return None


def good_pictures(decoder: Decoder, index: FrameIndex, anchor: int, until: int) -> Iterator[tuple[int, VideoFrame]]:
    """Undamaged pictures with their frame numbers, decoded from a keyframe until just after frame `until`."""
    decoder.skip_unreferenced(False)
    damage = Damage(index, 0)
    key: int | None = None
    beyond = 0
    for packet in _then_none(decoder.packets_from(index, anchor, int(index.pts[until]))):
        if packet is not None:
            key = packet.pts
            rank = rank_of(index, key)
            beyond += rank is not None and rank > until
            if beyond > LATE:
                return
        try:
            pictures = decoder.decode(packet)
        except av.error.FFmpegError:
            damage.note(key)
            continue
        for picture in pictures:
            if picture.is_corrupt:
                damage.note(picture.pts)
            number = rank_of(index, picture.pts)
            if number is not None and not damage.touches(picture.pts):
                yield number, picture


def first_good(decoder: Decoder, index: FrameIndex, anchor: int) -> tuple[int, VideoFrame] | None:
    """The first undamaged picture from a keyframe on."""
    shown = int(index.pts.searchsorted(int(index.key_pts[anchor])))
    return next(good_pictures(decoder, index, anchor, min(shown, len(index.pts) - 1)), None)


def decodes_alone(path: str, name: str, index: FrameIndex) -> bool:
    """Whether decoding can begin at keyframes (three are tried): not so with intra refresh."""
    last = len(index.key_pts) - 1
    numbers = sorted({*np.linspace(1, last, 3).astype(int).tolist()}) if last > 0 else []
    decoder = Decoder(path, name, 1)
    try:
        for number in numbers:
            first = first_good(decoder, index, number)
            if first is None or first[0] > int(index.pts.searchsorted(int(index.key_pts[number]))):
                return False
    finally:
        decoder.close()
    return True


def _then_none(packets: Iterator[Packet]) -> Iterator[Packet | None]:
    yield from packets
    yield None
