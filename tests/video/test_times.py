"""Files whose clock is odd: joined, wrapped, started anew, repeated. Times go on, and a warning says what was found."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from refocus_select.video import open_video
from refocus_select.video._times import join_clocks, repaired
from tests.video.clips import encode, read_all, truth

Clip = Callable[[str], Path]
OPTIONS = {"g": "12", "bf": "2"}


def _joined(folder: Path, *starts: int, options: dict[str, str] | None = None, frames: int = 30) -> Path:
    """Transport streams one behind the other, each of `frames` pictures from its own start on (in pictures)."""
    path = folder / "joined.ts"
    parts = []
    for number, start in enumerate(starts):
        part = encode(
            folder / f"{number}.ts",
            frames,
            options=options or OPTIONS,
            pts=lambda i, start=start: i + start,
            container_options={"mpegts_copyts": "1"},
        )
        parts.append(part.read_bytes())
    path.write_bytes(b"".join(parts))
    return path


def _check(path: Path, numbers: list[int], seconds: list[float], *said: str) -> None:
    rng = np.random.default_rng(len(numbers))
    with open_video(path) as video:
        assert len(video) == len(numbers)
        np.testing.assert_allclose(video.timestamps, seconds, atol=2e-3)
        frames = video.get_frames(np.arange(len(video)))
        assert frames.valid.all()
        assert read_all(frames.data) == numbers
        for index in rng.integers(0, len(numbers), 8).tolist():
            alone = video.get_frames([index], workers=1)
            assert alone.valid.all()
            assert read_all(alone.data) == [numbers[index]]
        assert len(video.warnings) == len(said)
        for warning, word in zip(video.warnings, said, strict=True):
            assert word in warning


def test_segments_of_one_recording(tmp_path: Path) -> None:
    """As from a list of HLS segments: the clock goes on, so there is nothing to say."""
    path = _joined(tmp_path, 0, 30, options={"g": "12", "bf": "0"})
    _check(path, [*range(30), *range(30)], [i / 25 for i in range(60)])


@pytest.mark.parametrize(
    "starts",
    [(0, 0), (0, 10), (200, 0), (0, 25 * 3600), (25 * 95000, 0, 25 * 40000)],
    ids=["same clock", "overlapping", "back", "an hour ahead", "many hours apart"],
)
def test_joined_recordings_follow_each_other(tmp_path: Path, starts: tuple[int, ...]) -> None:
    path = _joined(tmp_path, *starts)
    numbers = [*range(30)] * len(starts)
    said = f"{len(starts)} recordings in one file: its clock jumps at picture 30"
    _check(path, numbers, [i / 25 for i in range(len(numbers))], said)


def test_a_pause_is_kept(tmp_path: Path) -> None:
    path = _joined(tmp_path, 10, 140)
    _check(path, [*range(30), *range(30)], [i / 25 for i in [*range(30), *range(130, 160)]])


@pytest.mark.parametrize("before", [1, 15, 40])
def test_a_clock_that_wraps(tmp_path: Path, before: int) -> None:
    """33 bits of 90 kHz: the clock starts over after 26.5 hours, here so many pictures after the start."""
    start = 2**33 - before * 3600
    path = encode(
        tmp_path / "wrap.ts",
        60,
        options=OPTIONS,
        pts=lambda i: start + i * 3600,
        time_base=Fraction(1, 90000),
        container_options={"mpegts_copyts": "1"},
    )
    _check(path, [*range(60)], [i / 25 for i in range(60)])


def test_programme_streams_are_exact_frame_by_frame(clip: Clip) -> None:
    """Their packets carry other times after a seek."""
    for name in ("mpeg1.mpg", "mpeg2.mpg", "dvd.vob"):
        path = clip(name)
        numbers, times, _ = truth(path)
        _check(path, numbers, [time - times[0] for time in times])


def _remuxed(source: Path, path: Path, change: Callable[[int, int], int]) -> Path:
    """A copy whose packet number n has the time `change(n, time)`."""
    with av.open(str(source)) as given, av.open(str(path), "w") as output:
        stream = given.streams.video[0]
        copy = output.add_stream_from_template(stream)
        number = 0
        for packet in given.demux(stream):
            if packet.size:
                packet.pts = packet.dts = change(number, packet.pts)
                packet.stream = copy
                output.mux(packet)
                number += 1
    return path


def test_one_repeated_time_leaves_the_others_alone(tmp_path: Path) -> None:
    """A screen recording of varying rate in which one packet repeats the time before it."""
    stated = [*range(0, 2000, 40), *range(2000, 42000, 1000)]
    options = {"g": "20", "bf": "0"}
    source = encode(tmp_path / "screen.mkv", 90, options=options, pts=lambda i: stated[i], time_base=Fraction(1, 1000))
    path = _remuxed(source, tmp_path / "repeated.mkv", lambda n, time: stated[69] if n == 70 else time)
    with open_video(path) as video:
        assert len(video) == 90
        frames = video.get_frames(np.arange(90))
        assert read_all(frames.data) == list(range(90))
        assert frames.valid.all()
        others = [n for n in range(90) if n not in (69, 70)]
        np.testing.assert_allclose(video.timestamps[others], [stated[n] / 1000 for n in others], atol=1e-6)
        assert (np.diff(video.timestamps) > 0).all()
        assert "1 of 90 times repeat or step back" in video.warnings[0]
        assert read_all(video.get_frames([77, 70, 5]).data) == [77, 70, 5]


def test_repaired_times() -> None:
    times = np.array([0.0, 1.0, 1.0, 3.0, 2.0, 5.0])
    fixed, changed = repaired(times, 1.0)
    assert changed == 2
    assert (np.diff(fixed) > 0).all()
    assert fixed[[0, 1, 5]].tolist() == [0, 1, 5] or fixed[[0, 2, 5]].tolist() == [0, 1, 5]
    same, none = repaired(np.array([0.0, 0.5, 2.0]), 1.0)
    assert none == 0
    assert same.tolist() == [0, 0.5, 2]
    late, changed = repaired(np.array([0.0, 1.0, 2.0, 0.5, 0.4]), 1.0)
    assert changed == 2
    assert (np.diff(late) > 0).all()


def test_clocks_are_joined_in_the_order_of_the_file() -> None:
    keys = np.array([True, False, False, True, False])
    pts = np.array([2, 3, 4, 0, 1]) * 3600
    joined = join_clocks(pts, pts, keys, 1 / 90000)
    assert joined is not None
    assert (joined.pts // 3600).tolist() == [2, 3, 4, 5, 6]
    assert (joined.starts, joined.wraps) == ([3], 0)
    wrapped = (pts[:3] + np.array([2**33 - 3 * 3600] * 3)) % 2**33
    joined = join_clocks(wrapped, wrapped, keys[:3], 1 / 90000)
    assert joined is not None
    assert np.diff(joined.pts).tolist() == [3600, 3600]
    assert (joined.starts, joined.wraps) == ([], 1)
    assert join_clocks(np.arange(5), np.arange(5), keys, 1 / 90000) is None
