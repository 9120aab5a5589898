"""Text in pictures: read where it changed, joined over time."""

from __future__ import annotations

import numpy as np
import pytest

from refocus_select import open_video
from refocus_select.words.written import TextBox, rapid_ocr, written_lines

from .slides import write_slides

TALK = [
    (6.0, ["Gradient descent", "Follow the slope", "A small step each time"]),
    (4.0, ["Overfitting", "The test error rises"]),
    (4.0, ["Overfitting", "The test error rises", "Stop the training early"]),
    (3.0, []),
    (3.0, ["Summary"]),
]


@pytest.fixture(scope="module")
def talk(tmp_path_factory):
    path = tmp_path_factory.mktemp("slides") / "talk.mp4"
    write_slides(path, TALK)
    return path


def test_slides_are_read_once_and_lines_live_as_long_as_they_are_shown(talk):
    pictures = []
    real = rapid_ocr()

    def reader(picture):
        pictures.append(picture.shape)
        return real(picture)

    with open_video(talk) as video:
        found = written_lines(video, np.arange(0, 100, 5), reader=reader)
    assert pictures == [(360, 640, 3)] * 5
    lines = {line.text: (round(line.start, 1), round(line.end, 1)) for line in found}
    assert lines == {
        "Gradient descent": (0, 6),
        "Follow the slope A small step each time": (0, 6),
        "Overfitting": (6, 14),
        "The test error rises": (6, 14),
        "Stop the training early": (10, 14),
        "Summary": (17, 19),
    }
    assert all(line.source == "written" and line.start <= line.best <= line.end for line in found)


def test_a_limit_of_pictures_is_said(talk):
    read = []
    with open_video(talk) as video:
        found = written_lines(video, np.arange(0, 100, 5), reader=lambda p: read.append(p) or [], max_pictures=3)
    assert len(read) == 3
    assert "5 candidate frames" in found.warnings[0]


def test_pictures_beside_text_are_read_besides(talk):
    """Five pictures change; two are read at first, and one of the others, beside the one with text."""
    read = []

    def reader(picture):
        read.append(float(picture.mean()))
        return [TextBox("a title", 0.9, (0, 0, 100, 30))] if len(read) == 2 else []

    with open_video(talk) as video:
        found = written_lines(video, np.arange(0, 100, 5), reader=reader, max_pictures=2)
    assert len(read) == 3
    assert "the text of 3 of them" in found.warnings[0]


def test_text_is_best_where_it_is_largest(talk):
    sizes = iter([10, 30, 20, 5, 8])

    def reader(picture):
        return [TextBox("growing title", 0.9, (0, 0, 100, next(sizes)))]

    with open_video(talk) as video:
        found = written_lines(video, np.arange(0, 100, 5), reader=reader)
    assert [(line.text, line.best) for line in found] == [("growing title", pytest.approx(6.0))]


def test_doubtful_text_is_left_out(talk):
    with open_video(talk) as video:
        found = written_lines(video, np.arange(0, 100, 5), reader=lambda p: [TextBox("texture", 0.3, (0, 0, 9, 9))])
    assert len(found) == 0
