"""From what a user says about words (`words="auto"`, a file, a transcript) to the lines of a video."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ..beside import TRANSCRIPT_SUFFIXES, transcripts_beside
from ..errors import InputError, TranscriptError, VideoError
from .formats import language_code, read_transcript, transcript_lines
from .tracks import read_track
from .transcript import Transcript

if TYPE_CHECKING:
    from ..video import Video

logger = logging.getLogger(__name__)

WordSource: TypeAlias = "str | os.PathLike[str] | bool | Transcript | dict[str, Any] | Sequence[Any] | None"


def find_words(
    video: Video,
    words: WordSource = "auto",
    *,
    language: str | None = None,
    path: str | None = None,
    notes: list[str] | None = None,
) -> Transcript | None:
    """The spoken lines of a video, or None.

    Args:
        video: an open video.
        words: "auto" looks for a transcript file beside the video (`film.srt`, `film.en.vtt`, `film.json3` …), then
            for a subtitle track inside, and is content with none; a path; a `Transcript`; the result of a speech
            recogniser (dict, or list of segments); None, False or "off" for no words.
        language: preferred language, such as "en".
        path: beside which "auto" looks (default: the file that the video is read from).
        notes: receives what "auto" found and could not use; by default that goes to the log.

    Raises:
        TranscriptError: if a transcript that was named cannot be used.
        InputError: if `words` is something else.
    """
    if words is None or words is False or words == "off":
        return None
    name, duration = video.metadata.source, video.metadata.duration
    if words is True or words == "auto":
        problems: list[str] = []
        beside = _beside(path or video.path, language, problems)
        found = beside or _inside(video, name, language, problems)
        for problem in problems:
            if notes is None:
                logger.warning("%s", problem)
            else:
                notes.append(problem)
        inside = found.within(duration) if found else None
        return inside if inside is None or inside.lines else None
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


def _beside(path: str | None, language: str | None, problems: list[str]) -> Transcript | None:
    """The transcript file beside a video; a file in the wanted language first, then one without, then any."""
    if path is None:
        return None
    stem = len(Path(path).stem)

    def rank(found: Path) -> tuple[int, int, str]:
        middle = found.name[stem + 1 :].split(".")[:-1]
        code = language_code(middle[-1]) if middle else None
        order = 0 if language and code == language_code(language) else 1 if code is None else 2
        return order, TRANSCRIPT_SUFFIXES.index(found.suffix.lower()), found.name

    for found in sorted(map(Path, transcripts_beside(path)), key=rank):
        try:
            return read_transcript(found)
        except TranscriptError as error:
            if found.suffix.lower() != ".json":  # any JSON may lie beside a video; a subtitle file is meant
                problems.append(str(error))
    return None


def _inside(video: Video, name: str, language: str | None, problems: list[str]) -> Transcript | None:
    """The subtitle track of the file that a video is read from (what was downloaded, for a URL)."""
    if video.path is None or not video.has_subtitles:
        return None
    from ..video.container import open_file

    try:
        with open_file(video.path, name) as container:
            return read_track(container, name, start_time=video.metadata.start_time, language=language)
    except (TranscriptError, VideoError) as error:
        problems.append(str(error))
        return None
