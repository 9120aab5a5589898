"""`Transcript`: timed lines of text, whatever they came from."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from ..errors import TranscriptError

SPOKEN, WRITTEN = "spoken", "written"
_SPACE = re.compile(r"\s+")
_SENTENCE_END = re.compile(r"[.!?…。！？]['\"”’)\]]*$")
MAX_LINES = 200_000  # ten hours with a line every fifth of a second


@dataclass(frozen=True)
class Line:
    """One line of text and when it can be heard or read.

    Attributes:
        start: seconds from the first presented frame of the video.
        end: seconds, not before `start`.
        text: without markup, on one line.
        source: "spoken" (speech, subtitles) or "written" (text in the pictures).
        best: for written text, the second at which it can be read best; None for speech.
    """

    start: float
    end: float
    text: str
    source: str = SPOKEN
    best: float | None = None

    @property
    def middle(self) -> float:
        """The second between start and end."""
        return (self.start + self.end) / 2


@dataclass(frozen=True)
class Transcript(Sequence[Line]):
    """The lines of a video in the order of their start.

    Attributes:
        lines: sorted by start, then end.
        language: code such as "en", as the source tells it; None if it does not.
        origin: where the lines came from, for people: a file name, "subtitle track 2 (eng)", "OCR".
        warnings: what was mended on the way in.
    """

    lines: tuple[Line, ...] = ()
    language: str | None = None
    origin: str = ""
    warnings: tuple[str, ...] = field(default=(), compare=False)

    def __len__(self) -> int:
        return len(self.lines)

    def __getitem__(self, item: Any) -> Any:
        return self.lines[item]

    def __iter__(self) -> Iterator[Line]:
        return iter(self.lines)

    @classmethod
    def of(
        cls, lines: Iterable[Line], *, language: str | None = None, origin: str = "", warnings: Sequence[str] = ()
    ) -> Transcript:
        """Order and clean lines: no empty text, no times below 0, ends not before starts, no repeated lines.

        Raises:
            TranscriptError: for times that are not numbers, or more lines than any video has.
        """
        notes = list(warnings)
        kept: list[Line] = []
        turned = 0
        for line in lines:
            text = _SPACE.sub(" ", line.text).strip()
            if not (math.isfinite(line.start) and math.isfinite(line.end)):
                raise TranscriptError(f"{origin}: the line {text[:40]!r} has the times {line.start} to {line.end}")
            if not text or line.end < 0:
                continue
            turned += line.end < line.start
            start, end = max(0.0, min(line.start, line.end)), max(line.start, line.end)
            kept.append(replace(line, start=start, end=end, text=text))
            if len(kept) > MAX_LINES:
                raise TranscriptError(f"{origin}: more than {MAX_LINES} lines; is this the transcript of one video?")
        if turned:
            notes.append(f"{origin}: {turned} lines end before they start; their times were exchanged")
        kept.sort(key=lambda line: (line.start, line.end))
        return cls(tuple(_unrolled(kept)), language, origin, tuple(notes))

    def shifted(self, seconds: float) -> Transcript:
        """The lines so many seconds later (earlier if negative), without those that end before 0."""
        moved = (
            replace(
                line,
                start=max(0.0, line.start + seconds),
                end=line.end + seconds,
                best=None if line.best is None else max(0.0, line.best + seconds),
            )
            for line in self.lines
        )
        return replace(self, lines=tuple(line for line in moved if line.end >= 0))

    def within(self, duration: float) -> Transcript:
        """The lines that begin before `duration` (seconds), with a warning that counts the others."""
        inside = tuple(replace(line, end=min(line.end, duration)) for line in self.lines if line.start < duration)
        missing = len(self.lines) - len(inside)
        if not missing:
            return replace(self, lines=inside)
        note = (
            f"{self.origin}: {missing} of {len(self.lines)} lines begin after the end of the video ({duration:.1f} s)"
        )
        return replace(self, lines=inside, warnings=(*self.warnings, f"{note}; does it belong to another cut?"))

    def passages(self, *, max_seconds: float = 12.0, max_words: int = 40, max_pause: float = 1.5) -> list[Line]:
        """Lines joined to what can be understood alone: subtitles break sentences where the screen ends.

        Consecutive spoken lines are joined until a sentence ends, a pause of `max_pause` seconds, or a limit.
        Written lines stay as they are.
        """
        joined: list[Line] = []
        for line in self.lines:
            last = joined[-1] if joined else None
            if (
                last is not None
                and line.source == last.source == SPOKEN
                and not _SENTENCE_END.search(last.text)
                and line.start - last.end <= max_pause
                and line.end - last.start <= max_seconds
                and len(last.text.split()) + len(line.text.split()) <= max_words
            ):
                joined[-1] = replace(last, end=max(last.end, line.end), text=f"{last.text} {line.text}")
            else:
                joined.append(line)
        return joined

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        rows = [[line.start, line.end, line.text, line.source, line.best] for line in self.lines]
        return {"language": self.language, "origin": self.origin, "lines": rows, "warnings": list(self.warnings)}

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> Transcript:
        """The inverse of `to_dict`.

        Raises:
            TranscriptError: if it is something else.
        """
        try:
            lines = tuple(
                Line(float(start), float(end), str(text), str(source), None if best is None else float(best))
                for start, end, text, source, best in raw["lines"]
            )
            language, origin = raw["language"], str(raw["origin"])
            warnings = tuple(str(warning) for warning in raw["warnings"])
        except (KeyError, TypeError, ValueError) as error:
            raise TranscriptError(f"this is not a saved transcript ({error}); make it again") from None
        for line in lines:
            times = [line.start, line.end] + ([] if line.best is None else [line.best])
            if not all(map(math.isfinite, times)) or not 0 <= line.start <= line.end:
                raise TranscriptError(f"the line {line.text[:40]!r} has the times {times}")
            if line.source not in (SPOKEN, WRITTEN):
                raise TranscriptError(f"the line {line.text[:40]!r} is of the unknown source {line.source!r}")
        if any(after.start < before.start for before, after in pairwise(lines)):
            raise TranscriptError("the lines are out of order")
        return cls(lines, None if language is None else str(language), origin, warnings)


def _unrolled(lines: list[Line]) -> list[Line]:
    """Without repetitions: roll-up captions show every line twice or more, the new one below the last."""
    kept: list[Line] = []
    for line in lines:
        text = line.text
        if kept and line.start <= kept[-1].end + 0.1 and line.source == kept[-1].source:
            last = kept[-1]
            if text == last.text or last.text.endswith(" " + text):
                kept[-1] = replace(last, end=max(last.end, line.end))
                continue
            if text.startswith(last.text + " ") and line.source == SPOKEN:
                text = text[len(last.text) :].strip()
        kept.append(replace(line, text=text))
    return kept
