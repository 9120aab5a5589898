"""Transcripts as people have them: subtitle files, and the JSON of speech recognisers and of YouTube."""

from __future__ import annotations

import codecs
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import TranscriptError
from .transcript import Line, Transcript

MAX_BYTES = 64 * 2**20
_JSON_START = re.compile(r"\s*(\{\s*[\"}]|\[\s*[\[{\"\]])")  # not [Script Info] of ASS, {1}{25} of MicroDVD
_CLOCK = re.compile(r"\d+:\d{1,2}:\d{1,2}(?:[.,]\d+)?")
_CUT_OFF = re.compile(r"\n\s*\d*\s*\n\d{1,2}:\d{2}[\d:.,\s>-]*\Z")  # times at the end of a file, without a text
_BITMAP_SUFFIXES = {".sup", ".idx"}
_BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


def read_transcript(path: str | os.PathLike[str]) -> Transcript:
    """Read a subtitle file (SubRip, WebVTT, ASS/SSA, TTML, SAMI, MicroDVD) or a JSON transcript.

    JSON may be that of whisper, faster-whisper, whisperX or whisper.cpp, a list of `{"start", "end", "text"}`, that of
    LongVideoBench, or YouTube's json3. The language is taken from the file (JSON) or from its name (`film.en.srt`).

    Raises:
        TranscriptError: if the file is missing, empty, holds pictures instead of text, or no line in a known format.
    """
    file = Path(path)
    if file.suffix.lower() in _BITMAP_SUFFIXES:
        raise TranscriptError(f"{file}: subtitles stored as pictures have no text; use ocr=True to read the screen")
    try:
        if file.stat().st_size > MAX_BYTES:
            raise TranscriptError(
                f"{file}: {file.stat().st_size / 2**20:.0f} MiB are too much for the words of a video"
            )
        data = file.read_bytes()
    except OSError as error:
        raise TranscriptError(f"{file}: cannot be read ({error.strerror}); check the path") from None
    transcript = parse_transcript(data, name=str(file))
    if transcript.language:
        return transcript
    parts = file.name.split(".")
    return Transcript(
        transcript.lines, language_code(parts[-2]) if len(parts) > 2 else None, str(file), transcript.warnings
    )


def parse_transcript(data: bytes | str, *, name: str = "transcript") -> Transcript:
    """The lines in the contents of a transcript file; see `read_transcript`.

    Args:
        data: the file's contents; bytes may be UTF-8, UTF-16 or Windows-1252.
        name: how to call it in messages.

    Raises:
        TranscriptError: as `read_transcript`.
    """
    notes: list[str] = []
    text = data if isinstance(data, str) else _decoded(data, name, notes)
    if not text.strip():
        raise TranscriptError(f"{name}: the file is empty")
    language = None
    if _JSON_START.match(text):
        raw = _json(text, name)
        language = language_code(raw.get("language")) if isinstance(raw, dict) else None
        lines: Iterable[Line] = transcript_lines(raw, name)
    else:
        lines = _subtitles(text, name)
    transcript = Transcript.of(lines, language=language, origin=name, warnings=notes)
    if not transcript.lines:
        raise TranscriptError(f"{name}: no line of text with times was found; is it a subtitle file or a transcript?")
    return transcript


def transcript_lines(raw: Any, name: str) -> list[Line]:
    """The lines of a recogniser's result that is loaded already (dict, list of dicts or objects).

    Raises:
        TranscriptError: if no known layout fits, or a time is missing.
    """
    rows: Any = raw
    if isinstance(raw, dict):
        if isinstance(raw.get("events"), list):
            return _youtube(raw["events"], name)
        # whisper and whisperX: segments; whisper.cpp: transcription; the pipeline of transformers: chunks.
        rows = next((raw[key] for key in ("segments", "transcription", "chunks") if key in raw), None)
    if not isinstance(rows, list | tuple):
        raise TranscriptError(
            f"{name}: holds no 'segments', 'chunks', 'transcription' or 'events', nor a list of lines"
        )
    lines = []
    for number, row in enumerate(rows):
        start, end, text = _segment(row)
        if not isinstance(text, str) or not isinstance(start, int | float):
            raise TranscriptError(f"{name}: line {number} has no text with a start (and an end) in seconds")
        following = _segment(rows[number + 1])[0] if number + 1 < len(rows) else None
        if not isinstance(end, int | float):  # a recogniser that was cut off leaves the last end open
            end = following if isinstance(following, int | float) else start + 2.0
        lines.append(Line(float(start), float(end), text))
    return lines


def _segment(row: Any) -> tuple[Any, Any, Any]:
    """(start, end, text) of one line, in seconds."""
    if not isinstance(row, dict):  # the named tuples of faster-whisper
        return getattr(row, "start", None), getattr(row, "end", None), getattr(row, "text", None)
    if isinstance(row.get("offsets"), dict):  # whisper.cpp counts milliseconds
        start, end = row["offsets"].get("from"), row["offsets"].get("to")
        return (
            (start / 1000, end / 1000, row.get("text")) if isinstance(start, int) and isinstance(end, int) else (0,) * 3
        )
    if isinstance(row.get("timestamp"), list | tuple) and len(row["timestamp"]) == 2:
        return *row["timestamp"], row.get("text")
    start, end = _seconds(row.get("start")), _seconds(row.get("end"))
    if end is None and isinstance(row.get("duration"), int | float) and isinstance(start, int | float):
        end = start + row["duration"]
    return start, end, row.get("text", row.get("line"))


def _seconds(value: Any) -> Any:
    """Seconds of "00:01:30.500", as LongVideoBench writes times; anything else as it is."""
    if not isinstance(value, str) or not _CLOCK.fullmatch(value):
        return value
    hours, minutes, seconds = value.replace(",", ".").split(":")
    return 3600 * int(hours) + 60 * int(minutes) + float(seconds)


def _youtube(events: list[Any], name: str) -> list[Line]:
    """json3: events with milliseconds and pieces of text; events that only append a line break carry none."""
    lines = []
    for event in events:
        if not isinstance(event, dict) or not isinstance(event.get("segs"), list):
            continue
        start, length = event.get("tStartMs", 0), event.get("dDurationMs", 0)
        text = "".join(str(piece.get("utf8", "")) for piece in event["segs"] if isinstance(piece, dict))
        if not (isinstance(start, int | float) and isinstance(length, int | float)):
            raise TranscriptError(f"{name}: the event {text[:40]!r} has no times in milliseconds")
        if text.strip():
            lines.append(Line(start / 1000, (start + length) / 1000, text))
    # Automatic captions stay on the screen while the next line is spoken: a line ends where the next one begins.
    return [
        Line(line.start, min(line.end, after.start) if after.start > line.start else line.end, line.text)
        for line, after in zip(lines, [*lines[1:], Line(float("inf"), float("inf"), "")], strict=True)
    ]


def _subtitles(text: str, name: str) -> list[Line]:
    import pysubs2

    try:
        parsed = pysubs2.SSAFile.from_string(_CUT_OFF.sub("\n", text), fps=None)
    except (pysubs2.exceptions.Pysubs2Error, ValueError, KeyError, IndexError, RecursionError) as error:
        raise TranscriptError(
            f"{name}: not a subtitle format that is known here ({type(error).__name__}: {error}); "
            "SubRip, WebVTT, ASS, TTML, SAMI and JSON transcripts are"
        ) from None
    return [
        Line(event.start / 1000, event.end / 1000, event.plaintext)
        for event in parsed
        if not event.is_comment and not event.is_drawing
    ]


def _decoded(data: bytes, name: str, notes: list[str]) -> str:
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return data.decode(encoding, errors="replace")
    if data[:400].count(0) > len(data[:400]) // 4:  # UTF-16 without a mark: every other byte of western text is 0
        return data.decode("utf-16-be" if data[:1] == b"\0" else "utf-16-le", errors="replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        notes.append(f"{name}: not UTF-8; read as Windows-1252, so letters may be wrong: save it as UTF-8")
        return data.decode("cp1252", errors="replace")


def _json(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TranscriptError(f"{name}: damaged JSON ({error}); export the transcript again") from None


def language_code(raw: Any) -> str | None:
    """A language code, if `raw` looks like one: "en", "eng", "pt-BR"."""
    code = str(raw or "").replace("_", "-").lower()
    first = code.split("-")[0]
    return code if first.isalpha() and 2 <= len(first) <= 3 and len(code) <= 8 else None
