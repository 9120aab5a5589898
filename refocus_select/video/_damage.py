"""What cannot be trusted in a damaged stream, and what to show instead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
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


def position_of(index: FrameIndex, key: int | None) -> int | None:
    """Place in decoding order of a packet or picture by its key; None if it is not presented."""
    if index.counted:
        return key
    rank = rank_of(index, key)
    return None if rank is None else int(index.positions[rank])


class Settled:
    """Holds each picture back until all that it may refer to have come out.

    B pictures come out before the later picture that they refer to, and only that one is marked when it is damaged.
    """

    def __init__(self, index: FrameIndex) -> None:
        self._ranks = index.ranks if index.counted else None
        self._waiting: deque[tuple[int, VideoFrame]] = deque()
        self._fed = self._latest = -(2**63)  # the latest in presentation of the packets and of the pictures

    def feed(self, key: int | None) -> None:
        """Takes note of a packet that goes into the decoder."""
        order = key if self._ranks is None or key is None else self._ranks.get(key)
        if order is not None and order > self._fed:
            self._fed = order

    def add(self, picture: VideoFrame) -> list[VideoFrame]:
        """Takes the next picture of the decoder; gives those that nothing more can be found out about."""
        key = picture.pts
        order = key if self._ranks is None or key is None else self._ranks.get(key)
        if order is not None and order > self._latest:
            self._latest = order
        self._waiting.append((self._fed, picture))
        settled = []
        while self._waiting and (self._waiting[0][0] <= self._latest or len(self._waiting) > 2 * LATE):
            settled.append(self._waiting.popleft()[1])
        return settled

    def rest(self) -> list[VideoFrame]:
        """The pictures still held back when the decoder has been drained."""
        pictures = [picture for _, picture in self._waiting]
        self._waiting.clear()
        return pictures


class Damage:
    """Which pictures cannot be trusted: from an error to the next keyframe, in decoding order."""

    def __init__(self, index: FrameIndex, lead: Callable[[], int] = lambda: 0) -> None:
        """Nothing is damaged yet.

        Args:
            index: of the file.
            lead: how many keyframes more it takes until pictures are whole again (intra refresh); asked at the
                first error.
        """
        self.index = index
        self.lead = lead
        self.spans: list[tuple[int, float]] = []
        self._missing = [(place, self._end(place)) for place in index.lost]
        self._last = 0  # the last known place of an error

    def _end(self, position: int) -> float:
        """Place of the keyframe at which pictures are whole again."""
        following = int(self.index.key_positions.searchsorted(position, side="right")) + self.lead()
        return float(self.index.key_positions[following]) if following < len(self.index.key_positions) else np.inf

    def note(self, key: int | None) -> None:
        """An error at the packet or picture with this key."""
        position = position_of(self.index, key)
        self.note_at(self._last if position is None else position)

    def note_at(self, position: int) -> None:
        """An error at a place in decoding order."""
        self._last = position
        self.spans.append((position, self._end(position)))

    def touches(self, key: int | None) -> bool:
        """Whether a picture was decoded after an error and before the next keyframe shown no later than it."""
        if not self.spans and not self._missing:
            return False
        rank = rank_of(self.index, key)
        if rank is None:
            return True
        position, pts = int(self.index.positions[rank]), int(self.index.pts[rank])
        for start, end in (*self.spans, *self._missing):
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
    damage = Damage(index)
    settled = Settled(index)
    key: int | None = None
    beyond = 0
    for packet in _then_none(decoder.packets_from(index, anchor, int(index.pts[until]))):
        if packet is not None:
            key = packet.pts
            rank = rank_of(index, key)
            beyond += rank is not None and rank > until
            if beyond > LATE:
                return
        settled.feed(key)
        try:
            pictures = decoder.decode(packet)
        except av.error.FFmpegError:
            damage.note(key)
            continue
        for picture in pictures:
            if picture.is_corrupt:
                damage.note(picture.pts)
            for known in settled.add(picture):
                number = rank_of(index, known.pts)
                if number is not None and not damage.touches(known.pts):
                    yield number, known
    for known in settled.rest():
        number = rank_of(index, known.pts)
        if number is not None and not damage.touches(known.pts):
            yield number, known


def first_good(decoder: Decoder, index: FrameIndex, anchor: int) -> tuple[int, VideoFrame] | None:
    """The first undamaged picture from a keyframe on."""
    shown = int(index.pts.searchsorted(int(index.key_pts[anchor])))
    return next(good_pictures(decoder, index, anchor, min(shown, len(index.pts) - 1)), None)


def decodes_alone(path: str, name: str, index: FrameIndex) -> list[bool]:
    """Whether decoding can begin at keyframes (three are tried): at none of them with intra refresh."""
    last = len(index.key_pts) - 1
    numbers = sorted({*np.linspace(1, last, 3).astype(int).tolist()}) if last > 0 else []
    decoder = Decoder(path, name, 1)
    try:
        firsts = [(number, first_good(decoder, index, number)) for number in numbers]
    finally:
        decoder.close()
    return [
        first is not None and first[0] <= int(index.pts.searchsorted(int(index.key_pts[number])))
        for number, first in firsts
    ]


def _then_none(packets: Iterator[Packet]) -> Iterator[Packet | None]:
    yield from packets
    yield None
