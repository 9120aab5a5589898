"""Text in the pictures (slides, titles, credits) as timed lines, read by RapidOCR where the picture changed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import SequenceMatcher
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ..errors import MissingDependencyError
from .transcript import WRITTEN, Line, Transcript

if TYPE_CHECKING:
    from ..video import Frames, Video

READING_SIDE = 1280  # pixels of the longer side at which text is read; larger pictures are scaled down
MAX_PICTURES = 64
_THUMBNAIL = (90, 160)
_BLOCK = 10
_CHANGED = 4.0  # grey levels by which some block of the thumbnail must differ; compression moves it by 1 to 2
_SURE = 0.6  # recognition scores below this are mostly texture
_ALIKE = 0.8
_REACH = 3  # changes before and after a picture with text that are read besides


@dataclass(frozen=True)
class TextBox:
    """A line of text in one picture: what it says, how sure that is (0 to 1), and where (x0, y0, x1, y1) in pixels."""

    text: str
    score: float
    box: tuple[float, float, float, float]


TextReader: TypeAlias = Callable[[np.ndarray], Sequence[TextBox]]
"""Takes a picture, uint8 RGB [H, W, 3], and gives the lines of text in it."""


def written_lines(
    video: Video,
    indices: np.ndarray,
    *,
    reader: TextReader | None = None,
    max_pictures: int = MAX_PICTURES,
    progress: Callable[[int, int], None] | None = None,
) -> Transcript:
    """Read the text in the given frames.

    Small grey thumbnails tell in which frames something changed; only those are decoded at reading size and read. If
    they are more than `max_pictures`, as many spread evenly over them are read, then up to half as many beside those
    that had text, and a warning says so: the limit is a number and not a time, so that the result is the same on every
    machine.

    Args:
        video: an open video.
        indices: frame numbers to look at, sorted, int64 [F].
        reader: what reads a picture (default: RapidOCR, from the extra `ocr`).
        max_pictures: how many pictures are read at most in the first pass.
        progress: is told (pictures read, pictures to read).

    Returns:
        Lines of source "written": from when they were first seen until they were gone, `best` where they are read
        best. Lines that belong together (a paragraph, a list) and come and go together are one.

    Raises:
        MissingDependencyError: if no reader is given and RapidOCR is not installed.
    """
    reader = reader or rapid_ocr()
    changed, times = _changes(video.iter_frames(indices, size=_THUMBNAIL, ordered=True))
    total, most = len(changed), max_pictures
    first = changed
    if total > most:
        first = changed[np.linspace(0, total - 1, most).round().astype(np.int64)]
    expected = min(total, most + most // 2)
    read = _read(video, indices, first, reader, lambda count: progress and progress(count, expected))
    more = _beside_text(changed, read, most // 2)
    read |= _read(video, indices, more, reader, lambda count: progress and progress(len(first) + count, expected))
    warnings = []
    if len(read) < total:
        warnings.append(
            f"{video.metadata.source}: {total} candidate frames differ from the one before; the text of {len(read)} of "
            "them was read (raise max_pictures to read more)"
        )
    tracks: list[_Track] = []
    positions = sorted(read)
    for position, following in zip(positions, [*positions[1:], len(times) - 1], strict=True):
        start = float(times[position])
        _follow(tracks, read[position], start, max(start, float(times[following])))
    return Transcript.of(
        _paragraphs(tracks), origin=f"{video.metadata.source}, text in the pictures", warnings=warnings
    )


def _read(
    video: Video, indices: np.ndarray, positions: np.ndarray, reader: TextReader, told: Callable[[int], Any]
) -> dict[int, list[TextBox]]:
    """The text of some candidates, by position."""
    found: dict[int, list[TextBox]] = {}
    if not len(positions):
        return found
    for piece in video.iter_frames(indices[positions], size=_reading_size(video), ordered=True, chunk=1):
        for row in range(len(piece)):
            boxes = reader(piece.data[row])
            position = int(positions[int(piece.positions[row])])
            found[position] = [box for box in boxes if box.score >= _SURE and _letters(box.text)]
            told(len(found))
    return found


def _beside_text(changed: np.ndarray, read: Mapping[int, Sequence[TextBox]], most: int) -> np.ndarray:
    """Which pictures to read besides: those next to pictures with text, the nearest first, int64 sorted."""
    place = {int(position): k for k, position in enumerate(changed)}
    texts = [place[p] for p, boxes in read.items() if any(len(_letters(box.text)) > 2 for box in boxes)]
    left = [k for k, position in enumerate(changed) if int(position) not in read]
    if not texts or not left or not most:
        return np.zeros(0, np.int64)
    away = np.abs(np.array(left)[:, None] - np.array(texts)).min(axis=1)
    nearest = np.argsort(away, kind="stable")[:most]
    kept = np.array(left)[nearest[away[nearest] <= _REACH]]
    return np.sort(changed[kept]).astype(np.int64)


@cache
def rapid_ocr() -> TextReader:
    """RapidOCR with the weights that its package carries; nothing is downloaded.

    Raises:
        MissingDependencyError: if it is not installed.
    """
    try:
        import logging

        from rapidocr import RapidOCR
    except ImportError:
        raise MissingDependencyError(
            "reading text in pictures needs RapidOCR: pip install 'refocus-select[ocr]'"
        ) from None
    engine = RapidOCR(params={"Global.log_level": "error"})
    logging.getLogger("RapidOCR").setLevel(logging.ERROR)

    def read(picture: np.ndarray) -> list[TextBox]:
        found: Any = engine(np.ascontiguousarray(picture[:, :, ::-1]), use_cls=False)
        if found.boxes is None or found.txts is None:
            return []
        corners = np.asarray(found.boxes)  # [N, 4, 2]
        limits = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1).tolist()
        return [TextBox(text, float(s), tuple(b)) for text, s, b in zip(found.txts, found.scores, limits, strict=True)]

    return read


def _changes(frames: Iterator[Frames]) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the frames that differ from the last one kept, int64, and the times of all frames."""
    kept: list[int] = []
    times: list[float] = []
    last: np.ndarray | None = None
    for piece in frames:
        grey = piece.data.mean(axis=3)
        height, width = grey.shape[1] // _BLOCK * _BLOCK, grey.shape[2] // _BLOCK * _BLOCK
        blocks = grey[:, :height, :width].reshape(len(grey), height // _BLOCK, _BLOCK, width // _BLOCK, _BLOCK)
        for row, picture in enumerate(blocks):
            times.append(float(piece.timestamps[row]))
            if last is None or np.abs(picture - last).mean(axis=(1, 3)).max() > _CHANGED:
                kept.append(len(times) - 1)
                last = picture
    return np.array(kept, np.int64), np.array(times)


def _reading_size(video: Video) -> tuple[int, int] | None:
    """(height, width) for reading; None for the video's own size if that is small enough."""
    height, width = video.metadata.height, video.metadata.width
    scale = READING_SIDE / max(height, width)
    return None if scale >= 1 else (max(1, round(height * scale)), max(1, round(width * scale)))


@dataclass
class _Track:
    """A line of text that is followed from picture to picture."""

    text: str
    start: float
    end: float
    box: tuple[float, float, float, float]
    best: float
    quality: float
    key: str = field(default="")


def _follow(tracks: list[_Track], boxes: Sequence[TextBox], start: float, end: float) -> None:
    """Lengthen the lines that are still to be seen in a picture shown from `start` to `end`; begin the new ones."""
    open_tracks = [track for track in tracks if track.end >= start]
    for box in boxes:
        key = _letters(box.text)
        quality = box.score * (box.box[3] - box.box[1])
        found = next((track for track in open_tracks if _alike(track.key, key)), None)
        if found is None:
            tracks.append(_Track(box.text, start, end, box.box, (start + end) / 2, quality, key))
            continue
        open_tracks.remove(found)
        found.end = end
        if quality > found.quality * 1.02:  # clearly larger or sharper; else the first good moment stays
            found.text, found.key, found.box, found.best, found.quality = box.text, key, box.box, start, quality


def _paragraphs(tracks: list[_Track]) -> list[Line]:
    """Lines that come and go together and stand below each other, joined; 40 words at most."""
    lines: list[tuple[Line, tuple[float, float, float, float], float]] = []
    for track in sorted(tracks, key=lambda track: (track.start, track.box[1], track.box[0])):
        x0, y0, x1, y1 = track.box
        height = y1 - y0
        if lines:
            line, (px0, py0, px1, py1), last_height = lines[-1]
            together = abs(line.start - track.start) < 1e-6 and abs(line.end - track.end) < 1e-6
            below = -0.5 * height < y0 - py1 < 1.2 * height and min(px1, x1) - max(px0, x0) > 0
            similar = max(height, last_height) < 1.5 * min(height, last_height)
            if together and below and similar and len(line.text.split()) + len(track.text.split()) <= 40:
                joined = (min(px0, x0), py0, max(px1, x1), y1)
                lines[-1] = (replace(line, text=f"{line.text} {track.text}"), joined, height)
                continue
        lines.append((Line(track.start, track.end, track.text, WRITTEN, track.best), track.box, height))
    return [line for line, _, _ in lines]


def _letters(text: str) -> str:
    return re.sub(r"[\W_]+", "", text).lower()


def _alike(one: str, other: str) -> bool:
    if one == other:
        return True
    longer = max(len(one), len(other))
    return longer > 3 and SequenceMatcher(None, one, other, autojunk=False).ratio() >= _ALIKE
