"""Speech to timed lines, with faster-whisper if it is installed and named, else a speech pipeline of transformers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ..errors import InputError, MissingDependencyError, TranscriptError
from ..video.container import read_only
from .formats import transcript_lines
from .transcript import Line, Transcript

if TYPE_CHECKING:
    from av.container import InputContainer

RATE = 16_000  # samples per second that every recogniser here expects
WINDOW = 300.0  # seconds of sound in memory at once
_QUIET = 20.0  # seconds at the end of a window in which the quietest moment is looked for
_IN_CHUNKS: dict[str, Any] = {"return_timestamps": "word", "chunk_length_s": 30}
_PREFIX = "faster-whisper:"

Recogniser: TypeAlias = Callable[[np.ndarray], Iterable[Any]]
"""Takes sound, float32 [samples] at 16 kHz, and gives lines with start, end (seconds) and text."""


def transcribe(
    container: InputContainer,
    name: str,
    *,
    recogniser: str | Recogniser,
    start_time: float,
    language: str | None = None,
    device: str | None = None,
    progress: Callable[[float], None] | None = None,
) -> Transcript:
    """The spoken lines of an open file.

    The sound is read in windows of five minutes that end at a quiet moment, so memory does not grow with the length.

    Args:
        container: the open file.
        name: how to call it in messages.
        recogniser: a Hub id or folder of a speech model of transformers ("openai/whisper-small"),
            "faster-whisper:small", or a function (see `Recogniser`).
        start_time: the container's time of the first presented frame, in seconds; lines count from there.
        language: what is spoken, such as "en"; by default the recogniser finds out, if it can.
        device: "cpu", "cuda" …
        progress: is told the seconds that are done.

    Raises:
        TranscriptError: if there is no sound, or the recogniser returns something that is no list of lines.
        MissingDependencyError: if faster-whisper is named and not installed.
    """
    if not container.streams.audio:
        raise TranscriptError(f"{name}: there is no sound to transcribe; leave transcribe= out, or give a transcript")
    recognise = load_recogniser(recogniser, language, device) if isinstance(recogniser, str) else recogniser
    if not callable(recognise):
        raise InputError(f"transcribe must be a model's name or a function, not {type(recogniser).__name__}")
    origin = f"{name}, transcribed by {recogniser if isinstance(recogniser, str) else 'a function'}"
    lines: list[Line] = []
    for start, sound in windows(container, start_time):
        for line in transcript_lines(list(recognise(sound)), origin):
            lines.append(Line(line.start + start, line.end + start, line.text))
        if progress is not None:
            progress(start + len(sound) / RATE)
    return Transcript.of(lines, language=language, origin=origin)


def windows(container: InputContainer, start_time: float) -> Iterator[tuple[float, np.ndarray]]:
    """(seconds from the first presented frame, sound float32 [samples]) of pieces that cut no word if it can be helped.

    Gaps in the sound (streams that begin later, lost packets) are filled with silence, so times stay true.
    """
    import av

    read_only(container, container.streams.audio[0])
    resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE)
    kept: list[np.ndarray] = []
    begin, held = None, 0
    for frame in container.decode(container.streams.audio[0]):
        time = None if frame.pts is None or frame.time_base is None else float(frame.pts * frame.time_base) - start_time
        if begin is None:
            begin = time or 0.0
        elif time is not None and (gap := round((time - begin) * RATE) - held) > RATE // 2:
            silence = min(gap, int(WINDOW * RATE))
            kept.append(np.zeros(silence, np.float32))
            held += silence
        frame.pts = None  # the resampler must not fill gaps in a way of its own
        for piece in resampler.resample(frame):
            sound = piece.to_ndarray().reshape(-1).astype(np.float32, copy=False)
            kept.append(sound)
            held += len(sound)
        while held >= WINDOW * RATE:
            whole = np.concatenate(kept)
            cut = _quietest(whole[: int(WINDOW * RATE)])
            yield begin, whole[:cut]
            kept, held, begin = [whole[cut:]], held - cut, begin + cut / RATE
    if held and begin is not None:
        yield begin, np.concatenate(kept)


def _quietest(sound: np.ndarray) -> int:
    """The sample in the last seconds around which a fifth of a second is quietest."""
    step = RATE // 10
    tail = sound[-int(_QUIET * RATE) :]
    energy = np.square(tail[: len(tail) // step * step].reshape(-1, step)).sum(axis=1)
    pairs = energy[:-1] + energy[1:]
    return len(sound) - len(tail) + (int(pairs.argmin()) + 1) * step


def load_recogniser(name: str, language: str | None = None, device: str | None = None) -> Recogniser:
    """A function from sound to lines, for the name of a model; see `transcribe`.

    Raises:
        MissingDependencyError: if faster-whisper is named and not installed.
        TranscriptError: if the model cannot be loaded.
    """
    if name.startswith(_PREFIX):
        return _faster_whisper(name.removeprefix(_PREFIX), language, device)
    return _pipeline(name, language, device)


def _faster_whisper(name: str, language: str | None, device: str | None) -> Recogniser:
    try:
        from faster_whisper import WhisperModel
    except ImportError:
        raise MissingDependencyError(
            f"{_PREFIX}{name} needs faster-whisper: pip install 'refocus-select[asr]'"
        ) from None
    model = WhisperModel(name, device=device or "auto")
    return lambda sound: model.transcribe(sound, language=language, vad_filter=True)[0]


def _pipeline(name: str, language: str | None, device: str | None) -> Recogniser:
    from transformers import pipeline

    try:
        model = pipeline("automatic-speech-recognition", model=os.fspath(name), device=device)
    except (OSError, ValueError, KeyError) as error:
        raise TranscriptError(
            f"{name}: no speech model can be loaded from there ({error}); "
            "give a Hub id such as 'openai/whisper-small', a folder, or 'faster-whisper:small'"
        ) from error
    whisper = model.model.config.model_type == "whisper"
    # Whisper reads long sound in sequence (its paper, section 3.8), which is more accurate than in chunks.
    arguments: dict[str, Any] = {"return_timestamps": True} if whisper else _IN_CHUNKS
    if whisper and language and getattr(model.model.generation_config, "is_multilingual", False):
        arguments = {**arguments, "generate_kwargs": {"language": language}}

    def recognise(sound: np.ndarray) -> Iterable[Any]:
        heard: Any = model({"raw": sound, "sampling_rate": RATE}, **arguments)
        chunks = heard["chunks"]
        return chunks if whisper else _joined(chunks)

    return recognise


def _joined(chunks: list[dict[str, Any]], pause: float = 0.6, most: int = 12) -> list[dict[str, Any]]:
    """Single words, as CTC models tell them, to lines."""
    lines: list[dict[str, Any]] = []
    count = 0
    for chunk in chunks:
        start, end = chunk["timestamp"]
        if lines and count < most and start - lines[-1]["end"] <= pause:
            lines[-1]["text"] += " " + chunk["text"]
            lines[-1]["end"] = end
            count += 1
        else:
            lines.append({"start": start, "end": end, "text": chunk["text"]})
            count = 1
    return lines
