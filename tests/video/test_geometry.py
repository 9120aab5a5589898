"""Pictures come as players show them: turned, mirrored, cropped, and with square pixels."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from refocus_select.errors import UnsupportedVideoError
from refocus_select.video import _matroska, open_video
from refocus_select.video._geometry import aspect_of, orientation_of
from tests.video.clips import HEIGHT, WIDTH, encode, oriented, read, truth

Clip = Callable[[str], Path]

ORIENTATIONS = {
    "plain": ((1, 0, 0, 1), lambda p: p, 0, False),
    "mirrored": ((-1, 0, 0, 1), lambda p: p[:, ::-1], 0, True),
    "upside down": ((1, 0, 0, -1), lambda p: p[::-1], 180, True),
    "half turn": ((-1, 0, 0, -1), lambda p: p[::-1, ::-1], 180, False),
    "clockwise": ((0, 1, -1, 0), lambda p: np.rot90(p, -1), 270, False),
    "counter-clockwise": ((0, -1, 1, 0), lambda p: np.rot90(p, 1), 90, False),
    "transposed": ((0, 1, 1, 0), lambda p: p.transpose(1, 0, 2), 90, True),
    "transversed": ((0, -1, -1, 0), lambda p: p[::-1, ::-1].transpose(1, 0, 2), 270, True),
}


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_the_eight_orientations(clip: Clip, tmp_path: Path, name: str) -> None:
    matrix, expected, rotation, mirrored = ORIENTATIONS[name]
    source = clip("gop12.mp4")
    _, _, pictures = truth(source)
    path = tmp_path / "oriented.mp4"
    path.write_bytes(oriented(source.read_bytes(), matrix))
    with open_video(path) as video:
        assert (video.metadata.rotation, video.metadata.mirrored) == (rotation, mirrored)
        assert video.warnings == ()
        for number in (0, 30):
            picture = video.get_frames([number]).data[0]
            np.testing.assert_array_equal(picture, expected(pictures[number]))
            assert picture.shape[:2] == (video.metadata.height, video.metadata.width)
        assert video.get_frames([3], size=(50, 70)).data.shape == (1, 50, 70, 3)


def test_other_decoders_refuse_mirrored_files(clip: Clip, tmp_path: Path) -> None:
    pytest.importorskip("decord")
    path = tmp_path / "mirrored.mp4"
    path.write_bytes(oriented(clip("gop12.mp4").read_bytes(), (-1, 0, 0, 1)))
    with pytest.raises(UnsupportedVideoError, match="mirrored"):
        open_video(path, backend="decord")


def _matrix(*entries: float) -> bytes:
    return struct.pack("=9i", *(int(entry) for entry in entries))


@pytest.mark.parametrize(
    "matrix",
    [
        _matrix(-(2**31), 5, 0, 7, 0, 0, 0, 0, 0),
        _matrix(0, 0, 0, 0, 0, 0, 0, 0, 0),
        _matrix(65536, 65536, 0, 0, 65536, 0, 0, 0, 1 << 30),  # slants
        _matrix(65536, 0, 0, 0, 3, 0, 0, 0, 1 << 30),  # flat
        _matrix(0, 65536, 9, -65536, 0, 9, 0, 0, 1 << 30),  # in perspective
        b"\x00" * 8,
    ],
)
def test_a_matrix_without_sense_turns_nothing(matrix: bytes) -> None:
    orientation, problem = orientation_of(matrix)
    assert (orientation.rotation, orientation.mirrored) == (0, False)
    assert problem is not None
    assert "ignored" in problem


def test_an_odd_angle_is_told(clip: Clip, tmp_path: Path) -> None:
    data = bytearray(clip("gop12.mp4").read_bytes())
    place = data.index(b"tkhd") + 44
    data[place : place + 36] = struct.pack(">9i", 46341, 46341, 0, -46341, 46341, 0, 0, 0, 1 << 30)
    (tmp_path / "slanted.mp4").write_bytes(data)
    with open_video(tmp_path / "slanted.mp4") as video:
        assert "turned by 315 degrees; only quarter turns are applied" in video.warnings[0]


@pytest.mark.parametrize(
    ("ratio", "width", "height"),
    [
        (Fraction(64, 45), 228, 96),
        (Fraction(8, 9), 160, 108),
        (Fraction(1, 1), 160, 96),
        (Fraction(1000, 999), 160, 96),
    ],
)
def test_pixels_are_made_square(tmp_path: Path, ratio: Fraction, width: int, height: int) -> None:
    path = encode(tmp_path / "wide.mkv", 30, options={"g": "12"}, pixel_aspect_ratio=ratio)
    with open_video(path) as video:
        meta = video.metadata
        assert (meta.width, meta.height) == (width, height)
        assert meta.pixel_aspect_ratio == pytest.approx(float(ratio) if abs(ratio - 1) > 0.005 else 1)
        frames = video.get_frames([4, 20])
        assert frames.data.shape[1:3] == (height, width)
        assert [read(picture) for picture in frames.data] == [4, 20]
    with open_video(path, square_pixels=False) as stored:
        frames = stored.get_frames([4, 20])
        assert (stored.metadata.width, stored.metadata.height) == (WIDTH, HEIGHT) == frames.data.shape[2:0:-1]
        np.testing.assert_array_equal(frames.data[1], truth(path)[2][20])
        assert stored.metadata.pixel_aspect_ratio == meta.pixel_aspect_ratio
        assert (stored.fingerprint == video.fingerprint) == (width == WIDTH and height == HEIGHT)


def test_turned_pictures_grow_on_the_right_side(tmp_path: Path) -> None:
    path = encode(tmp_path / "phone.mp4", 12, matrix=(0, 1, -1, 0), pixel_aspect_ratio=Fraction(4, 3))
    with open_video(path) as video:
        assert (video.metadata.width, video.metadata.height) == (HEIGHT, 213)
        assert read(np.rot90(video.get_frames([7]).data[0])) == 7


def test_an_absurd_pixel_is_ignored() -> None:
    assert aspect_of(Fraction(1, 4000)) == (1.0, "its pixel aspect ratio (1/4000) makes no sense and is ignored")
    assert aspect_of(Fraction(0, 1)) == aspect_of(None) == (1.0, None)


def _with_clean_aperture(mp4: bytes, width: int, height: int, right: int, down: int) -> bytes:
    """Adds a `clap` box (ISO/IEC 14496-12) that shows `width x height`, its centre shifted by (right, down) halves."""
    box = struct.pack(">I4s8i", 40, b"clap", width, 1, height, 1, right, 2, down, 2)
    data = bytearray(mp4)
    entry = data.index(b"avc1", data.index(b"stsd")) - 4
    end = entry + struct.unpack_from(">I", data, entry)[0]
    data[end:end] = box
    for name in (b"avc1", b"stsd", b"stbl", b"minf", b"mdia", b"trak", b"moov"):
        at = data.rindex(name, 0, entry + 8) - 4
        struct.pack_into(">I", data, at, struct.unpack_from(">I", data, at)[0] + len(box))
    return bytes(data)


def test_clean_aperture(clip: Clip, tmp_path: Path) -> None:
    source = clip("gop12.mp4")
    path = tmp_path / "clean.mp4"
    path.write_bytes(_with_clean_aperture(source.read_bytes(), 120, 80, 8, 4))
    left, top = (WIDTH - 120) // 2 + 4, (HEIGHT - 80) // 2 + 2
    _, _, pictures = truth(source)
    with open_video(path) as video:
        assert (video.metadata.width, video.metadata.height) == (120, 80)
        picture = video.get_frames([30]).data[0]
        expected = pictures[30][top : top + 80, left : left + 120]
        assert np.abs(picture.astype(int) - expected).mean() < 1


def _element(kind: int, content: bytes) -> bytes:
    """A Matroska element."""
    return kind.to_bytes((kind.bit_length() + 7) // 8, "big") + (len(content) | 1 << 28).to_bytes(4, "big") + content


def _cropped(path: Path, edges: tuple[int, int, int, int]) -> bytes:
    """A Matroska file whose track says how much of the pictures is hidden at the left, top, right and bottom."""

    def within(content: bytes, *kinds: int) -> bytes:
        found = b""
        file = io.BytesIO(content)
        for kind, begin, end in _matroska._elements(file, 0, len(content)):
            inner = content[begin:end]
            if kind == kinds[0]:
                inner = within(inner, *kinds[1:]) if kinds[1:] else inner + crop
            found += _element(kind, inner)
        return found

    crop = b"".join(
        _element(kind, edge.to_bytes(2, "big"))
        for kind, edge in zip((0x54CC, 0x54BB, 0x54DD, 0x54AA), edges, strict=True)
    )
    data = path.read_bytes()
    clusters = data.index(b"\x1f\x43\xb6\x75")
    start = data.index(b"\x18\x53\x80\x67")
    tracks = data.rindex(b"\x16\x54\xae\x6b", 0, clusters)
    info = data.rindex(b"\x15\x49\xa9\x66", 0, tracks)
    with open(path, "rb") as file:
        info_end, tracks_end = (_matroska._head(file, place)[2] for place in (info, tracks))  # type: ignore[index]
    return (
        data[:start] + b"\x18\x53\x80\x67\x01" + b"\xff" * 7 + data[info:info_end]
        + within(data[tracks:tracks_end], 0x1654AE6B, 0xAE, 0xE0) + data[clusters:]
    )  # fmt: skip


@pytest.mark.parametrize("edges", [(16, 8, 32, 24), (0, 0, 0, 8), (0, 0, 0, 0)])
def test_the_crop_of_a_matroska_file(clip: Clip, tmp_path: Path, edges: tuple[int, int, int, int]) -> None:
    left, top, right, bottom = edges
    path = tmp_path / "crop.mkv"
    path.write_bytes(_cropped(clip("h264.mkv"), edges))
    with open_video(path) as opened, open_video(clip("h264.mkv")) as whole:
        stored = whole.get_frames([9]).data[0]
        shown = stored[top : 96 - bottom, left : 160 - right]
        frames = opened.get_frames([9])
        assert (opened.metadata.height, opened.metadata.width) == shown.shape[:2]
        np.testing.assert_array_equal(frames.data[0], shown)
