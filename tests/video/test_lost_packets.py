"""Packets lost from streams without times: what follows keeps its time, and what depends on them is flagged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from refocus_select.video import open_video
from tests.video.clips import encode, read_all, truth

Clip = Callable[[str], Path]


def _packets(path: Path) -> list[tuple[bytes, bool]]:
    with av.open(str(path)) as container:
        return [(bytes(p), p.is_keyframe) for p in container.demux(video=0) if p.size]


def _without(path: Path, damaged: Path, lost: list[int]) -> Path:
    """A copy in which some packets cannot be found any more."""
    data = path.read_bytes()
    packets = [packet for packet, _ in _packets(path)]
    if path.suffix == ".avi":
        for number in lost:  # their chunks become ones that are skipped, and the table is dropped
            place = data.index(packets[number]) - 8
            assert data[place : place + 4] == b"00dc"
            data = data[:place] + b"JUNK" + data[place + 4 :]
        data = data.replace(b"idx1", b"JUNK")
    else:
        data = b"".join(packet for number, packet in enumerate(packets) if number not in lost)
    damaged.write_bytes(data)
    return damaged


NAMES = ["raw.h264", "h264.avi", "mpeg4.avi", "raw_step1.h264", "raw.hevc", "raw.m2v", "raw.m1v"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("lost", [[23], [24], [25], [26], [23, 24, 25]])
def test_a_lost_packet_moves_nothing(clip: Clip, tmp_path: Path, name: str, lost: list[int]) -> None:
    source = clip(name)
    keys = [number for number, (_, key) in enumerate(_packets(source)) if key]
    assert not set(keys) & set(lost)
    _, _, pictures = truth(source)
    with open_video(_without(source, tmp_path / f"lost{source.suffix}", lost)) as video:
        frames = video.get_frames(np.arange(len(video)))
        shown = read_all(frames.data)
        times = np.rint(video.timestamps * 25).astype(int)
        assert len(video) >= 72 - len(lost) - 14  # FFmpeg keeps some HEVC pictures back that refer to the lost one
        wrong = [
            (row, int(time), number)
            for row, (time, number, valid) in enumerate(zip(times, shown, frames.valid, strict=True))
            if valid and (number != time or np.abs(frames.data[row].astype(int) - pictures[time]).mean() > 6)
        ]
        assert wrong == []
        assert frames.valid.mean() > 0.6
        assert any("missing" in warning for warning in video.warnings)
        assert shown[-1] == 71


@pytest.mark.parametrize("name", NAMES)
def test_whole_streams_lack_nothing(clip: Clip, name: str) -> None:
    with open_video(clip(name)) as video:
        assert video.index.lost == ()  # type: ignore[attr-defined]
        assert not any("missing" in warning for warning in video.warnings)
        np.testing.assert_allclose(video.timestamps, np.arange(72) / 25, atol=1e-6)


@pytest.mark.parametrize("name", ["hevc.mp4", "hevc_10bit.mkv", "hevc.ts", "mpeg2.ts", "mpeg2.mpg"])
@pytest.mark.parametrize("lost", [24, 25, 26, 35])
def test_what_refers_to_a_lost_packet_is_flagged(clip: Clip, tmp_path: Path, name: str, lost: int) -> None:
    """The decoder shows something in its place without a word."""
    source = clip(name)
    _, _, pictures = truth(source)
    path = tmp_path / f"lost{source.suffix}"
    with av.open(str(source)) as given, av.open(str(path), "w") as output:
        stream = given.streams.video[0]
        copy = output.add_stream_from_template(stream)
        for number, packet in enumerate(given.demux(stream)):
            if packet.size and number != lost:
                packet.stream = copy
                output.mux(packet)
    with open_video(path) as video:
        frames = video.get_frames(np.arange(len(video)))
        times = np.rint(video.timestamps * 25).astype(int)
        wrong = [
            int(time)
            for time, picture, valid in zip(times, frames.data, frames.valid, strict=True)
            if valid and np.abs(picture.astype(int) - pictures[time]).mean() > 6
        ]
        assert wrong == []
        assert frames.valid.mean() > 0.75


def test_sectors_lost_from_a_programme_stream(tmp_path: Path) -> None:
    """Only some of its pictures are stamped with a time: the others must not move."""
    source = encode(
        tmp_path / "whole.mpg", 72, codec="mpeg2video", options={"g": "12", "bf": "2", "b": "6M"}, container="mpeg",
        width=480, height=288,
    )  # fmt: skip
    _, _, pictures = truth(source)
    data = source.read_bytes()
    for first, last in ((20, 21), (40, 41), (60, 64), (61, 70)):
        path = tmp_path / "lost.mpg"
        path.write_bytes(data[: 2048 * first] + data[2048 * last :])
        with open_video(path) as video:
            frames = video.get_frames(np.arange(len(video)))
            times = np.rint(video.timestamps * 25).astype(int)
            for time, picture, valid in zip(times, frames.data, frames.valid, strict=True):
                assert not valid or np.abs(picture.astype(int) - pictures[time]).mean() < 6, (first, time)
            assert frames.valid.mean() > 0.7
            assert not frames.valid.all()
