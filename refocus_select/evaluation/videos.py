"""Finding the video files of a benchmark in a local folder."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Set
from pathlib import Path, PurePosixPath

from ..errors import InputError

_SUFFIXES = {".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv"}


class VideoFolder:
    """The videos below a folder, by path, by file name, and by name without suffix.

    Published lists name their videos in all three ways, and archives unpack into folders of various names.
    """

    suffixes: Set[str] = _SUFFIXES
    kind = "videos"

    def __init__(self, root: str | os.PathLike[str]) -> None:
        """Look through a folder and all below it.

        Raises:
            InputError: if there is no such folder.
        """
        self.root = Path(root)
        if not self.root.is_dir():
            raise InputError(f"no folder of videos at {self.root}; say where they are with --videos")
        self._found: dict[str, list[Path]] = defaultdict(list)
        for folder, _, names in sorted(os.walk(self.root)):
            for name in sorted(names):
                path = Path(folder) / name
                if path.suffix.lower() in self.suffixes:
                    self._found[path.name.lower()].append(path)
                    self._found[path.stem.lower()].append(path)

    def find(self, name: str, *, near: str = "") -> Path | None:
        """The file that a list means, or None if it is not there.

        Args:
            name: "clip", "clip.mp4", or a path that ends so.
            near: a folder name that decides between videos of the same name.

        Raises:
            InputError: if several files have this name and nothing tells them apart.
        """
        wanted = PurePosixPath(name.replace("\\", "/"))
        exact = self.root / str(wanted)
        if exact.is_file():
            return exact
        known = wanted.suffix.lower() in self.suffixes
        found = self._found.get(wanted.name.lower(), [])
        if not found and known:  # the list says .mp4, the archive has .mkv
            found = self._found.get(wanted.stem.lower(), [])
        if len(found) > 1:
            parts = [part for part in (*wanted.parent.parts, near) if part not in ("", ".", "..", "/")]
            scores = [sum(part in path.parts for part in parts) for path in found]
            found = [path for path, score in zip(found, scores, strict=True) if score == max(scores)]
        if len(found) > 1:
            shown = ", ".join(str(path.relative_to(self.root)) for path in found[:3])
            raise InputError(f"several {self.kind} are called {name}: {shown}; give a narrower folder with --videos")
        return found[0] if found else None


class SubtitleFolder(VideoFolder):
    """The subtitle files below a folder, found in the same way."""

    suffixes = frozenset({".srt", ".vtt", ".json"})
    kind = "subtitles"
