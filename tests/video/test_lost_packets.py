"""Packets lost from streams without times: what follows keeps its time, and what depends on them is flagged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from refocus_select.video import open_video
from tests.video.clips import read_all, truth

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


@pytest.mark.parametrize("name", ["raw.h264", "h264.avi", "mpeg4.avi", "raw_step1.h264"])
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
        assert len(video) >= 72 - len(lost) - 3
        wrong = [
            (row, int(time), number)
            for row, (time, number, valid) in enumerate(zip(times, shown, frames.valid, strict=True))
            if valid and (number != time or np.abs(frames.data[row].astype(int) - pictures[time]).mean() > 6)
        ]
        assert wrong == []
        assert frames.valid.mean() > 0.6
        assert any("missing" in warning for warning in video.warnings)
        assert shown[-1] == 71


@pytest.mark.parametrize("name", ["raw.h264", "raw_step1.h264", "h264.avi", "mpeg4.avi"])
def test_whole_streams_lack_nothing(clip: Clip, name: str) -> None:
    with open_video(clip(name)) as video:
        assert video.index.lost == ()  # type: ignore[attr-defined]
        assert not any("missing" in warning for warning in video.warnings)
        np.testing.assert_allclose(video.timestamps, np.arange(72) / 25, atol=1e-6)
