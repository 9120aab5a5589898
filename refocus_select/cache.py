"""Encodings kept on disk, so that a video is decoded and encoded once per encoder and sampling.

Nothing is kept unless asked for: `selector.encode(video, cache="some/folder")`, `cache=True` for the default folder, or
the environment variable REFOCUS_CACHE_DIR. REFOCUS_CACHE_SIZE ("20GB") changes the limit of 10 GB.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import EncodingError, InputError
from .files import remove_leftovers
from .plain_text import parse_json

if TYPE_CHECKING:
    from .encoding import VideoEncoding
    from .video import CandidatePlan, Video

logger = logging.getLogger(__name__)

FOLDER_VARIABLE, SIZE_VARIABLE = "REFOCUS_CACHE_DIR", "REFOCUS_CACHE_SIZE"
DEFAULT_BYTES = 10 * 10**9
_ABANDONED = 24 * 3600.0  # seconds after which an unfinished file of safetensors is taken to be of a dead process
_ENTRY = re.compile(r"[0-9a-f]{40}\.safetensors")
_UNFINISHED = re.compile(r"\.tmp\w{6}|\.[0-9a-f]{40}\.safetensors\..+")  # those of safetensors, and of version 0.1
_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}


@dataclass(frozen=True)
class CacheEntry:
    """One encoding in the cache.

    Attributes:
        path: its file.
        size: in bytes.
        used: when it was last read or written, seconds since the epoch.
        source: the video, as it was named when encoded.
        encoder: who encoded it.
        candidates: number of frames.
    """

    path: Path
    size: int
    used: float
    source: str
    encoder: str
    candidates: int


class EncodingCache:
    """A folder of encodings that several processes may use at once.

    A file is written under a temporary name and moved into place when complete, so that a process that is killed leaves
    no half entry. When the folder outgrows its limit the entries that were not used for longest go first. An entry that
    is damaged, or lies under the name of another, counts as missing and is removed; one that this user may not read
    counts as missing and stays.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None, *, max_bytes: int | None = None) -> None:
        """Use a folder; it is made when the first encoding is stored.

        Args:
            folder: by default REFOCUS_CACHE_DIR, or "refocus-select" where the system keeps caches.
            max_bytes: limit of the whole folder (default: REFOCUS_CACHE_SIZE, or 10 GB).

        Raises:
            InputError: for a limit that is not positive, or a REFOCUS_CACHE_SIZE that is not a size.
        """
        self.folder = Path(folder) if folder is not None else default_folder()
        self.max_bytes = max_bytes if max_bytes is not None else _default_bytes()
        if self.max_bytes < 1:
            raise InputError(f"max_bytes must be at least 1, not {self.max_bytes}")

    def get(self, key: str) -> VideoEncoding | None:
        """The encoding stored under a key, or None."""
        from .encoding import read_encoding

        path = self._path(key)
        if not path.is_file():
            return None
        for last in (False, True):
            try:
                encoding = read_encoding(path, key=key)
            except EncodingError as error:
                if not path.is_file():  # another process has just evicted it
                    return None
                if isinstance(error.__cause__, PermissionError):
                    logger.warning("an entry of the cache may not be read: %s", error)
                    return None
                if last:  # the first time, it may have been evicted and written again meanwhile
                    logger.warning("a damaged entry of the cache is removed: %s", error)
                    _remove(path)
            else:
                _touch(path)
                return encoding
        return None

    def put(self, key: str, encoding: VideoEncoding) -> None:
        """Store an encoding, and make room for it. A full disk or a folder without permission is logged, not raised."""
        from safetensors import SafetensorError

        from .encoding import write_encoding

        path = self._path(key)
        try:
            write_encoding(encoding, path, key=key)
        except (EncodingError, SafetensorError) as error:
            if not path.is_file():  # Windows refuses to replace a file that is being read: it holds the same
                logger.warning("the encoding is not cached: %s", error)
            return
        self.shrink()

    def shrink(self, max_bytes: int | None = None) -> int:
        """Remove what was not used for longest until the folder is within its limit, and what dead processes left.

        Args:
            max_bytes: another limit, for this once; 0 removes everything.

        Returns:
            How many entries were removed.
        """
        limit = self.max_bytes if max_bytes is None else max_bytes
        remove_leftovers(self.folder)
        files = []
        for path, size, used in self._files():
            if _ENTRY.fullmatch(path.name):
                files.append((used, size, path))
            elif _UNFINISHED.fullmatch(path.name) and time.time() - used > _ABANDONED:
                _remove(path)
        total, removed = sum(size for _, size, _ in files), 0
        for _, size, path in sorted(files):
            if total <= limit:
                break
            if _remove(path):
                total -= size
                removed += 1
        return removed

    def entries(self) -> list[CacheEntry]:
        """What is in the cache, last used first. Files that are damaged are left out."""
        found = []
        for path, size, used in self._files():
            if _ENTRY.fullmatch(path.name):
                facts = _facts(path)
                if facts is not None:
                    found.append(CacheEntry(path, size, used, *facts))
        return sorted(found, key=lambda entry: -entry.used)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"

    def _files(self) -> list[tuple[Path, int, float]]:
        """Path, size and time of use of every file; others may remove files meanwhile."""
        found = []
        try:
            with os.scandir(self.folder) as folder:
                for item in folder:
                    try:
                        status = item.stat()
                    except FileNotFoundError:
                        continue
                    found.append((Path(item.path), status.st_size, status.st_mtime))
        except FileNotFoundError:
            return []
        return found


def encoding_key(
    video: Video, encoder_fingerprint: str, plan: CandidatePlan, *, size: tuple[int, int] | None, exact: bool
) -> str:
    """What decides an encoding: the video, the encoder, the candidate frames, and how they are decoded."""
    facts = ["3", video.fingerprint, encoder_fingerprint, size, exact, video.metadata.backend]
    digest = hashlib.sha256(json.dumps(facts).encode())
    digest.update(plan.indices.tobytes())
    digest.update(plan.timestamps.tobytes())  # a caller may have given the times of the frames
    return digest.hexdigest()[:40]


def find_cache(cache: EncodingCache | str | os.PathLike[str] | bool | None) -> EncodingCache | None:
    """The cache that an argument means: None asks the environment, False is none, True is the default folder."""
    if isinstance(cache, EncodingCache):
        return cache
    if cache is None:
        return EncodingCache() if os.environ.get(FOLDER_VARIABLE) else None
    if isinstance(cache, bool):
        return EncodingCache() if cache else None
    if isinstance(cache, str | os.PathLike):
        return EncodingCache(cache)
    raise InputError(f"cache must be a folder, an EncodingCache, True or False, not {type(cache).__name__}")


def default_folder() -> Path:
    """REFOCUS_CACHE_DIR, or "refocus-select" where the system keeps caches."""
    named = os.environ.get(FOLDER_VARIABLE)
    if named:
        return Path(named).expanduser()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "refocus-select"


def parse_size(text: str) -> int:
    """Bytes from "500MB", "1.5 GB" or "1000".

    Raises:
        InputError: if it is not a size.
    """
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Z]*)\s*", text)
    if not match or match[2].lower() not in _UNITS:
        raise InputError(f"{text!r} is not a size; write for example 500MB or 20GB")
    return int(float(match[1]) * _UNITS[match[2].lower()])


def _default_bytes() -> int:
    named = os.environ.get(SIZE_VARIABLE)
    return parse_size(named) if named else DEFAULT_BYTES


def _remove(path: Path) -> bool:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:  # being read, on Windows; or not ours
        logger.info("not removed from the cache: %s", error)
        return False
    return True


def _touch(path: Path) -> None:
    try:
        os.utime(path)
    except OSError:  # evicted meanwhile, or a folder that may only be read: the order of eviction is then by age
        logger.debug("cannot mark %s as used", path)


def _facts(path: Path) -> tuple[str, str, int] | None:
    """Source, encoder and number of candidates, from the header alone."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="np") as file:
            header = file.metadata() or {}
            count = file.get_slice("indices").get_shape()[0]
        return str(parse_json(header["video"])["source"]), header["encoder"], int(count)
    except (SafetensorError, OSError, KeyError, IndexError, TypeError, ValueError):
        return None
