"""Files that call packets keyframes that are none: pictures are decoded from true ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from refocus_select.video import open_video
from tests.video.clips import encode, read_all, truth

Clip = Callable[[str], Path]


def _check(path: Path, count: int) -> None:
    _, _, pictures = truth(path)
    with open_video(path) as video:
        for asked in (list(range(count)), [count // 2], [count - 1, 3], list(range(1, count, 7))):
            frames = video.get_frames(asked)
            assert frames.valid.all()
            assert read_all(frames.data) == asked
            for number, picture in zip(asked, frames.data, strict=True):
                assert np.abs(picture.astype(int) - pictures[number]).max() <= 4
        assert video.warnings == ()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("hevc.mp4", "mkv"), ("hevc.mp4", "mp4"), ("mpeg4.mp4", "mp4"), ("msmpeg4.avi", "avi"), ("wmv2.asf", "asf"),
        ("gop30_b.mp4", "mkv"), ("vp9.webm", "webm"),
    ],
)  # fmt: skip
def test_all_packets_are_called_keyframes(clip: Clip, tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / f"all.{kind}"
    with av.open(str(clip(name))) as given, av.open(str(path), "w") as output:
        stream = given.streams.video[0]
        copy = output.add_stream_from_template(stream)
        for packet in given.demux(stream):
            if packet.size:
                packet.is_keyframe, packet.stream = True, copy
                output.mux(packet)
    _check(path, 72)


@pytest.mark.parametrize("name", ["gop12.mp4", "long_gop12.mp4", "hevc.mp4", "mpeg4.mp4"])
def test_an_mp4_without_its_list_of_keyframes(clip: Clip, tmp_path: Path, name: str) -> None:
    path = tmp_path / "none.mp4"
    path.write_bytes(clip(name).read_bytes().replace(b"stss", b"free"))
    _check(path, 530 if name.startswith("long") else 72)


def test_a_file_whose_pictures_all_decode_alone(clip: Clip) -> None:
    with open_video(clip("gop1.mp4")) as video:
        assert len(video.index.key_positions) == 72  # type: ignore[attr-defined]
        assert not video.index.counted  # type: ignore[attr-defined]


def test_h263(tmp_path: Path) -> None:
    """In AVI its packets all look like keyframes to FFmpeg."""
    path = encode(
        tmp_path / "a.avi", 30, codec="h263", options={"g": "12", "b": "4M"}, width=352, height=288,
    )  # fmt: skip
    _, _, pictures = truth(path)
    with open_video(path, square_pixels=False) as video:
        for number in (7, 14, 29):
            np.testing.assert_allclose(video.get_frames([number]).data[0].astype(int), pictures[number], atol=4)
