"""Words in batches and indices: a column of the table, quotes in the results, lines that are searched."""

from __future__ import annotations

import json

import pytest

from refocus_select import FrameSelector
from refocus_select.cli import main
from refocus_select.corpus import Index, load_results, read_results, select_batch
from refocus_select.errors import InputError
from tests.brightness import BrightnessSelector
from tests.words.subtitled import write_film

LINES = (
    (1.0, 4.0, "A straight line is fitted to the points."),
    (11.0, 14.0, "Overfitting means that a model learns the noise of its training data."),
    (21.0, 24.0, "We walk downhill along the slope of the loss."),
)
QUESTION = "Where does she explain overfitting?"
TIMED = [{"start": start, "end": end, "text": text} for start, end, text in LINES]


def srt(path, lines=LINES):
    path.write_text("".join(
        f"{n}\n00:00:{int(s):02d},000 --> 00:00:{int(e):02d},000\n{text}\n\n" for n, (s, e, text) in enumerate(lines, 1)
    ))  # fmt: skip
    return path


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    write_film(folder / "silent.mp4")
    write_film(folder / "spoken.mkv", LINES)
    srt(folder / "talk.srt")
    return folder


def rows_of(path):
    return {row["id"]: row for row in read_results(path)}


def test_the_column_words(films, tmp_path):
    table = tmp_path / "questions.jsonl"
    rows = [
        {"id": "file", "video": "silent.mp4", "question": QUESTION, "words": "talk.srt"},
        {"id": "lines", "video": "silent.mp4", "question": QUESTION, "words": TIMED},
        {"id": "none", "video": "silent.mp4", "question": QUESTION},
        {"id": "auto", "video": "spoken.mkv", "question": QUESTION, "words": "auto"},
        {"id": "off", "video": "spoken.mkv", "question": QUESTION, "words": "off"},
        {"id": "missing", "video": "silent.mp4", "question": QUESTION, "words": "nothing.srt"},
        {"id": "wrong", "video": "silent.mp4", "question": QUESTION, "words": 7},
    ]
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    select_batch(table, tmp_path / "out.jsonl", selector=BrightnessSelector(), num_frames=3, root=films)
    found = rows_of(tmp_path / "out.jsonl")
    for name in ("file", "lines", "auto"):
        assert [quote["text"] for quote in found[name]["quotes"]] == [LINES[1][2]]
        assert all(10.5 <= time <= 17.0 for time in found[name]["timestamps"])
    for name in ("none", "off"):
        assert found[name]["quotes"] == []
        assert found[name]["error"] is None
    assert "nothing.srt" in found["missing"]["error"]
    assert "words" in found["wrong"]["error"]
    assert found["file"]["words"] == str(films / "talk.srt")


def test_words_of_all_rows_and_quotes_in_parquet(films, tmp_path):
    pytest.importorskip("pyarrow")
    rows = [{"id": "a", "video": str(films / "spoken.mkv"), "question": QUESTION}]
    select_batch(rows, tmp_path / "out.parquet", selector=BrightnessSelector(), num_frames=3, words="auto")
    (row,) = read_results(tmp_path / "out.parquet")
    assert row["quotes"][0]["text"] == LINES[1][2]
    assert row["quotes"][0]["source"] == "spoken"
    assert load_results(tmp_path / "out.parquet")[0]["quotes"][0]["start"] == 11.0
    with pytest.raises(InputError, match="field words"):
        select_batch(rows, tmp_path / "more.jsonl", selector=BrightnessSelector(), words="talk.srt")


def test_parquet_of_before_is_still_read(films, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [{"id": "a", "video": str(films / "silent.mp4"), "question": "light?"}]
    select_batch(rows, tmp_path / "new.parquet", selector=BrightnessSelector(), num_frames=2)
    parquet.write_table(parquet.read_table(tmp_path / "new.parquet").drop_columns(["quotes"]), tmp_path / "old.parquet")
    (row,) = read_results(tmp_path / "old.parquet")
    assert row["id"] == "a"


def test_the_command_line(films, tmp_path, capsys):
    table = tmp_path / "questions.csv"
    table.write_text(
        f'video,question,words\nsilent.mp4,{QUESTION},"{json.dumps(TIMED).replace(chr(34), chr(34) * 2)}"\n'
    )
    arguments = [
        "batch",
        str(table),
        "--out",
        str(tmp_path / "out.jsonl"),
        "--videos",
        str(films),
        "-n",
        "2",
        "--quiet",
    ]
    assert main([*arguments, "--selector", "mini"]) == 0
    (row,) = read_results(tmp_path / "out.jsonl")
    assert row["quotes"][0]["text"] == LINES[1][2]


def test_words_of_an_index_are_searched(films, tmp_path, capsys):
    pytest.importorskip("pyarrow")
    index = Index.build([films], tmp_path / "index", selector="mini", words="auto", progress=False)
    assert not index.last_update.failed
    first, *_ = index.search(QUESTION, 3)
    assert first.video == str(films / "spoken.mkv")
    assert 11.0 <= first.timestamp <= 14.0
    assert first.quote.text == LINES[1][2]
    assert index.search("a bright picture", 2)[0].quote is None
    assert index.select(QUESTION, video="spoken.mkv", num_frames=2).quotes[0].text == LINES[1][2]
    again = Index(tmp_path / "index", selector=FrameSelector.from_pretrained("mini"))
    assert again.search(QUESTION, 3) == index.search(QUESTION, 3)
    far = index.search(QUESTION, 3, min_gap=1000.0)
    assert len({hit.video for hit in far}) == len(far)
    assert main(["search", str(tmp_path / "index"), QUESTION, "-k", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["quote"]["text"] == LINES[1][2]
    with pytest.raises(InputError, match="sampling"):
        Index.build([films], tmp_path / "index", selector="mini", progress=False)


def test_an_index_without_words_is_as_before(films, tmp_path):
    pytest.importorskip("pyarrow")
    index = Index.build([films], tmp_path / "index", selector="mini", progress=False)
    assert json.loads((tmp_path / "index" / "index.json").read_text())["sampling"] == {}
    assert all(hit.quote is None for hit in index.search(QUESTION, 3))
