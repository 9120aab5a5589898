"""`Index`: the encodings of a collection on disk, to be asked at any time, one video or all of them.

INDEX/index.json       the selector and its sampling
INDEX/videos.parquet   one row per video: path, identity, and which file holds its encoding
INDEX/encodings/       one safetensors file per video; vectors in half precision
INDEX/search.faiss     for large collections, made by the first search
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..encoding import VideoEncoding, read_encoding, write_encoding
from ..errors import EncodingError, InputError, RefocusError, VideoDecodeError
from ..locations import check_offline, local_path
from ..questions import Problem
from ..video.sources import fingerprint_of
from .answer import SAMPLING, WORDS, BatchSettings
from .batch import with_encoder
from .index_files import Entry, check_facts, held, need_pyarrow, read_facts, read_table, sha256_of, write_table
from .local import in_parallel
from .search import Hit, Search, choose_engine, open_search

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ..arguments import LoadArguments, SamplingArguments
    from ..encoders import DualEncoder
    from ..selection import Selection
    from ..selectors import FrameSelector
    from .word_search import WordSearch

logger = logging.getLogger(__name__)

SUFFIXES = frozenset(
    {".3gp", ".asf", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf"}
    | {".ogv", ".ts", ".vob", ".webm", ".wmv"}
)
_SAVE_EVERY = 30.0  # seconds between tables while an index is built
_OPEN_ENCODINGS = 64


@dataclass(frozen=True)
class Update:
    """What `Index.build` did.

    Attributes:
        added, changed, moved, removed, unchanged: numbers of videos.
        failed: (video, why) of those that cannot be read; they are tried again at the next update.
        total: videos in the index now.
    """

    added: int = 0
    changed: int = 0
    moved: int = 0
    removed: int = 0
    unchanged: int = 0
    failed: tuple[tuple[str, str], ...] = ()
    total: int = 0


class Index:
    """The encodings of a collection of videos.

        index = Index.build(["lectures/"], "lectures.index")
        index.select("the slide with the formula", video="lectures/03.mp4", num_frames=8)
        index.search("the slide with the formula", 10)

    Attributes:
        folder: where it lies.
        entries: path to `Entry`, in order.
        last_update: what `build` did; an empty one otherwise.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        selector: FrameSelector | None = None,
        **arguments: Unpack[LoadArguments],
    ) -> None:
        """Open an index.

        Args:
            folder: what `build` wrote.
            selector: the one that it was made with, if it is loaded already.
            **arguments: for `FrameSelector.from_pretrained`, e.g. `device`, or an `encoder` that is an object.

        Raises:
            InputError: if there is no index.
            EncodingError: if it is damaged, or `selector` is another.
        """
        self.folder = Path(folder)
        self._facts = read_facts(self.folder)
        self.entries = read_table(self.folder)
        self.last_update = Update(total=len(self.entries))
        self._selector = selector
        self._arguments: dict[str, Any] = {**self._facts["arguments"], **arguments}
        self._open: OrderedDict[str, VideoEncoding] = OrderedDict()
        self._search: dict[str, Search] = {}
        self._lock = threading.RLock()
        if selector is not None:
            self._check_selector(selector)

    @classmethod
    def build(
        cls,
        videos: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        out: str | os.PathLike[str],
        *,
        selector: str | FrameSelector = "mini",
        encoder: str | os.PathLike[str] | DualEncoder | None = None,
        workers: int | None = None,
        backend: str | None = None,
        selector_arguments: LoadArguments | None = None,
        progress: bool | None = None,
        network: bool = True,
        **sampling: Unpack[SamplingArguments],
    ) -> Index:
        """Make an index, or bring it up to date.

        New and changed videos are read, moved ones recognised, and those whose file is gone are taken out. What is not
        among `videos` stays. An interrupted build resumes where it was.

        Args:
            videos: files, and folders that are searched for videos.
            out: the index, a folder.
            selector: a name, or a selector that is loaded already; an index has one selector.
            encoder: whose vectors it compares (see `load_encoder`); an index has one encoder. One that is an object is
                given again to `Index(out, encoder=…)`.
            workers: videos at a time.
            backend: decoder.
            selector_arguments: for `FrameSelector.from_pretrained`.
            progress: show rate and remaining time (default: only on a terminal).
            network: False uses only what is in the local cache of the Hub.
            **sampling: `fps`, `max_frames`, `exact`; `words` (here "auto" or "off", the default), `ocr`, `transcribe`,
                `language`: see `FrameSelector.encode`.

        Raises:
            InputError: if a path is not there, the index has another selector or sampling, or cannot be written.
            EncoderError: if the encoder cannot be used with the selector.
        """
        from ..selectors import FrameSelector
        from ..selectors.registry import offline_arguments

        need_pyarrow()
        known = SAMPLING - {"start", "end"} | WORDS
        if sampling.keys() - known:
            raise InputError(f"an index has no argument {', '.join(sorted(sampling.keys() - known))}")
        paths = [videos] if isinstance(videos, str | os.PathLike) else list(videos)
        for path in () if network else paths:
            check_offline(path)
        files = _files(paths)
        arguments = with_encoder(selector, encoder, selector_arguments)
        offline = {} if network else offline_arguments(selector, arguments.get("encoder"))
        loaded = (
            selector
            if isinstance(selector, FrameSelector)
            else FrameSelector.from_pretrained(selector, **arguments, **offline)
        )
        reading: dict[str, Any] = {
            name: value for name, value in sampling.items() if name not in WORDS or value not in (None, False, "off")
        }
        heard = {name: value for name, value in reading.items() if name in WORDS}
        seen = {name: value for name, value in reading.items() if name not in WORDS}
        BatchSettings(sampling=seen, words=heard).check(loaded)
        folder = Path(out)
        facts = {
            "selector": loaded.name if isinstance(selector, FrameSelector) else os.fspath(selector),
            "arguments": {
                name: str(value)
                for name, value in arguments.items()
                if name != "device" and not (name == "encoder" and not isinstance(value, str | os.PathLike))
            },
            "fingerprint": loaded.encoding_fingerprint,
            "sampling": dict(sorted(reading.items())),
        }
        with held(folder):
            check_facts(folder, facts)
            builder = _Builder(folder, loaded, reading, backend)
            update = builder.run(files, workers, progress)
        index = cls(folder, selector=loaded)
        index.last_update = update
        return index

    @property
    def videos(self) -> list[str]:
        """Paths of the videos."""
        return list(self.entries)

    @property
    def selector(self) -> FrameSelector:
        """The selector of the index, loaded on first use."""
        with self._lock:
            if self._selector is None:
                from ..selectors import FrameSelector

                loaded = FrameSelector.from_pretrained(self._facts["selector"], **self._arguments)
                self._check_selector(loaded)
                self._selector = loaded
            return self._selector

    def __len__(self) -> int:
        """Number of videos."""
        return len(self.entries)

    def encoding(self, video: str | os.PathLike[str]) -> VideoEncoding:
        """The encoding of a video; the last few are kept in memory.

        Raises:
            InputError: if the video is not in the index.
            EncodingError: if the file is damaged.
        """
        entry = self._entry(video)
        with self._lock:
            if entry.encoding in self._open:
                self._open.move_to_end(entry.encoding)
                return replace(self._open[entry.encoding], origin=entry.video)
        encoding = self._load(entry)
        with self._lock:
            self._open[entry.encoding] = encoding
            while len(self._open) > _OPEN_ENCODINGS:
                self._open.popitem(last=False)
        return replace(encoding, origin=entry.video)

    def select(self, question: str, *, video: str | os.PathLike[str], num_frames: int = 8, **choice: Any) -> Selection:
        """Choose the frames of one video; see `FrameSelector.select`.

        Raises:
            InputError, EncodingError: see `encoding`.
        """
        return self.selector.select(self.encoding(video), question, num_frames=num_frames, **choice)

    def search(self, question: str, k: int = 10, *, min_gap: float = 0.0, engine: str = "auto") -> list[Hit]:
        """The frames of all videos that match a question best.

        Where videos were indexed with their words and the question asks for these, the lines that match best are found.

        Args:
            question: what is looked for.
            k: how many moments.
            min_gap: seconds that two moments of a video lie apart at least.
            engine: "exact" compares with every frame; "faiss" with the likely ones, for large collections; "auto"
                takes it from half a million frames on, if it is installed.

        Returns:
            At most k moments, the best first.

        Raises:
            InputError: if the selector compares no vectors, or an argument is not usable.
            MissingDependencyError: for "faiss" without the package.
        """
        if not isinstance(question, str) or not question.strip():
            raise InputError("the question is empty; ask something")
        if k < 1 or min_gap < 0:
            raise InputError(f"k must be at least 1 and min_gap at least 0, not {k} and {min_gap}")
        from ..selectors.dual_encoder import DualEncoderSelector

        reader = self.selector if isinstance(self.selector, DualEncoderSelector) else None
        if reader is None or not self.entries:
            why = "is empty" if reader is not None else f"was made with {self.selector.name!r}, which compares nothing"
            raise InputError(f"{self.folder} {why}; build it with 'mini', or an algorithm with an encoder")
        said = self._said.best(question.strip(), k, min_gap)
        if said is not None:
            return said
        name = choose_engine(engine, sum(entry.candidates for entry in self.entries.values()))
        with self._lock:
            if name not in self._search:
                self._search[name] = open_search(name, list(self.entries.values()), self._load, self.folder)
        vector = reader.encode_text([question.strip()]).numpy()[0]
        return self._search[name].best(vector, k, min_gap)

    @cached_property
    def _said(self) -> WordSearch | _NothingSaid:
        """The words of all videos; nothing is loaded if the index was built without."""
        if not self._facts["sampling"].keys() & WORDS:
            return _NothingSaid()
        from .word_search import WordSearch

        return WordSearch(self.entries.values(), self._load, getattr(self.selector, "encoder", None))

    def check(self) -> list[Problem]:
        """Read everything: damaged encodings, and videos that are gone or have changed since."""
        problems = []
        for entry in self.entries.values():
            try:
                self._load(entry)
            except EncodingError as error:
                problems.append(Problem(entry.video, str(error)))
            try:
                if fingerprint_of(entry.video) != entry.identity:
                    problems.append(Problem(entry.video, "has changed since it was indexed; index it again"))
            except OSError as error:
                problems.append(Problem(entry.video, f"is not there any more ({error.strerror}); index again"))
        return problems

    def _load(self, entry: Entry) -> VideoEncoding:
        path = self.folder / "encodings" / entry.encoding
        encoding = VideoEncoding.load(path)
        if sha256_of(path) != entry.sha256 or encoding.encoder_fingerprint != self._facts["fingerprint"]:
            raise EncodingError(f"{path} is damaged; remove it and index {entry.video} again")
        return encoding

    def _entry(self, video: str | os.PathLike[str]) -> Entry:
        name = local_path(video) or os.fspath(video)
        found = self.entries.get(os.path.abspath(name))
        if found is not None:
            return found
        same = [entry for entry in self.entries.values() if os.path.basename(entry.video) == name]
        if len(same) != 1:
            why = f"{len(same)} videos have that name; give the path" if same else "index it first"
            raise InputError(f"{name} is not in {self.folder}: {why}")
        return same[0]

    def _check_selector(self, selector: FrameSelector) -> None:
        if not selector.reads(self._facts["fingerprint"]):
            raise EncodingError(
                f"{self.folder} was made by {self._facts['selector']!r} ({self._facts['fingerprint'][:12]}), not by "
                f"{selector.encoding_name!r} ({selector.encoding_fingerprint[:12]}); open it with that encoder, or "
                "build another index"
            )


class _NothingSaid:
    """The words of an index that holds none."""

    def best(self, question: str, k: int, min_gap: float) -> list[Hit] | None:
        """None: the pictures decide."""
        return None


# -- building -------------------------------------------------------------------------------------


class _Builder:
    """Brings the table of an index up to date."""

    def __init__(self, folder: Path, selector: FrameSelector, sampling: dict[str, Any], backend: str | None) -> None:
        self._folder, self._selector, self._sampling, self._backend = folder, selector, sampling, backend
        self._before = read_table(folder)
        self._same_content = {entry.identity: entry for entry in self._before.values()}

    def run(self, files: list[str], workers: int | None, progress: bool | None) -> Update:
        from tqdm import tqdm

        gone = {video: entry for video, entry in self._before.items() if not os.path.exists(video)}
        left = {entry.identity for entry in gone.values()}
        entries = {video: entry for video, entry in self._before.items() if video not in gone}
        failed: list[tuple[str, str]] = []
        added, changed, moved, unchanged, last_saved = 0, 0, 0, 0, time.monotonic()
        disable = None if progress is None else not progress
        with tqdm(total=len(files), desc="videos", unit="video", disable=disable, smoothing=0.05) as bar:
            for video, entry in in_parallel(iter(files), self._entry, workers):
                bar.update()
                before = self._before.get(video)
                if isinstance(entry, str):
                    failed.append((video, entry))
                    entries.pop(video, None)
                    continue
                unchanged += entry == before
                changed += before is not None and entry != before
                moved += before is None and entry.identity in left
                added += before is None and entry.identity not in left
                entries[video] = entry
                if time.monotonic() - last_saved > _SAVE_EVERY:
                    write_table(self._folder, entries)
                    last_saved = time.monotonic()
        write_table(self._folder, entries)
        self._remove_unused(entries)
        elsewhere = {entry.identity for entry in entries.values()}
        removed = sum(entry.identity not in elsewhere for entry in gone.values())
        return Update(added, changed, moved, removed, unchanged, tuple(sorted(failed)), len(entries))

    def _entry(self, video: str) -> Entry | str:
        """The entry of a video, encoded if need be; or why there is none."""
        try:
            identity = fingerprint_of(video)
            name = self._name(identity)
            known = self._same_content.get(identity)
            path = self._folder / "encodings" / name
            if known is not None and known.encoding == name and path.is_file():
                return replace(known, video=video)
            return self._encoded(video, identity, path)
        except OSError as error:
            return f"cannot be read ({error.strerror})"
        except InputError:  # the index cannot be written
            raise
        except Exception as error:
            if not isinstance(error, RefocusError):
                logger.warning("%s: unexpected error", video, exc_info=True)
            return str(error) if isinstance(error, RefocusError) else f"{type(error).__name__}: {error}"

    def _encoded(self, video: str, identity: str, path: Path) -> Entry:
        encoding = None
        if path.is_file():  # of a build that was interrupted before its table was written
            with suppress(EncodingError):
                found = read_encoding(path, key=path.stem)
                self._selector.check_encoding(found)
                encoding = found
        if encoding is None:
            encoding = self._selector.encode(
                video, cache=False, progress=False, workers=1, backend=self._backend, **self._sampling
            )
            if fingerprint_of(video) != identity:
                raise VideoDecodeError(f"{video} changed while it was read; index it again when it is complete")
            try:
                write_encoding(compact(encoding), path, key=path.stem)
            except EncodingError as error:
                raise InputError(f"{error}; make room, and build again: what is encoded is kept") from error
        return Entry(
            video=video,
            identity=identity,
            encoding=path.name,
            sha256=sha256_of(path),
            bytes=path.stat().st_size,
            candidates=len(encoding),
            duration=encoding.video.duration,
        )

    def _name(self, identity: str) -> str:
        text = json.dumps([identity, self._selector.encoding_fingerprint, sorted(self._sampling.items())])
        return f"{hashlib.sha256(text.encode()).hexdigest()[:40]}.safetensors"

    def _remove_unused(self, entries: Mapping[str, Entry]) -> None:
        used = {entry.encoding for entry in entries.values()}
        for path in (self._folder / "encodings").glob("*"):
            if path.name not in used:
                with suppress(OSError):
                    path.unlink()


def compact(encoding: VideoEncoding) -> VideoEncoding:
    """The vectors in half precision: half the size (what it costs is measured in README.md)."""
    import torch

    halved = {
        name: tensor.half() if name == "embeddings" and tensor.dtype == torch.float32 else tensor
        for name, tensor in encoding.tensors.items()
    }
    return replace(encoding, tensors=halved)


def _files(paths: Iterable[str | os.PathLike[str]]) -> list[str]:
    found: dict[str, None] = {}
    for given in paths:
        path = os.path.abspath(local_path(given) or os.fspath(given))
        if not os.path.exists(path):
            raise InputError(f"{os.fspath(given)}: no such file or folder")
        if not os.path.isdir(path):
            found[path] = None
            continue
        for folder, folders, names in os.walk(path):
            folders.sort()
            inside = (name for name in sorted(names) if os.path.splitext(name)[1].lower() in SUFFIXES)
            found |= dict.fromkeys(os.path.join(folder, name) for name in inside)
    if not found:
        raise InputError(f"no videos in {', '.join(map(str, paths))}")
    return list(found)
