"""A video that is open when a process forks, or that is sent to another, can be read there. With real processes."""

from __future__ import annotations

import io
import multiprocessing
import os
import pickle
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from refocus_select.errors import InputError
from refocus_select.video import open_video
from tests.video.clips import draw, read_all

Clip = Callable[[str], Path]
TIME_LIMIT = 60  # seconds; a child that hangs is ended
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


def _read(video, indices, results) -> None:
    try:
        results.put(read_all(video.get_frames(indices, workers=2).data))
    except BaseException as error:
        results.put(f"{type(error).__name__}: {error}")


def _in_child(method: str, function, *arguments):
    context = multiprocessing.get_context(method)
    results = context.Queue()
    process = context.Process(target=function, args=(*arguments, results), daemon=True)
    process.start()
    try:
        return results.get(timeout=TIME_LIMIT)
    finally:
        process.kill()
        process.join()


@forks
@pytest.mark.parametrize("name", ["one_gop.mp4", "h264.ts", "raw.h264", "vp8.webm", "mpeg2.mpg", "av1.mp4"])
def test_a_video_that_was_read_before_a_fork(clip: Clip, name: str) -> None:
    with open_video(clip(name)) as video:
        assert read_all(video.get_frames([5, 40, 0], workers=4).data) == [5, 40, 0]  # keeps decoders with threads
        assert _in_child("fork", _read, video, [3, 70, 9]) == [3, 70, 9]
        assert read_all(video.get_frames([6], workers=4).data) == [6], "the parent's decoders are still its own"


def _go_on(frames, results) -> None:
    try:
        next(frames)
        results.put("went on")
    except InputError as error:
        results.put(str(error))
    frames.close()


@forks
def test_frames_under_way_stay_with_their_process(clip: Clip) -> None:
    with open_video(clip("long_gop12.mp4")) as video:
        frames = video.iter_frames(range(500), chunk=4)
        next(frames)
        assert "cannot be taken along into another process" in _in_child("fork", _go_on, frames)
        assert read_all(next(frames).data) == [4, 5, 6, 7]
        frames.close()


@forks
def test_a_child_does_not_remove_the_parents_file(clip: Clip) -> None:
    with open_video(clip("gop12.mp4").read_bytes()) as video:
        pid = os.fork()
        if pid == 0:
            video.close()
            os._exit(0)
        os.waitpid(pid, 0)
        assert read_all(video.get_frames([8]).data) == [8]


@pytest.mark.parametrize("name", ["gop12.mp4", "turned90.mp4", "raw.h264"])
def test_pickled(clip: Clip, name: str) -> None:
    with open_video(clip(name)) as video:
        expected = video.get_frames([3, 50])
        with pickle.loads(pickle.dumps(video)) as copy:
            frames = copy.get_frames([3, 50])
            np.testing.assert_array_equal(frames.data, expected.data)
            assert copy.metadata == video.metadata
            assert copy.fingerprint == video.fingerprint
        video.get_frames([1])


def test_pictures_are_pickled(clip: Clip, tmp_path: Path) -> None:
    pictures = [draw(number) for number in range(4)]
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
    file = io.BytesIO()
    images = [Image.fromarray(picture) for picture in pictures]
    images[0].save(file, "WEBP", save_all=True, append_images=images[1:], duration=100, lossless=True)
    animated = tmp_path / "film.webp"
    animated.write_bytes(file.getvalue())
    for source in (tmp_path, images, np.stack(pictures), animated, file.getvalue(), clip("gop12.mp4").read_bytes()):
        beside = {} if isinstance(source, bytes) or source is animated else {"fps": 2}
        with open_video(source, **beside) as video, pickle.loads(pickle.dumps(video)) as copy:
            assert read_all(copy.get_frames([3, 0]).data) == [3, 0]
            assert copy.timestamps.tolist() == video.timestamps.tolist()
            assert copy.fingerprint == video.fingerprint
    with open_video(animated) as video:
        assert _in_child("spawn", _read, video, [2, 1]) == [2, 1]


def test_sent_to_a_process_of_its_own(clip: Clip) -> None:
    with open_video(clip("gop30_b.mp4")) as video:
        video.get_frames([5])
        assert _in_child("spawn", _read, video, [3, 70]) == [3, 70]


@forks
def test_a_server_that_loads_first_and_forks_then(clip: Clip, tmp_path: Path) -> None:
    """As gunicorn with `preload_app`: workers are forked, serve, and end like ordinary programs."""
    script = textwrap.dedent("""
        import os, sys
        from refocus_select.video import open_video
        from tests.video.clips import draw, read_all
        video = open_video(sys.argv[1])
        video.get_frames([0, 30], workers=4)
        children = []
        for number in range(2):
            pid = os.fork()
            if pid == 0:
                assert read_all(video.get_frames([number, 60], workers=4).data) == [number, 60]
                sys.exit(7)  # an ordinary end, which frees what there is
            children.append(pid)
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
        assert codes == [7, 7], codes
        assert read_all(video.get_frames([9]).data) == [9]
        print("served")
    """)
    done = subprocess.run(
        [sys.executable, "-c", script, str(clip("one_gop.mp4"))],
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert "served" in done.stdout, done.stderr[-2000:]


def test_workers_of_a_data_loader(clip: Clip) -> None:
    data = pytest.importorskip("torch.utils.data")
    with open_video(clip("gop12.mp4")) as video:
        video.get_frames([0, 50], workers=4)

        class Films(data.Dataset):
            def __len__(self) -> int:
                return 6

            def __getitem__(self, number: int) -> int:
                return read_all(video.get_frames([10 * number]).data)[0]

        loader = data.DataLoader(Films(), batch_size=2, num_workers=2, timeout=TIME_LIMIT)
        assert [int(n) for batch in loader for n in batch] == [0, 10, 20, 30, 40, 50]
