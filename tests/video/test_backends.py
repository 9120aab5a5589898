"""The other decoders agree with PyAV wherever they are accepted, and are refused where they are known to be wrong."""

from __future__ import annotations

import builtins
import platform
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from refocus_select.errors import InputError, MissingDependencyError, UnsupportedVideoError, VideoDecodeError
from refocus_select.video import open_video
from tests.video.clips import read_all

Clip = Callable[[str], Path]

# fmt: off
DECORD_RIGHT = [
    "gop1.mp4", "gop12.mp4", "gop30_b.mp4", "pyramid.mp4", "one_gop.mp4", "long_gop250.mp4", "interlaced.mp4",
    "with_sound.mp4", "fragmented.mp4", "h264.mkv", "hevc_closed.mp4", "vp8.webm", "vp9.webm", "vp9.mp4",
    "vfr.mp4", "gap.mp4", "start5.mkv", "ntsc.mp4", "turned90.mp4", "turned180.mov", "odd.mp4", "one_frame.mp4",
]
# fmt: on
DECORD_WRONG = {
    "open_gop.mp4": "open GOP",
    "open_gop.mkv": "open GOP",
    "hevc.mp4": "open GOP",
    "hevc_10bit.mkv": "open GOP",
    "intra_refresh.mp4": "intra refresh",
    "trimmed.mp4": "edit list",
    "h264.ts": "mpegts",
    "hevc.ts": "mpegts",
    "mpeg2.mpg": "mpeg",
    "raw.h264": "no usable presentation times",
    "h264.avi": "no usable presentation times",
    "av1.mp4": "too old for av1",
    "gif.gif": "too old for gif",
}
decord_only = pytest.mark.skipif(
    sys.platform == "darwin" or platform.machine() not in ("x86_64", "AMD64"),
    reason="decord has no wheels for this platform",
)


def _agree(video, reference) -> None:
    count = len(reference)
    assert len(video) == count
    rng = np.random.default_rng(count)
    requests = [np.arange(0, count, 3), rng.integers(0, count, 9), np.array([count - 1]), np.array([count // 2])]
    for indices in requests:
        frames, expected = video.get_frames(indices), reference.get_frames(indices)
        np.testing.assert_array_equal(frames.indices, indices)
        np.testing.assert_array_equal(frames.timestamps, expected.timestamps)
        assert np.abs(frames.data.astype(int) - expected.data).mean(axis=(1, 2, 3)).max() < 4
    turned = reference.metadata.rotation in (90, 270)
    small = video.get_frames(np.arange(0, count, 7), size=(80, 48) if turned else (48, 80))
    expected = reference.get_frames(np.arange(0, count, 7), size=(80, 48) if turned else (48, 80))
    assert np.abs(small.data.astype(int) - expected.data).mean(axis=(1, 2, 3)).max() < 8


@decord_only
@pytest.mark.parametrize("name", DECORD_RIGHT)
def test_decord_agrees(clip: Clip, name: str) -> None:
    with open_video(clip(name), backend="decord") as video, open_video(clip(name)) as reference:
        assert video.metadata.backend == "decord"
        _agree(video, reference)


@decord_only
@pytest.mark.parametrize("name", DECORD_WRONG)
def test_decord_is_refused(clip: Clip, name: str) -> None:
    with pytest.raises(UnsupportedVideoError, match=DECORD_WRONG[name]) as caught:
        open_video(clip(name), backend="decord")
    assert "backend='pyav'" in str(caught.value)
    assert name in str(caught.value)


@decord_only
def test_decord_streams(clip: Clip) -> None:
    with open_video(clip("long_gop12.mp4"), backend="decord") as video:
        numbers = [n for chunk in video.iter_frames(np.arange(0, 500, 9), chunk=10) for n in read_all(chunk.data)]
        assert numbers == list(range(0, 500, 9))


def test_torchcodec_agrees_or_says_what_it_needs(clip: Clip) -> None:
    """torchcodec needs FFmpeg's libraries on the system, which a test machine may not have."""
    try:
        open_video(clip("gop12.mp4"), backend="torchcodec").close()
    except MissingDependencyError as error:
        assert "torchcodec" in str(error)  # noqa: PT017  # one of two outcomes, both of which are checked
        return
    for name in ("gop30_b.mp4", "open_gop.mp4", "hevc_10bit.mkv", "vp9.webm", "vfr.mp4", "trimmed.mp4", "turned90.mp4"):
        with open_video(clip(name), backend="torchcodec") as video, open_video(clip(name)) as reference:
            _agree(video, reference)
    for name in ("intra_refresh.mp4", "h264.ts"):
        with (
            pytest.raises((UnsupportedVideoError, VideoDecodeError), match="pyav"),
            open_video(clip(name), backend="torchcodec") as video,
        ):
            video.get_frames(np.arange(len(video)))
    with pytest.raises(UnsupportedVideoError, match="presentation times"):
        open_video(clip("raw.h264"), backend="torchcodec")


class _FakeBatch:
    def __init__(self, data, seconds) -> None:
        import torch

        self.data, self.pts_seconds = torch.from_numpy(data), torch.from_numpy(seconds)


def _fake_torchcodec(path: Path, shift: float) -> type:
    """Stands in for torchcodec's decoder where it cannot be loaded; its times are off by `shift`."""
    reference = open_video(path)

    class Decoder:
        def __init__(self, path, **options) -> None:
            assert options["seek_mode"] == "exact"

        def __len__(self) -> int:
            return len(reference)

        def get_frames_at(self, indices) -> _FakeBatch:
            frames = reference.get_frames(indices)
            return _FakeBatch(frames.data, frames.timestamps + reference.metadata.start_time + shift)

    return Decoder


def test_torchcodec_times_are_checked(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    from refocus_select.video import _torchcodec

    path = clip("start5.mp4")
    for shift, wrong in ((0.0, False), (0.04, True)):
        monkeypatch.setattr(_torchcodec, "_import_decoder", lambda shift=shift: _fake_torchcodec(path, shift))
        with open_video(path, backend="torchcodec") as video:
            if wrong:
                with pytest.raises(UnsupportedVideoError, match="another picture"):
                    video.get_frames([3, 4])
            else:
                assert read_all(video.get_frames([9, 3, 40], size=(192, 320)).data) == [9, 3, 40]


@pytest.mark.parametrize("package", ["decord", "torchcodec"])
def test_missing_packages_are_named(clip: Clip, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    real = builtins.__import__

    def without(name, *arguments, **more):
        if name.split(".")[0] == package:
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)
        return real(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingDependencyError, match=f"pip install {package}"):
        open_video(clip("gop12.mp4"), backend=package)


def test_backend_by_environment(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFOCUS_VIDEO_BACKEND", "quicktime")
    with pytest.raises(InputError, match="REFOCUS_VIDEO_BACKEND must be one of pyav, torchcodec, decord"):
        open_video(clip("gop12.mp4"))
    assert open_video(clip("gop12.mp4"), backend="pyav").metadata.backend == "pyav", "the argument wins"
    monkeypatch.setenv("REFOCUS_VIDEO_BACKEND", "")
    assert open_video(clip("gop12.mp4")).metadata.backend == "pyav"
    with pytest.raises(InputError, match="backend must be one of"):
        open_video(clip("gop12.mp4"), backend="ffmpeg")


@decord_only
def test_decord_by_environment(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFOCUS_VIDEO_BACKEND", "decord")
    with open_video(clip("gop12.mp4")) as video:
        assert video.metadata.backend == "decord"
