"""What people hand over as a video: addresses, contents, dicts, and frames in every form."""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from refocus_select.errors import InputError, VideoError, VideoOpenError
from refocus_select.locations import local_path, read_data_url, short_name
from refocus_select.video import inputs, open_video, sample_candidates
from refocus_select.video.arrays import Pixels
from refocus_select.video.inputs import read_input
from tests.video.clips import draw, read_all

Clip = Callable[[str], Path]


def as_data(content: bytes, kind: str = "video/mp4") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def jpeg(number: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(draw(number)).save(file, "JPEG", quality=95)
    return file.getvalue()


# -- addresses -----------------------------------------------------------------------------------------------------


def test_file_addresses(clip: Clip, tmp_path: Path) -> None:
    path = tmp_path / "my holiday 100% #1? 视频.mp4"
    path.write_bytes(clip("gop12.mp4").read_bytes())
    address = path.as_uri()
    for text in (
        address,
        address.replace("file://", "file://localhost"),
        address.replace("file://", "FILE://LOCALHOST"),
        address.replace("file://", "file:"),
        f"file://{path}",  # not encoded, as many programs write it
    ):
        with open_video(text) as video:
            assert len(video) == 72
    with pytest.raises(VideoOpenError, match="another host"):
        open_video("file://elsewhere/film.mp4")
    assert local_path("https://example.org/a.mp4?x=1") is None
    assert local_path("a:b.mp4") == "a:b.mp4"


def test_data_addresses(clip: Clip, tmp_path: Path) -> None:
    content = clip("gop12.mp4").read_bytes()
    plain = as_data(content)
    head, body = plain.split(",")
    lines = "\r\n".join(body[i : i + 76] for i in range(0, len(body), 76))
    for text in (
        plain,
        f"{head},{lines}",
        f"{head},{body.rstrip('=')}",
        f"{head},{body.replace('+', '-').replace('/', '_')}",
        f"{head},{body.replace('+', '%2B').replace('/', '%2F').replace('=', '%3D')}",
        f"DATA:video/mp4;codecs=avc1;base64,{body}",
        f"data:;base64,{body}",
        f'data:video/mp4;codecs="avc1.42E01E, mp4a.40.2";base64,{body}',
        f"data:video/mp4;codecs=avc1,mp4a;base64,{body}",  # as browsers write it
    ):
        with open_video(text) as video:
            assert read_all(video.get_frames([0, 50]).data) == [0, 50]
            assert len(video.metadata.source) < 80
    with open_video(as_data(jpeg(7), "image/jpeg")) as video:
        assert read_all(video.get_frames([0]).data) == [7]
    assert read_data_url("data:,a%20b") == [b"a b"]


def test_a_sequence_of_pictures_as_data() -> None:
    pictures = [base64.b64encode(jpeg(i)).decode() for i in range(5)]
    text = f"data:video/jpeg;base64,{','.join(pictures)}"
    with open_video(text, timestamps=[3, 4, 6, 8, 9]) as video:
        assert video.timestamps.tolist() == [3, 4, 6, 8, 9]
        assert read_all(video.get_frames(range(5)).data) == list(range(5))
    with open_video({"video_url": {"url": text}, "fps": 2}) as video:
        assert video.timestamps.tolist() == [0, 0.5, 1, 1.5, 2]


@pytest.mark.parametrize(
    "text",
    [
        "data:video/mp4;base64,{}".format("A" * 5000),  # no film
        "data:video/mp4;base64,{}".format("!" * 5000),
        "data:video/mp4;base64,",
        "data:{}".format("QUJD" * 2000),  # no comma
        "data:{},x".format("QUJD" * 2000),
        "data:video/jpeg;base64,{},%%%".format("QUJD" * 2000),
        "AAAAIGZ0eXBpc29t" * 1000,  # the content alone
        "AAAAIGZ0eXBpc29t/+" * 1000,
    ],
)
def test_errors_do_not_quote_the_content(text: str) -> None:
    with pytest.raises(VideoError) as caught:
        open_video(text)
    assert len(str(caught.value)) < 250
    assert "QUJD" * 20 not in str(caught.value)
    assert len(short_name(text)) < 100


def test_a_file_object_can_be_read_again(clip: Clip) -> None:
    file = io.BytesIO(b"junk" + clip("gop12.mp4").read_bytes())
    file.seek(4)
    for _ in range(2):
        with open_video(file) as video:
            assert len(video) == 72
        assert file.tell() == 4


# -- dicts ---------------------------------------------------------------------------------------------------------


def test_dicts_that_hold_a_video(clip: Clip) -> None:
    path = clip("gop12.mp4")
    content = path.read_bytes()
    for source in (
        {"path": str(path), "bytes": None},
        {"path": "gone.mp4", "bytes": content},  # datasets.Video without decoding
        {"path": None, "bytes": content},
        {"type": "video", "video": {"path": str(path)}},
        {"type": "video_url", "video_url": {"url": path.as_uri()}},
        {"video": path, "min_pixels": 4},
    ):
        with open_video(source) as video:
            assert read_all(video.get_frames([0, 50]).data) == [0, 50]


def test_times_beside_pictures(tmp_path: Path) -> None:
    from transformers.video_utils import VideoMetadata

    array = np.stack([draw(i) for i in range(4)])
    for i, picture in enumerate(array):
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
    metadata = {"fps": 25.0, "frames_indices": [100, 101, 150, 200], "total_num_frames": 400}
    true = [4.0, 4.04, 6.0, 8.0]
    for held in (array, list(array), [Image.fromarray(a) for a in array], tmp_path, sorted(tmp_path.glob("*.png"))):
        for beside, times in (
            ({"fps": 2}, [0, 0.5, 1, 1.5]),
            ({"sample_fps": 4}, [0, 0.25, 0.5, 0.75]),
            ({"sample_fps": 4, "raw_fps": 30}, [0, 0.25, 0.5, 0.75]),
            ({"sample_fps": [4.0]}, [0, 0.25, 0.5, 0.75]),
            ({"raw_fps": 10}, [0, 0.1, 0.2, 0.3]),
            ({"timestamps": true, "fps": 2}, true),
            ({"video_metadata": metadata}, true),
            ({"video_metadata": VideoMetadata(**metadata)}, true),
            ({"video_metadata": {"fps": 2.0}}, [0, 0.5, 1, 1.5]),
        ):
            with open_video({"video": held, **beside}) as video:
                np.testing.assert_allclose(video.timestamps, times)
                assert read_all(video.get_frames(range(4)).data) == list(range(4))
                assert video.warnings == ()
    with open_video({"array": array, "video_metadata": metadata}) as video:
        np.testing.assert_allclose(video.timestamps, true)
    with open_video((array, metadata)) as video:  # as transformers' load_video returns it
        np.testing.assert_allclose(video.timestamps, true)


def test_parts_of_a_video_with_times_of_its_own() -> None:
    video = open_video(np.zeros((6, 4, 4, 3), np.uint8), timestamps=[100, 101, 105, 110.5, 111, 120])
    assert sample_candidates(video, min_frames=6).timestamps.tolist() == [100, 101, 105, 110.5, 111, 120]
    assert sample_candidates(video, min_frames=6, start=104, end=111).timestamps.tolist() == [101, 105, 110.5]
    assert sample_candidates(video, min_frames=6, start=3).indices.tolist() == list(range(6))
    with pytest.raises(InputError, match="before the first frame, which is shown at 100 s"):
        sample_candidates(video, end=50)
    with pytest.raises(InputError, match="after the end"):
        sample_candidates(video, start=500)


def test_keys_that_say_how_to_sample() -> None:
    block = {"video": "a.mp4", "video_start": "1:30", "video_end": 100, "nframes": "6", "fps": 2, "max_frames": 64}
    given = read_input(block)
    assert given.source == "a.mp4"
    assert given.num_frames == 6
    assert given.sampling == {"start": 90.0, "end": 100.0, "fps": 2.0, "max_frames": 64}
    assert read_input(given) == given
    again = read_input(given, {"num_frames": 9, "min_frames": 5})
    assert (again.num_frames, again.sampling["min_frames"]) == (9, 5) or again.num_frames == 6


def test_unknown_keys_are_named_once(caplog: pytest.LogCaptureFixture) -> None:
    inputs._told.clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            read_input({"type": "video", "video": "a.mp4", "speed": 2, "crop": 1, "max_pixels": 9})
        read_input({"video": "a.mp4", "timestamps": [1, 2]})
    first, second = (record.getMessage() for record in caplog.records)
    assert "crop, speed" in first
    assert "max_pixels" not in first
    assert "timestamps beside a video: not used" in second


# -- frames in memory ----------------------------------------------------------------------------------------------


def _forms(array: np.ndarray) -> dict[str, object]:
    """The same colour clip [T, H, W, 3] in every form."""
    tensor = torch.from_numpy(array)
    opaque = np.concatenate([array, np.full_like(array[..., :1], 255)], axis=-1)
    floats = array.astype(np.float32)
    return {
        "THWC": array,
        "TCHW": np.ascontiguousarray(array.transpose(0, 3, 1, 2)),
        "tensor THWC": tensor,
        "tensor TCHW": tensor.permute(0, 3, 1, 2),
        "RGBA": opaque,
        "RGBA TCHW": opaque.transpose(0, 3, 1, 2),
        "int64": array.astype(np.int64),
        "floats to 255": floats,
        "floats to 1": floats / 255,
        "double": array / 255.0,
        "half tensor": (tensor.permute(0, 3, 1, 2).float() / 255).half(),
        "bfloat16 to 255": tensor.bfloat16(),  # has eight bits, so whole numbers up to 256
        "list": list(array),
        "list of CHW tensors": list(tensor.permute(0, 3, 1, 2)),
        "list of floats": list(floats / 255),
        "list of one clip": [array],
        "PIL": [Image.fromarray(picture) for picture in array],
        "PIL RGBA": [Image.fromarray(picture) for picture in opaque],
        "mixed": [Image.fromarray(array[0]), *array[1:]],
    }


@settings(deadline=None)
@given(count=st.integers(2, 4), height=st.integers(5, 9), width=st.integers(5, 9), seed=st.integers(0, 2**16))
def test_every_form_of_frames_gives_the_same_pictures(count: int, height: int, width: int, seed: int) -> None:
    array = np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8)
    array[0] = 255  # so that floats of this clip cannot be mistaken
    array[1] = 0
    for name, form in _forms(array).items():
        with open_video(form, fps=2) as video:
            np.testing.assert_array_equal(video.get_frames(range(count)).data, array, name)
            assert video.timestamps.tolist() == [i / 2 for i in range(count)]


@settings(deadline=None)
@given(count=st.integers(5, 8), height=st.integers(5, 9), width=st.integers(5, 9), seed=st.integers(0, 2**16))
def test_every_form_of_grey_frames(count: int, height: int, width: int, seed: int) -> None:
    grey = np.random.default_rng(seed).integers(0, 256, (count, height, width), np.uint8)
    grey[0] = 255
    expected = np.repeat(grey[..., None], 3, axis=-1)
    tensor = torch.from_numpy(grey)
    for form in (
        grey,
        grey[..., None],
        grey[:, None],
        grey / 255,
        tensor,
        tensor[:, None],
        list(grey),
        list(tensor[:, None]),
        [Image.fromarray(picture) for picture in grey],
    ):
        with open_video(form, fps=2) as video:
            np.testing.assert_array_equal(video.get_frames(range(count)).data, expected)


def test_floats_are_judged_over_the_whole_clip() -> None:
    clip = np.full((4, 6, 8, 3), 200.0, np.float32)
    clip[2] = 0
    clip[2, ::2] = 1  # nearly black
    assert Pixels(clip)[2].max() == 1
    assert Pixels(list(clip))[2].max() == 1
    assert Pixels(torch.from_numpy(clip))[2].max() == 1
    assert Pixels(clip[2:3])[0].max() == 255, "by itself it is a clip from 0 to 1"
    overshoot = clip.copy()
    overshoot[0, 0], overshoot[1, 0] = 263.0, -4.0  # a bicubic filter
    assert Pixels(overshoot)[0].max() == 255
    assert Pixels(overshoot)[1].min() == 0
    assert Pixels(np.array([[[True, False]]] * 5))[0].tolist() == [[[255] * 3, [0] * 3]]


def test_transparent_parts_are_white() -> None:
    glass = np.zeros((5, 6, 6, 4), np.uint8)
    assert (Pixels(glass)[0] == 255).all()


def test_lists_of_pictures_in_every_form(tmp_path: Path) -> None:
    paths = []
    for i in range(3):
        path = tmp_path / f"pic ture {i}.png"
        Image.fromarray(draw(i)).save(path)
        paths.append(path)
    contents = [path.read_bytes() for path in paths]
    for listed in (
        paths,
        [str(path) for path in paths],
        [path.as_uri() for path in paths],
        [as_data(content, "image/png") for content in contents],
        contents,
        [io.BytesIO(content) for content in contents],
        [{"path": "gone.png", "bytes": content} for content in contents],
        [{"type": "image", "image": str(path)} for path in paths],
        [{"type": "image_url", "image_url": {"url": path.as_uri()}} for path in paths],
        [paths[0], contents[1], Image.open(paths[2])],
        tuple(paths),
    ):
        with open_video(listed, fps=4) as video:
            assert read_all(video.get_frames([2, 0, 1]).data) == [2, 0, 1]
            assert video.timestamps.tolist() == [0, 0.25, 0.5]


# -- decoders ------------------------------------------------------------------------------------------------------


def _decoder(path: Path, **arguments: str) -> object:
    try:
        from torchcodec.decoders import VideoDecoder

        return VideoDecoder(str(path), **arguments)
    except (ImportError, RuntimeError, OSError) as error:  # it needs the libraries of FFmpeg on the system
        pytest.skip(f"torchcodec does not load: {str(error).splitlines()[0]}")


@pytest.mark.parametrize("order", ["NCHW", "NHWC"])
@pytest.mark.parametrize("name", ["vfr.mp4", "h264.mkv"])
def test_a_decoder_of_torchcodec(clip: Clip, name: str, order: str) -> None:
    decoder = _decoder(clip(name), dimension_order=order)
    with open_video(decoder) as video, open_video(clip(name)) as expected:
        np.testing.assert_allclose(video.timestamps, expected.timestamps, atol=1e-6)
        assert read_all(video.get_frames([0, 5, 50]).data) == [0, 5, 50]
        assert video.metadata.duration == pytest.approx(expected.metadata.duration, abs=0.05)


def test_a_decoder_that_tells_its_file_is_not_needed(clip: Clip) -> None:
    # What `datasets` hands out has this attribute beside the methods of torchcodec.
    decoder = SimpleNamespace(_hf_encoded={"path": str(clip("gop12.mp4")), "bytes": None})
    with open_video(decoder) as video:
        assert video.metadata.source == str(clip("gop12.mp4"))


class SlowDecoder:
    """The interface of torchcodec's `VideoDecoder` over known frames, where torchcodec does not load."""

    def __init__(self, numbers: list[int], seconds: list[float], order: str) -> None:
        frames = torch.from_numpy(np.stack([draw(i) for i in numbers]))
        self.frames = frames.permute(0, 3, 1, 2) if order == "NCHW" else frames
        self.seconds = torch.tensor(seconds, dtype=torch.float64)
        self.metadata = SimpleNamespace(num_frames=len(numbers))

    def __len__(self) -> int:
        return len(self.seconds)

    def get_frames_in_range(self, start: int, stop: int) -> SimpleNamespace:
        seconds = self.seconds[start:stop]
        return SimpleNamespace(
            data=self.frames[start:stop], pts_seconds=seconds, duration_seconds=torch.full_like(seconds, 0.2)
        )

    def get_frames_at(self, indices: list[int]) -> SimpleNamespace:
        return SimpleNamespace(data=self.frames[indices], pts_seconds=self.seconds[indices])

    def get_frame_at(self, index: int) -> SimpleNamespace:
        return SimpleNamespace(data=self.frames[index], pts_seconds=float(self.seconds[index]))


@pytest.mark.parametrize("order", ["NCHW", "NHWC"])
def test_the_frames_and_times_of_a_decoder(order: str) -> None:
    seconds = [1.5, 1.6, 2.5, 2.6, 3.0, 3.1, 3.2, 3.3, 5.5, 9.5]
    with open_video(SlowDecoder(list(range(10)), seconds, order)) as video:
        np.testing.assert_allclose(video.timestamps, np.array(seconds) - 1.5)
        assert video.metadata.duration == pytest.approx(8.2)
        assert read_all(video.get_frames([9, 0, 4]).data) == [9, 0, 4]


def test_values_of_datasets(clip: Clip) -> None:
    datasets = pytest.importorskip("datasets")
    path = clip("gop12.mp4")
    _decoder(path)
    rows = datasets.Dataset.from_dict({"video": [str(path)]})
    for decode in (True, False):
        value = rows.cast_column("video", datasets.Video(decode=decode))[0]["video"]
        with open_video(value) as video:
            assert video.metadata.source == str(path)
            assert read_all(video.get_frames([0, 50]).data) == [0, 50]


class _Odd:
    def __init__(self, gives: object) -> None:
        self.gives = gives

    def read(self, size: int = -1) -> object:
        if isinstance(self.gives, Exception):
            raise self.gives
        return self.gives


def _endless() -> dict[str, object]:
    block: dict[str, object] = {}
    block["video"] = block
    return block


@pytest.mark.parametrize(
    "source",
    [
        _Odd(RuntimeError("gone")),
        _Odd(5),
        _endless(),
        {"video": "a.mp4", "fps": 10**400},
        {"video": "a.mp4", "video_start": 10**400},
        {"array": np.zeros((4, 8, 8, 3), np.uint8), "video_metadata": {"fps": 25, "frames_indices": "abc"}},
        {"array": np.zeros((4, 8, 8, 3), np.uint8), "video_metadata": 5},
        {"array": np.zeros((4, 8, 8, 3), np.uint8), "sample_fps": 1e-308},
    ],
    ids=range(8),
)
def test_odd_values_are_errors_of_ours(source: object) -> None:
    with pytest.raises((InputError, VideoError)) as caught:
        open_video(source)
    assert len(str(caught.value)) < 300
