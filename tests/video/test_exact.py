"""Every kind of file gives exactly the frames and times that a plain front-to-back decode gives."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from refocus_select.video import open_video
from refocus_select.video._table import read_table
from refocus_select.video.container import PYAV, open_container
from tests.video.clips import HEIGHT, WIDTH, encode, read, read_all, truth
from tests.video.kinds import KINDS

Clip = Callable[[str], Path]
NO_TIMES = {
    "raw.h264",
    "raw_step1.h264",
    "raw.hevc",
    "h264.avi",
    "mpeg4.avi",
    "raw.m2v",
    "raw.m1v",
}  # PyAV itself has no or jumbled times for these


@pytest.mark.parametrize("name", [*KINDS, "trimmed.mp4"])
def test_pixels_and_times(clip: Clip, name: str) -> None:
    path = clip(name)
    numbers, times, pictures = truth(path)
    first = 37 if name == "trimmed.mp4" else 0
    assert numbers == list(range(first, first + len(numbers))), "the clip itself is readable"
    rng = np.random.default_rng(len(name))
    with open_video(path) as video:
        count = len(numbers)
        assert len(video) == video.metadata.num_frames == count
        turns = video.metadata.rotation // 90
        requests = [
            (np.arange(count), None),
            (np.arange(count), 1),
            (np.sort(rng.choice(count, min(9, count), replace=False)), 3),
            (rng.integers(0, count, 7), None),
            (np.array([count - 1]), None),
            (rng.integers(0, count, 1), None),
        ]
        for indices, workers in requests:
            frames = video.get_frames(indices, workers=workers)
            assert frames.valid.all()
            np.testing.assert_array_equal(frames.indices, indices)
            np.testing.assert_array_equal(frames.timestamps, video.timestamps[indices])
            for index, picture in zip(indices, frames.data, strict=True):
                np.testing.assert_array_equal(picture, np.rot90(pictures[index], turns), err_msg=f"frame {index}")
        small = video.get_frames(np.arange(0, count, 5), size=(96, 160) if turns % 2 == 0 else (160, 96))
        assert read_all(np.rot90(picture, -turns) for picture in small.data) == numbers[::5]
        if name not in NO_TIMES:
            np.testing.assert_allclose(video.timestamps, np.array(times) - times[0], atol=1e-6)
            assert video.metadata.start_time == pytest.approx(times[0], abs=1e-6)
        assert video.timestamps[0] == 0
        assert (np.diff(video.timestamps) > 0).all()
        assert video.warnings == () or name.startswith("raw")


def test_metadata(clip: Clip) -> None:
    with open_video(clip("ntsc.mp4")) as video:
        meta = video.metadata
        assert (meta.width, meta.height, meta.rotation) == (WIDTH, HEIGHT, 0)
        assert meta.average_fps == pytest.approx(30000 / 1001)
        assert meta.duration == pytest.approx(72 * 1001 / 30000)
        assert meta.keyframe_interval == pytest.approx(20 * 1001 / 30000)
        assert (meta.codec, meta.backend, meta.is_vfr, meta.start_time) == ("h264", "pyav", False, 0.0)
        assert meta.to_dict()["num_frames"] == 72
    with open_video(clip("vfr.mp4")) as video:
        assert video.metadata.is_vfr
    with open_video(clip("start5.mkv")) as video:
        assert video.metadata.start_time == 5.0
        assert not video.metadata.is_vfr
    with open_video(clip("one_gop.mp4")) as video:
        assert video.metadata.keyframe_interval is None
    with open_video(clip("av1.mp4")) as video:
        assert video.metadata.codec == "av1"


@pytest.mark.parametrize(("name", "rotation"), [("turned90.mp4", 90), ("turned180.mov", 180), ("turned270.mp4", 270)])
def test_rotation_is_applied(clip: Clip, name: str, rotation: int) -> None:
    with open_video(clip(name)) as video:
        assert video.metadata.rotation == rotation
        upright = (HEIGHT, WIDTH) if rotation == 180 else (WIDTH, HEIGHT)
        assert (video.metadata.height, video.metadata.width) == upright
        picture = video.get_frames([30]).data[0]
        assert picture.shape[:2] == upright
        assert read(np.rot90(picture, -rotation // 90)) == 30
        assert video.get_frames([3], size=(50, 70)).data.shape == (1, 50, 70, 3)


@pytest.mark.skipif(PYAV < 17, reason="this PyAV does not show the table")
def test_the_table_of_an_mp4_says_what_its_packets_say(clip: Clip) -> None:
    used = {}
    for name in ("long_gop12.mp4", "long_open_gop.mp4", "long_vfr.mp4", "long_hevc.mov", "trimmed.mp4", "gop12.mp4"):
        path = str(clip(name))
        opened, stream = open_container(path, name)
        with opened:
            table = read_table(path, opened, stream, os.path.getsize(path))
        used[name] = table is not None
        if table is not None:
            again, stream = open_container(path, name)
            with again:
                packets = [(p.pts, p.is_keyframe, p.duration) for p in again.demux(stream) if p.size]
            assert table.pts.tolist() == [pts for pts, _, _ in packets]
            assert table.keys.tolist() == [key for _, key, _ in packets]
            assert table.last_duration == packets[-1][2]
    assert used == {
        "long_gop12.mp4": True,
        "long_open_gop.mp4": True,
        "long_vfr.mp4": True,
        "long_hevc.mov": True,
        "trimmed.mp4": False,  # an edit list
        "gop12.mp4": False,  # too short to be worth it
    }


@pytest.fixture(scope="module")
def irregular(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keyframes at irregular places: GOPs of 1 to 47 frames, with B-frames."""
    return encode(
        tmp_path_factory.mktemp("irregular") / "irregular.mp4",
        160,
        options={"g": "1000", "bf": "3", "x264-params": "scenecut=0", "forced-idr": "1"},
        keyframes={0, 1, 2, 5, 40, 41, 60, 107, 108, 130, 131, 132, 150},
    )


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(indices=st.lists(st.integers(0, 159), min_size=1, max_size=40), workers=st.integers(1, 4), exact=st.booleans())
def test_any_request_on_irregular_keyframes(irregular: Path, indices: list[int], workers: int, exact: bool) -> None:
    with open_video(irregular) as video:
        frames = video.get_frames(indices, workers=workers, exact=exact)
        assert read_all(frames.data) == frames.indices.tolist()
        assert frames.positions.tolist() == list(range(len(indices)))
        if exact:
            assert frames.indices.tolist() == indices
        streamed = list(video.iter_frames(indices, workers=workers, exact=exact, chunk=5, ordered=False))
        seen = {int(p): int(i) for chunk in streamed for p, i in zip(chunk.positions, chunk.indices, strict=True)}
        assert len(seen) == len(indices)
        for chunk in streamed:
            assert read_all(chunk.data) == chunk.indices.tolist()


def test_snapping_moves_frames_to_keyframes_and_says_so(clip: Clip) -> None:
    with open_video(clip("long_gop12.mp4")) as video:
        asked = np.arange(3, 530, 25)
        frames = video.get_frames(asked, exact=False)
        assert read_all(frames.data) == frames.indices.tolist()
        np.testing.assert_array_equal(frames.timestamps, video.timestamps[frames.indices])
        assert (frames.indices % 12 == 0).all()
        assert np.abs(frames.indices - asked).max() <= 12
        assert len(np.unique(frames.indices)) == len(asked)
        dense = np.arange(0, 100, 2)  # keyframes too rare: most stay
        frames = video.get_frames(dense, exact=False)
        assert np.abs(frames.indices - dense).max() <= 1
        assert video.get_frames([7], exact=False).indices.tolist() == [7]


def test_no_indices_give_no_frames(clip: Clip) -> None:
    with open_video(clip("gop12.mp4")) as video:
        frames = video.get_frames([], size=(8, 9))
        assert frames.data.shape == (0, 8, 9, 3)
        assert len(frames) == 0
        assert list(video.iter_frames([])) == []
