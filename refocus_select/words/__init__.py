"""What is said and what is written in a video, as timed lines: one more source of evidence for choosing frames."""

from .formats import parse_transcript, read_transcript
from .transcript import Line, Transcript

__all__ = ["Line", "Transcript", "parse_transcript", "read_transcript"]
