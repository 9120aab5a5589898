"""Sound to lines: true times, bounded memory, a real (tiny, random) Whisper."""

from __future__ import annotations

import itertools

import av
import numpy as np
import pytest

from refocus_select.errors import MissingDependencyError, TranscriptError
from refocus_select.words import speech
from refocus_select.words.speech import RATE, transcribe, windows

from .tiny_whisper import save_tiny_whisper


def write_sound(path, beeps, seconds, *, rate=44_100, first_picture=0.0):
    """A film whose sound is silence with a beep of 0.3 s at each of `beeps` (seconds from the first picture)."""
    time = np.arange(int(seconds * rate)) / rate
    sound = np.zeros(len(time), np.float32)
    for beep in beeps:
        on = (time >= beep) & (time < beep + 0.3)
        sound[on] = 0.5 * np.sin(2 * np.pi * 440 * time[on])
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=5)
        video.width = video.height = 32
        audio = container.add_stream("flac" if path.suffix == ".mkv" else "aac", rate=rate)
        audio.layout = "stereo"
        for number in range(int(seconds * 5)):
            picture = av.VideoFrame.from_ndarray(np.full((32, 32, 3), number % 255, np.uint8))
            picture.pts = number + round(first_picture * 5)
            container.mux(video.encode(picture))
        for begin in range(0, len(sound), 4096):
            piece = np.stack([sound[begin : begin + 4096]] * 2)
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(piece), format="fltp", layout="stereo")
            frame.sample_rate, frame.pts = rate, begin + round(first_picture * rate)
            if audio.codec_context.format.name != "fltp":
                frame = av.AudioResampler(format=audio.codec_context.format.name).resample(frame)[0]
            container.mux(audio.encode(frame))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))


def beeps(sound):
    """A recogniser for beeps: lines of text where the sound is loud."""
    loud = np.abs(sound).reshape(-1)[: len(sound) // 160 * 160].reshape(-1, 160).max(axis=1) > 0.2
    edges = np.flatnonzero(np.diff(np.concatenate([[0], loud.astype(int), [0]])))
    return [{"start": a / 100, "end": b / 100, "text": "beep"} for a, b in zip(edges[::2], edges[1::2], strict=True)]


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_lines_lie_where_the_sound_is(tmp_path, suffix, monkeypatch):
    monkeypatch.setattr(speech, "WINDOW", 25.0)
    path, truth = tmp_path / f"film{suffix}", [1.0, 17.0, 24.9, 31.5, 48.0]
    write_sound(path, truth, 52)
    told = []
    with av.open(str(path)) as container:
        found = transcribe(container, "film", recogniser=beeps, start_time=0.0, progress=told.append)
    assert [line.start for line in found] == pytest.approx(truth, abs=0.06)
    assert [line.end for line in found] == pytest.approx([t + 0.3 for t in truth], abs=0.06)
    assert told == sorted(told)
    assert told[-1] == pytest.approx(52, abs=0.2)


def test_times_count_from_the_first_picture(tmp_path):
    path = tmp_path / "film.mkv"
    write_sound(path, [2.0], 5, first_picture=10.0)
    with av.open(str(path)) as container:
        found = transcribe(container, "film", recogniser=beeps, start_time=10.0)
    assert [line.start for line in found] == pytest.approx([2.0], abs=0.06)


def test_windows_hold_all_sound_once_and_stay_short(tmp_path, monkeypatch):
    monkeypatch.setattr(speech, "WINDOW", 22.0)
    path = tmp_path / "film.mkv"
    write_sound(path, [3.0, 21.9], 60)
    with av.open(str(path)) as container:
        pieces = list(windows(container, 0.0))
    assert len(pieces) >= 3
    assert max(len(sound) for _, sound in pieces) <= 22 * RATE
    assert sum(len(sound) for _, sound in pieces) == pytest.approx(60 * RATE, abs=RATE // 10)
    for (start, sound), (following, _) in itertools.pairwise(pieces):
        assert start + len(sound) / RATE == pytest.approx(following)
        assert np.abs(sound[-80:]).max() < 0.01  # cut where it is quiet, though a beep lies at the limit


def test_a_whisper_of_transformers(tmp_path):
    save_tiny_whisper(tmp_path / "whisper")
    write_sound(tmp_path / "film.mkv", [1.0, 3.0], 40)
    with av.open(str(tmp_path / "film.mkv")) as container:
        found = transcribe(container, "film", recogniser=str(tmp_path / "whisper"), start_time=0.0)
    assert len(found) > 0
    assert all(0 <= line.start <= line.end and line.text for line in found)
    assert "whisper" in found.origin


def test_what_cannot_be_transcribed(tmp_path):
    path = tmp_path / "silent.mkv"
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=5)
        video.width = video.height = 32
        container.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))))
        container.mux(video.encode(None))
    with av.open(str(path)) as container, pytest.raises(TranscriptError, match="no sound"):
        transcribe(container, "silent.mkv", recogniser=beeps, start_time=0.0)
    write_sound(tmp_path / "film.mkv", [1.0], 2)
    with av.open(str(tmp_path / "film.mkv")) as container, pytest.raises(TranscriptError, match="no speech model"):
        transcribe(container, "film", recogniser=str(tmp_path / "nothing"), start_time=0.0)
    with (
        av.open(str(tmp_path / "film.mkv")) as container,
        pytest.raises(MissingDependencyError, match="pip install"),
    ):
        transcribe(container, "film", recogniser="faster-whisper:tiny", start_time=0.0)
