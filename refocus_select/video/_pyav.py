"""The default backend: exact frames through PyAV, decoding only what the plan needs."""

from __future__ import annotations

import ctypes
import hashlib
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import av
import numpy as np
from av.video.reformatter import Interpolation
from numpy.typing import NDArray

from refocus_select.video._damage import LATE, Damage, Rescuer, Settled, decodes_alone, position_of, rank_of
from refocus_select.video._decoder import STEPS_BACK, Decoder, first_look
from refocus_select.video._geometry import square_size
from refocus_select.video.base import SpanReader, Video, VideoMetadata
from refocus_select.video.container import PYAV
from refocus_select.video.engine import Put, Span
from refocus_select.video.images import resized
from refocus_select.video.index import frame_index
from refocus_select.video.plan import Group, Plan, find_anchors, group_targets, share, snap_to_keyframes

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.frame import VideoFrame

# PyAV 17 and later start threads for each picture unless told otherwise; earlier ones never do.
_ONE_THREAD: dict[str, int] = {"threads": 1} if PYAV >= 17 else {}
_OVERRUN = 64  # packets read beyond the last wanted time before a missing packet is given up
_DECODER_BYTES = 320 * 2**20  # for the reference pictures of all decoders together


class PyAVVideo(Video):
    """A video file read with PyAV. Made by `open_video`."""

    backend = "pyav"
    _not_pickled = (*Video._not_pickled, "_idle", "_idle_lock")

    def __init__(self, path: str, name: str, fingerprint: str) -> None:
        decoder = Decoder(path, name, threads=1)
        try:
            look = first_look(decoder)
            index = frame_index(path, name, decoder.container, decoder.stream)
            if index.counted:
                decoder.reopen()  # packets are counted from the first one
        except BaseException:
            decoder.close()
            raise
        self.path: str = path
        self.has_subtitles = bool(decoder.container.streams.subtitles)
        self.index = index
        self.name = name
        self.orientation = look.orientation
        self.interlaced = look.interlaced
        self._idle: list[Decoder] = [decoder]
        self._idle_lock = threading.Lock()
        self.lead = 0  # keyframes to step back before each anchor, learnt where keyframes need a run-up
        self._run_up: int | None = None
        self.rescuer = Rescuer(path, name, index)
        key_times = index.times[index.keyframes]
        self.crop = look.crop
        self.stored_size = (look.height, look.width) if look.crop is None else look.crop[:1:-1]
        shown = self._shown(square_size(*self.stored_size[::-1], look.pixel_aspect_ratio))
        metadata = VideoMetadata(
            source=name,
            num_frames=len(index.pts),
            duration=index.duration,
            start_time=index.start_time,
            average_fps=index.average_fps,
            is_vfr=index.is_vfr,
            width=shown[0],
            height=shown[1],
            rotation=look.orientation.rotation,
            mirrored=look.orientation.mirrored,
            pixel_aspect_ratio=look.pixel_aspect_ratio,
            codec=decoder.context.codec.canonical_name,
            container=decoder.container.format.name,
            keyframe_interval=float(np.median(np.diff(key_times))) if len(key_times) > 1 else None,
            backend=self.backend,
        )
        super().__init__(metadata, index.times, fingerprint, [*index.notes, *look.notes])

    def _shown(self, size: tuple[int, int]) -> tuple[int, int]:
        return size[::-1] if self.orientation.swaps_sides else size

    def keep_stored_pixels(self) -> None:
        if self.metadata.pixel_aspect_ratio != 1:
            width, height = self._shown(self.stored_size[::-1])
            self.metadata = replace(self.metadata, width=width, height=height)
            self.fingerprint = hashlib.sha256(f"{self.fingerprint}\0stored pixels".encode()).hexdigest()[:32]

    def _start_afresh(self) -> None:
        super()._start_afresh()
        _abandon(getattr(self, "_idle", []))
        self._idle = []
        self._idle_lock = threading.Lock()

    def run_up(self) -> int:
        """Keyframes beyond the next one until pictures are whole again after damage: some with intra refresh."""
        if self._run_up is None:
            alone = decodes_alone(self.path, self.name, self.index) if self.metadata.codec == "h264" else []
            self._run_up = int(bool(alone) and not any(alone))
        return self._run_up

    def close(self) -> None:
        self._closed = True
        with self._idle_lock:
            idle, self._idle = self._idle, []
        for decoder in idle:
            decoder.close()
        super().close()

    def _plan(self, targets: NDArray[np.int64], workers: int) -> Plan:
        if len(targets) == 0:
            return Plan([])
        index = self.index
        positions = index.positions[targets]
        anchors = find_anchors(positions, index.pts[targets], index.key_positions, index.key_pts)
        return share(group_targets(anchors, positions, index.key_positions), workers)

    def _snap(self, targets: NDArray[np.int64]) -> NDArray[np.int64]:
        return snap_to_keyframes(targets, self.timestamps, self.index.keyframes)

    def _max_workers(self) -> int:
        picture = self.metadata.width * self.metadata.height * 1.5
        return max(2, min(16, int(_DECODER_BYTES / (12 * picture))))

    def _reader(self, targets: NDArray[np.int64], size: tuple[int, int], plan: Plan) -> SpanReader:
        return Reader(self, targets, size, plan.threads)

    def borrow(self, threads: int) -> Decoder:
        """A decoder of this file that nobody else uses; give it back with `give_back`."""
        with self._idle_lock:
            for place, decoder in enumerate(self._idle):
                if decoder.threads == threads:
                    return self._idle.pop(place)
        return Decoder(self.path, self.name, threads)

    def give_back(self, decoder: Decoder) -> None:
        """Keeps a decoder for the next call, or closes it with the video."""
        with self._idle_lock:
            if not self._closed and len(self._idle) < 4:
                self._idle.append(decoder)
                return
        decoder.close()


def _abandon(decoders: list[Decoder]) -> None:
    """Leaves decoders of another process alone for ever: freeing one would wait for threads that are not here."""
    for decoder in decoders:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(decoder))


class _TooLate(Exception):
    """The first picture that comes out is later than the first one wanted: decode from an earlier keyframe."""


class _Doubtful(Exception):
    """An error with frame threads: which pictures it concerns, one thread must find out."""


class Reader:
    """Decodes spans of one request in one thread."""

    def __init__(self, video: PyAVVideo, targets: NDArray[np.int64], size: tuple[int, int], threads: int) -> None:
        self.video = video
        self.index = video.index
        self.targets = targets
        self.size = size
        self.decoder = video.borrow(threads)

    def close(self) -> None:
        self.video.give_back(self.decoder)

    def read(self, span: Span, put: Put, check: Callable[[], None]) -> None:
        for group in self._joined(span.work):
            handed: set[int] = set()
            try:
                self._read_group(group, _once(put, handed), check)
            except _Doubtful:
                doubtful, self.decoder = self.decoder, self.video.borrow(1)
                doubtful.close()
                self._read_group(group, _once(put, handed), check)

    def _read_group(self, group: Group, put: Put, check: Callable[[], None]) -> None:
        lead = min(self.video.lead, group.anchor)
        for back in sorted({lead, group.anchor, *(step for step in STEPS_BACK if lead < step < group.anchor)}):
            try:
                self._decode(group, group.anchor - back, put, check)
                break
            except _TooLate:  # never from the first keyframe, which is the last one tried
                # Intra refresh, or a broken link: keyframes from which decoding needs a run-up.
                self.video.lead = min(back + 1, 7)

    def _joined(self, groups: tuple[Group, ...]) -> list[Group]:
        """Joins groups that follow each other without a gap: no need to seek between them."""
        joined: list[Group] = []
        for group in groups:
            if joined:
                last = joined[-1]
                end = int(self.index.positions[self.targets[last.start : last.stop]].max())
                if self.index.key_positions[group.anchor] <= end + 1:
                    joined[-1] = Group(last.start, group.stop, last.anchor, last.cost + group.cost)
                    continue
            joined.append(group)
        return joined

    def _decode(self, group: Group, anchor: int, put: Put, check: Callable[[], None]) -> None:
        """Decodes from one keyframe to the last target of the group and hands every target over."""
        index, decoder = self.index, self.decoder
        delivery = _Delivery(self, group, anchor, put)
        wanted = delivery.wanted
        until, last = int(index.pts[self.targets[group.start]]), int(index.pts[self.targets[group.stop - 1]])
        unfed = group.stop - group.start
        beyond = 0
        extra = 1 if self.video.interlaced else 0  # the second field may come in a packet of its own
        for packet in decoder.packets_from(index, anchor, until):
            check()
            key = packet.pts
            is_wanted = key in wanted
            if decoder.can_skip:
                decoder.skip_unreferenced(not is_wanted)
            delivery.feed(packet)
            if is_wanted:
                unfed -= 1
            if unfed <= 0:
                # Nothing more is needed: the decoder is drained instead of waiting for its delay to pass.
                if extra == 0:
                    break
                extra -= 1
            elif key is not None and not index.counted and key > last:
                beyond += 1
                if beyond > _OVERRUN:
                    break
        delivery.finish()
        if delivery.damage.spans:
            decoder.reopen()  # what it took for parameters of the stream may have been noise

    def picture(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """A decoded picture as RGB `[H, W, 3]`, scaled and turned; a view of memory that belongs to the scaler."""
        orientation = self.video.orientation
        height, width = self.size[::-1] if orientation.swaps_sides else self.size
        crop = self.video.crop
        if crop is not None:
            left, top, wide, high = crop
            whole = self._rgb(frame, frame.width, frame.height)
            return orientation.apply(resized(whole[top : top + high, left : left + wide], (height, width)))
        return orientation.apply(self._rgb(frame, width, height))

    def _rgb(self, frame: VideoFrame, width: int, height: int) -> NDArray[np.uint8]:
        scaled = self.decoder.reformatter.reformat(
            frame, width=width, height=height, format="rgb24", interpolation=Interpolation.BILINEAR, **_ONE_THREAD
        )
        plane = scaled.planes[0]
        rows = np.frombuffer(memoryview(plane), dtype=np.uint8).reshape(-1, plane.line_size)[:height, : width * 3]
        return rows.reshape(height, width, 3)


def _once(put: Put, handed: set[int]) -> Put:
    """Hands over what has not been before."""

    def put_once(position: int, picture: NDArray[np.uint8], rank: int, good: bool) -> None:
        if position not in handed:
            handed.add(position)
            put(position, picture, rank, good)

    return put_once


class _Delivery:
    """Takes decoded pictures of one group and hands each target to the consumer: good, late, damaged or missing.

    Pictures are compared by `order`: presentation time, or frame number where packets are counted.
    """

    def __init__(self, reader: Reader, group: Group, anchor: int, put: Put) -> None:
        self.reader, self.put, self.anchor = reader, put, anchor
        self.index = index = reader.index
        self.first, self.stop = group.start, group.stop
        ranks = reader.targets[group.start : group.stop]
        self.wanted = {key: p for p, key in enumerate(index.keys[ranks].tolist(), group.start)}
        self.orders: list[int] = (ranks if index.counted else index.pts[ranks]).tolist()
        self.done = [False] * len(self.orders)
        self.next = 0  # the first target that is not done
        self.passed: dict[int, tuple[int, tuple[int, VideoFrame] | None]] = {}
        self.last_good: tuple[int, VideoFrame] | None = None
        self.seen_any = False
        self.last_key: int | None = None
        self.damage = Damage(index, reader.video.run_up)
        self.settled = Settled(index)

    def feed(self, packet: Packet) -> None:
        self.last_key = packet.pts
        self.settled.feed(self.last_key)
        if packet.is_corrupt and position_of(self.index, self.last_key) not in self.index.joins:
            self._note(self.last_key)
        try:
            pictures = self.reader.decoder.decode(packet)
        except av.error.FFmpegError:
            self._note(self.last_key)
            return
        for picture in pictures:
            self.take(picture)

    def _note(self, key: int | None) -> None:
        """Takes note of an error at the packet or picture with this key."""
        if self.reader.decoder.threads > 1:
            raise _Doubtful
        self.damage.note(key)

    def finish(self) -> None:
        """Drains the decoder; what has not come by then is missing."""
        try:
            pictures = self.reader.decoder.decode(None)
        except av.error.FFmpegError:
            self._note(self.last_key)
            pictures = []
        for picture in pictures:
            self.take(picture)
        for picture in self.settled.rest():
            self._settle(picture)
        for place, done in enumerate(self.done):
            if not done:
                self._replace(place)

    def take(self, picture: VideoFrame) -> None:
        key = picture.pts
        if key is None:
            return
        order = self.index.ranks.get(key) if self.index.counted else key
        if not self.seen_any and order is not None:
            self.seen_any = True
            if order > self.orders[0] and not self.damage.spans and self.anchor > 0:
                raise _TooLate
        if picture.is_corrupt:
            if not self.damage.spans and self.anchor > 0 and self.next == 0:
                raise _TooLate
            self._note(key)
        for known in self.settled.add(picture):
            self._settle(known)

    def _settle(self, picture: VideoFrame) -> None:
        """Takes a picture about which nothing more will be known."""
        key = picture.pts
        order = self.index.ranks.get(key) if self.index.counted and key is not None else key
        if order is None or key is None:
            return
        good = not self.damage.touches(key)
        if self.next < len(self.orders) and order > self.orders[self.next]:
            self._pass_by(order)
        position = self.wanted.get(key)
        if position is not None and not self.done[position - self.first]:
            if good:
                self._hand_over(position - self.first, picture, int(self.reader.targets[position]), True)
            else:
                self._replace(position - self.first)
        if good and (self.last_good is None or order > self.last_good[0]):
            self.last_good = (order, picture)

    def _pass_by(self, order: int) -> None:
        """Notes which open targets lie before a picture; those passed by too many are missing."""
        for place in range(self.next, len(self.orders)):
            if self.orders[place] >= order:
                break
            if not self.done[place]:
                count, before = self.passed.get(place, (0, self.last_good))
                self.passed[place] = (count + 1, before)
                if count + 1 > LATE:
                    self._replace(place)

    def _replace(self, place: int) -> None:
        """Hands over a substitute for a damaged or missing target."""
        if self.reader.decoder.threads > 1:
            raise _Doubtful
        _, before = self.passed.get(place, (0, self.last_good))
        if before is not None and before[0] < self.orders[place]:
            rank = before[0] if self.index.counted else rank_of(self.index, before[0])
            if rank is not None:
                self._hand_over(place, before[1], rank, False)
                return
        target = int(self.reader.targets[self.first + place])
        rescued = self.reader.video.rescuer.find(target)
        if rescued is None:
            raise self.reader.video._nothing_decoded()
        self._hand_over(place, rescued.picture, rescued.rank, False)

    def _hand_over(self, place: int, picture: VideoFrame, rank: int, good: bool) -> None:
        self.done[place] = True
        while self.next < len(self.done) and self.done[self.next]:
            self.next += 1
        self.put(self.first + place, self.reader.picture(picture), rank, good)
