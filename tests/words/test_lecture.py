"""The command of the documentation, on a lecture with subtitles inside and on one with slides only."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from refocus_select.cli import main

from .slides import write_slides
from .subtitled import add_subtitles

QUESTION = "Where does she explain overfitting?"
SLIDES = [
    (10.0, ["Fitting a line", "Squared distance to the points"]),
    (10.0, ["Gradient descent", "Follow the slope", "A small step each time"]),
    (10.0, ["Training and test error", "The model memorises the training data"]),
    (10.0, ["Decision trees", "Yes or no at every fork"]),
]
SAID = (
    (1.0, 5.0, "We draw the straight line that comes nearest to all the dots."),
    (11.0, 16.0, "Imagine standing on a hill in fog and feeling which way leads down."),
    (21.0, 26.0, "The model memorises the training data, noise and all."),
    (31.0, 36.0, "A doctor asks one question after another."),
)


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    path = tmp_path_factory.mktemp("lecture") / "slides.mp4"
    write_slides(path, SLIDES)
    return path


def checked(arguments, plot, capsys):
    assert main(["select", *map(str, arguments), "--plot", str(plot)]) == 0
    printed = capsys.readouterr().out
    assert main(["select", *map(str, arguments), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    picture = np.asarray(Image.open(plot).convert("RGB"))
    assert picture.std() > 10
    return printed, answer


def test_subtitles_inside(slides, tmp_path, capsys):
    lecture = add_subtitles(slides, tmp_path / "lecture.mp4", SAID)
    printed, answer = checked([lecture, QUESTION, "-n", "4"], tmp_path / "why.png", capsys)
    assert SAID[2][2] in printed
    assert answer["quotes"][0]["text"] == SAID[2][2]
    assert answer["quotes"][0]["source"] == "spoken"
    assert any(21.0 <= time <= 27.0 for time in answer["timestamps"])


def test_slides_only(slides, tmp_path, capsys):
    pytest.importorskip("rapidocr")
    printed, answer = checked([slides, QUESTION, "-n", "4", "--ocr"], tmp_path / "why.png", capsys)
    assert "written: “The model memorises the training data”" in printed
    texts = [quote["text"] for quote in answer["quotes"]]
    assert "The model memorises the training data" in texts
    assert any(20.0 <= time <= 30.0 for time in answer["timestamps"])
