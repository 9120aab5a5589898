"""Words in an encoding: kept, saved, cached beside the frames, and of no cost where there are none."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from refocus_select import FrameSelector, VideoEncoding, open_video, select_frames
from refocus_select.errors import EncodingError, InputError, MissingDependencyError, TranscriptError
from refocus_select.words import Line, Transcript
from refocus_select.words.written import TextBox
from tests.brightness import BrightnessSelector
from tests.words.subtitled import write_film

SAID = (
    (1.0, 4.0, "A straight line is fitted to the points."),
    (11.0, 14.0, "Overfitting means that a model learns the noise of its training data."),
    (21.0, 24.0, "We walk downhill along the slope of the loss."),
    (31.0, 34.0, "The data are split into folds, and each of them is used for a test."),
)
QUESTION = "Where does she explain overfitting?"
TIMED = [{"start": start, "end": end, "text": text} for start, end, text in SAID]


def srt(path):
    def clock(t: float) -> str:
        return f"00:00:{int(t):02d},{round(t % 1 * 1000):03d}"

    path.write_text("\n".join(f"{n}\n{clock(s)} --> {clock(e)}\n{text}\n" for n, (s, e, text) in enumerate(SAID, 1)))
    return path


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    return write_film(tmp_path_factory.mktemp("words") / "lecture.mp4")


@pytest.fixture(scope="module")
def subtitled(tmp_path_factory):
    return write_film(tmp_path_factory.mktemp("words") / "lecture.mkv", SAID)


@pytest.fixture
def selector():
    return BrightnessSelector()


def test_lines_decide_what_is_asked_about_words(film, selector):
    chosen = selector.select(film, QUESTION, num_frames=3, words=TIMED)
    assert ((chosen.timestamps >= 10.5) & (chosen.timestamps <= 17.0)).all()
    assert [quote.text for quote in chosen.quotes] == [SAID[1][2]]
    assert chosen.to_dict()["quotes"][0]["source"] == "spoken"


def test_questions_about_pictures_are_answered_as_without_words(film, selector):
    questions = ["a bright picture", "Which animal runs over the meadow?"]
    with_words = selector.select(film, questions, num_frames=4, words=TIMED)
    without = selector.select(film, questions, num_frames=4)
    for one, other in zip(with_words, without, strict=True):
        assert one.indices.tolist() == other.indices.tolist()
        assert one.scores.tobytes() == other.scores.tobytes()
        assert one.quotes == ()


def test_a_mixed_list_keeps_its_order(film, selector):
    mixed = selector.select(film, ["a bright picture", QUESTION, "a dark one"], num_frames=2, words=TIMED)
    alone = selector.select(film, ["a bright picture", "a dark one"], num_frames=2)
    assert [len(one.quotes) for one in mixed] == [0, 1, 0]
    assert [mixed[0].indices.tolist(), mixed[2].indices.tolist()] == [one.indices.tolist() for one in alone]


def test_auto_finds_the_file_beside_and_the_track_inside(tmp_path, subtitled, selector):
    beside = write_film(tmp_path / "film.mp4")
    assert selector.encode(beside, words="auto").words is None
    srt(tmp_path / "film.en.srt")
    found = selector.encode(beside, words="auto").words
    assert [line.text for line in found.passages] == [text for _, _, text in SAID]
    assert found.passages.language == "en"
    inside = selector.encode(subtitled, words="auto").words
    assert [(line.start, line.text) for line in inside.passages] == [(start, text) for start, _, text in SAID]


def test_subtitles_of_bytes_and_of_open_videos(subtitled, selector):
    assert len(selector.encode(subtitled.read_bytes(), words="auto").words.passages) == len(SAID)
    with open_video(subtitled) as video:
        assert video.has_subtitles
        assert len(selector.encode(video, words="auto").words.passages) == len(SAID)


def test_select_frames_looks_for_words_and_selectors_alone_do_not(subtitled, selector):
    assert select_frames(subtitled, QUESTION, 2, selector=selector).quotes
    assert not select_frames(subtitled, QUESTION, 2, selector=selector, words="off").quotes
    assert not selector.select(subtitled, QUESTION, num_frames=2).quotes
    encoding = selector.encode(subtitled, words="auto")
    assert select_frames(encoding, QUESTION, 2, selector=selector).quotes


def test_uniform_sampling_does_not_listen(subtitled):
    chosen = select_frames(subtitled, QUESTION, 4, selector="uniform")
    assert chosen.quotes == chosen.lines == ()
    assert (
        chosen.timestamps.tolist()
        == select_frames(subtitled, QUESTION, 4, selector="uniform", words="off").timestamps.tolist()
    )


def test_words_are_saved_with_the_encoding(film, selector, tmp_path):
    encoding = selector.encode(film, words=TIMED)
    stored = VideoEncoding.load(encoding.save(tmp_path / "film.safetensors"))
    assert stored.words.passages == encoding.words.passages
    assert stored.words.vectors.equal(encoding.words.vectors)
    before, after = (selector.select(one, QUESTION, num_frames=3) for one in (encoding, stored))
    assert before.indices.tolist() == after.indices.tolist()
    assert before.quotes == after.quotes


def test_damaged_words_are_refused(film, selector, tmp_path):
    encoding = selector.encode(film, words=TIMED)
    for words in (
        replace(encoding.words, vectors=encoding.words.vectors[:-1]),
        replace(encoding.words, vectors=encoding.words.vectors * float("nan")),
        replace(encoding.words, passages=replace(encoding.words.passages, lines=encoding.words.passages.lines[::-1])),
    ):
        path = replace(encoding, words=words).save(tmp_path / "film.safetensors")
        with pytest.raises(EncodingError, match="damaged"):
            VideoEncoding.load(path)
    path = encoding.save(tmp_path / "film.safetensors")
    data = path.read_bytes()
    path.write_bytes(data.replace(b"Overfitting means", b"Underfitting mean"))
    with pytest.raises(EncodingError, match="checksum"):
        VideoEncoding.load(path)


class Counting(BrightnessSelector):
    """Counts how often frames are encoded."""

    count = 0

    def encode_frames(self, frames, total):
        Counting.count += 1
        return super().encode_frames(frames, total)


class Reader:
    """Reads one word in every picture, and counts."""

    fingerprint = "one-word"
    count = 0

    def __call__(self, picture):
        Reader.count += 1
        return [TextBox("Overfitting", 0.99, (10.0, 10.0, 90.0, 30.0))]


def test_frames_and_text_are_read_once(film, tmp_path):
    selector, reader = Counting(), Reader()
    Counting.count = Reader.count = 0
    selector.encode(film, cache=tmp_path)
    first = selector.encode(film, cache=tmp_path, ocr=reader)
    read = Reader.count
    again = selector.encode(film, cache=tmp_path, ocr=reader, words=TIMED)
    assert Counting.count == 1
    assert Reader.count == read > 0
    assert [line.source for line in first.words.passages] == ["written"]
    assert sorted(line.source for line in again.words.passages) == ["spoken"] * len(SAID) + ["written"]
    assert selector.encode(film, cache=tmp_path).words is None


def test_speech_is_heard_where_no_transcript_is_found(film, subtitled, selector):
    def never(sound):
        raise AssertionError("there is a transcript")

    assert selector.encode(subtitled, words="auto", transcribe=never).words is not None
    silent = selector.encode(film, words="auto", transcribe=never)
    assert silent.words is None
    assert any("no sound" in warning for warning in silent.warnings)


def test_words_outside_the_part_are_left_out(film, selector):
    words = selector.encode(film, words=TIMED, start=20.0, end=30.0).words
    assert [line.text for line in words.passages] == [SAID[2][2]]
    near = selector.encode(film, words=TIMED, start=14.5, end=20.5).words  # it was said half a second before
    assert [line.text for line in near.passages] == [SAID[1][2], SAID[2][2]]


def test_other_languages_are_announced(film, selector):
    german = Transcript((Line(1.0, 2.0, "Überanpassung"),), "de", "film.de.srt")
    assert any("'de'" in warning for warning in selector.encode(film, words=german).warnings)
    greek = [{"start": 1, "end": 2, "text": "Τι είναι η παλινδρόμηση"}]
    assert any("another script" in warning for warning in selector.encode(film, words=greek).warnings)


def test_what_cannot_be_used_is_named(film, selector, tmp_path, monkeypatch):
    with pytest.raises(TranscriptError, match=r"none\.srt"):
        selector.encode(film, words=tmp_path / "none.srt")
    with pytest.raises(InputError, match="words must be"):
        selector.encode(film, words=7)
    with pytest.raises(InputError, match="ocr must be"):
        selector.encode(film, ocr="yes")
    with pytest.raises(InputError, match="transcribe must be"):
        selector.encode(film, transcribe=7)
    late = [{"start": 100, "end": 101, "text": "later"}]
    with pytest.raises(TranscriptError, match="no line lies within"):
        selector.encode(film, words=late)
    monkeypatch.setitem(sys.modules, "rapidocr", None)
    from refocus_select.words import written

    written.rapid_ocr.cache_clear()
    with pytest.raises(MissingDependencyError, match="ocr"):
        selector.encode(film, ocr=True)


def test_a_broken_file_beside_is_a_warning(tmp_path, selector):
    film = write_film(tmp_path / "film.mp4")
    (tmp_path / "film.srt").write_bytes(b"\x00\x01\x02 nothing")
    encoding = selector.encode(film, words="auto")
    assert encoding.words is None
    assert any("film.srt" in warning for warning in encoding.warnings)


def test_without_words_their_code_is_not_loaded(film):
    code = (
        "import sys; from refocus_select import select_frames; from tests.brightness import BrightnessSelector; "
        "select_frames(sys.argv[1], 'anything said?', 2, selector=BrightnessSelector()); "
        "sys.exit(', '.join(name for name in sys.modules if name.startswith(('refocus_select.words', 'pysubs2'))) or 0)"
    )
    run = subprocess.run([sys.executable, "-c", code, str(film)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_the_plot_shows_the_lines(film, selector, tmp_path):
    chosen = selector.select(film, QUESTION, num_frames=2, words=TIMED)
    chosen.plot(tmp_path / "why.svg")
    bare = replace(chosen, quotes=())
    bare.plot(tmp_path / "bare.svg")
    assert (tmp_path / "why.svg").stat().st_size > (tmp_path / "bare.svg").stat().st_size


def test_loaded_selectors_choose_the_line_too(film):
    for name in ("aks", "mini"):
        chosen = FrameSelector.from_pretrained(name).select(
            film, "Which moment mentions overfitting?", num_frames=2, words=TIMED, fps=0.5, max_frames=16
        )
        assert chosen.strategy == "selected"
        assert ((chosen.timestamps >= 10.0) & (chosen.timestamps <= 17.0)).any(), (name, chosen)
