"""Subtitle tracks inside a file."""

from __future__ import annotations

import pytest

from refocus_select import open_video
from refocus_select.errors import TranscriptError
from refocus_select.video.container import open_file
from refocus_select.words.find import find_words
from refocus_select.words.tracks import read_track
from tests.words.subtitled import write_film

LINES = ((1.0, 2.5, "Hello, {\\i1}everybody{\\i0}."), (12.25, 14.0, "This is\\Noverfitting."))


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mkv", "subrip"), ("a.mp4", "mov_text"), ("b.mkv", "ass"), ("c.mkv", "webvtt")]
)
def test_text_and_times_of_every_kind(tmp_path, name, codec):
    with open_video(write_film(tmp_path / name, LINES, codec=codec)) as video:
        found = find_words(video, "auto")
    assert [line.text for line in found] == ["Hello, everybody.", "This is overfitting."]
    assert [line.start for line in found] == pytest.approx([1.0, 12.25], abs=0.002)
    assert [line.end for line in found] == pytest.approx([2.5, 14.0], abs=0.002)
    assert found.language == "eng"


def test_languages(tmp_path):
    film = write_film(tmp_path / "film.mkv", LINES, language="ger")
    with open_file(str(film), "film") as container:
        assert len(read_track(container, "film", start_time=0.0, language="de")) == 2
    with open_file(str(film), "film") as container, pytest.raises(TranscriptError, match="there are: ger"):
        read_track(container, "film", start_time=0.0, language="en")


def test_times_count_from_the_first_picture(tmp_path):
    film = write_film(tmp_path / "film.mkv", LINES)
    with open_file(str(film), "film") as container:
        assert read_track(container, "film", start_time=0.5)[0].start == pytest.approx(0.5)


def test_a_film_without(tmp_path):
    with open_video(write_film(tmp_path / "film.mp4")) as video:
        assert not video.has_subtitles
        assert find_words(video, "auto") is None
