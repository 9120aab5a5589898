"""`Selection`: the answer of a selector: which frames, when they are shown, and everything to use or look at them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import EncodingError, InputError, VideoOpenError
from .files import remove_leftovers, replacing, write_json
from .plain_text import json_text, parse_json

if TYPE_CHECKING:
    from PIL import Image

    from .budget import FramePlan
    from .video import Frames, Video, VideoMetadata


@dataclass(frozen=True)
class Substitute:
    """A chosen frame that is damaged, and the nearest good one, which is shown in its place.

    Attributes:
        index, timestamp: number and time (seconds) of the chosen frame.
        shown_index, shown_timestamp: number and time (seconds) of the picture that is shown.
    """

    index: int
    timestamp: float
    shown_index: int
    shown_timestamp: float


@dataclass(frozen=True)
class Quote:
    """A line that is said or can be read in the video.

    Attributes:
        start, end: when, in seconds.
        text: what is said or written.
        source: "spoken" or "written".
        match: how well it answers the question: by how many deviations it matches better than lines match unrelated
            texts; None for lines that only stand beside a frame.
    """

    start: float
    end: float
    text: str
    source: str
    match: float | None = None


@dataclass(frozen=True, eq=False)
class Selection:
    """K frames of a video chosen for a question, sorted in time.

    Attributes:
        question: what was asked.
        selector: who chose.
        indices: frame numbers in the video, int64 [K], distinct and rising.
        timestamps: their times in seconds on the clock of `Video.timestamps`, float64 [K].
        scores: the selector's score of every candidate, float64 [F]; larger is better, -inf for "never".
        candidate_indices: frame numbers of the candidates, int64 [F].
        candidate_timestamps: their times in seconds, float64 [F].
        video: metadata of the video: `source`, `duration`, `width`, `height`, `codec`, …
        video_fingerprint: identity of the video's content.
        strategy: "selected" if the question decided, "uniform_fallback" if they are spread evenly over the video.
        warnings: what the user should know; once frames have been decoded also which of them are substitutes.
        origin: the path or open `Video` that full-size frames are read from.
        enough: with how many frames the selector had seen enough; None if it cannot tell, or never had.
        quotes: the lines that decided, in the order of time; empty where the pictures decided.
        lines: all lines that are said or shown at the chosen frames, if the video was encoded with its words.
        plan: number, size and cost of the frames, where a token budget decided (see `refocus_select.budget`).
    """

    question: str
    selector: str
    indices: np.ndarray
    timestamps: np.ndarray
    scores: np.ndarray
    candidate_indices: np.ndarray
    candidate_timestamps: np.ndarray
    video: VideoMetadata
    video_fingerprint: str
    strategy: str = "selected"
    warnings: tuple[str, ...] = ()
    origin: Any = field(default=None, repr=False)
    enough: int | None = None
    quotes: tuple[Quote, ...] = ()
    lines: tuple[Quote, ...] = field(default=(), repr=False)
    plan: FramePlan | None = None

    def __len__(self) -> int:
        """Number of chosen frames K."""
        return len(self.indices)

    def __repr__(self) -> str:
        times = ", ".join(f"{t:.2f}" for t in self.timestamps)
        return f"Selection({self.question!r}, {self.selector!r}, {self.strategy}, seconds=[{times}])"

    @property
    def picks(self) -> np.ndarray:
        """Positions of the chosen frames among the candidates, int64 [K]."""
        return np.searchsorted(self.candidate_indices, self.indices)

    @property
    def duration(self) -> float:
        """Length of the video in seconds."""
        return self.video.duration

    @cached_property
    def shown(self) -> Frames:
        """The chosen frames at full size, or the one size of `plan`, with the numbers and times of what they show.

        They are decoded on first use.

        Raises:
            VideoOpenError: if the video is gone.
            EncodingError: if the file is no longer the one that was encoded.
        """
        one_size = self.plan is not None and len(self.plan.sizes) == 1
        return self.get_frames(self.indices, size=self.plan.sizes[0] if self.plan and one_size else None)

    @property
    def frames(self) -> np.ndarray:
        """The chosen frames at full size (see `shown`), uint8 RGB [K, H, W, 3], decoded on first use.

        A damaged one is replaced by its nearest good neighbour; `warnings` and `substitutes` then say so.

        Raises:
            VideoOpenError, EncodingError: see `shown`.
        """
        return self.shown.data

    @property
    def images(self) -> list[Image.Image]:
        """The chosen frames as PIL images."""
        from PIL import Image

        return [Image.fromarray(frame) for frame in self.frames]

    @property
    def substitutes(self) -> tuple[Substitute, ...]:
        """Which chosen frames are shown by another one, as far as they have been decoded (`check` decodes them all)."""
        known: dict[int, Substitute] = self.__dict__.get("_substitutes", {})
        return tuple(known[index] for index in sorted(known))

    @property
    def shown_timestamps(self) -> np.ndarray:
        """Times in seconds of the pictures that `frames` holds, float64 [K]: `timestamps`, but for substitutes."""
        times = self.timestamps.copy()
        for substitute in self.substitutes:
            times[np.searchsorted(self.indices, substitute.index)] = substitute.shown_timestamp
        return times

    def check(self) -> tuple[Substitute, ...]:
        """Decode the chosen frames, and return those that are damaged.

        Selectors that look at the frames have done so already; `uniform` chooses without looking.

        Raises:
            VideoOpenError, EncodingError: see `shown`.
        """
        with self._opened() as video:
            for piece in video.iter_frames(self.indices, size=(_CHECK_SIDE, _CHECK_SIDE)):
                self._remember_substitutes(self.indices[piece.positions], piece)
        return self.substitutes

    def get_frames(self, indices: np.ndarray, *, size: tuple[int, int] | None = None) -> Frames:
        """Decode any frames of the same video.

        Args:
            indices: frame numbers, [N].
            size: (height, width) in pixels; the video's own by default.

        Returns:
            The pictures, with the numbers and times of what they show.

        Raises:
            VideoOpenError, EncodingError: see `shown`.
        """
        with self._opened() as video:
            frames = video.get_frames(indices, size=size)
        self._remember_substitutes(np.asarray(indices), frames)
        return frames

    def decode(self, indices: np.ndarray, *, size: tuple[int, int] | None = None) -> np.ndarray:
        """The pictures of `get_frames`, uint8 RGB [N, H, W, 3]."""
        return self.get_frames(indices, size=size).data

    def _remember_substitutes(self, asked: np.ndarray, frames: Frames) -> None:
        rows = np.flatnonzero(~frames.valid & np.isin(asked, self.indices))
        if not len(rows):
            return
        known: dict[int, Substitute] = self.__dict__.setdefault("_substitutes", {})
        times = dict(zip(self.indices.tolist(), self.timestamps.tolist(), strict=True))
        for row in rows:
            index = int(asked[row])
            known[index] = Substitute(index, times[index], int(frames.indices[row]), float(frames.timestamps[row]))
        before = self.__dict__.setdefault("_other_warnings", self.warnings)
        object.__setattr__(self, "warnings", (*before, _told(self.substitutes, len(self))))

    @contextmanager
    def _opened(self) -> Iterator[Video]:
        from .video import Video

        if isinstance(self.origin, Video):
            yield self.origin
        else:
            with self._reopened() as video:
                yield video

    def _reopened(self) -> Video:
        from .locations import is_here
        from .video import open_video

        source = self.origin or self.video.source
        if not is_here(source):
            raise VideoOpenError(
                f"the frames cannot be decoded: the video {source!r} is not here any more; "
                "indices and timestamps are still valid"
            )
        video = open_video(source)
        if video.fingerprint != self.video_fingerprint:
            video.close()
            raise EncodingError(f"{source} has changed since it was encoded; encode it again")
        return video

    # -- for programs -----------------------------------------------------------------------------

    def metadata(self) -> dict[str, Any]:
        """Video metadata for processors of transformers and vLLM, in milliseconds.

        Every consumer computes `frames_indices / fps`; with `fps=1000` that is the true time of each frame, for
        variable frame rates too. Pass it with `do_sample_frames=False`.
        """
        milliseconds = [round(1000 * float(t)) for t in self.timestamps]
        return {
            "total_num_frames": max(round(1000 * self.duration), milliseconds[-1] + 1),
            "fps": 1000.0,
            "width": self.video.width,
            "height": self.video.height,
            "duration": self.duration,
            "video_backend": self.video.backend,
            "frames_indices": milliseconds,
        }

    def to_dict(self) -> dict[str, Any]:
        """Everything but the pictures, as plain values (JSON has no infinity: such scores are null)."""
        return {
            "video": self.video.source,
            "question": self.question,
            "selector": self.selector,
            "num_frames": len(self),
            "indices": self.indices.tolist(),
            "timestamps": [round(float(t), 6) for t in self.timestamps],
            "scores": [round(float(s), 6) if math.isfinite(s) else None for s in self.scores],
            "candidate_indices": self.candidate_indices.tolist(),
            "candidate_timestamps": [round(float(t), 6) for t in self.candidate_timestamps],
            "duration": self.duration,
            "strategy": self.strategy,
            "enough": self.enough,
            **({} if self.plan is None else {"plan": self.plan.to_dict()}),
            "substitutes": [asdict(substitute) for substitute in self.substitutes],
            "warnings": list(self.warnings),
            "quotes": [asdict(quote) for quote in self.quotes],
        }

    def to_json(self, *, indent: int | None = None) -> str:
        """`to_dict` as JSON text."""
        return json_text(self.to_dict(), indent=indent)

    # -- for people -------------------------------------------------------------------------------

    def save(self, folder: str | os.PathLike[str], *, format: str = "jpg") -> Path:
        """Write the frames, named by their time, and `selection.json` into a folder.

        A substitute is named by what it shows; entry k of `files` in `selection.json` is the file of chosen frame k.

        The files of an earlier `save` into the same folder are replaced; other files there are left alone.

        Args:
            folder: made if it does not exist.
            format: "jpg" or "png".

        Returns:
            The folder.

        Raises:
            InputError: if the format is unknown or the folder cannot be written.
        """
        if format not in ("jpg", "png"):
            raise InputError(f"format must be 'jpg' or 'png', not {format!r}")
        target = Path(folder)
        shown = self.shown
        names = [f"{t:010.3f}s_frame{i:06d}.{format}" for t, i in zip(shown.timestamps, shown.indices, strict=True)]
        images = dict(zip(names, self.images, strict=True))  # two chosen frames may have one substitute
        record = {**self.to_dict(), "files": names}
        try:
            remove_leftovers(target)
            stale = _files_of_earlier_save(target / "selection.json") - set(names)
            for name, image in images.items():
                with replacing(target / name) as temporary:
                    image.save(temporary, quality=95) if format == "jpg" else image.save(temporary)
            write_json(target / "selection.json", record)
            for name in stale:
                (target / name).unlink(missing_ok=True)
        except OSError as error:
            raise InputError(f"cannot write to {target}: {error.strerror or error}") from error
        return target

    def plot(self, path: str | os.PathLike[str]) -> Path:
        """Draw the scores over time with the chosen frames, and uniform sampling below them for comparison.

        Args:
            path: a file ending in .png, .jpg, .pdf or .svg.
        """
        from .pictures import plot_choice

        chose = self.strategy == "selected"
        what = f"the {len(self)} frames chosen" if chose else f"nothing stands out, {len(self)} frames spread"
        return self._draw(
            path,
            lambda temporary: plot_choice(
                temporary,
                title=f"“{self.question}”",
                label=f"{self.selector}: {what}",
                chosen=(self.indices, self.timestamps),
                candidates=(self.candidate_indices, self.candidate_timestamps),
                scores=self.scores,
                duration=self.duration,
                decode=self._thumbnails,
                quotes=self.quotes,
            ),
        )

    def contact_sheet(self, path: str | os.PathLike[str], *, columns: int | None = None) -> Path:
        """Write the chosen frames as one picture, each with its time.

        Args:
            path: a file ending in .png or .jpg.
            columns: frames per row (default: a nearly square sheet).
        """
        from .pictures import contact_sheet

        def write(temporary: Path) -> None:
            thumbs = self._thumbnails(self.indices)
            contact_sheet(thumbs.data, thumbs.timestamps, columns=columns).save(temporary)

        return self._draw(path, write)

    def _thumbnails(self, indices: np.ndarray, longest: int = 320) -> Frames:
        """Small pictures in the video's shape, not enlarged."""
        width, height = self.video.width, self.video.height
        scale = min(1.0, longest / max(width, height))
        return self.get_frames(indices, size=(max(1, round(height * scale)), max(1, round(width * scale))))

    def _draw(self, path: str | os.PathLike[str], write: Any) -> Path:
        target = Path(path)
        if target.suffix.lower() not in (".png", ".jpg", ".jpeg", ".pdf", ".svg"):
            raise InputError(f"{target}: the name must end in .png, .jpg, .pdf or .svg")
        try:
            with replacing(target) as temporary:
                write(temporary)
        except OSError as error:
            raise InputError(f"cannot write {target}: {error.strerror or error}") from error
        return target


_CHECK_SIDE = 32  # pixels; decoding is what finds damage, whatever the size of the picture


def _told(substitutes: tuple[Substitute, ...], count: int) -> str:
    shown = [
        f"frame {s.index} ({s.timestamp:.3f} s) by frame {s.shown_index} ({s.shown_timestamp:.3f} s)"
        for s in substitutes[:5]
    ]
    more = f", and {len(substitutes) - 5} more" if len(substitutes) > 5 else ""
    return f"{len(substitutes)} of {count} chosen frames are damaged and shown by others: {', '.join(shown)}{more}"


def _files_of_earlier_save(record: Path) -> set[str]:
    try:
        files = list(parse_json(record.read_bytes())["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return set()
    plain = (name for name in files if isinstance(name, str) and Path(name).name == name and "\0" not in name)
    return {name for name in plain if name.endswith((".jpg", ".png"))}
