"""What is damaged is flagged, with all that refers to it; what is whole is not called cut short."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from refocus_select.video import open_video
from tests.video.clips import encode, read_all, truth
from tests.video.kinds import trim

Clip = Callable[[str], Path]


def _packets(path: Path) -> list[tuple[bytes, int, bool]]:
    with av.open(str(path)) as container:
        return [(bytes(p), p.pts, p.is_keyframe) for p in container.demux(video=0) if p.size]


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """B pictures that cannot do without the pictures that they refer to."""
    options = {"g": "30", "bf": "3", "b_strategy": "0", "x264-params": "b-pyramid=normal:scenecut=0:threads=1"}
    return encode(tmp_path_factory.mktemp("busy") / "busy.mkv", 90, options=options)


@pytest.mark.parametrize("workers", [1, 3])
def test_b_pictures_shown_before_a_damaged_picture(busy: Path, tmp_path: Path, workers: int) -> None:
    """The decoder marks only the damaged picture itself, and that comes out after those that refer to it."""
    packets = _packets(busy)
    _, _, pictures = truth(busy)
    hurt = next(n for n in range(33, 60) if not packets[n][2] and packets[n][1] > packets[n + 1][1] + 40)
    data = bytearray(busy.read_bytes())
    body = packets[hurt][0][40:]
    place = data.index(body)
    data[place : place + len(body)] = b"\xff" * len(body)
    path = tmp_path / "hurt.mkv"
    path.write_bytes(data)
    shown = round(packets[hurt][1] / 40)
    for asked in (list(range(90)), *([n] for n in range(shown - 4, shown + 2)), list(range(shown - 3, 90, 4))):
        with open_video(path) as video:
            frames = video.get_frames(asked, workers=workers)
            for number, picture, valid in zip(asked, frames.data, frames.valid, strict=True):
                same = np.abs(picture.astype(int) - pictures[number]).mean() < 4
                assert same or not valid, f"frame {number} of {asked[:3]}"
            after = [valid for number, valid in zip(asked, frames.valid, strict=True) if number >= 60]
            assert all(after), "a keyframe ends the damage"
            before = [valid for number, valid in zip(asked, frames.valid, strict=True) if number < shown - 4]
            assert all(before)


@pytest.mark.parametrize("number", [33, 34, 35, 36, 40])
def test_a_packet_that_is_missing(busy: Path, tmp_path: Path, number: int) -> None:
    """From a file with times: nothing is moved, and what refers to the missing picture is flagged."""
    _, _, pictures = truth(busy)
    path = tmp_path / "less.mkv"
    with av.open(str(busy)) as given, av.open(str(path), "w") as output:
        stream = given.streams.video[0]
        copy = output.add_stream_from_template(stream)
        for place, packet in enumerate(given.demux(stream)):
            if packet.size and place != number:
                packet.stream = copy
                output.mux(packet)
    with open_video(path) as video:
        assert len(video) == 89
        frames = video.get_frames(np.arange(89))
        times = np.rint(video.timestamps * 25).astype(int)
        wrong = [
            int(time)
            for time, picture, valid in zip(times, frames.data, frames.valid, strict=True)
            if valid and np.abs(picture.astype(int) - pictures[time]).mean() > 4
        ]
        assert wrong == []
        assert frames.valid.sum() >= 60


@pytest.mark.parametrize("name", ["h264.mkv", "vp9.webm", "gif.gif", "gop12.avi", "fragmented.mp4", "apng.apng"])
@pytest.mark.parametrize("share", [0.6, 0.98])
def test_a_file_that_ends_too_early_is_told(clip: Clip, tmp_path: Path, name: str, share: float) -> None:
    data = clip(name).read_bytes()
    path = tmp_path / f"cut{Path(name).suffix}"
    path.write_bytes(data[: int(len(data) * share)])
    with open_video(path) as video:
        assert "cut short" in video.warnings[0]
        assert len(video) > 10
    with open_video(clip(name)) as video:
        assert video.warnings == ()


def test_whole_files_are_not_called_cut_short(clip: Clip, tmp_path: Path) -> None:
    """The header counts pictures that an edit list hides, and repeated pictures of an AVI."""
    hidden = trim(clip("gop12.mp4"), tmp_path / "hidden.mp4", skip=30)
    sparse = encode(
        tmp_path / "sparse.avi", 30, codec="mpeg4", options={"g": "12"}, pts=lambda i: 3 * i, time_base=Fraction(1, 25)
    )
    remuxed = tmp_path / "remuxed.avi"
    with av.open(str(clip("mpeg4.mp4"))) as given, av.open(str(remuxed), "w") as output:
        stream = given.streams.video[0]
        copy = output.add_stream_from_template(stream)
        for packet in given.demux(stream):
            if packet.size:
                packet.stream = copy
                output.mux(packet)
    for path, numbers in ((hidden, range(30, 72)), (sparse, range(30)), (remuxed, range(72))):
        with open_video(path) as video:
            frames = video.get_frames(np.arange(len(video)))
            assert read_all(frames.data) == list(numbers), path.name
            assert frames.valid.all()
            assert not any("cut short" in warning for warning in video.warnings)
    with open_video(sparse) as video:
        np.testing.assert_allclose(video.timestamps, np.arange(30) * 0.12, atol=1e-6)
    live = tmp_path / "live.webm"  # a browser's recording: the length is never filled in
    encode(live, 30, codec="libvpx", options={"g": "12", "deadline": "realtime"}, container_options={"live": "1"})
    with open_video(live) as video:
        assert video.warnings == ()


def test_something_appended_to_a_file_is_no_damage(clip: Clip, tmp_path: Path) -> None:
    for name in ("gop12.mp4", "h264.mkv", "gop12.avi", "gif.gif"):
        path = tmp_path / f"more{Path(name).suffix}"
        path.write_bytes(clip(name).read_bytes() + bytes(64))
        with open_video(path) as video:
            assert not any("cut short" in warning for warning in video.warnings), name
            assert video.get_frames(np.arange(len(video))).valid.all()


def _hurt(path: Path, number: int, damaged: Path) -> Path:
    """A copy in which the content of a packet is noise from its middle on, and what follows it, too."""
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    place, size = packets[number]
    data = bytearray(path.read_bytes())
    noise = np.random.default_rng(3).bytes(600)
    begin = place + size // 2
    data[begin : begin + len(noise)] = noise
    damaged.write_bytes(data)
    return damaged


@pytest.mark.parametrize("name", ["hevc_10bit.mkv", "vp9.webm"])
def test_a_picture_that_reaches_into_damage(clip: Clip, tmp_path: Path, name: str) -> None:
    """Behind the damage the file cannot be followed; the decoder finds no fault with what it got of the last."""
    path = _hurt(clip(name), 33, tmp_path / f"hurt{Path(name).suffix}")
    _, _, pictures = truth(clip(name))
    with open_video(path) as video:
        frames = video.get_frames(np.arange(len(video)))
        times = np.rint(video.timestamps * 25).astype(int)
        for time, picture, valid in zip(times, frames.data, frames.valid, strict=True):
            assert not valid or np.abs(picture.astype(int) - pictures[time]).mean() < 4, time
        assert not frames.valid.all()
        assert frames.valid.mean() > 0.5
        assert any("damaged behind packet 33" in warning for warning in video.warnings)


@pytest.mark.parametrize("name", ["h264.mkv", "vp9.webm", "open_gop.mkv", "hevc_10bit.mkv", "vfr.mkv"])
def test_intact_matroska_is_followed_to_its_end(clip: Clip, name: str) -> None:
    with open_video(clip(name)) as video:
        assert video.index.lost == ()  # type: ignore[attr-defined]


def test_messages_that_are_not_understood_are_no_damage(clip: Clip, tmp_path: Path) -> None:
    """An HEVC message (SEI) with a length beyond its end, before every third picture."""
    path = tmp_path / "odd.mkv"
    odd = bytes([39 << 1, 1, 137, 24, 0])  # mastering display colour volume, cut off
    with av.open(str(clip("hevc.mp4"))) as given, av.open(str(path), "w") as output:
        stream = given.streams.video[0]
        copy = output.add_stream_from_template(stream)
        for number, packet in enumerate(given.demux(stream)):
            if packet.size:
                data = (len(odd).to_bytes(4, "big") + odd if number % 3 == 1 else b"") + bytes(packet)
                other = av.Packet(data)
                other.pts, other.dts, other.time_base = packet.pts, packet.dts, packet.time_base
                other.is_keyframe, other.stream = packet.is_keyframe, copy
                output.mux(other)
    with open_video(path) as video:
        for workers in (1, 3):
            frames = video.get_frames(np.arange(72), workers=workers)
            assert frames.valid.all()
            assert read_all(frames.data) == list(range(72))
        assert video.warnings == ()
