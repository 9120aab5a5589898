"""Everything that can be opened: paths, URLs, bytes, file objects, folders, pictures, arrays."""

from __future__ import annotations

import functools
import http.server
import io
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from refocus_select.errors import InputError, VideoOpenError
from refocus_select.video import open_video, sample_candidates, sources
from tests.video.clips import HEIGHT, WIDTH, draw, read, read_all

Clip = Callable[[str], Path]


def _check_file(video, path: Path) -> None:
    with video, open_video(path) as expected:
        np.testing.assert_array_equal(video.timestamps, expected.timestamps)
        assert read_all(video.get_frames([0, 50, 31]).data) == [0, 50, 31]


def test_path_objects_strings_bytes_paths_and_file_urls(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    path = clip("gop12.mp4")
    monkeypatch.chdir(path.parent)
    for source in (path, str(path), path.name, path.as_uri()):
        _check_file(open_video(source), path)
    video = open_video(path)
    assert open_video(video) is video
    video.close()


@pytest.mark.skipif(os.name != "posix", reason="Windows forbids most of these characters in names")
def test_unusual_file_names(clip: Clip, tmp_path: Path) -> None:
    data = clip("gop12.mp4").read_bytes()
    names = ["sp ace.mp4", "%03d.mp4", "ha#sh?.mp4", "ünï.mp4", "|pipe.mp4", "-dash.mp4", "pipe:0", "new\nline.mp4"]
    for name in names:
        (tmp_path / name).write_bytes(data)
        with open_video(tmp_path / name) as video:
            assert read_all(video.get_frames([40]).data) == [40]


def test_bytes_and_file_objects(clip: Clip) -> None:
    path = clip("h264.mkv")
    data = path.read_bytes()

    class Pipe:  # cannot seek, and gives few bytes at a time
        def __init__(self) -> None:
            self.inner = io.BytesIO(data)

        def read(self, size: int = -1) -> bytes:
            return self.inner.read(min(size, 1000))

    for source in (data, bytearray(data), memoryview(data), io.BytesIO(data), Pipe()):
        _check_file(open_video(source), path)
    with path.open("rb") as file:
        _check_file(open_video(file), path)
    assert open_video(data).fingerprint == open_video(io.BytesIO(data)).fingerprint


def test_temporary_files_go_with_the_video(clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources.tempfile, "tempdir", str(tmp_path))
    data = clip("gop12.mp4").read_bytes()
    video = open_video(data)
    assert len(os.listdir(tmp_path)) == 1
    video.close()
    assert os.listdir(tmp_path) == []
    video = open_video(data)
    del video
    assert os.listdir(tmp_path) == []
    with pytest.raises(VideoOpenError):
        open_video(data[:100])
    assert os.listdir(tmp_path) == []


@pytest.fixture
def server(clip: Clip, tmp_path: Path) -> Iterator[str]:
    (tmp_path / "film.mp4").write_bytes(clip("gop12.mp4").read_bytes())
    (tmp_path / "page.html").write_text("<html>no film</html>")
    (tmp_path / "list.m3u8").write_text("#EXTM3U\nfilm.mp4\n")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/moved":
                self.send_response(302)
                self.send_header("Location", "/film.mp4")
                self.end_headers()
            elif self.path == "/to-file":
                self.send_response(302)
                self.send_header("Location", (tmp_path / "film.mp4").as_uri())
                self.end_headers()
            elif self.path == "/broken.mp4":
                self.send_response(200)
                self.send_header("Content-Length", "1000000")
                self.end_headers()
                self.wfile.write(b"only this")
            else:
                super().do_GET()

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=tmp_path)) as web:
        thread = threading.Thread(target=web.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{web.server_port}"
        web.shutdown()
        thread.join()


def test_urls(clip: Clip, server: str) -> None:
    _check_file(open_video(f"{server}/film.mp4"), clip("gop12.mp4"))
    _check_file(open_video(f"{server}/moved"), clip("gop12.mp4"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.mp4", "404"),
        ("page.html", "web page"),
        ("list.m3u8", "playlist"),
        ("broken.mp4", "broke off"),
        ("to-file", "cannot be downloaded"),
    ],
)
def test_urls_that_are_no_video(server: str, name: str, message: str) -> None:
    with pytest.raises(VideoOpenError, match=message):
        open_video(f"{server}/{name}")


def test_a_download_has_a_limit(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_DOWNLOAD_BYTES", 1000)
    with pytest.raises(VideoOpenError, match="larger than 1000 bytes"):
        open_video(f"{server}/film.mp4")


# -- folders and pictures ------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve pictures whose natural order is not the alphabetical one, and files that are no pictures."""
    for number in range(12):
        suffix = "png" if number % 2 else "jpg"
        Image.fromarray(draw(number)).save(tmp_path / f"frame{number}.{suffix}", quality=95)
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / ".hidden.png").write_bytes(b"")
    (tmp_path / "deeper.png").mkdir()
    return tmp_path


def test_folder_in_natural_order(folder: Path) -> None:
    with open_video(folder, fps=4) as video:
        assert len(video) == 12
        assert video.warnings == ()
        assert video.metadata.duration == 3.0
        assert video.timestamps.tolist() == [i / 4 for i in range(12)]
        assert (video.metadata.width, video.metadata.height) == (WIDTH, HEIGHT)
        assert read_all(video.get_frames(np.arange(12)).data) == list(range(12))
        assert read_all(video.get_frames([11, 2, 2], size=(48, 80)).data) == [11, 2, 2]
        streamed = [n for c in video.iter_frames(np.arange(12), chunk=5) for n in read_all(c.data)]
        assert streamed == list(range(12))
        assert len(sample_candidates(video, fps=1)) == 3


def test_folder_without_times_is_taken_at_one_per_second(folder: Path) -> None:
    with open_video(folder) as video:
        assert video.timestamps.tolist() == list(range(12))
        assert "1 picture per second is assumed" in video.warnings[0]
    with open_video(folder, timestamps=[10 + i * i for i in range(12)]) as video:
        assert video.timestamps.tolist() == [10 + i * i for i in range(12)], "times that are given stay as they are"
        assert video.metadata.start_time == 0
        assert video.metadata.duration == 10 + 11 * 11 + 11  # the last picture stays for the median step
        assert video.metadata.average_fps == pytest.approx(12 / 132)
        assert video.metadata.is_vfr


def test_damaged_picture_in_a_folder(folder: Path) -> None:
    (folder / "frame5.png").write_bytes(b"broken")
    with open_video(folder, fps=1) as video:
        frames = video.get_frames([4, 5, 6])
        assert frames.valid.tolist() == [True, False, True]
        assert frames.indices.tolist() == [4, 4, 6]
        assert read_all(frames.data) == [4, 4, 6]
        assert "5 (by 4)" in video.warnings[-1]


def test_pictures_of_different_sizes_and_orientation(tmp_path: Path) -> None:
    first = Image.fromarray(draw(0))
    second = Image.fromarray(draw(1, 320, 192))
    turned = Image.fromarray(np.rot90(draw(2)))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by 90 degrees for viewing
    for place, image in enumerate((first, second)):
        image.save(tmp_path / f"{place}.png")
    turned.save(tmp_path / "2.jpg", exif=exif, quality=95)
    with open_video(tmp_path, fps=1) as video:
        frames = video.get_frames([0, 1, 2])
        assert frames.data.shape == (3, HEIGHT, WIDTH, 3)
        assert read_all(frames.data) == [0, 1, 2]
        assert "different sizes" in video.warnings[0]


def test_list_of_images_and_of_paths(folder: Path) -> None:
    images = [Image.fromarray(draw(i)) for i in range(5)]
    with open_video(images, fps=2) as video:
        assert read_all(video.get_frames(range(5)).data) == list(range(5))
    with open_video([folder / "frame3.png", str(folder / "frame10.jpg")], fps=2) as video:
        assert read_all(video.get_frames([0, 1]).data) == [3, 10]
    glass = Image.new("RGBA", (8, 6), (255, 0, 0, 0))
    with open_video([glass], fps=1) as video:
        assert (video.get_frames([0]).data == 255).all(), "transparent parts are white"
    gray = Image.new("L", (8, 6), 77)
    with open_video([gray], fps=1) as video:
        assert (video.get_frames([0]).data == 77).all()


def test_single_picture(tmp_path: Path) -> None:
    Image.fromarray(draw(9)).save(tmp_path / "one.png")
    for source in (tmp_path / "one.png", (tmp_path / "one.png").read_bytes()):
        with open_video(source) as video:
            assert len(video) == 1
            assert "single picture" in video.warnings[0]
            assert read(video.get_frames([0]).data[0]) == 9


@pytest.mark.parametrize("as_bytes", [False, True])
def test_animated_webp(tmp_path: Path, as_bytes: bool) -> None:
    delays = [40, 200, 40, 1000, 40, 40, 80]
    images = [Image.fromarray(draw(i)) for i in range(len(delays))]
    path = tmp_path / "moving.webp"
    images[0].save(path, save_all=True, append_images=images[1:], duration=delays, lossless=True)
    with open_video(path.read_bytes() if as_bytes else path) as video:
        assert len(video) == 7
        np.testing.assert_allclose(video.timestamps, np.concatenate([[0], np.cumsum(delays[:-1])]) / 1000)
        assert video.metadata.duration == pytest.approx(sum(delays) / 1000)
        assert video.metadata.is_vfr
        assert read_all(video.get_frames([6, 0, 3]).data) == [6, 0, 3]
        assert read_all(video.get_frames([2, 5], size=(48, 80)).data) == [2, 5]


def test_gif_keeps_its_delays(tmp_path: Path) -> None:
    delays = [50, 200, 50, 1000, 50, 120]
    images = [Image.fromarray(draw(i)) for i in range(len(delays))]
    images[0].save(tmp_path / "moving.gif", save_all=True, append_images=images[1:], duration=delays, loop=0)
    with open_video(tmp_path / "moving.gif") as video:
        np.testing.assert_allclose(video.timestamps, np.concatenate([[0], np.cumsum(delays[:-1])]) / 1000)
        assert video.metadata.duration == pytest.approx(sum(delays) / 1000)
        assert read_all(video.get_frames([5, 1, 3]).data) == [5, 1, 3]


# -- arrays --------------------------------------------------------------------------------------------------------


def test_arrays() -> None:
    array = np.stack([draw(i) for i in range(6)])
    first = torch.from_numpy(array).permute(0, 3, 1, 2)
    floats = (array / 255).astype(np.float32)
    for source in (array, list(array), first, torch.from_numpy(array), floats, torch.from_numpy(floats), list(first)):
        with open_video(source, fps=3) as video:
            frames = video.get_frames([5, 0, 2])
            np.testing.assert_array_equal(frames.data, array[[5, 0, 2]])
            assert frames.timestamps.tolist() == [5 / 3, 0, 2 / 3]
            assert read_all(video.get_frames([4], size=(48, 80)).data) == [4]
    with open_video(array, timestamps=[0, 1, 2, 5, 6, 9]) as video:
        assert video.metadata.is_vfr
        assert video.metadata.duration == 10  # the last frame stays for the median second


@pytest.mark.parametrize(
    ("source", "arguments", "message"),
    [
        (np.zeros((3, 4, 5, 3), np.uint8), {}, "pass fps"),
        (np.zeros((3, 4, 5, 3), np.uint8), {"fps": 0}, "fps must be"),
        (np.zeros((3, 4, 5, 3), np.uint8), {"fps": -1}, "fps must be"),
        (np.zeros((3, 4, 5, 3), np.uint8), {"fps": 1, "timestamps": [0, 1, 2]}, "not both"),
        (np.zeros((3, 4, 5, 3), np.uint8), {"timestamps": [0, 1]}, "3 frames need 3 timestamps"),
        (np.zeros((3, 4, 5, 3), np.uint8), {"timestamps": [0, 2, 1]}, "increase"),
        (np.zeros((3, 4, 5, 3), np.uint8), {"timestamps": [0, 1, float("nan")]}, "finite"),
        (np.zeros((3, 4, 5, 3), np.uint8), {"timestamps": "abc"}, "numbers"),
        (np.zeros((4, 5, 3), np.uint8), {"fps": 1}, "four dimensions"),
        (np.zeros((0, 4, 5, 3), np.uint8), {"fps": 1}, "holds no frames"),
        (np.zeros((3, 4, 5, 3), np.uint8), {"timestamps": [-1, 0, 1]}, "negative"),
        (np.zeros((3, 6, 5, 5), np.uint8), {"fps": 1}, "3 colour channels"),
        (np.zeros((3, 4, 5, 3), complex), {"fps": 1}, "uint8"),
        (np.full((3, 4, 5, 3), 300, np.int32), {"fps": 1}, "from 0 to 255"),
        (np.full((3, 4, 5, 3), -1, np.int32), {"fps": 1}, "from 0 to 255"),
        (np.full((3, 4, 5, 3), np.nan), {"fps": 1}, "from 0 to 1"),
        (np.linspace(-1.8, 2.2, 180).reshape(3, 4, 5, 3), {"fps": 1}, "undo the normalisation"),
        (np.linspace(-1, 1, 180).reshape(3, 4, 5, 3), {"fps": 1}, "undo the normalisation"),
        ({"fps": 3}, {}, "needs one of the keys"),
        ({"video": "a.mp4", "nframes": 2.5}, {}, "nframes must be a whole number"),
        ({"video": "a.mp4", "video_start": "soon"}, {}, "video_start: 'soon' is not a time"),
        ({"video": [np.zeros((4, 5, 3), np.uint8)], "sample_fps": 0}, {}, "sample_fps must be a number above 0"),
        ([np.zeros((4, 5, 3), np.uint8), np.zeros((4, 6, 3), np.uint8)], {"fps": 1}, "different shapes"),
        ([], {"fps": 1}, "empty list"),
        ([1, 2], {"fps": 1}, "entry 0 is int"),
        (None, {}, "NoneType"),
        (7, {}, "int"),
        ("", {}, "empty path"),
        (io.StringIO("text"), {}, "mode 'rb'"),
    ],
)
def test_unusable_sources(source: object, arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_video(source, **arguments)


def test_times_are_refused_for_video_files(clip: Clip) -> None:
    with pytest.raises(InputError, match="carries its own times"):
        open_video(clip("gop12.mp4"), fps=3)


def test_fingerprints(clip: Clip, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(clip("gop12.mp4").read_bytes())
    first = open_video(path).fingerprint
    assert open_video(path).fingerprint == first
    path.write_bytes(clip("gop30_b.mp4").read_bytes())
    assert open_video(path).fingerprint != first
    zeros, ones = np.zeros((3, 4, 5, 3), np.uint8), np.ones((3, 4, 5, 3), np.uint8)
    assert open_video(zeros, fps=1).fingerprint == open_video(zeros.copy(), fps=1).fingerprint
    assert open_video(zeros, fps=1).fingerprint != open_video(zeros, fps=2).fingerprint, "other times, another video"
    assert open_video(zeros, fps=1).fingerprint != open_video(ones, fps=1).fingerprint


def test_a_changed_file_is_read_anew(clip: Clip, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(clip("gop12.mp4").read_bytes())
    assert len(open_video(path)) == 72
    path.write_bytes(clip("one_frame.mp4").read_bytes())
    assert len(open_video(path)) == 1
