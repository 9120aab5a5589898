"""Whether packets that a container calls keyframes are: some files call all of them so, and some readers do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING

import av
import numpy as np
from av.video.frame import PictureType
from numpy.typing import NDArray

from refocus_select.video.container import demuxed, open_container

if TYPE_CHECKING:
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_DENSE = 0.3  # share of keyframes from which on a stream is looked at: otherwise it is one that needs few
_LOOK = 8  # packets that are decoded for it


def are_doubtful(path: str, stream: VideoStream, keys: NDArray[np.bool_]) -> bool:
    """Whether packets are called keyframes that are none. Only of streams that are full of them pictures are decoded.

    Args:
        path: of the file.
        stream: of it.
        keys: `[P]`, which packets are called keyframes, in the order of the file.
    """
    if keys.mean() < _DENSE or len(keys) < 3 or stream.codec_context.codec.intra_only:
        return False
    return any(
        keys[place] and not (picture.key_frame or picture.pict_type == PictureType.I)
        for place, picture in _decoded(path, _LOOK)
    )


def keyframes_by_decoding(path: str, count: int) -> NDArray[np.bool_]:
    """Which of `count` packets the decoder calls keyframes; all pictures are decoded for it."""
    keys = np.zeros(count, dtype=bool)
    for place, picture in _decoded(path, None):
        keys[place] = picture.key_frame
    return keys


def _decoded(path: str, limit: int | None) -> Iterator[tuple[int, VideoFrame]]:
    """Pictures of the first packets, with the place of the packet of each."""
    container, stream = open_container(path, path)
    with container, suppress(av.error.FFmpegError):
        context = stream.codec_context
        packets = islice(demuxed(container, stream), limit)
        for place, packet in enumerate(packets):
            packet.pts = packet.dts = place
            with suppress(av.error.FFmpegError, EOFError):
                yield from ((p.pts, p) for p in context.decode(packet) if p.pts is not None)
        with suppress(av.error.FFmpegError, EOFError):
            yield from ((p.pts, p) for p in context.decode(None) if p.pts is not None)
