"""One FFmpeg container and decoder: from a keyframe on, packets in and pictures out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

import av
from av.codec.context import Flags, ThreadType
from av.sidedata.sidedata import Type as SideDataType
from av.video.reformatter import VideoReformatter

from refocus_select.video._boxes import clean_aperture
from refocus_select.video._geometry import Orientation, aspect_of, orientation_of
from refocus_select.video._matroska import crop as matroska_crop
from refocus_select.video._order_hevc import without_messages
from refocus_select.video.base import MAX_PIXELS
from refocus_select.video.container import demuxed, open_container
from refocus_select.video.index import FrameIndex

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.frame import VideoFrame

# Pictures of these codecs that no other refers to can be left out without a trace.
_SKIPPABLE = {"h264", "hevc", "mpeg1video", "mpeg2video"}
STEPS_BACK = (1, 3, 7, 15, 31, 63)  # keyframes to step back from one that cannot be used
_FIRST_PICTURE_PACKETS = 600  # packets tried for the first picture at opening


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
        if self.context.name == "vp8":  # only this way it says where the data of a picture ends too early
            self.context.thread_type, self.context.thread_count = ThreadType.SLICE, max(2, self.threads)
        self.context.flags |= Flags.unaligned  # crops at the left edge are kept to the pixel
        self.context.options = {"max_pixels": str(MAX_PIXELS)}
        # With frame threads the flags of a picture may be copied before its own thread has set them: then errors must
        # come as errors. HEVC keeps silent about most of them otherwise.
        if self.threads > 1 or self.context.name == "hevc":
            self.context.options |= {"err_detect": "explode"}
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
        except av.error.FFmpegError:
            # A message that FFmpeg does not understand is no damage.
            plain = self._without_messages(packet) if self.context.name == "hevc" and self.threads == 1 else None
            if plain is None:
                raise
            return self.context.decode(plain)

    def _without_messages(self, packet: Packet | None) -> Packet | None:
        """An HEVC packet without its messages (SEI); None if it has none."""
        if packet is None:
            return None
        whole = bytes(packet)
        data = without_messages(self.context.extradata or b"", whole)
        if len(data) == len(whole):
            return None
        plain = av.Packet(data)
        plain.pts, plain.dts, plain.time_base, plain.is_keyframe = (
            packet.pts, packet.dts, packet.time_base, packet.is_keyframe,
        )  # fmt: skip
        return plain

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
        for back in (0, *STEPS_BACK, None):
            origin = 0 if back is None else anchor - back
            if origin < 0:
                continue
            self._go_to(int(key_pts[origin]) if back is not None else None)
            found = False
            for packet in self.demux():
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
        for packet in self.demux():
            position = self._position
            self._position += 1
            if position >= start:
                packet.pts = packet.dts = position
                yield packet

    def demux(self) -> Iterator[Packet]:
        try:
            yield from demuxed(self.container, self.stream)
        except av.error.FFmpegError:
            return  # the file ends here; what is missing is noticed by whoever wants it


@dataclass(frozen=True)
class Look:
    """What only pictures tell. Width and height in stored pixels; `crop` is (left, top, width, height) of them."""

    width: int
    height: int
    orientation: Orientation
    crop: tuple[int, int, int, int] | None
    pixel_aspect_ratio: float
    interlaced: bool
    notes: list[str]


def first_look(decoder: Decoder) -> Look:
    """Decodes one picture for what only pictures tell."""
    pictures: list[VideoFrame] = []
    for number, packet in enumerate(islice(decoder.demux(), _FIRST_PICTURE_PACKETS)):
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
    width, height, interlaced = decoder.context.width, decoder.context.height, False
    matrix = None
    notes = []
    if pictures:
        width, height = pictures[0].width, pictures[0].height
        interlaced = bool(pictures[0].interlaced_frame)
        matrix = cast(Any, pictures[0].side_data).get(SideDataType.DISPLAYMATRIX)  # typed as keyed by text
    else:
        notes.append(f"{decoder.name}: the beginning cannot be decoded; the file is damaged")
    orientation, wrong_matrix = orientation_of(None if matrix is None else bytes(matrix))
    aspect, wrong_aspect = aspect_of(decoder.stream.sample_aspect_ratio)
    notes += [f"{decoder.name}: {problem}" for problem in (wrong_matrix, wrong_aspect) if problem]
    crop = None
    if "mp4" in decoder.container.format.name:
        crop = clean_aperture(decoder.path, decoder.stream.id, width, height)
    elif "matroska" in decoder.container.format.name:
        crop = matroska_crop(decoder.path, decoder.stream.index, width, height)
    return Look(width, height, orientation, crop, aspect, interlaced, notes)


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
