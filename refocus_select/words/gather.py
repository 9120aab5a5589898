"""All words of a video, from every source that was asked for, with what is slow kept in the cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .find import WordSource, find_words
from .found import VideoWords
from .sentences import Sentences
from .speech import Recogniser, transcribe
from .transcript import Transcript
from .written import TextReader, written_lines

if TYPE_CHECKING:
    from ..cache import EncodingCache
    from ..encoding import VideoEncoding
    from ..video import Video

_VERSION = "1"  # of what this module makes; another one makes cached words stale


@dataclass(frozen=True)
class WordRequest:
    """Which words are wanted; the fields are arguments of `FrameSelector.encode`."""

    words: WordSource = None
    ocr: bool | TextReader = False
    transcribe: str | Recogniser | None = None
    language: str | None = None


def gather_words(
    video: Video,
    encoding: VideoEncoding,
    request: WordRequest,
    sentences: Sentences,
    *,
    path: str | None,
    store: EncodingCache | None,
) -> tuple[VideoWords | None, tuple[str, ...]]:
    """The words of a video, and what the user should know about them.

    Args:
        video: an open video.
        encoding: its candidates; text is read in these frames.
        request: what is wanted.
        sentences: who encodes the passages.
        path: beside which a transcript is looked for.
        store: where words are kept between runs.

    Raises:
        TranscriptError: if a transcript that was named cannot be used.
        MissingDependencyError: if OCR or faster-whisper is wanted and not installed.
        InputError: if an argument is of no known kind.
    """
    keeper = _Keeper(video, encoding, sentences, store)
    notes: list[str] = []
    parts = []
    spoken = find_words(video, request.words, language=request.language, path=path, notes=notes)
    if spoken is not None:
        parts.append(keeper.keep(["lines", spoken.to_dict()], lambda: spoken))
    elif request.transcribe is not None:
        parts += _transcribed(video, request, keeper, notes)
    if request.ocr is not False and request.ocr is not None:
        parts.append(_read_text(video, encoding, request.ocr, keeper))
    for part in parts:
        notes += [*part.passages.warnings, *sentences.doubts(part.passages)]
    words = VideoWords.joined(parts)
    if words is not None:
        times = encoding.timestamps
        margin = max(1.0, *(times[1:] - times[:-1])) if len(times) > 1 else 1.0
        words = words.between(float(times[0]) - margin, float(times[-1]) + margin)
    return words if words is not None and len(words.passages) else None, tuple(dict.fromkeys(notes))


def _transcribed(video: Video, request: WordRequest, keeper: _Keeper, notes: list[str]) -> list[VideoWords]:
    model, name = request.transcribe, video.metadata.source
    if not isinstance(model, str) and not callable(model):
        raise InputError(f"transcribe must be a model's name or a function, not {type(model).__name__}")
    if video.path is None:
        notes.append(f"{name}: pictures have no sound to transcribe")
        return []

    def listen() -> Transcript:
        from ..video.container import open_file

        assert video.path is not None
        with open_file(video.path, name) as container:
            if not container.streams.audio:
                return Transcript(origin=name, warnings=(f"{name}: there is no sound to transcribe",))
            return transcribe(
                container,
                name,
                recogniser=model,
                start_time=video.metadata.start_time,
                language=request.language,
            ).within(video.metadata.duration)

    identity = model if isinstance(model, str) else getattr(model, "fingerprint", None)
    return [keeper.keep(identity and ["speech", identity, request.language], listen)]


def _read_text(video: Video, encoding: VideoEncoding, ocr: bool | TextReader, keeper: _Keeper) -> VideoWords:
    if ocr is not True and not callable(ocr):
        raise InputError(f"ocr must be True, False or a function that reads a picture, not {type(ocr).__name__}")
    reader = None if ocr is True else ocr
    identity = _rapid_ocr_version() if reader is None else getattr(reader, "fingerprint", None)
    return keeper.keep(
        identity and ["written", identity, encoding.indices.tolist()],
        lambda: written_lines(video, encoding.indices, reader=reader),
    )


class _Keeper:
    """Makes words, or takes them from the cache: under keys of their own, so that frames are encoded once."""

    def __init__(self, video: Video, encoding: VideoEncoding, sentences: Sentences, store: EncodingCache | None):
        self._video, self._encoding, self._sentences, self._store = video, encoding, sentences, store

    def keep(self, facts: Any, make: Callable[[], Transcript]) -> VideoWords:
        """Words of one source; `facts` say what decides them, none if that is not known."""
        if self._store is None or not facts:
            return VideoWords.of(make(), self._sentences)
        whole = [_VERSION, self._video.fingerprint, self._sentences.fingerprint, facts]
        key = hashlib.sha256(json.dumps(["words", *whole]).encode()).hexdigest()[:40]
        stored = self._store.get(key)
        if stored is not None and stored.words is not None:
            return stored.words
        words = VideoWords.of(make(), self._sentences)
        entry = replace(
            self._encoding, tensors={}, words=words, encoder="words", encoder_fingerprint=self._sentences.fingerprint
        )
        self._store.put(key, entry)
        return words


def _rapid_ocr_version() -> str:
    try:
        return f"rapidocr {version('rapidocr')}"
    except PackageNotFoundError:
        return "rapidocr"
