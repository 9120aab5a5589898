"""Words that are broken, empty, pictures, or in a language that nobody here knows: clear messages, and nothing lost."""

from __future__ import annotations

import struct

import av
import pytest
import torch

from refocus_select import FrameSelector
from refocus_select.errors import EncoderError, TranscriptError
from refocus_select.words import parse_transcript
from tests.brightness import BrightnessSelector
from tests.words.subtitled import write_film

QUESTION = "Where does she explain overfitting?"


def test_overlapping_lines_are_all_kept():
    """Two people at once, and a line that stays while others come and go."""
    text = "".join(
        f"{n}\n00:00:{start:02d},000 --> 00:00:{end:02d},000\n{said}\n\n"
        for n, (start, end, said) in enumerate([(1, 9, "A notice."), (2, 4, "First."), (3, 6, "Second.")], 1)
    )
    lines = parse_transcript(text)
    assert [(line.start, line.end, line.text) for line in lines] == [
        (1, 9, "A notice."), (2, 4, "First."), (3, 6, "Second.")
    ]  # fmt: skip


def test_half_a_file_gives_the_lines_that_are_whole():
    text = "1\n00:00:01,000 --> 00:00:02,000\nWhole.\n\n2\n00:00:03,0"
    assert [line.text for line in parse_transcript(text)] == ["Whole."]


def test_an_empty_track_is_told_and_nothing_is_lost(tmp_path):
    film = write_film(tmp_path / "film.mkv", [(1.0, 2.0, " ")])
    chosen = BrightnessSelector().select(film, QUESTION, num_frames=2, words="auto")
    assert len(chosen) == 2
    assert any("empty" in warning for warning in chosen.warnings)


def with_pictures_as_subtitles(path):
    """A film with a PGS track, as Blu-rays have them: one event that shows nothing."""
    film, sup = write_film(path.with_name("plain.mkv")), path.with_suffix(".sup")
    header = struct.pack(">HHBHBBBB", 320, 180, 0x10, 0, 0x80, 0, 0, 0)
    sup.write_bytes(
        b"".join(
            b"PG" + struct.pack(">IIBH", 90_000, 0, kind, len(data)) + data
            for kind, data in ((0x16, header), (0x80, b""))
        )
    )
    with av.open(str(film)) as pictures, av.open(str(sup)) as subtitles, av.open(str(path), "w") as target:
        copies = {
            source: target.add_stream_from_template(source)
            for source in (pictures.streams.video[0], subtitles.streams.subtitles[0])
        }
        for container, source in ((pictures, pictures.streams.video[0]), (subtitles, subtitles.streams.subtitles[0])):
            for packet in container.demux(source):
                if packet.dts is not None:
                    packet.stream = copies[source]
                    target.mux(packet)
    return path


def test_subtitles_that_are_pictures_say_that_ocr_is_needed(tmp_path):
    film = with_pictures_as_subtitles(tmp_path / "disc.mkv")
    chosen = BrightnessSelector().select(film, QUESTION, num_frames=2, words="auto")
    assert len(chosen) == 2
    assert any("stored as pictures" in warning and "ocr=True" in warning for warning in chosen.warnings)
    with pytest.raises(TranscriptError, match="ocr=True"):
        BrightnessSelector().encode(film, words=tmp_path / "disc.sup")


class German:
    """A dual encoder that knows what "Überanpassung" has to do with "auswendig"."""

    fingerprint = "german-1"
    dimensions = 4
    frame_size = (8, 8)

    def encode_frames(self, frames):
        return torch.nn.functional.normalize(torch.rand(len(frames), 4), dim=-1)

    def encode_text(self, texts):
        return torch.nn.functional.normalize(torch.ones(len(texts), 4), dim=-1)

    def encode_sentences(self, texts):
        known = {"Überanpassung": 0, "auswendig": 0, "Gerade": 1, "Wald": 2}
        rows = torch.zeros(len(texts), 16)
        for row, text in zip(rows, texts, strict=True):
            found = [place for word, place in known.items() if word in text]
            row[found[0] if found else 3 + sum(map(ord, text)) % 13] = 1
        return rows


def test_the_users_encoder_of_sentences_is_used(tmp_path):
    film = write_film(tmp_path / "film.mp4")
    lines = [
        {"start": 1.0, "end": 4.0, "text": "Eine Gerade liegt nahe an allen Punkten."},
        {"start": 11.0, "end": 14.0, "text": "Das Netz lernt seine Beispiele auswendig."},
        {"start": 21.0, "end": 24.0, "text": "Wir pflanzen einen ganzen Wald von Bäumen."},
    ]
    selector = FrameSelector.from_pretrained("topk", encoder=German())
    chosen = selector.select(film, "Where does she explain Überanpassung?", num_frames=2, words=lines)
    assert [quote.text for quote in chosen.quotes] == [lines[1]["text"]]
    assert not any("English" in warning for warning in chosen.warnings)
    assert selector.encode(film, words=lines).words.encoder == "sentences-of-german-1"


def test_an_encoder_of_sentences_that_gives_something_else(tmp_path):
    film = write_film(tmp_path / "film.mp4")
    encoder = German()
    encoder.encode_sentences = lambda texts: torch.zeros(1, 3)
    selector = FrameSelector.from_pretrained("topk", encoder=encoder)
    lines = [{"start": 1.0, "end": 4.0, "text": "One."}, {"start": 5.0, "end": 6.0, "text": "Two."}]
    with pytest.raises(EncoderError, match="encode_sentences"):
        selector.encode(film, words=lines)
