"""The default backend: exact frames through PyAV, decoding only what the plan needs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

import av
import numpy as np
from av.codec.context import ThreadType
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from refocus_select.errors import VideoDecodeError
from refocus_select.video.base import MAX_PIXELS, SpanReader, Video, VideoMetadata
from refocus_select.video.container import open_container
from refocus_select.video.engine import Put, Span
from refocus_select.video.index import FrameIndex, forget, frame_index
from refocus_select.video.plan import Group, Plan, find_anchors, group_targets, share, snap_to_keyframes

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.frame import VideoFrame

# Pictures of these codecs that no other refers to can be left out without a trace.
_SKIPPABLE = {"h264", "hevc", "mpeg1video", "mpeg2video"}
_STEPS_BACK = (1, 3, 7, 15, 31, 63)  # keyframes to step back from one that cannot be decoded from
_LATE = 16  # pictures that may come out before one with an earlier time: what a decoder holds at most
_OVERRUN = 64  # packets read beyond the last wanted time before a missing packet is given up
_FIRST_PICTURE_PACKETS = 600  # packets tried for the first picture at opening
_DECODER_BYTES = 320 * 2**20  # for the reference pictures of all decoders together


class PyAVVideo(Video):
    """A video file read with PyAV. Made by `open_video`."""

    backend = "pyav"

    def __init__(self, path: str, name: str, fingerprint: str, *, full_index: bool = False) -> None:
        decoder = Decoder(path, name, threads=1)
        try:
            look = _first_look(decoder)
            index = frame_index(path, name, decoder.container, decoder.stream, full=full_index)
            if index.counted:
                decoder.reopen()  # packets are counted from the first one
        except BaseException:
            decoder.close()
            raise
        self.path = path
        self.index = index
        self._name = name
        self._rotation = look.rotation
        self._idle: list[Decoder] = [decoder]
        self._idle_lock = threading.Lock()
        self._lead = 0  # keyframes to step back before each anchor, learnt where keyframes need a run-up
        self._rescued: list[_Rescued] = []
        key_times = index.times[index.keyframes]
        metadata = VideoMetadata(
            source=name,
            num_frames=len(index.pts),
            duration=index.duration,
            start_time=index.start_time,
            average_fps=index.average_fps,
            is_vfr=index.is_vfr,
            width=look.height if look.rotation in (90, 270) else look.width,
            height=look.width if look.rotation in (90, 270) else look.height,
            rotation=look.rotation,
            codec=decoder.context.codec.canonical_name,
            container=decoder.container.format.name,
            keyframe_interval=float(np.median(np.diff(key_times))) if len(key_times) > 1 else None,
            backend=self.backend,
        )
        super().__init__(metadata, index.times, fingerprint, [*index.notes, *look.notes])

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
        return Decoder(self.path, self._name, threads)

    def give_back(self, decoder: Decoder) -> None:
        """Keeps a decoder for the next call, or closes it with the video."""
        with self._idle_lock:
            if not self._closed and len(self._idle) < 4:
                self._idle.append(decoder)
                return
        decoder.close()


class Decoder:
    """One container and one decoder of one file, for one thread at a time."""

    def __init__(self, path: str, name: str, threads: int) -> None:
        self.path, self.name, self.threads = path, name, threads
        self.reformatter = VideoReformatter()  # keeps the scaler's tables from picture to picture
        self._open()

    def _open(self) -> None:
        self.container, self.stream = open_container(self.path, self.name)
        self.context = self.stream.codec_context
        self.context.thread_type = ThreadType.FRAME if self.threads > 1 else ThreadType.NONE
        self.context.thread_count = self.threads
        self.context.options = {"max_pixels": str(MAX_PIXELS)}
        self.can_skip = self.context.name in _SKIPPABLE and not _has_temporal_layers(self.context)
        self._skipping = False
        self._position = 0  # of the next packet, for streams whose packets are counted

    def reopen(self) -> None:
        """Goes back to the first packet by opening the file anew: right for every container."""
        self.container.close()
        self._open()

    def close(self) -> None:
        self.container.close()

    def skip_unreferenced(self, skip: bool) -> None:
        """Whether to leave out pictures that no other refers to, from the next packet on."""
        if skip != self._skipping:
            self.context.skip_frame = "NONREF" if skip else "DEFAULT"
            self._skipping = skip

    def decode(self, packet: Packet | None) -> list[VideoFrame]:
        """Pictures that come out when a packet goes in; None drains the decoder."""
        try:
            return self.context.decode(packet)
        except EOFError:
            return []

    def packets_from(self, index: FrameIndex, anchor: int, until: int) -> Iterator[Packet]:
        """The packets from keyframe number `anchor` on, with the decoder flushed.

        Args:
            index: of this file.
            anchor: a keyframe number of the index.
            until: presentation time of the first frame wanted; a keyframe at or before it is as good.

        Yields nothing if there is no such keyframe in the file, which then is damaged.
        """
        if index.counted:
            yield from self._counted_packets(int(index.key_positions[anchor]))
            return
        key_pts = index.key_pts
        for back in (0, *_STEPS_BACK, None):
            origin = 0 if back is None else anchor - back
            if origin < 0:
                continue
            self._go_to(int(key_pts[origin]) if back is not None else None)
            found = False
            for packet in self._demux():
                if not found:
                    # Some containers land before the keyframe asked for, some after it.
                    if packet.pts is None:
                        continue
                    if packet.is_keyframe and packet.pts > until:
                        break
                    found = packet.pts == key_pts[anchor] or (packet.is_keyframe and packet.pts > key_pts[anchor])
                    if not found:
                        continue
                yield packet
            if found:
                return

    def _go_to(self, pts: int | None) -> None:
        if pts is not None:
            try:
                self.container.seek(pts, stream=self.stream)
                return
            except av.error.FFmpegError:
                pass  # no such place for this container: from the start, then
        self.reopen()

    def _counted_packets(self, start: int) -> Iterator[Packet]:
        if self._position > start:
            self.reopen()
        else:
            self.context.flush_buffers()
        for packet in self._demux():
            position = self._position
            self._position += 1
            if position >= start:
                packet.pts = packet.dts = position
                yield packet

    def _demux(self) -> Iterator[Packet]:
        try:
            for packet in self.container.demux(self.stream):
                if packet.size:
                    yield packet
        except av.error.FFmpegError:
            return  # the file ends here; what is missing is noticed by whoever wants it


@dataclass(frozen=True)
class _Look:
    width: int
    height: int
    rotation: int
    notes: list[str]


def _first_look(decoder: Decoder) -> _Look:
    """Decodes one picture for what only pictures tell."""
    pictures: list[VideoFrame] = []
    for number, packet in enumerate(islice(decoder._demux(), _FIRST_PICTURE_PACKETS)):
        try:
            pictures = decoder.decode(packet)
            if not pictures and number == 0:
                pictures = decoder.decode(None)  # a keyframe comes out alone, without waiting for its successors
                decoder.context.flush_buffers()
        except av.error.FFmpegError:
            continue
        if pictures:
            break
    else:
        with suppress(av.error.FFmpegError):
            pictures = decoder.decode(None)
    notes = []
    width, height, rotation = decoder.context.width, decoder.context.height, 0
    if pictures:
        width, height, turn = pictures[0].width, pictures[0].height, pictures[0].rotation
        rotation = round(turn / 90) * 90 % 360
        if turn % 90:
            notes.append(f"{decoder.name}: turned by {turn} degrees; only quarter turns are applied ({rotation})")
    else:
        notes.append(f"{decoder.name}: the beginning cannot be decoded; the file is damaged")
    return _Look(width, height, rotation, notes)


@dataclass(frozen=True)
class _Rescued:
    """`data` shows frame `index`, the nearest good one for every frame in `first..last`."""

    first: int
    last: int
    index: int
    data: VideoFrame


@dataclass
class _Damage:
    """Which packets (by place in decoding order) cannot be trusted since an error."""

    index: FrameIndex
    slack: int  # the error may belong to a packet so many places earlier
    spans: list[tuple[int, float]] = field(default_factory=list)
    last_fed: int = 0

    def note(self, position: int | None = None) -> None:
        """An error at the packet fed last, or at `position`: all is in doubt from there to the next keyframe."""
        start = max(0, self.last_fed - self.slack) if position is None else position
        following = np.searchsorted(self.index.key_positions, max(start, position or self.last_fed), side="right")
        end = float(self.index.key_positions[following]) if following < len(self.index.key_positions) else np.inf
        self.spans.append((start, end))

    def touches(self, rank: int) -> bool:
        """Whether frame `rank` was decoded after an error and before the next keyframe shown no later."""
        if not self.spans:
            return False
        position, pts = int(self.index.positions[rank]), int(self.index.pts[rank])
        for start, end in self.spans:
            if start <= position < end:
                return True
            if position >= end:  # a leading picture refers to what lies before its keyframe
                key = int(np.searchsorted(self.index.key_positions, end))
                if pts < self.index.key_pts[key]:
                    return True
        return False


class _TooLate(Exception):
    """The first picture that comes out is later than the first one wanted: decode from an earlier keyframe."""


class Reader:
    """Decodes spans of one request in one thread."""

    def __init__(self, video: PyAVVideo, targets: NDArray[np.int64], size: tuple[int, int], threads: int) -> None:
        self.video = video
        self.index = video.index
        self.targets = targets
        self.keys = self.index.keys[targets]
        self.height, self.width = size
        self.decoder = video.borrow(threads)

    def close(self) -> None:
        self.video.give_back(self.decoder)

    def read(self, span: Span, put: Put, check: Callable[[], None]) -> None:
        for group in self._merged(span.work):
            anchor = max(0, group.anchor - self.video._lead)
            for back in (*_STEPS_BACK, len(self.index.key_pts), None):
                try:
                    self._decode(group, anchor, put, check)
                    break
                except _TooLate:
                    # Intra refresh, or a broken link: keyframes from which decoding needs a run-up.
                    self.video._lead = max(self.video._lead, min(back or 0, 7))
                    anchor = max(0, group.anchor - (back or 0))

    def _merged(self, groups: tuple[Group, ...]) -> list[Group]:
        """Joins groups that follow each other without a gap: no need to seek between them."""
        merged: list[Group] = []
        for group in groups:
            if merged:
                last = merged[-1]
                end = int(self.index.positions[self.targets[last.start : last.stop]].max())
                if self.index.key_positions[group.anchor] <= end + 1:
                    merged[-1] = Group(last.start, group.stop, last.anchor, last.cost + group.cost)
                    continue
            merged.append(group)
        return merged

    def _decode(self, group: Group, anchor: int, put: Put, check: Callable[[], None]) -> None:
        """Decodes from one keyframe to the last target of the group and hands every target over."""
        index, decoder = self.index, self.decoder
        delivery = _Delivery(self, group, anchor, put)
        wanted = delivery.wanted
        until = int(index.pts[self.targets[group.start]])
        last = int(index.pts[self.targets[group.stop - 1]])
        unfed = group.stop - group.start
        beyond = 0
        extra = 1 if decoder.context.field_order > 1 else 0  # the second field may come in a packet of its own
        for packet in decoder.packets_from(index, anchor, until):
            check()
            key = packet.pts
            is_wanted = key in wanted
            if index.guessed:
                self._check_guess(key)
            if decoder.can_skip:
                decoder.skip_unreferenced(not is_wanted)
            delivery.feed(packet)
            if is_wanted:
                unfed -= 1
            if unfed <= 0:
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

    def _check_guess(self, pts: int | None) -> None:
        index = self.index
        if pts is None or (pts - int(index.pts[0])) % index.step or not index.pts[0] <= pts <= index.pts[-1]:
            forget(self.video.path)
            raise VideoDecodeError(
                f"{self.video.metadata.source}: its table of contents does not agree with its packets; the file has "
                "irregular times. Open it again: the packets themselves will be read"
            )

    def picture(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """A decoded picture as RGB `[H, W, 3]`, scaled and turned; a view that the next call may overwrite."""
        quarter_turns = self.video._rotation // 90
        height, width = (self.width, self.height) if quarter_turns % 2 else (self.height, self.width)
        scaled = self.decoder.reformatter.reformat(
            frame, width=width, height=height, format="rgb24", interpolation=Interpolation.BILINEAR, threads=1
        )
        plane = scaled.planes[0]
        rows = np.frombuffer(memoryview(plane), dtype=np.uint8).reshape(-1, plane.line_size)[:height, : width * 3]
        pixels = rows.reshape(height, width, 3)
        return np.rot90(pixels, quarter_turns) if quarter_turns else pixels

    def rescue(self, rank: int) -> _Rescued:
        """The nearest earlier good picture for a damaged frame, or the nearest later one.

        Raises:
            VideoDecodeError: there is none.
        """
        for known in self.video._rescued:
            if known.first <= rank <= known.last:
                return known
        index = self.index
        anchor = int(
            find_anchors(
                index.positions[rank : rank + 1], index.pts[rank : rank + 1], index.key_positions, index.key_pts
            )[0]
        )
        decoder = Decoder(self.video.path, self.video.metadata.source, 1)
        try:
            for back in (0, *_STEPS_BACK, len(index.key_pts)):
                found = _last_good(decoder, index, max(0, anchor - back), rank)
                if found is not None:
                    break
                if back >= anchor:
                    found = None
                    break
            ahead = iter((1, *_STEPS_BACK[1:]))
            while found is None:
                step = next(ahead, None)
                if step is None or anchor + step >= len(index.key_pts):
                    raise self.video._nothing_decoded()
                found = _first_good(decoder, index, anchor + step)
        finally:
            decoder.close()
        got, frame = found
        rescued = _Rescued(min(got + 1, rank), rank, got, frame)
        self.video._rescued = [*self.video._rescued[-3:], rescued]
        return rescued


class _Delivery:
    """Takes decoded pictures of one group and hands each target to the consumer: good, late, damaged or missing."""

    def __init__(self, reader: Reader, group: Group, anchor: int, put: Put) -> None:
        self.reader = reader
        self.index = reader.index
        self.put = put
        self.anchor = anchor
        self.first, self.stop = group.start, group.stop
        self.wanted = {int(reader.keys[p]): p for p in range(group.start, group.stop)}
        self.open = dict.fromkeys(range(group.start, group.stop), 0)  # target -> pictures that have passed it by
        self.before: dict[int, tuple[int, VideoFrame] | None] = {}  # the last good picture before a passed target
        self.last_good: tuple[int, VideoFrame] | None = None
        self.seen_any = False
        self.damage = _Damage(reader.index, reader.decoder.threads - 1 + (16 if reader.index.guessed else 0))

    def feed(self, packet: Packet) -> None:
        rank = _rank(self.index, packet.pts)
        if rank is not None:
            self.damage.last_fed = int(self.index.positions[rank])
        if packet.is_corrupt:
            self.damage.note()
        try:
            pictures = self.reader.decoder.decode(packet)
        except av.error.FFmpegError:
            self.damage.note()
            return
        for picture in pictures:
            self.take(picture)

    def finish(self) -> None:
        """Drains the decoder; whatever is still open then is missing."""
        try:
            pictures = self.reader.decoder.decode(None)
        except av.error.FFmpegError:
            self.damage.note()
            pictures = []
        for picture in pictures:
            self.take(picture)
        for position in list(self.open):
            self.replace(position)

    def take(self, picture: VideoFrame) -> None:
        rank = _rank(self.index, picture.pts)
        if rank is None:
            return
        targets = self.reader.targets
        if not self.seen_any:
            self.seen_any = True
            if rank > targets[self.first] and not self.damage.spans and self.anchor > 0:
                raise _TooLate
        if picture.is_corrupt:
            if not self.damage.spans and self.anchor > 0 and len(self.open) == self.stop - self.first:
                raise _TooLate
            self.damage.note(int(self.index.positions[rank]))
        good = not self.damage.touches(rank)
        self._pass_by(rank)
        position = self.wanted.get(picture.pts) if picture.pts is not None else None
        if position is not None and position in self.open:
            if good:
                self._hand_over(position, picture, rank, True)
            else:
                self.replace(position)
        if good and (self.last_good is None or rank > self.last_good[0]):
            self.last_good = (rank, picture)

    def _pass_by(self, rank: int) -> None:
        """Notes which open targets lie before `rank`; those passed by too many pictures are missing."""
        targets = self.reader.targets
        for position in list(self.open):
            if targets[position] >= rank:
                break
            self.before.setdefault(position, self.last_good)
            self.open[position] += 1
            if self.open[position] > _LATE:
                self.replace(position)

    def replace(self, position: int) -> None:
        """Hands over a substitute for a damaged or missing target."""
        rank = int(self.reader.targets[position])
        nearest = self.before.get(position, self.last_good)
        if nearest is not None and nearest[0] < rank:
            self._hand_over(position, nearest[1], nearest[0], False)
        else:
            rescued = self.reader.rescue(rank)
            self._hand_over(position, rescued.data, rescued.index, False)

    def _hand_over(self, position: int, picture: VideoFrame, rank: int, good: bool) -> None:
        del self.open[position]
        self.put(position, self.reader.picture(picture), rank, good)


def _rank(index: FrameIndex, key: int | None) -> int | None:
    """Frame number of a packet or picture; None for one that is not presented."""
    if key is None:
        return None
    if index.counted:
        rank = index.ranks.get(key)
        return rank
    place = int(np.searchsorted(index.pts, key))
    return place if place < len(index.pts) and index.pts[place] == key else None


def _good_pictures(decoder: Decoder, index: FrameIndex, anchor: int, until: int) -> Iterator[tuple[int, VideoFrame]]:
    """Undamaged pictures with their frame numbers, decoded from a keyframe until just after frame `until`."""
    decoder.skip_unreferenced(False)
    damage = _Damage(index, 16 if index.guessed else 0)
    beyond = 0
    packets = decoder.packets_from(index, anchor, int(index.pts[until]))
    for packet in _then_none(packets):
        rank = _rank(index, packet.pts) if packet is not None else None
        if rank is not None:
            damage.last_fed = int(index.positions[rank])
            beyond += rank > until
        if packet is not None and beyond > _LATE:
            break
        try:
            pictures = decoder.decode(packet)
        except av.error.FFmpegError:
            damage.note()
            continue
        for picture in pictures:
            number = _rank(index, picture.pts)
            if picture.is_corrupt and number is not None:
                damage.note(int(index.positions[number]))
            if number is not None and not damage.touches(number):
                yield number, picture


def _then_none(packets: Iterator[Packet]) -> Iterator[Packet | None]:
    yield from packets
    yield None


def _last_good(decoder: Decoder, index: FrameIndex, anchor: int, before: int) -> tuple[int, VideoFrame] | None:
    best: tuple[int, VideoFrame] | None = None
    for number, picture in _good_pictures(decoder, index, anchor, before):
        if number < before and (best is None or number > best[0]):
            best = (number, picture)
    return best


def _first_good(decoder: Decoder, index: FrameIndex, anchor: int) -> tuple[int, VideoFrame] | None:
    rank = int(np.searchsorted(index.pts, index.key_pts[anchor]))
    return next(_good_pictures(decoder, index, anchor, min(rank, len(index.pts) - 1)), None)


def _has_temporal_layers(context: object) -> bool:
    """Whether an HEVC stream has temporal layers (or hides it): then "unreferenced" holds within a layer only."""
    if getattr(context, "name", "") != "hevc":
        return False
    data: bytes = getattr(context, "extradata", None) or b""
    if data[:1] == b"\x01" and len(data) > 22:  # hvcC
        return (data[21] >> 3) & 7 > 1
    at = data.find(b"\x00\x00\x01\x40")  # Annex B: the video parameter set
    if at < 0 or len(data) < at + 7:
        return True
    return (data[at + 6] >> 1) & 7 > 0


def decodes_alone(video: PyAVVideo) -> bool:
    """Whether decoding can begin at keyframes (three are tried): not so with intra refresh."""
    index = video.index
    last = len(index.key_pts) - 1
    numbers = sorted({*np.linspace(1, last, 3).astype(int).tolist()}) if last > 0 else []
    decoder = Decoder(video.path, video.metadata.source, 1)
    try:
        for number in numbers:
            shown = int(np.searchsorted(index.pts, index.key_pts[number]))
            first = _first_good(decoder, index, int(number))
            if first is None or first[0] > shown:
                return False
    finally:
        decoder.close()
    return True
