"""What a service keeps between requests: encodings in memory and downloads on disk, both within limits."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from ..video.sources import download, fingerprint_of
from .access import Access
from .tasks import Task

if TYPE_CHECKING:
    from ..encoding import VideoEncoding

T = TypeVar("T")


class Kept(Generic[T]):
    """Values that are made once per key, also when several ask at once; those unused for longest are forgotten."""

    def __init__(
        self, most: int, size: Callable[[T], int] = lambda _: 1, forget: Callable[[T], None] = lambda _: None
    ) -> None:
        """Keep values.

        Args:
            most: largest sum of sizes; the newest value is kept whatever its size.
            size: of a value.
            forget: called with each value that goes.
        """
        self._most, self._size, self._forget = most, size, forget
        self._values: OrderedDict[Hashable, T] = OrderedDict()
        self._making: dict[Hashable, threading.Lock] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Hashable, make: Callable[[], T], task: Task, *, fits: Callable[[T], bool] = lambda _: True) -> T:
        """The value of a key; made anew if there is none that fits. If making it fails, the next one tries again."""
        with self._lock:
            making = self._making.setdefault(key, threading.Lock())
        try:
            with task.holding(making):
                with self._lock:
                    if key in self._values and fits(self._values[key]):
                        self._values.move_to_end(key)
                        return self._values[key]
                value = make()
                self._put(key, value)
                return value
        finally:
            with self._lock:
                if not making.locked():  # otherwise another one waits for it
                    self._making.pop(key, None)

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            gone = list(self._values.values())
            self._values.clear()
        for value in gone:
            self._forget(value)

    def _put(self, key: Hashable, value: T) -> None:
        with self._lock:
            gone = [self._values.pop(key)] if key in self._values else []
            self._values[key] = value
            total = sum(map(self._size, self._values.values()))
            while total > self._most and len(self._values) > 1:
                oldest = self._values.pop(next(iter(self._values)))
                total -= self._size(oldest)
                gone.append(oldest)
        for old in gone:
            self._forget(old)


class Downloads:
    """Videos of allowed addresses, downloaded once; the folder goes with the service."""

    def __init__(self, access: Access, kept: int = 4) -> None:
        self._access = access
        self._folder: Path | None = None
        self._files: Kept[Path] = Kept(kept, forget=lambda path: path.unlink(missing_ok=True))

    def path(self, url: str, task: Task) -> Path:
        """The file of an address.

        Raises:
            AccessError: if the address, or one that it is redirected to, is not allowed.
            VideoOpenError: if it cannot be downloaded.
        """
        self._access.allow_url(url)
        return self._files.get(url, lambda: self._download(url, task), task, fits=Path.exists)

    def close(self) -> None:
        """Remove what was downloaded."""
        self._files.clear()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _download(self, url: str, task: Task) -> Path:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="refocus-select-"))
        path = self._folder / hashlib.sha256(url.encode()).hexdigest()[:32]
        try:
            with path.open("wb") as file:
                for block in download(url, max_bytes=self._access.max_bytes, allow=self._access.allow_url):
                    file.write(block)
                    task.check()
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return path


def identity(path: str) -> str:
    """What changes when a file, or a picture in a folder, is replaced by another."""
    if not os.path.isdir(path):
        return fingerprint_of(path)
    entries = sorted((entry.name, entry.stat().st_size, entry.stat().st_mtime_ns) for entry in os.scandir(path))
    return hashlib.sha256(repr(entries).encode("utf-8", "surrogateescape")).hexdigest()[:32]


def memory_of(encoding: VideoEncoding) -> int:
    """Bytes that an encoding takes, about."""
    tensors = sum(tensor.numel() * tensor.element_size() for tensor in encoding.tensors.values())
    words = 0 if encoding.words is None else 4 * encoding.words.vectors.numel()
    return tensors + words + encoding.indices.nbytes + encoding.timestamps.nbytes
