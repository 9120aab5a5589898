"""Subtitle tracks inside a video file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import TranscriptError
from ..video.container import read_only
from .formats import language_code
from .transcript import Line, Transcript

if TYPE_CHECKING:
    from av.container import InputContainer

_BITMAPS = {"dvd_subtitle", "dvdsub", "hdmv_pgs_subtitle", "pgssub", "dvb_subtitle", "dvbsub", "xsub"}


def read_track(container: InputContainer, name: str, *, start_time: float, language: str | None = None) -> Transcript:
    """The lines of one subtitle track (mov_text, SubRip, ASS, WebVTT).

    Only packets of that track are decoded; the file is read once from the front.

    Args:
        container: the open file.
        name: how to call it in messages.
        start_time: the container's time of the first presented frame, from which all times count, in seconds.
        language: which track if there are several, such as "en"; by default the one marked as default, else the first.

    Raises:
        TranscriptError: if there is no text track, or none of that language.
    """
    track, number = _choose_track(list(container.streams.subtitles), name, language)
    origin = f"{name}, subtitle track {number}" + (f" ({_language(track)})" if _language(track) else "")
    read_only(container, track)
    lines = []
    damaged = 0
    for packet in container.demux(track):
        if not packet.size or packet.pts is None or packet.time_base is None:
            continue
        start = float(packet.pts * packet.time_base) - start_time
        length = float((packet.duration or 0) * packet.time_base)
        try:
            text = _text(packet)
        except (ValueError, OSError):  # errors of FFmpeg are both
            damaged += 1
            continue
        lines.append(Line(start, start + (length or 3.0), text))
    notes = [f"{origin}: {damaged} damaged lines were left out"] if damaged else []
    transcript = Transcript.of(lines, language=_language(track), origin=origin, warnings=notes)
    if not transcript.lines:
        raise TranscriptError(f"{origin}: the track is empty")
    return transcript


def _choose_track(tracks: Sequence[Any], name: str, language: str | None) -> tuple[Any, int]:
    if not tracks:
        raise TranscriptError(f"{name}: the file holds no subtitle track; give a transcript file, or transcribe= it")
    texts = [(track, number) for number, track in enumerate(tracks) if track.codec_context.name not in _BITMAPS]
    if not texts:
        kinds = ", ".join(sorted({track.codec_context.name for track in tracks}))
        raise TranscriptError(
            f"{name}: its subtitles are stored as pictures ({kinds}) and have no text; use ocr=True to read the screen"
        )
    if language:
        wanted = {language_code(language), _THREE_LETTERS.get(language_code(language) or "")} - {None}
        texts = [(track, number) for track, number in texts if _language(track) in wanted]
        if not texts:
            there = ", ".join(_language(track) or "unnamed" for track in tracks)
            raise TranscriptError(f"{name}: no subtitle track in {language!r}; there are: {there}")
    marked = [(track, number) for track, number in texts if int(track.disposition) & 1]
    return (marked or texts)[0]


def _text(packet: Any) -> str:
    import pysubs2

    parts = []
    for item in packet.decode():
        for rect in item if hasattr(item, "rects") or isinstance(item, list | tuple) else [item]:
            ass = getattr(rect, "ass", b"") or b""
            text = ass.decode("utf-8", errors="replace").split(",", 8)[-1]
            parts.append(pysubs2.SSAEvent(text=text.strip()).plaintext)
    return " ".join(parts)


def _language(track: Any) -> str | None:
    code = language_code(track.metadata.get("language"))
    return None if code == "und" else code


# ISO 639-1 to the three letters that containers hold (ISO 639-2), for the languages with most subtitles.
_THREE_LETTERS = {
    "ar": "ara", "cs": "cze", "da": "dan", "de": "ger", "el": "gre", "en": "eng", "es": "spa", "fi": "fin", "fr": "fre",
    "he": "heb", "hi": "hin", "hu": "hun", "id": "ind", "it": "ita", "ja": "jpn", "ko": "kor", "nl": "dut", "no": "nor",
    "pl": "pol", "pt": "por", "ro": "rum", "ru": "rus", "sv": "swe", "th": "tha", "tr": "tur", "uk": "ukr", "vi": "vie",
    "zh": "chi",
}  # fmt: skip
