"""From what a user says about words (`words="auto"`, a file, a transcript) to the lines of a video."""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ..errors import InputError, TranscriptError
from .formats import SUFFIXES, language_code, read_transcript, transcript_lines
from .tracks import read_track
from .transcript import Transcript

if TYPE_CHECKING:
    from ..video import Video

logger = logging.getLogger(__name__)

WordSource: TypeAlias = "str | os.PathLike[str] | bool | Transcript | dict[str, Any] | Sequence[Any] | None"


def find_words(video: Video, words: WordSource = "auto", *, language: str | None = None) -> Transcript | None:
    """The spoken lines of a video, or None.

    Args:
        video: an open video.
        words: "auto" looks for a transcript file beside the video (`film.srt`, `film.en.vtt`, `film.json3` …), then
            for a subtitle track inside, and is content with none; a path; a `Transcript`; the result of a speech
            recogniser (dict, or list of segments); None, False or "off" for no words.
        language: preferred language, such as "en".

    Raises:
        TranscriptError: if a transcript that was named cannot be used. With "auto" that is a warning in the log.
        InputError: if `words` is something else.
    """
    if words is None or words is False or words == "off":
        return None
    name, duration = video.metadata.source, video.metadata.duration
    if words is True or words == "auto":
        try:
            found = _beside(video.path, language) or _inside(video, name, language)
        except TranscriptError as error:
            logger.warning("%s", error)
            return None
        return found.within(duration) if found else None
    if isinstance(words, Transcript):
        found = words
    elif isinstance(words, str | os.PathLike):
        found = read_transcript(words)
    elif isinstance(words, dict | list | tuple):
        spoken = language_code(words.get("language")) if isinstance(words, dict) else None
        found = Transcript.of(transcript_lines(words, "words"), language=spoken, origin="words")
    else:
        raise InputError(
            "words must be 'auto', a transcript file, a Transcript or a recogniser's result, "
            f"not {type(words).__name__}"
        )
    inside = found.within(duration)
    if not inside.lines:
        raise TranscriptError(f"{found.origin}: no line lies within the {duration:.1f} s of {name}")
    return inside


def _beside(path: str | None, language: str | None) -> Transcript | None:
    """The transcript file beside a video; a file in the wanted language first, then one without, then any."""
    if path is None:
        return None
    file = Path(path)
    pattern = glob.escape(str(file.with_suffix(""))) + ".*"
    files = sorted(found for found in map(Path, glob.glob(pattern)) if found.suffix.lower() in SUFFIXES)

    def rank(found: Path) -> tuple[int, int, str]:
        middle = found.name[len(file.stem) + 1 :].split(".")[:-1]
        code = language_code(middle[-1]) if middle else None
        order = 0 if language and code == language_code(language) else 1 if code is None else 2
        return order, SUFFIXES.index(found.suffix.lower()), found.name

    for found in sorted(files, key=rank):
        try:
            return read_transcript(found)
        except TranscriptError as error:
            if found.suffix.lower() != ".json":  # any JSON may lie beside a video; a subtitle file is meant
                logger.warning("%s", error)
    return None


def _inside(video: Video, name: str, language: str | None) -> Transcript | None:
    if video.path is None:
        return None
    from ..video.container import open_container

    container, _ = open_container(video.path, name)
    with container:
        if not container.streams.subtitles:
            return None
        return read_track(container, name, start_time=video.metadata.start_time, language=language)
