"""Threads: order, bounded buffers, early exit, errors, and many calls at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from refocus_select.errors import InputError
from refocus_select.video import Frames, open_video
from refocus_select.video.engine import BUFFER_FRAMES, Span, fill, stream
from tests.video.clips import read_all

Clip = Callable[[str], Path]


def _decoding_threads() -> int:
    return sum(thread.name.startswith("refocus-decode") for thread in threading.enumerate())


def _numbers(chunks: Iterator[Frames]) -> dict[int, int]:
    """Position -> number read from the picture."""
    seen: dict[int, int] = {}
    for chunk in chunks:
        for position, number in zip(chunk.positions.tolist(), read_all(chunk.data), strict=True):
            assert position not in seen
            seen[position] = number
    return seen


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("name", ["long_gop12.mp4", "long_gop250.mp4", "open_gop.mkv", "raw.h264"])
def test_streams_give_what_was_asked(clip: Clip, name: str, ordered: bool) -> None:
    with open_video(clip(name)) as video:
        count = len(video)
        for indices in (np.arange(count), np.arange(0, count, 7), np.array([5, 3, 3, count - 1, 1, 1, 5])):
            chunks = list(video.iter_frames(indices, size=(96, 160), workers=2, chunk=6, ordered=ordered))
            assert [len(c) for c in chunks[:-1]] == [6] * (len(chunks) - 1)
            for chunk in chunks:
                np.testing.assert_array_equal(chunk.indices, indices[chunk.positions])
                np.testing.assert_array_equal(chunk.timestamps, video.timestamps[chunk.indices])
                assert chunk.valid.all()
            if ordered:
                assert np.concatenate([c.positions for c in chunks]).tolist() == list(range(len(indices)))
            assert _numbers(iter(chunks)) == dict(enumerate(indices.tolist()))
    assert _decoding_threads() == 0


@pytest.mark.parametrize("ordered", [True, False])
def test_leaving_early_stops_the_threads(clip: Clip, ordered: bool) -> None:
    with open_video(clip("long_gop12.mp4")) as video:
        chunks = video.iter_frames(np.arange(500), size=(700, 900), chunk=4, workers=3, ordered=ordered)
        next(chunks)
        assert _decoding_threads() > 0
        chunks.close()  # type: ignore[attr-defined]
        assert _decoding_threads() == 0
        for _ in video.iter_frames(np.arange(500), chunk=4, workers=2, ordered=ordered):
            break
        assert video.get_frames([499]).indices.tolist() == [499], "the video is still usable"


def test_an_error_of_the_consumer_stops_the_threads(clip: Clip) -> None:
    def consume() -> None:
        for _ in video.iter_frames(np.arange(500), size=(700, 900), chunk=4, workers=2):
            raise RuntimeError("the encoder failed")

    with open_video(clip("long_gop12.mp4")) as video:
        with pytest.raises(RuntimeError, match="the encoder failed"):
            consume()
        deadline = time.monotonic() + 10
        while _decoding_threads() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert _decoding_threads() == 0


def test_many_callers_at_once(clip: Clip) -> None:
    with open_video(clip("long_gop12.mp4")) as video, ThreadPoolExecutor(6) as pool:
        rng = np.random.default_rng(0)
        requests = [rng.integers(0, len(video), 12) for _ in range(18)]
        for indices, frames in zip(requests, pool.map(video.get_frames, requests), strict=True):
            assert read_all(frames.data) == indices.tolist()


def test_closing_twice_and_using_after_closing(clip: Clip) -> None:
    video = open_video(clip("gop12.mp4"))
    video.get_frames([3])
    video.close()
    video.close()
    with pytest.raises(InputError, match="closed"):
        video.get_frames([3])
    with pytest.raises(InputError, match="closed"):
        video.iter_frames([3])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"indices": [72]}, "frame 72 does not exist; the frames are 0 to 71"),
        ({"indices": [-1]}, "frame -1 does not exist"),
        ({"indices": [0.5]}, "whole numbers"),
        ({"indices": [[1]]}, "flat list"),
        ({"indices": [True]}, "whole numbers"),
        ({"indices": ["1"]}, "whole numbers"),
        ({"indices": [1], "size": (0, 5)}, "size"),
        ({"indices": [1], "size": 5}, "size"),
        ({"indices": [1], "size": (5, 5.5)}, "size"),
        ({"indices": [1], "size": (5, 10**6)}, "size"),
        ({"indices": [1], "workers": 0}, "workers"),
        ({"indices": [1], "workers": 1.5}, "workers"),
        ({"indices": [1], "chunk": 0}, "chunk"),
    ],
)
def test_unusable_arguments(clip: Clip, arguments: dict, message: str) -> None:
    with open_video(clip("gop12.mp4")) as video:
        with pytest.raises(InputError, match=message):
            video.iter_frames(**arguments)  # before the first frame is asked for
        if "chunk" not in arguments:
            with pytest.raises(InputError, match=message):
                video.get_frames(**arguments)


# -- the engine, with readers that misbehave -----------------------------------------------------------------------


class _Reader:
    """Hands over its span's positions as pictures of one pixel; `hook(position)` may wait or raise."""

    closed = 0

    def __init__(self, hook: Callable[[int], None] = lambda position: None) -> None:
        self.hook = hook

    def read(self, span, put, check) -> None:
        for position in range(span.start, span.stop):
            check()
            self.hook(position)
            put(position, np.full((1, 1, 3), position % 251, np.uint8), position, True)

    def close(self) -> None:
        _Reader.closed += 1


def _spans(count: int, length: int) -> list[Span]:
    return [Span(a, min(a + length, count), None) for a in range(0, count, length)]


def test_memory_is_bounded_while_the_consumer_is_slow() -> None:
    handed_over: list[int] = []
    pictures = stream(
        _spans(4000, 10),
        lambda: _Reader(handed_over.append),
        4,
        total=4000,
        frame_bytes=2**30,  # so large that only the minimum is buffered
        chunk=8,
        ordered=True,
    )
    for expected in range(40):
        assert next(pictures).position == expected
    time.sleep(0.2)
    assert len(handed_over) <= 40 + BUFFER_FRAMES + 4 + 4
    pictures.close()


def test_a_slow_first_span_does_not_lock_the_others_out() -> None:
    def slow(position: int) -> None:
        if position < 10:
            time.sleep(0.01)

    pictures = stream(_spans(300, 10), lambda: _Reader(slow), 3, total=300, frame_bytes=2**30, chunk=4, ordered=True)
    assert [picture.position for picture in pictures] == list(range(300))


@pytest.mark.parametrize("ordered", [True, False])
def test_errors_reach_the_consumer(ordered: bool) -> None:
    def fail(position: int) -> None:
        if position == 57:
            raise ValueError("frame 57 is cursed")

    pictures = stream(_spans(100, 10), lambda: _Reader(fail), 2, total=100, frame_bytes=3, chunk=4, ordered=ordered)
    with pytest.raises(ValueError, match="cursed"):
        list(pictures)
    for workers in (1, 3):
        with pytest.raises(ValueError, match="cursed"):
            fill(_spans(100, 10), lambda: _Reader(fail), workers, lambda *picture: None)
    assert _decoding_threads() == 0


def test_a_reader_that_cannot_start_is_reported() -> None:
    def refuse() -> _Reader:
        raise OSError("no more files")

    with pytest.raises(OSError, match="no more files"):
        fill(_spans(100, 10), refuse, 3, lambda *picture: None)
    with pytest.raises(OSError, match="no more files"):
        list(stream(_spans(100, 10), refuse, 3, total=100, frame_bytes=3, chunk=4, ordered=True))


def test_readers_are_closed() -> None:
    _Reader.closed = 0
    fill(_spans(100, 10), _Reader, 3, lambda *picture: None)
    assert 1 <= _Reader.closed <= 3
    _Reader.closed = 0
    fill(_spans(100, 10), _Reader, 1, lambda *picture: None)
    assert _Reader.closed == 1
