"""Needle in a haystack: is a picture found that was hidden among the candidate frames of a video?

After V-NIAH (Zhang et al., "Long Context Transfer from Language to Vision", 2024), as the ReFoCUS paper applies it to
frame selection: a needle is put at several depths among N candidates, its question is asked, and the trial is won if
the selector's K frames hold the needle. No language model takes part, so that the selector alone is measured.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..encoding import VideoEncoding
from ..errors import InputError
from ..plain_text import is_utf8, parse_json, shown
from ..selectors import FrameSelector
from ..video import CandidateRule, Video, open_video, sample_candidates
from .needle_trials import Trial

if TYPE_CHECKING:
    from PIL import Image

DEPTHS = tuple(round(depth, 4) for depth in np.linspace(0, 1, 10))
LENGTHS = (64, 128, 256, 512, 1024)
_PICTURES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
_CLIP_FRAMES = 4  # of a needle that is a video
_EVERY_FRAME = 1e6  # frames per second: no limit


@dataclass(frozen=True, eq=False)
class Needle:
    """What is hidden.

    Attributes:
        name: for tables.
        question: what only the needle answers.
        pictures: its frames, RGB.
    """

    name: str
    question: str
    pictures: tuple[Image.Image, ...]


# -- needles --------------------------------------------------------------------------------------


def load_needles(folder: str | os.PathLike[str]) -> list[Needle]:
    """Read a folder with `needles.json`: a list of {"question", "file" or "text", "name"}.

    Raises:
        InputError: if the list or a picture is missing or unusable.
    """
    path = Path(folder) / "needles.json"
    try:
        listed = parse_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"no needles: cannot read {path} ({error.strerror}); see examples/needles") from error
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error})") from error
    if not isinstance(listed, list) or not listed:
        raise InputError(f"{path} must hold a list of needles, at least one")
    needles = [_needle(path, number, item) for number, item in enumerate(listed)]
    names = [needle.name for needle in needles]
    if len(set(names)) < len(names):
        raise InputError(f"{path}: two needles have the same name; give each its own")
    return needles


def text_card(text: str, *, width: int = 640, height: int = 360) -> Image.Image:
    """A white card with a text in black, as large as fits."""
    from PIL import Image, ImageDraw, ImageFont

    card = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(card)
    size = height // 3
    while True:
        font = ImageFont.load_default(size)
        left, top, right, bottom = draw.multiline_textbbox((0, 0), text, font=font, align="center")
        if (right - left <= 0.9 * width and bottom - top <= 0.9 * height) or size <= 8:
            break
        size = size * 9 // 10
    place = ((width - right - left) / 2, (height - bottom - top) / 2)
    draw.multiline_text(place, text, fill="black", font=font, align="center")
    return card


def _needle(path: Path, number: int, item: Any) -> Needle:
    from PIL import Image

    where = f"{path}, needle {number + 1}"
    if not isinstance(item, dict) or not isinstance(item.get("question"), str) or not item["question"].strip():
        raise InputError(f"{where}: it needs a question")
    for name in ("question", "name", "file", "text"):
        if not isinstance(item.get(name, ""), str) or not is_utf8(item.get(name, "")):
            raise InputError(f"{where}: {name} must be text, not {shown(item[name])}")
    if ("file" in item) == ("text" in item):
        raise InputError(f"{where}: it needs either a file or a text")
    name = str(item.get("name") or item.get("file") or item["text"])
    if "text" in item:
        return Needle(name, item["question"], (text_card(str(item["text"])),))
    file = path.parent / str(item["file"])
    if file.suffix.lower() in _PICTURES:
        try:
            with Image.open(file) as picture:
                return Needle(name, item["question"], (picture.convert("RGB"),))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise InputError(f"{where}: cannot read the picture {file} ({error})") from error
    with open_video(file) as clip:
        plan = sample_candidates(clip, CandidateRule(fps=_EVERY_FRAME, max_frames=_CLIP_FRAMES))
        frames = clip.get_frames(plan.indices).data
    return Needle(name, item["question"], tuple(Image.fromarray(frame) for frame in frames))


# -- trials ---------------------------------------------------------------------------------------


def run_needles(
    video: Any,
    needles: Sequence[Needle],
    selectors: Sequence[FrameSelector],
    *,
    lengths: Sequence[int] = LENGTHS,
    depths: Sequence[float] = DEPTHS,
    num_frames: int = 32,
    jitter: float | None = None,
    done: Collection[tuple[str, str, int, float, int]] = (),
    progress: bool | None = None,
) -> Iterator[Trial]:
    """Hide every needle at every depth of every length, and ask every selector.

    Selectors whose frames are encoded one by one see each haystack frame and each needle once; the encodings are then
    put together, which gives the same as encoding the whole. Others (the policy) encode every haystack as a video.

    Args:
        video: the haystack, anything that `open_video` takes; it needs as many frames as the largest length.
        needles: what is hidden.
        selectors: who is asked.
        lengths: numbers of candidates N.
        depths: from 0 (begin) to 1 (end).
        num_frames: K; at most the smallest length.
        jitter: how far a needle may lie from its depth, as a share of the video (default: half the distance between
            depths, so that all of the video is tried). The places are drawn from needle, length and depth, the same
            for every selector. With 0, evenly spaced depths meet the grid of uniform sampling always or never.
        done: keys of trials to leave out, to resume an interrupted run.
        progress: show a progress bar (default: only on a terminal).

    Yields:
        One `Trial` after the other.

    Raises:
        InputError: if the video is too short or an argument is out of range.
        VideoError: if the video cannot be read.
    """
    from tqdm import tqdm

    _check(needles, lengths, depths, num_frames)
    if jitter is None:
        jitter = float(np.diff(np.unique(depths)).min()) / 2 if len(set(depths)) > 1 else 0.5
    total = len(selectors) * len(needles) * len(lengths) * len(depths)
    disable = None if progress is None else not progress
    opened = nullcontext(video) if isinstance(video, Video) else open_video(video)
    with opened as source, tqdm(total=total, desc="needles", unit="trial", disable=disable, leave=False) as bar:
        available = source.metadata.num_frames
        if available < max(lengths):
            raise InputError(
                f"{source.metadata.source} has {available} frames, fewer than the largest length {max(lengths)}; "
                "give a longer video or smaller lengths"
            )
        stored: dict[tuple[str, str], VideoEncoding] = {}
        for selector in selectors:
            haystack = None  # made when a trial of this selector is left to do
            for needle in needles:
                prepared = None
                for length in lengths:
                    for depth in depths:
                        bar.update()
                        key = (selector.name, needle.name, length, float(depth), num_frames)
                        if key in done:
                            continue
                        if haystack is None:
                            haystack = _Haystack(source, selector, max(lengths), stored)
                        if prepared is None:
                            prepared = haystack.prepare(needle)
                        place = _place(needle, length, float(depth), jitter)
                        yield haystack.ask(prepared, needle, length, float(depth), place, num_frames)


class _Haystack:
    """The frames of a video as one selector sees them, ready to take a needle.

    `stored` holds encodings by encoder fingerprint and content, for other selectors with the same encoder.
    """

    def __init__(
        self, video: Video, selector: FrameSelector, longest: int, stored: dict[tuple[str, str], VideoEncoding]
    ) -> None:
        self._stored = stored
        self._video = video
        self._selector = selector
        metadata = video.metadata
        self._shape = metadata.height, metadata.width
        self._size = selector.decode_size(metadata) or self._shape
        self._encoding = self._encoded(longest)
        self._frames = np.zeros((0, *self._size, 3), dtype=np.uint8)
        if self._encoding is None:
            plan = sample_candidates(video, CandidateRule(fps=_EVERY_FRAME, max_frames=longest))
            decoded = video.get_frames(plan.indices, size=self._size)
            self._frames = decoded.data[decoded.valid]
        self._count = len(self._frames) if self._encoding is None else len(self._encoding)
        if self._count < longest:
            raise InputError(
                f"{metadata.source}: only {self._count} of {longest} candidates can be used; "
                "give another video or smaller lengths"
            )

    def _encoded(self, longest: int) -> VideoEncoding | None:
        """The encoding of all candidates, if encodings may be put together: each frame stands for itself."""
        if self._selector.ordered:
            return None
        encoding = self._encode(self._video, longest, "haystack")
        one_row_each = all(t.ndim and len(t) == len(encoding) for t in encoding.tensors.values())
        return encoding if one_row_each else None

    def _encode(self, video: Video, count: int, what: str) -> VideoEncoding:
        key = (self._selector.encoding_fingerprint, what)
        if key not in self._stored:
            self._stored[key] = self._selector.encode(video, fps=_EVERY_FRAME, max_frames=count, cache=False)
        return self._stored[key]

    def prepare(self, needle: Needle) -> Any:
        """The needle as an encoding, or as pictures."""
        pictures = np.stack([_fitted(picture, self._shape, self._size) for picture in needle.pictures])
        if self._encoding is None:
            return pictures
        with open_video(pictures, fps=1.0) as video:
            return self._encode(video, len(pictures), f"needle {needle.name}")

    def ask(self, prepared: Any, needle: Needle, length: int, depth: float, place: float, num_frames: int) -> Trial:
        size = len(prepared)
        position = round(place * (length - size))
        hay = np.linspace(0, self._count - 1, length - size).round().astype(int)
        rows = np.concatenate([hay[:position], self._count + np.arange(size), hay[position:]])
        if self._encoding is not None:
            asked: Any = _joined(self._encoding, prepared, rows)
            selection = self._selector.select(asked, needle.question, num_frames=num_frames)
        else:
            pictures = np.concatenate([self._frames, prepared])[rows]
            with open_video(pictures, fps=1.0) as asked:
                selection = self._selector.select(
                    asked, needle.question, num_frames=num_frames, fps=1.0, max_frames=length, cache=False
                )
        picked = tuple(int(index) for index in selection.indices)
        found = sum(position <= pick < position + size for pick in picked)
        return Trial(
            self._selector.name, needle.name, length, depth, num_frames, position, size, picked, found
        )  # fmt: skip


def _place(needle: Needle, length: int, depth: float, jitter: float) -> float:
    """Where the needle is put, 0 to 1: near the depth, drawn without regard to the selector."""
    generator = np.random.default_rng([zlib.crc32(needle.name.encode()), length, round(depth * 10_000)])
    return float(generator.uniform(max(0.0, depth - jitter), min(1.0, depth + jitter)))


def _joined(hay: VideoEncoding, needle: VideoEncoding, rows: np.ndarray) -> VideoEncoding:
    """One encoding of the rows of two, one second apart."""
    import torch

    wanted = torch.from_numpy(rows)
    tensors = {name: torch.cat([hay.tensors[name], needle.tensors[name]])[wanted] for name in hay.tensors}
    return replace(
        hay,
        tensors=tensors,
        indices=np.arange(len(rows)),
        timestamps=np.arange(float(len(rows))),
        video=replace(hay.video, num_frames=len(rows), duration=float(len(rows))),
        video_fingerprint="haystack",
        warnings=(),
        origin=None,
    )


def _fitted(picture: Image.Image, shape: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """A picture whole on a black ground of the video's shape, then at the size of the candidates, [h, w, 3]."""
    from PIL import Image, ImageOps

    height, width = shape
    return np.asarray(ImageOps.pad(picture, (width, height)).resize((size[1], size[0]), Image.Resampling.BICUBIC))


def _check(needles: Sequence[Needle], lengths: Sequence[int], depths: Sequence[float], num_frames: int) -> None:
    if not needles or not lengths or not depths:
        raise InputError("needles, lengths and depths must not be empty")
    if any(not 0 <= depth <= 1 for depth in depths):
        raise InputError(f"depths must be between 0 and 1, not {list(depths)}")
    if not 1 <= num_frames <= min(lengths):
        raise InputError(f"num_frames must be between 1 and the smallest length {min(lengths)}, not {num_frames}")
    largest = max(len(needle.pictures) for needle in needles)
    if largest >= min(lengths):
        raise InputError(f"a needle of {largest} frames does not fit into {min(lengths)} candidates")
