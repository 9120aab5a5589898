"""Which videos a server or a page may read: files below given folders, and addresses that were allowed."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ..beside import transcripts_beside
from ..errors import AccessError, VideoOpenError
from ..locations import is_data, is_web, local_path, short_name
from ..plain_text import printable

_MOST_LISTED = 10  # videos that a message about a missing file names


@dataclass(frozen=True)
class Access:
    """What may be read. Everything else is refused with a message that holds the option which would allow it.

    A path counts by where it really leads: links and ".." are resolved first, and what is then opened is the resolved
    path. A folder that somebody else may change while a request runs is not protected against.

    Attributes:
        roots: resolved folders; only what lies below one of them is read.
        urls: beginnings of the addresses that may be downloaded, such as "https://videos.example.com/".
        max_bytes: largest file, and largest download.
    """

    roots: tuple[Path, ...] = ()
    urls: tuple[str, ...] = ()
    max_bytes: int = 16 * 2**30

    @classmethod
    def below(cls, roots: Iterable[str | os.PathLike[str]] = (), urls: Iterable[str] = (), **limits: int) -> Access:
        """Access to folders; without any, to the working folder, unless that is the whole disk.

        Raises:
            AccessError: if a root is not a folder, or an address is not one.
        """
        given = [Path(root).expanduser() for root in roots]
        if not given and Path.cwd() != Path(Path.cwd().anchor):
            given = [Path.cwd()]
        for root in given:
            if not root.is_dir():
                raise AccessError(f"--root {root}: no such folder")
        for url in urls:
            if not is_web(url) or not urlsplit(url).hostname:
                raise AccessError(
                    f"--allow-url {url}: write the beginning of an address, as https://example.com/videos/"
                )
        return cls(tuple(root.resolve() for root in given), tuple(urls), **limits)

    def path(self, text: str) -> Path:
        """The resolved path of a file or folder below a root.

        Args:
            text: absolute, relative to a root, or a `file:` address.

        Raises:
            AccessError: if it lies elsewhere, or is not a path.
            VideoOpenError: if there is nothing.
        """
        name = printable(short_name(text)) if isinstance(text, str) else type(text).__name__
        if not isinstance(text, str) or not text.strip() or "\0" in text or len(text) > 4096:
            raise AccessError(f"{name!r} is not a path; give the path of a file below {self._allowed()}")
        if is_data(text):
            raise AccessError(f"{name}: data: addresses are not taken; save the video below {self._allowed()}")
        plain = local_path(text)
        if plain is None:
            raise AccessError(f"{name}: only files below {self._allowed()} are read, and http(s) with --allow-url")
        found = self._resolved(os.path.expanduser(plain), name)
        if not found.exists():
            raise VideoOpenError(f"{name}: no such file{self._neighbours(found)}")
        return found

    def video(self, text: str) -> str:
        """The resolved path of a video: a file, or a folder of pictures.

        Raises:
            AccessError: if it, a picture in the folder or a transcript beside it lies elsewhere, or it is too large.
            VideoOpenError: if there is nothing.
        """
        found = self.path(text)
        parts = [found]
        if found.is_dir():
            parts = [Path(entry.path) for entry in os.scandir(found) if not entry.name.startswith(".")]
        for part in (*parts, *map(Path, transcripts_beside(str(found)))):
            if part.is_symlink() and not self._inside(part.resolve()):
                raise AccessError(
                    f"{part.name} in {found.parent} is a link that leaves {self._allowed()}; copy the file"
                )
        size = sum(part.stat().st_size for part in parts if part.is_file())
        if size > self.max_bytes:
            raise AccessError(
                f"{short_name(text)}: {size / 1e9:.2f} GB, more than the {self.max_bytes / 1e9:.2f} GB that are "
                "allowed; cut it, or start with a larger --max-size"
            )
        return str(found)

    def allow_url(self, url: str) -> None:
        """Refuse an address that does not begin like one of `urls`; host and port must be equal.

        Raises:
            AccessError: saying which option allows it.
        """
        try:
            wanted = urlsplit(url)
            place = (wanted.scheme.lower(), wanted.hostname, wanted.port)
        except ValueError as error:
            raise AccessError(f"{short_name(url)} is not an address: {error}") from None
        for beginning in self.urls:
            known = urlsplit(beginning)
            folder = known.path if known.path.endswith("/") else f"{known.path}/"
            inside = f"{wanted.path or '/'}" in (known.path, folder) or (wanted.path or "/").startswith(folder)
            if place == (known.scheme.lower(), known.hostname, known.port) and inside and ".." not in wanted.path:
                return
        host = f"{wanted.scheme}://{wanted.netloc.rpartition('@')[2]}/"
        raise AccessError(f"{short_name(url)}: addresses are not read unless allowed: start with --allow-url {host}")

    def _resolved(self, plain: str, name: str) -> Path:
        if not self.roots:
            raise AccessError(f"{name}: no folder may be read; start with --root FOLDER")
        tried = [Path(plain)] if os.path.isabs(plain) else [root / plain for root in self.roots]
        try:
            resolved = [path.resolve() for path in tried]
            inside = [path for path in resolved if self._inside(path)]
            if inside:
                return next((path for path in inside if path.exists()), inside[0])
        except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a name too long
            raise VideoOpenError(f"{name}: cannot be opened ({error}); check the path") from None
        raise AccessError(f"{name} lies outside of {self._allowed()}; start with --root FOLDER to allow another folder")

    def _inside(self, path: Path) -> bool:
        return any(path.is_relative_to(root) for root in self.roots)

    def _allowed(self) -> str:
        return " and ".join(map(str, self.roots)) or "a folder given by --root"

    def _neighbours(self, missing: Path) -> str:
        """What a message adds about the files that are there."""
        from ..corpus.index import SUFFIXES

        folder = next((parent for parent in missing.parents if parent.is_dir()), None)
        if folder is None or not self._inside(folder):
            return "; check the path"
        try:
            names = sorted(entry.name for entry in os.scandir(folder) if Path(entry.name).suffix.lower() in SUFFIXES)
        except OSError:
            names = []
        if not names:
            return f"; {folder} holds no video"
        more = f" and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else ""
        return printable(f"; {folder} holds {', '.join(names[:_MOST_LISTED])}{more}")
