"""`VideoService`: videos that several people or programs ask about, within limits. Server and page use it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..encoding import VideoEncoding
from ..errors import AccessError, InputError
from ..locations import is_web
from ..selection import Quote, Selection
from ..selectors import FrameSelector
from ..selectors.registry import selector_names, takes_encoder
from ..video import Frames, Video, VideoMetadata, open_video
from ..weights import DEFAULT_SELECTOR
from .access import Access
from .store import Downloads, Kept, identity, memory_of
from .tasks import Slots, Task

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..corpus.index import Index
    from ..corpus.search import Hit

EMBEDDED = "embedded"
"""Name of the encoder that the package ships."""

_EDGE = 0.5  # seconds that a time may lie beyond the end: they are often rounded


@dataclass(frozen=True)
class Limits:
    """How much one request may ask for, and how much the service does at once.

    Attributes:
        max_duration: longest video, or part of one, in seconds.
        max_frames: most pictures of one answer.
        timeout: seconds that a request may take, waiting included.
        max_concurrent: requests that are worked on at once.
        max_waiting: requests that wait for that.
        memory: bytes of encodings that are kept.
    """

    max_duration: float = 6 * 3600.0
    max_frames: int = 64
    timeout: float = 600.0
    max_concurrent: int = 2
    max_waiting: int = 16
    memory: int = 2**30


@dataclass(frozen=True)
class Description:
    """What is known of a video before anything is asked.

    Attributes:
        metadata: of the file.
        lines: what is said in it, from a transcript beside it or a subtitle track inside; empty without one.
        words_from: where these come from; None without any.
        overview: small pictures, evenly spread.
        warnings: what is unusual about the file.
    """

    metadata: VideoMetadata
    lines: tuple[Quote, ...]
    words_from: str | None
    overview: Frames
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Read:
    """An encoding, and the number of frames for which it was read: a short video may have had no more to give."""

    encoding: VideoEncoding
    asked: int


class VideoService:
    """Answers questions about videos and remembers what it has read.

        with VideoService(Access.below(["films/"])) as service:
            service.select("bunny.mp4", "When is the bow drawn?", num_frames=4)
            service.select("bunny.mp4", "Where are the credits?", num_frames=4)  # does not read it again

    Every method may be called from several threads. Each takes a `Task`, which reports progress and can be cancelled.

    Attributes:
        access: what may be read.
        limits: how much.
        selectors: names that may be asked for.
        encoders: names that may be asked for; the first is the default.
    """

    def __init__(
        self,
        access: Access,
        *,
        selector: str = DEFAULT_SELECTOR,
        more_selectors: Sequence[str] = (),
        encoders: Sequence[str] = (EMBEDDED,),
        limits: Limits | None = None,
        device: str | None = None,
    ) -> None:
        """Set up; a selector is loaded when it is first needed.

        Args:
            access: what may be read.
            selector: the default one: a name, a folder or a Hub id.
            more_selectors: folders or Hub ids that may be asked for; built-in and registered names always may.
            encoders: folders, Hub ids, … (see `load_encoder`) that may be asked for, the default first; the embedded
                one always may.
            limits: how much may be asked for.
            device: of selectors and encoders.
        """
        self.access, self.limits = access, limits or Limits()
        self.default_selector = selector
        self.selectors = list(dict.fromkeys([selector, *more_selectors, *selector_names()]))
        self.encoders = list(dict.fromkeys([*encoders, EMBEDDED]))
        self._device = device
        self._downloads = Downloads(access)
        self._loaded: Kept[FrameSelector] = Kept(4)
        self._encodings: Kept[_Read] = Kept(self.limits.memory, lambda read: memory_of(read.encoding))
        self._indexes: Kept[Index] = Kept(4)
        self._slots = Slots(self.limits.max_concurrent, self.limits.max_waiting)
        self._running: set[Task] = set()
        self._lock = threading.Lock()

    def __enter__(self) -> VideoService:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Cancel what is going on, and forget everything."""
        with self._lock:
            running = list(self._running)
        for task in running:
            task.cancel()
        self._encodings.clear()
        self._downloads.close()

    def task(self, report: Callable[[int, int], None] | None = None) -> Task:
        """A request that begins now."""
        return Task(self.limits.timeout, report)

    # -- what can be asked --------------------------------------------------------------------------

    def select(
        self,
        video: str,
        question: str,
        *,
        num_frames: int | Literal["auto"] = 8,
        start: float | None = None,
        end: float | None = None,
        selector: str | None = None,
        encoder: str | None = None,
        task: Task | None = None,
        **choice: Any,
    ) -> Selection:
        """The frames that answer a question; see `FrameSelector.select`.

        Raises:
            AccessError: if something may not be read, is too much, or takes too long.
            RefocusError: as `FrameSelector.select`.
        """
        self._check_number(num_frames)
        with self._working(task) as job:
            chooser = self._selector(selector, encoder, job)
            most = self.limits.max_frames if num_frames == "auto" else num_frames
            encoding = self._encoding(video, chooser, start, end, most, job)
            job.check()
            return chooser.select(encoding, question, num_frames=num_frames, **choice)

    def look(
        self, video: str, times: Sequence[float], *, longest: int = 1024, task: Task | None = None
    ) -> tuple[VideoMetadata, Frames]:
        """The pictures on screen at given times.

        Args:
            video: a path below a root, or an allowed address.
            times: seconds from the first frame.
            longest: longer side of the pictures in pixels; they are not enlarged.
            task: reports progress and can be cancelled.

        Raises:
            InputError: if a time lies outside of the video.
            AccessError, RefocusError: see `select`.
        """
        if not len(times):
            raise InputError("times is empty; give one or more, in seconds")
        self._check_number(len(times))
        with self._working(task) as job, self._opened(video, job) as source:
            shown, length = source.timestamps, source.metadata.duration
            for time in times:
                if not 0 <= time <= length + _EDGE:
                    raise InputError(f"time {time:g} lies outside of the video, which ends at {length:.3f} s")
            indices = np.clip(np.searchsorted(shown, np.asarray(times) + 1e-6, side="right") - 1, 0, len(shown) - 1)
            return source.metadata, self._pictures(source, np.unique(indices), longest, job)

    def describe(self, video: str, *, overview: int = 12, longest: int = 320, task: Task | None = None) -> Description:
        """What a video is: its data, its words, and a few pictures.

        Args:
            video: a path below a root, or an allowed address.
            overview: how many pictures.
            longest: longer side of the pictures in pixels.
            task: reports progress and can be cancelled.

        Raises:
            AccessError, RefocusError: see `select`.
        """
        from ..words.find import find_words

        self._check_number(overview)
        with self._working(task) as job, self._opened(video, job) as source:
            notes: list[str] = []
            words = find_words(source, "auto", notes=notes)
            count = len(source.timestamps)
            places = np.unique(((np.arange(min(overview, count)) + 0.5) * count / min(overview, count)).astype(int))
            frames = self._pictures(source, places, longest, job)
            lines = () if words is None else tuple(Quote(x.start, x.end, x.text, x.source) for x in words)
            origin = None if words is None else os.path.basename(words.origin)
            return Description(source.metadata, lines, origin, frames, (*source.warnings, *notes))

    def search(
        self, collection: str, question: str, k: int = 10, *, min_gap: float = 5.0, task: Task | None = None
    ) -> list[Hit]:
        """The moments of an index folder that match a question best; see `Index.search`.

        Raises:
            AccessError: if the index was made by a selector or encoder that was not allowed.
            AccessError, RefocusError: see `select`.
        """
        self._check_number(k)
        with self._working(task) as job:
            folder = self.access.path(collection)
            index = self._indexes.get((folder, _changed(folder)), lambda: self._index(folder, job), job)
            return index.search(question, k, min_gap=min_gap)

    # -- how ------------------------------------------------------------------------------------------

    @contextmanager
    def _working(self, task: Task | None) -> Iterator[Task]:
        job = task or self.task()
        with self._lock:
            self._running.add(job)
        try:
            with self._slots.taken(job):
                yield job
        finally:
            with self._lock:
                self._running.discard(job)

    def _check_number(self, count: int | str) -> None:
        if count != "auto" and isinstance(count, int) and count > self.limits.max_frames:
            raise AccessError(
                f"{count} pictures at once are more than {self.limits.max_frames}: ask for fewer, or start with a "
                "larger --max-frames"
            )

    def _path(self, video: str, task: Task) -> str:
        return str(self._downloads.path(video, task)) if is_web(video) else self.access.video(video)

    @contextmanager
    def _opened(self, video: str, task: Task) -> Iterator[Video]:
        with open_video(self._path(video, task)) as source:
            task.check()
            yield source

    def _pictures(self, source: Video, indices: np.ndarray, longest: int, task: Task) -> Frames:
        """Frames of a video, one after the other, so that the task can end between them."""
        width, height = source.metadata.width, source.metadata.height
        scale = min(1.0, longest / max(width, height))
        size = max(1, round(height * scale)), max(1, round(width * scale))
        pieces = []
        for piece in source.iter_frames(indices, size=size, chunk=1):
            pieces.append(piece)
            task.progress(len(pieces), len(indices))
        return Frames(**{name: np.concatenate([getattr(p, name) for p in pieces]) for name in vars(pieces[0])})

    def _selector(self, name: str | None, encoder: str | None, task: Task) -> FrameSelector:
        name = name or self.default_selector
        if name not in self.selectors:
            known = ", ".join(map(repr, self.selectors))
            raise AccessError(f"selector {name!r} is not one of {known}; start with --selector {name} to allow it")
        encoder = encoder or self.encoders[0]
        if encoder not in self.encoders:
            known = ", ".join(map(repr, self.encoders))
            raise AccessError(f"encoder {encoder!r} is not one of {known}; start with --encoder {encoder} to allow it")
        arguments: dict[str, Any] = {} if self._device is None else {"device": self._device}
        if encoder != EMBEDDED and takes_encoder(name):
            arguments["encoder"] = encoder
        key = (name, arguments.get("encoder"))
        return self._loaded.get(key, lambda: FrameSelector.from_pretrained(name, **arguments), task)

    def _encoding(
        self, video: str, selector: FrameSelector, start: float | None, end: float | None, count: int, task: Task
    ) -> VideoEncoding:
        path = self._path(video, task)
        key = (path, identity(path), selector.encoding_fingerprint, start, end)

        def make() -> _Read:
            with open_video(path) as source:
                self._check_length(source, video, start, end)
                least = min(count, len(source.timestamps))
            encoding = selector.encode(
                path, start=start, end=end, min_frames=least, words="auto", progress=task.progress
            )
            return _Read(replace(encoding, video=replace(encoding.video, source=video)), count)

        read = self._encodings.get(key, make, task, fits=lambda read: max(len(read.encoding), read.asked) >= count)
        return read.encoding

    def _check_length(self, source: Video, name: str, start: float | None, end: float | None) -> None:
        duration = source.metadata.duration
        part = min(duration if end is None else end, duration) - (start or 0.0)
        if part > self.limits.max_duration:
            raise AccessError(
                f"{name}: {part:.0f} s are more than the {self.limits.max_duration:.0f} s that are allowed; ask for a "
                "part with start and end, or start with a larger --max-duration"
            )

    def _index(self, folder: Path, task: Task) -> Index:
        from ..corpus.index import Index
        from ..corpus.index_files import read_facts

        facts = read_facts(folder)
        # Not what the file names but what was allowed is loaded: a name in a file could lead to code or the network.
        encoder = facts["arguments"].get("encoder", EMBEDDED)
        return Index(folder, selector=self._selector(facts["selector"], encoder, task))


def _changed(folder: Path) -> tuple[int, ...]:
    """What changes when an index is built anew."""
    return tuple(
        (folder / name).stat().st_mtime_ns if (folder / name).is_file() else 0
        for name in ("index.json", "videos.parquet")
    )
