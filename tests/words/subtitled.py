"""A film with a subtitle track, written on the spot."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.subtitles.subtitle import SubtitleSet

_MILLISECOND = Fraction(1, 1000)
_HEADER = (
    b"[Script Info]\nScriptType: v4.00+\n[V4+ Styles]\n"
    b"Format: Name, Fontname, Fontsize\nStyle: Default,Arial,16\n"
    b"[Events]\nFormat: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n"
)


def write_film(
    path: Path, lines: Sequence[tuple[float, float, str]] = (), *, codec: str = "subrip", language: str = "eng"
) -> Path:
    """Forty seconds, each ten of them a little darker, with (start, end, text) as a subtitle track if there are any."""
    with av.open(str(path), "w") as film:
        stream = film.add_stream("libx264", rate=2)
        stream.width, stream.height, stream.pix_fmt = 320, 180, "yuv420p"
        track = _track(film, codec, language) if lines else None
        for number in range(80):
            grey = np.full((180, 320, 3), 200 - 40 * (number // 20), np.uint8)
            film.mux(stream.encode(av.VideoFrame.from_ndarray(grey)))
        film.mux(stream.encode(None))
        _write_lines(film, track, lines)
    return path


def add_subtitles(source: Path, target: Path, lines: Sequence[tuple[float, float, str]]) -> Path:
    """The same pictures with a subtitle track."""
    with av.open(str(source)) as film, av.open(str(target), "w") as copy:
        pictures = copy.add_stream_from_template(film.streams.video[0])
        track = _track(copy, "mov_text", "eng")
        for packet in film.demux(film.streams.video[0]):
            if packet.dts is not None:
                packet.stream = pictures
                copy.mux(packet)
        _write_lines(copy, track, lines)
    return target


def _track(film: Any, codec: str, language: str) -> Any:
    track = film.add_stream(codec)
    track.metadata["language"] = language
    track.codec_context.subtitle_header = _HEADER
    track.codec_context.time_base = _MILLISECOND
    return track


def _write_lines(film: Any, track: Any, lines: Sequence[tuple[float, float, str]]) -> None:
    for start, end, text in lines:
        begin, length = round(start * 1000), round((end - start) * 1000)
        event = SubtitleSet.create(f"0,0,Default,,0,0,0,,{text}".encode(), 0, length, begin)
        packet = track.codec_context.encode_subtitle(event)
        packet.stream, packet.time_base = track, _MILLISECOND
        packet.pts = packet.dts = begin
        packet.duration = length
        film.mux(packet)
