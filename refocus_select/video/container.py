"""Opening a video file with PyAV so that nothing but this one file can be read, and errors say what to do."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any

import av

from refocus_select.errors import UnsupportedVideoError, VideoOpenError
from refocus_select.video.base import MAX_PIXELS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

# Demuxers that read one file and nothing else. Left out on purpose: playlists and manifests (hls, dash, concat, sdp,
# imf), devices, image sequences by pattern, and anything else that could lead FFmpeg to a second file or a network.
DEMUXERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpegtsraw,mpeg,mpegvideo,m4v,h264,hevc,vvc,av1,obu,ivf,flv,"
    "live_flv,ogg,asf,asf_o,gif,apng,nut,mxf,yuv4mpegpipe,rm,dv,vc1,vc1test,mjpeg,swf,nsv,wtv,gxf,mp3,aac,flac,wav,"
    "ac3,caf,aiff,amr,w64,vob,h263,h261,cavsvideo,dirac,lxf,mv,roq,smk,bink,film_cpk,4xm,ea,psxstr,thp,vivo,nuv,pva"
)
# PyAV 15 to 19 are supported. 19 dropped this argument and reads text that is not UTF-8 without it.
PYAV = int(av.__version__.split(".")[0])
_TEXT_OPTIONS: dict[str, Any] = {"metadata_errors": "replace"} if PYAV < 19 else {}
_PLAYLIST_STARTS = (b"#EXTM3U", b"ffconcat", b"[playlist]", b"v=0", b"<?xml", b"<MPD", b"<smil", b"[InternetShortcut]")


def open_container(path: str, name: str) -> tuple[InputContainer, VideoStream]:
    """Opens a local file and its best video stream.

    Args:
        path: absolute path of a regular file.
        name: how to call the source in messages.

    Raises:
        VideoOpenError: missing, unreadable, empty, a device, a playlist, not a video, or without a video stream.
        UnsupportedVideoError: no decoder for its codec, or pictures larger than `MAX_PIXELS`.
    """
    container = open_file(path, name)
    try:
        return container, _choose_stream(container, name)
    except BaseException:
        container.close()
        raise


def open_file(path: str, name: str) -> InputContainer:
    """Opens a local file with all its streams, for sound and subtitles.

    Args:
        path: absolute path of a regular file.
        name: how to call the source in messages.

    Raises:
        VideoOpenError: missing, unreadable, empty, a device, a playlist, or not a video.
    """
    check_regular_file(path, name)
    try:
        return av.open(
            path,
            mode="r",
            container_options={"protocol_whitelist": "file", "format_whitelist": DEMUXERS},
            **_TEXT_OPTIONS,
        )
    except av.error.FFmpegError as error:
        raise _explain(path, name, error) from error


def demuxed(container: InputContainer, stream: VideoStream, *, end: bool = False) -> Iterator[Packet]:
    """The packets of a stream from where the container stands; `end` adds the empty one that drains a decoder.

    A picture of an AVI that repeats the one before is an empty packet, too, and is left out.

    Raises:
        av.error.FFmpegError: the file cannot be read on.
    """
    last = None
    try:
        for packet in container.demux(stream):
            if packet.size:
                yield packet
            else:
                last = packet
    except IndexError:  # PyAV, where a damaged file gains a stream while it is read
        pass
    if end and last is not None:
        yield last


def check_regular_file(path: str, name: str) -> os.stat_result:
    """The file's status, if it is a readable, non-empty, regular file.

    Raises:
        VideoOpenError: it is not.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise VideoOpenError(f"{name}: no such file; check the path") from None
    except OSError as error:  # a loop of links, a name too long, no permission on a folder, a NUL in the name
        raise VideoOpenError(f"{name}: cannot be opened ({error.strerror or error}); check the path") from None
    except ValueError as error:
        raise VideoOpenError(f"{name!r}: not a usable path ({error})") from None
    if not stat.S_ISREG(status.st_mode):
        raise VideoOpenError(f"{name}: not a regular file (a device, pipe, socket or folder); copy the video to a file")
    if status.st_size == 0:
        raise VideoOpenError(f"{name}: the file is empty; copy or download it again")
    if not os.access(path, os.R_OK):
        raise VideoOpenError(f"{name}: no permission to read it; change its mode or its owner")
    return status


def _choose_stream(container: InputContainer, name: str) -> VideoStream:
    pictures = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not pictures:
        cover = " (only a cover picture)" if container.streams.video else ""
        raise VideoOpenError(f"{name}: no video stream{cover}; this looks like an audio file")
    decodable = [s for s in pictures if s.codec_context is not None]
    if not decodable:
        raise UnsupportedVideoError(
            f"{name}: no decoder for its video codec; convert it to H.264 (ffmpeg -i IN OUT.mp4)"
        )
    best: Any = container.streams.best("video")
    chosen = best if best in decodable else decodable[0]
    width, height = chosen.codec_context.width, chosen.codec_context.height
    if width <= 0 or height <= 0:
        raise VideoOpenError(f"{name}: the size of its pictures is not known; the file is damaged or cut short")
    if width * height > MAX_PIXELS:
        raise UnsupportedVideoError(
            f"{name}: pictures of {width}x{height} exceed the limit of {MAX_PIXELS} pixels; scale the video down first"
        )
    read_only(container, chosen)
    return chosen


def read_only(container: InputContainer, chosen: Any) -> None:
    """Leaves out all other streams: their packets need not even be read."""
    if hasattr(av.stream, "Discard"):  # PyAV 17.1
        for stream in container.streams:
            if stream is not chosen:
                stream.discard = av.stream.Discard.all


def _explain(path: str, name: str, error: Exception) -> VideoOpenError:
    try:
        with open(path, "rb") as file:
            head = file.read(64).lstrip()
    except OSError as problem:
        return VideoOpenError(f"{name}: cannot be read ({problem.strerror}); check its permissions and the disk")
    if head.startswith(_PLAYLIST_STARTS):
        return VideoOpenError(
            f"{name}: this is a playlist or manifest, not a video; playlists are refused because they name other "
            "files and servers. Open the video that it points to"
        )
    reason = getattr(error, "strerror", None) or str(error)
    return VideoOpenError(
        f"{name}: not a video that can be read ({reason}); it may be damaged, cut short while downloading, or of "
        "another kind. Try to play it, or convert it (ffmpeg -i IN OUT.mp4)"
    )
