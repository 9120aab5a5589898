"""A folder of videos, a secret beside it, and every way into the secret that we know."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from tests.corpus.clips import write_clips

SECRET = "the launch code is 4711"


@dataclass(frozen=True)
class Place:
    """Attributes:
    root: what may be read, with clip000.mp4 to clip002.mp4.
    outside: what may not.
    """

    root: Path
    outside: Path


def make_place(folder: Path) -> Place:
    """Write both."""
    root, outside = folder / "videos", folder / "private"
    outside.mkdir(parents=True)
    write_clips(root, 3, seconds=2.0)
    clip = write_clips(outside, 1)[0]
    (outside / "secret.txt").write_text(SECRET, "utf-8")
    (outside / "secret.srt").write_text(f"1\n00:00:00,000 --> 00:00:02,000\n{SECRET}\n", "utf-8")
    Image.new("RGB", (32, 32), "red").save(outside / "secret.png")
    (root / "link.mp4").symlink_to(clip)
    (root / "up").symlink_to(outside)
    (root / "loop.mp4").symlink_to(root / "loop.mp4")
    (root / "pictures").mkdir()
    Image.new("RGB", (32, 32), "blue").save(root / "pictures" / "1.png")
    (root / "pictures" / "2.png").symlink_to(outside / "secret.png")
    (root / "subtitled.mp4").write_bytes((root / "clip000.mp4").read_bytes())
    (root / "subtitled.srt").symlink_to(outside / "secret.srt")
    (root / "list.m3u8").write_text(f"#EXTM3U\n#EXTINF:1,\n{clip}\n", "utf-8")
    (root / "list.ffconcat").write_text(f"ffconcat version 1.0\nfile {clip}\n", "utf-8")
    (root / "text.mp4").write_text("no video", "utf-8")
    return Place(root, outside)


def hostile_videos(place: Place) -> list[str]:
    """Names of videos that must be refused."""
    clip = place.outside / "clip000.mp4"
    return [
        str(clip),
        "../private/clip000.mp4",
        "./x/../../private/clip000.mp4",
        "link.mp4",
        "up/clip000.mp4",
        "pictures",
        "subtitled.mp4",
        "loop.mp4",
        "list.m3u8",
        "list.ffconcat",
        "text.mp4",
        "missing.mp4",
        f"file://{clip}",
        f"FILE:{clip}",
        f"file://localhost{clip}",
        f"file://elsewhere{clip}",
        f"file:///{place.root}/../private/clip000.mp4",
        "data:video/mp4;base64,AAAA",
        "http://127.0.0.1:9/clip.mp4",
        "HTTPS://example.invalid/clip.mp4",
        f"concat:{clip}|{clip}",
        f"subfile,,start,0,end,0,,:{clip}",
        "ftp://127.0.0.1/clip.mp4",
        "/etc/passwd",
        "/proc/self/environ",
        "/dev/zero",
        "~/clip.mp4",
        "C:\\Windows\\clip.mp4",
        "\\\\host\\share\\clip.mp4",
        "clip000.mp4\0.txt",
        "a" * 5000,
        "b" * 300,
        "",
        " ",
        ".",
        "/",
    ]
