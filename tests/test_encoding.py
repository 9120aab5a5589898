"""Files of encodings: what was saved comes back, and of everything else nothing but an `EncodingError`."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from refocus_select import VideoEncoding
from refocus_select.errors import EncodingError
from refocus_select.video import VideoMetadata


def encoding(count=6):
    return VideoEncoding(
        tensors={"embeddings": torch.randn(count, 4).half(), "state": torch.tensor(2.5)},
        indices=np.arange(0, 3 * count, 3),
        timestamps=np.arange(count) / 8,
        video=VideoMetadata("film.mp4", 36, 1.5, width=64, height=48),
        video_fingerprint="film-1",
        encoder="test",
        encoder_fingerprint="test-1",
        warnings=("dark",),
    )


def rewrite(path, change):
    """Change header or tensors as somebody could who writes such files: no checksum, the format of before."""
    with safe_open(str(path), framework="pt") as file:
        header, body = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    del header["checksum"]
    header["version"] = "1"
    header["selector"], header["selector_fingerprint"] = header.pop("encoder"), header.pop("encoder_fingerprint")
    change(header, body)
    save_file(body, str(path), metadata=header)


def test_what_was_saved_comes_back(tmp_path):
    before = encoding()
    after = VideoEncoding.load(before.save(tmp_path / "e.safetensors"))
    assert (after.video, after.warnings, after.video_fingerprint) == (before.video, ("dark",), "film-1")
    np.testing.assert_array_equal(after.indices, before.indices)
    np.testing.assert_array_equal(after.timestamps, before.timestamps)
    assert after.tensors.keys() == before.tensors.keys()
    assert all(torch.equal(after.tensors[name], before.tensors[name]) for name in before.tensors)


def test_every_flipped_bit_is_noticed(tmp_path):
    path = encoding().save(tmp_path / "e.safetensors")
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.choice(8 * len(whole), 400, replace=False).tolist():
        content = bytearray(whole)
        content[place // 8] ^= 1 << place % 8
        path.write_bytes(content)
        with pytest.raises(EncodingError, match=r"e\.safetensors"):
            VideoEncoding.load(path)


def test_every_shortened_file_is_noticed(tmp_path):
    path = encoding().save(tmp_path / "e.safetensors")
    whole = path.read_bytes()
    for length in (0, 1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 8, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(EncodingError, match=r"e\.safetensors"):
            VideoEncoding.load(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(EncodingError, match=r"e\.safetensors"):
        VideoEncoding.load(path)


def test_a_file_without_checksum_is_read(tmp_path):
    path = encoding().save(tmp_path / "e.safetensors")
    rewrite(path, lambda header, body: None)
    found = VideoEncoding.load(path)
    np.testing.assert_array_equal(found.indices, encoding().indices)
    assert (found.encoder, found.encoder_fingerprint) == ("test", "test-1")


def test_a_file_of_now_needs_its_checksum(tmp_path):
    path = encoding().save(tmp_path / "e.safetensors")
    rewrite(path, lambda header, body: header.update(version="2"))
    with pytest.raises(EncodingError, match="checksum"):
        VideoEncoding.load(path)


def video(**changes):
    return lambda header, body: header.update(video=json.dumps({**json.loads(header["video"]), **changes}))


def series(name, values):
    return lambda header, body: body.update({name: torch.as_tensor(values)})


WRONG = {
    "no fingerprint": lambda header, body: header.pop("video_fingerprint"),
    "no selector": lambda header, body: header.pop("selector"),
    "no warnings": lambda header, body: header.pop("warnings"),
    "warnings are a text": lambda header, body: header.update(warnings='"dark"'),
    "warnings are numbers": lambda header, body: header.update(warnings="[1]"),
    "the video is not JSON": lambda header, body: header.update(video="{{"),
    "the video is a list": lambda header, body: header.update(video="[]"),
    "the video nests deeply": lambda header, body: header.update(video="[" * 100_000),
    "a number of many digits": lambda header, body: header.update(video='{"source": "a", "width": ' + "9" * 5000 + "}"),
    "no source": video(source=None),
    "no duration": lambda header, body: header.update(video='{"source": "a", "num_frames": 3}'),
    "a duration in words": video(duration="long"),
    "a duration without end": video(duration=float("inf")),
    "a width that is true": video(width=True),
    "another format": lambda header, body: header.update(format="something"),
    "a version to come": lambda header, body: header.update(version="9"),
    "no indices": lambda header, body: body.pop("indices"),
    "no times": lambda header, body: body.pop("timestamps"),
    "fewer times": series("timestamps", np.arange(3.0)),
    "no frames": lambda header, body: body.update(indices=body["indices"][:0], timestamps=body["timestamps"][:0]),
    "times of half precision": lambda header, body: body.update(timestamps=body["timestamps"].half()),
    "times that are not a number": series("timestamps", np.full(6, np.nan)),
    "times without end": series("timestamps", np.array([0, 1, 2, 3, 4, np.inf])),
    "times that go back": series("timestamps", np.array([0, 1, 2, 1, 4, 5.0])),
    "numbers that go back": series("indices", np.array([0, 1, 2, 1, 4, 5])),
    "numbers below zero": series("indices", np.arange(-1, 5)),
    "numbers of another type": series("indices", np.arange(6, dtype=np.int32)),
    "numbers in a square": series("indices", np.arange(36).reshape(6, 6)),
    "a single number": series("indices", np.int64(3)),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_fields_are_checked(tmp_path, wrong):
    path = encoding().save(tmp_path / "e.safetensors")
    rewrite(path, WRONG[wrong])
    with pytest.raises(EncodingError, match=r"e\.safetensors"):
        VideoEncoding.load(path)


def test_a_folder_and_a_missing_file_are_no_encodings(tmp_path):
    for path in (tmp_path, tmp_path / "none.safetensors"):
        with pytest.raises(EncodingError, match="no encoding at"):
            VideoEncoding.load(path)
