"""Every kind of file that must be read exactly, by name, with the arguments that make it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from tests.video.clips import encode

_X265 = "log-level=none:pools=1:frame-threads=1"


def _kind(**arguments: Any) -> dict[str, Any]:
    return arguments


def _options(**options: Any) -> dict[str, str]:
    return {name.replace("_", "-"): str(value) for name, value in options.items()}


def _growing(number: int) -> int:
    """Milliseconds of a rate that falls from 25 to about 10 frames per second."""
    return 40 * number + number * number // 3


KINDS: dict[str, dict[str, Any]] = {
    # H.264 in mp4: every GOP
    "gop1.mp4": _kind(options=_options(g=1)),
    "gop12.mp4": _kind(options=_options(g=12)),
    "gop30_b.mp4": _kind(options=_options(g=30, bf=3)),
    "pyramid.mp4": _kind(options={"g": "40", "bf": "7", "b_strategy": "0", "x264-params": "b-pyramid=normal:ref=4"}),
    "one_gop.mp4": _kind(options=_options(g=1000)),
    "long_gop250.mp4": _kind(frames=530, options=_options(g=250, bf=3)),
    "long_gop12.mp4": _kind(frames=530, options=_options(g=12, bf=3)),
    "open_gop.mp4": _kind(options={"g": "20", "bf": "3", "flags": "-cgop", "x264-params": "open-gop=1:scenecut=0"}),
    "open_gop.mkv": _kind(options={"g": "20", "bf": "3", "flags": "-cgop", "x264-params": "open-gop=1:scenecut=0"}),
    "long_open_gop.mp4": _kind(frames=530, options={"g": "20", "flags": "-cgop", "x264-params": "open-gop=1"}),
    "long_vfr.mp4": _kind(frames=530, options=_options(g=60, bf=3), pts=_growing, time_base=Fraction(1, 1000)),
    "long_hevc.mov": _kind(frames=640, codec="libx265", options={"x265-params": f"keyint=400:scenecut=0:{_X265}"}),
    "mixed_gops.mp4": _kind(
        frames=640,
        options={"g": "1000", "bf": "3", "x264-params": "open-gop=1:scenecut=0:keyint=400:min-keyint=400"},
        keyframes={0, 40, 330, 331, 500, 560, 600},
    ),
    "intra_refresh.mp4": _kind(options={"g": "30", "x264-params": "intra-refresh=1:bframes=0"}),
    "intra_refresh.ts": _kind(options={"g": "30", "x264-params": "intra-refresh=1:bframes=0"}),
    "interlaced.mp4": _kind(options={"g": "20", "bf": "3", "x264-params": "tff=1"}),
    "with_sound.mp4": _kind(options=_options(g=12), audio=True),
    "one_frame.mp4": _kind(frames=1),
    # containers
    "fragmented.mp4": _kind(options=_options(g=12), container_options={"movflags": "frag_keyframe+empty_moov"}),
    "h264.mkv": _kind(options=_options(g=20, bf=3)),
    "h264.ts": _kind(options=_options(g=20, bf=3)),
    "h264.avi": _kind(options=_options(g=20, bf=3)),
    "gop12.avi": _kind(codec="mpeg4", options=_options(g=12, bf=0, b="2M")),
    "h264.flv": _kind(options=_options(g=20, bf=3)),
    "raw.h264": _kind(options=_options(g=20, bf=3)),
    "raw_step1.h264": _kind(options={"g": "20", "bf": "0", "x264-params": "scenecut=0"}),
    "raw.hevc": _kind(codec="libx265", options={"x265-params": f"keyint=20:{_X265}"}),
    # other codecs
    "raw.m2v": _kind(codec="mpeg2video", options=_options(g=12, bf=2, b="2M"), container="mpeg2video"),
    "raw.m1v": _kind(codec="mpeg1video", options=_options(g=12, bf=2, b="2M"), container="mpeg1video"),
    "hevc.mp4": _kind(codec="libx265", options={"x265-params": f"keyint=20:{_X265}"}),
    "hevc.ts": _kind(codec="libx265", options={"x265-params": f"keyint=20:{_X265}"}),
    "hevc_closed.mp4": _kind(codec="libx265", options={"x265-params": f"keyint=20:open-gop=0:{_X265}"}),
    "hevc_10bit.mkv": _kind(
        codec="libx265", pix_fmt="yuv420p10le", options={"x265-params": f"keyint=20:bframes=4:{_X265}"}
    ),
    "hevc_layers.mp4": _kind(
        codec="libx265", options={"x265-params": f"keyint=20:temporal-layers=3:bframes=7:{_X265}"}
    ),
    "vp8.webm": _kind(codec="libvpx", options=_options(g=20, cpu_used=5, deadline="good", lag_in_frames=16, b="2M")),
    "vp9.webm": _kind(codec="libvpx-vp9", options=_options(g=20, cpu_used=6, deadline="good", lag_in_frames=16)),
    "vp9.mp4": _kind(codec="libvpx-vp9", options=_options(g=20, cpu_used=6, deadline="realtime")),
    "av1.mp4": _kind(codec="libsvtav1", options={"g": "20", "preset": "8", "crf": "20", "svtav1-params": "lp=1"}),
    "av1.webm": _kind(codec="libsvtav1", options={"g": "20", "preset": "8", "crf": "20", "svtav1-params": "lp=1"}),
    "mpeg1.mpg": _kind(codec="mpeg1video", options=_options(g=12, bf=2, b="2M")),
    "mpeg2.mpg": _kind(codec="mpeg2video", options=_options(g=12, bf=2, b="2M"), container="mpeg"),
    "dvd.vob": _kind(codec="mpeg2video", options=_options(g=12, bf=2, b="2M"), container="vob"),
    "mpeg2.ts": _kind(codec="mpeg2video", options=_options(g=12, bf=2, b="2M")),
    "mpeg2_interlaced.mkv": _kind(
        codec="mpeg2video", options={"g": "12", "bf": "2", "flags": "+ildct+ilme", "b": "2M"}
    ),
    "mpeg4.mp4": _kind(codec="mpeg4", options=_options(g=12, bf=2, b="2M")),
    "mpeg4.avi": _kind(codec="mpeg4", options=_options(g=12, bf=2, b="2M")),
    "msmpeg4.avi": _kind(codec="msmpeg4", options=_options(g=12, b="2M")),
    "mjpeg.avi": _kind(codec="mjpeg", pix_fmt="yuvj420p"),
    "wmv2.asf": _kind(codec="wmv2", options=_options(g=12, b="2M")),
    "prores.mov": _kind(codec="prores_ks", pix_fmt="yuv422p10le", frames=40),
    "ffv1.mkv": _kind(codec="ffv1", frames=40),
    "gif.gif": _kind(codec="gif", pix_fmt="rgb8"),
    "apng.apng": _kind(codec="apng", pix_fmt="rgb24", frames=30),
    # times
    "vfr.mp4": _kind(options=_options(g=20, bf=3), pts=_growing, time_base=Fraction(1, 1000)),
    "vfr.mkv": _kind(options=_options(g=20, bf=3), pts=_growing, time_base=Fraction(1, 1000)),
    "vfr.gif": _kind(codec="gif", pix_fmt="rgb8", pts=lambda i: 4 * i + i * i // 9, time_base=Fraction(1, 100)),
    "gap.mp4": _kind(
        options=_options(g=20, bf=3), pts=lambda i: i * 40 + 11000 * (i >= 50), time_base=Fraction(1, 1000)
    ),
    "start5.mp4": _kind(options=_options(g=20, bf=3), pts=lambda i: i + 125),
    "start5.mkv": _kind(options=_options(g=20, bf=3), pts=lambda i: i + 125),
    "start5.ts": _kind(options=_options(g=20, bf=3), pts=lambda i: i + 125),
    "ntsc.mp4": _kind(options=_options(g=20, bf=3), fps=Fraction(30000, 1001)),
    "ntsc.mkv": _kind(options=_options(g=20, bf=3), fps=Fraction(30000, 1001)),
    # geometry
    "turned90.mp4": _kind(options=_options(g=20), matrix=(0, -1, 1, 0)),
    "turned180.mov": _kind(options=_options(g=20), matrix=(-1, 0, 0, -1)),
    "turned270.mp4": _kind(options=_options(g=20), matrix=(0, 1, -1, 0)),
    "odd.mp4": _kind(options=_options(g=20), width=161, height=97, pix_fmt="yuv444p"),
    "odd.webm": _kind(
        codec="libvpx-vp9", options=_options(g=20, cpu_used=6, deadline="realtime"), width=161, height=97
    ),
}


def make(name: str, folder: Path) -> Path:
    """The file of that kind in `folder`, encoded at the first call."""
    path = folder / name
    if path.exists():
        return path
    if name == "trimmed.mp4":
        return trim(make("long_gop250.mp4", folder), path, skip=37)
    return encode(path, **KINDS[name])


def trim(source: Path, path: Path, *, skip: int) -> Path:
    """A copy without re-encoding whose edit list cuts the first `skip` frames, as cutting tools write it."""
    with av.open(str(source)) as given, av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as output:
        stream = given.streams.video[0]
        copy = output.add_stream_from_template(stream)
        shift = int(skip / 25 / stream.time_base)
        for packet in given.demux(stream):
            if packet.size:
                packet.pts -= shift
                packet.dts -= shift
                packet.stream = copy
                output.mux(packet)
    return path
