"""The exceptions of the package. All derive from `RefocusError`; each message names the input and the remedy."""

from __future__ import annotations


class RefocusError(Exception):
    """Base of every error that this package raises on purpose."""


class InputError(RefocusError, ValueError):
    """An argument is not usable: an empty question, `num_frames=0`, a range outside the video."""


class VideoError(RefocusError):
    """Something is wrong with a video."""


class VideoOpenError(VideoError):
    """The source cannot be opened: missing, no permission, not a video, no video stream."""


class VideoDecodeError(VideoError):
    """The source opens, but not one picture can be decoded from the part that was asked for."""


class UnsupportedVideoError(VideoError):
    """The chosen backend cannot read this source correctly (unknown codec, known wrong frames)."""


class SelectorLoadError(RefocusError):
    """A selector cannot be loaded: unknown name, missing or gated repository, damaged weights."""


class EncoderError(RefocusError):
    """An encoder cannot be used: it has no text side, its vectors are not numbers, or they belong to another space."""


class EncodingError(RefocusError):
    """A saved encoding is damaged, stale, or was made by another selector or from another video."""


class TranscriptError(RefocusError):
    """Subtitles or a transcript cannot be used: unreadable, an unknown format, pictures instead of text."""


class MissingDependencyError(RefocusError, ImportError):
    """An optional package is needed; the message holds the `pip install` line."""


class AccessError(RefocusError):
    """A server or page refuses a path, an address or a size; the message holds the option that would allow it."""


class TrainingError(RefocusError):
    """A training run failed: numbers that are not finite, a collapsed policy, no readable data."""


class ReferenceServerError(RefocusError):
    """No server of a reference model answers."""
