"""Whatever is opened: an error that names it and the remedy, or frames that are right, or frames that are flagged."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from refocus_select.errors import UnsupportedVideoError, VideoDecodeError, VideoOpenError
from refocus_select.video import container, open_video
from tests.video.clips import encode, read, read_all, truth, write_sound

Clip = Callable[[str], Path]
POSIX = os.name == "posix"


# -- not a video ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"Dear diary, today I watched a film.\n" * 50, "not a video"),
        (bytes(range(256)) * 64, "not a video"),
        (b"\x00" * 5000, "not a video"),
        (b"#EXTM3U\n#EXT-X-VERSION:3\nother.mp4\n", "playlist"),
        (b"ffconcat version 1.0\nfile other.mp4\n", "playlist"),
        (b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n", "playlist"),
        (b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"></MPD>', "playlist"),
        (b"%PDF-1.7\n1 0 obj\n", "not a video"),
        (b"PK\x03\x04" + b"zip" * 100, "not a video"),
        (b"\x89PNG\r\n\x1a\n" + b"broken" * 9, "cannot be read"),
        (b"RIFF\x99\x00\x00\x00WEBPVP8X" + bytes([10, 0, 0, 0, 2]) + b"broken" * 9, "cannot be read"),
        (b"GIF89a" + b"\x00" * 40, "not a video|no pictures|not known"),
    ],
)
def test_files_that_are_no_video(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "film.mp4"
    path.write_bytes(content)
    with pytest.raises(VideoOpenError, match=message) as caught:
        open_video(path)
    assert "film.mp4" in str(caught.value)
    with pytest.raises(VideoOpenError):
        open_video(content)


@pytest.mark.parametrize("suffix", [".m3u8", ".ffconcat", ".sdp", ".mpd", ".txt", ".concat", "%03d.png", ".mp4"])
def test_playlists_cannot_lead_to_other_files(clip: Clip, tmp_path: Path, suffix: str) -> None:
    """By name or by content: the good file that they name must not be reached."""
    (tmp_path / "other.mp4").write_bytes(clip("gop12.mp4").read_bytes())
    for number, content in enumerate(
        (
            "ffconcat version 1.0\nfile other.mp4\n",
            "file 'other.mp4'\n",
            "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\nother.mp4\n#EXT-X-ENDLIST\n",
        )
    ):
        path = tmp_path / f"list{number}{suffix}"
        path.write_text(content)
        with pytest.raises(VideoOpenError):
            open_video(path)


@pytest.mark.parametrize(
    "name",
    ["concat:a.mp4|b.mp4", "subfile,,start,0,end,0,,:a.mp4", "cache:a.mp4", "crypto:a.mp4", "file:a.mp4", "a:b.mp4"],
)
def test_protocols_are_not_reachable_through_a_name(clip: Clip, tmp_path: Path, monkeypatch, name: str) -> None:
    """Such a name is a file like any other: not found, or, if it exists (where it can), opened as itself."""
    monkeypatch.chdir(tmp_path)
    for other in ("a.mp4", "b.mp4"):
        Path(other).write_bytes(clip("gop12.mp4").read_bytes())
    with pytest.raises(VideoOpenError, match=r"no such file|not a usable path|cannot be opened"):
        open_video(name)
    if POSIX:
        Path(name).write_bytes(clip("gop30_b.mp4").read_bytes())
        with open_video(name) as video:
            assert video.metadata.keyframe_interval == pytest.approx(1.2), "the file of that name, not a.mp4"


@pytest.mark.parametrize("name", ["rtsp://host/x", "rtmp://host/x", "ftp://host/x.mp4", "udp://1.2.3.4:5"])
def test_other_schemes_are_refused(name: str) -> None:
    with pytest.raises(VideoOpenError, match="only http, https, file and data addresses"):
        open_video(name)


def test_a_data_address_without_content_is_refused() -> None:
    with pytest.raises(VideoOpenError, match="holds no content"):
        open_video("data://x")


@pytest.mark.parametrize("name", ["missing.mp4", "no/such/folder/x.mp4", "x" * 5000, "nul\0inside.mp4", "film.mp4/x"])
def test_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("film.mp4").write_bytes(b"x")
    with pytest.raises(VideoOpenError):
        open_video(name)


def test_folder_without_pictures(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("nothing to see")
    with pytest.raises(VideoOpenError, match="folder without pictures"):
        open_video(tmp_path)


def test_folder_of_broken_pictures(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(b"broken")
    with pytest.raises(VideoOpenError, match="cannot be read"):
        open_video(tmp_path)


@pytest.mark.skipif(not POSIX, reason="Windows has no FIFOs, device files or POSIX modes")
def test_special_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "a.mp4").symlink_to(tmp_path / "b.mp4")
    (tmp_path / "b.mp4").symlink_to(tmp_path / "a.mp4")
    (tmp_path / "dangling.mp4").symlink_to(tmp_path / "nothing.mp4")
    for name in (tmp_path / "pipe.mp4", "/dev/null", "/dev/zero"):
        with pytest.raises(VideoOpenError, match="not a regular file"):
            open_video(name)
    with pytest.raises(VideoOpenError, match="cannot be opened"):
        open_video(tmp_path / "a.mp4")
    with pytest.raises(VideoOpenError, match="no such file"):
        open_video(tmp_path / "dangling.mp4")


@pytest.mark.skipif(not POSIX, reason="Windows has no FIFOs, device files or POSIX modes")
def test_unreadable_permission(clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret.mp4"
    path.write_bytes(clip("gop12.mp4").read_bytes())
    path.chmod(0)
    if os.geteuid() == 0:  # root may read everything: answer as the system answers others
        monkeypatch.setattr(container.os, "access", lambda *arguments: False)
    with pytest.raises(VideoOpenError, match="no permission"):
        open_video(path)


# -- without (usable) pictures -------------------------------------------------------------------------------------


def test_sound_only(tmp_path: Path) -> None:
    with pytest.raises(VideoOpenError, match="no video stream"):
        open_video(write_sound(tmp_path / "speech.m4a"))
    with pytest.raises(VideoOpenError, match="no video stream"):
        open_video(write_sound(tmp_path / "speech.mkv"))


def test_sound_with_a_cover_picture(clip: Clip, tmp_path: Path) -> None:
    path = tmp_path / "song.m4a"
    with av.open(str(write_sound(tmp_path / "speech.m4a"))) as given, av.open(str(path), "w", format="mp4") as output:
        sound = output.add_stream_from_template(given.streams.audio[0])
        cover = output.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic.value
        picture = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8)).reformat(format="yuvj420p")
        packets = [*cover.encode(picture), *cover.encode(None)]
        for packet in packets:
            output.mux(packet)
        for packet in given.demux(given.streams.audio[0]):
            if packet.size:
                packet.stream = sound
                output.mux(packet)
    with pytest.raises(VideoOpenError, match="cover picture"):
        open_video(path)


def test_unknown_codec(clip: Clip, tmp_path: Path) -> None:
    data = clip("gop12.mp4").read_bytes()
    path = tmp_path / "alien.mp4"
    path.write_bytes(data.replace(b"avc1", b"zzz9").replace(b"avcC", b"zzzC"))
    with pytest.raises(UnsupportedVideoError, match="no decoder"):
        open_video(path)


def test_huge_pictures(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "MAX_PIXELS", 160 * 96 - 1)
    with pytest.raises(UnsupportedVideoError, match="160x96 exceed the limit"):
        open_video(clip("gop12.mp4"))


def test_one_frame_and_no_duration(clip: Clip, tmp_path: Path) -> None:
    with open_video(clip("one_frame.mp4")) as video:
        assert len(video) == 1
        assert video.metadata.duration == pytest.approx(0.04)
        assert read(video.get_frames([0]).data[0]) == 0
    same_time = encode(tmp_path / "still.mkv", 3, codec="ffv1", pts=lambda i: 0 if i == 0 else i)
    with open_video(same_time) as video:
        assert video.metadata.duration > 0


def test_text_that_is_not_utf8(tmp_path: Path) -> None:
    """A title in Latin-1, as old tools write it."""
    path = encode(tmp_path / "title.mkv", 5, metadata={"title": "XXXXXX"})
    data = path.read_bytes()
    assert data.count(b"XXXXXX") == 1
    path.write_bytes(data.replace(b"XXXXXX", "Ca\xf1\xf3n\xe9".encode("latin-1")))
    with open_video(path) as video:
        assert read_all(video.get_frames([0, 4]).data) == [0, 4]


# -- damage --------------------------------------------------------------------------------------------------------


def _damage(data: bytes, kind: str) -> bytes:
    size = len(data)
    changed = bytearray(data)
    rng = np.random.default_rng(3)
    if kind == "truncated":
        return data[: size * 6 // 10]
    if kind == "hole":
        changed[size // 2 : size * 6 // 10] = bytes(size * 6 // 10 - size // 2)
    elif kind == "flips":
        for place in rng.integers(size // 5, size * 9 // 10, 6):
            changed[place] ^= 1 << int(rng.integers(8))
    elif kind == "noise":
        changed[size // 2 : size * 6 // 10] = rng.bytes(size * 6 // 10 - size // 2)
    return bytes(changed)


@pytest.fixture(scope="module")
def front_loaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An mp4 with its table at the front, as for streaming, so that a cut-off download can still be read."""
    path = tmp_path_factory.mktemp("damage") / "front.mp4"
    return encode(path, 150, options={"g": "25", "bf": "3"}, container_options={"movflags": "faststart"})


@pytest.mark.parametrize("kind", ["truncated", "hole", "noise"])
@pytest.mark.parametrize(
    "name", ["front", "h264.mkv", "fragmented.mp4", "mpeg2.ts", "vp9.webm", "av1.webm", "gop1.mp4"]
)
def test_damaged_files_give_what_is_left(clip: Clip, front_loaded: Path, tmp_path: Path, name: str, kind: str) -> None:
    """A frame that is called valid shows what the undamaged file shows at that time."""
    source = front_loaded if name == "front" else clip(name)
    _, times, pictures = truth(source)
    path = tmp_path / f"damaged{source.suffix}"
    path.write_bytes(_damage(source.read_bytes(), kind))
    if kind == "truncated" and name == "gop1.mp4":  # its table was at the end and is gone
        with pytest.raises(VideoOpenError, match="not a video"):
            open_video(path)
        return
    with open_video(path) as video:
        frames = video.get_frames(np.arange(len(video)))
        shown = np.rint((frames.timestamps + video.metadata.start_time - times[0]) * 25).astype(int)
        wrong = [
            int(index)
            for index, good, number, picture in zip(frames.indices, frames.valid, shown, frames.data, strict=True)
            if good and np.abs(picture.astype(int) - pictures[number]).mean() > 6
        ]
        # AV1 has no checks within a picture: one that is damaged only at its end may decode without an error.
        assert len(wrong) <= (name == "av1.webm"), wrong
        assert frames.valid.sum() >= len(video) // 3
        assert (frames.indices[~frames.valid] < np.flatnonzero(~frames.valid)).all(), "earlier pictures stand in"
        if not frames.valid.all():
            assert "damaged frames were replaced" in video.warnings[-1]
        sparse = video.get_frames(np.arange(0, len(video), 6), workers=2)
        np.testing.assert_array_equal(sparse.valid, frames.valid[::6])
        np.testing.assert_array_equal(sparse.data[sparse.valid], frames.data[::6][sparse.valid])
        streamed = list(video.iter_frames(np.arange(len(video)), chunk=16))
        np.testing.assert_array_equal(np.concatenate([c.valid for c in streamed]), frames.valid)


def test_cut_off_download_says_what_is_missing(front_loaded: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.mp4"
    path.write_bytes(front_loaded.read_bytes()[: front_loaded.stat().st_size * 6 // 10])
    with open_video(path) as video:
        assert 50 < len(video) < 120
        assert f"the header promises 150 pictures, {len(video)} can be read" in video.warnings[0]
        frames = video.get_frames(np.arange(len(video) - 1))
        good = frames.valid
        assert read_all(frames.data[good]) == np.arange(len(video) - 1)[good].tolist()
        assert good.sum() >= len(video) - 5


@pytest.mark.parametrize("name", ["gop12.mp4", "mpeg4.mp4", "open_gop.mp4", "h264.ts", "raw.h264"])
def test_flipped_bits_are_noticed_where_the_codec_can(clip: Clip, tmp_path: Path, name: str) -> None:
    path = tmp_path / f"flipped{Path(name).suffix}"
    data = _damage(clip(name).read_bytes(), "flips")
    path.write_bytes(data)
    with open_video(path) as video:
        frames = video.get_frames(np.arange(len(video)))
        assert frames.data.shape == (len(video), 96, 160, 3)
        assert 0 < (~frames.valid).sum() < len(video)
        shown = read_all(frames.data)
        silently_wrong = [i for i, n, good in zip(frames.indices, shown, frames.valid, strict=True) if good and n != i]
        assert len(silently_wrong) <= 8, "a codec without checksums cannot notice every flipped bit"


@pytest.mark.parametrize("seed", range(4))
def test_random_damage_of_headers_never_crashes(clip: Clip, tmp_path: Path, seed: int) -> None:
    """In a process of its own, so that a crash or a hang of the decoder would be seen."""
    rng = np.random.default_rng(seed)
    paths = []
    for name in ("gop12.mp4", "h264.mkv", "h264.ts", "fragmented.mp4", "gif.gif", "hevc_closed.mp4", "mpeg4.avi"):
        data = bytearray(clip(name).read_bytes())
        head = rng.integers(0, min(len(data), 1500), 8)
        tail = rng.integers(max(0, len(data) - 3000), len(data), 8)
        for place in (*head, *tail):
            data[place] = int(rng.integers(256))
        path = tmp_path / f"{seed}-{name}"
        path.write_bytes(data)
        paths.append(str(path))
    script = (
        "import sys\n"
        "from refocus_select.video import open_video\n"
        "from refocus_select.errors import RefocusError\n"
        "for path in sys.argv[1:]:\n"
        "    try:\n"
        "        with open_video(path) as video:\n"
        "            video.get_frames(range(0, len(video), 9), size=(24, 40))\n"
        "    except RefocusError as error:\n"
        "        assert path in str(error)\n"
        "print('survived')\n"
    )
    result = subprocess.run([sys.executable, "-c", script, *paths], capture_output=True, text=True, timeout=50)
    assert result.returncode == 0, result.stderr[-2000:]
    assert "survived" in result.stdout


def test_nothing_to_decode(clip: Clip, tmp_path: Path) -> None:
    data = bytearray(clip("gop12.mp4").read_bytes())
    begin = data.find(b"mdat") + 4
    end = data.find(b"moov") - 4
    data[begin:end] = bytes(end - begin)
    path = tmp_path / "zeroed.mp4"
    path.write_bytes(data)
    with open_video(path) as video, pytest.raises(VideoDecodeError, match="damaged"):
        video.get_frames([0, 40])
