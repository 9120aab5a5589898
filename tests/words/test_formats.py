"""Transcript files as people have them, good and bad."""

from __future__ import annotations

import json

import pytest

from refocus_select.errors import TranscriptError
from refocus_select.words import Line, Transcript, parse_transcript, read_transcript

SRT = "1\n00:00:01,000 --> 00:00:02,500\nThis is <i>overfitting</i>,\n\n2\n00:00:02,600 --> 00:00:05,000\n- she says.\n"
VTT = (
    "WEBVTT\n\nNOTE by hand\n\nSTYLE\n::cue { color: red }\n\n00:01.000 --> 00:02.500 align:start\n"
    "<v Ann>This is <c.x>overfitting</c>,\n\n00:02.600 --> 00:05.000\n- she says.\n"
)
ASS = (
    "[Script Info]\nScriptType: v4.00+\n\n[V4+ Styles]\nFormat: Name, Fontname, Fontsize, PrimaryColour\n"
    "Style: Default,Arial,20,&H00FFFFFF\n\n[Events]\n"
    "Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n"
    "Comment: 0,0:00:00.00,0:00:01.00,Default,,0,0,0,,not shown\n"
    "Dialogue: 0,0:00:01.00,0:00:02.50,Default,,0,0,0,,This is {\\i1}overfitting{\\i0},\n"
    "Dialogue: 0,0:00:02.60,0:00:05.00,Default,,0,0,0,,- she\\Nsays.\n"
)
EXPECTED = [(1.0, 2.5, "This is overfitting,"), (2.6, 5.0, "- she says.")]
SEGMENTS = [
    {"start": 1.0, "end": 2.5, "text": " This is overfitting,"},
    {"start": 2.6, "end": 5.0, "text": " - she says."},
]


def plain(transcript: Transcript) -> list[tuple[float, float, str]]:
    return [(round(line.start, 3), round(line.end, 3), line.text) for line in transcript]


@pytest.mark.parametrize("text", [SRT, VTT, ASS, SRT.replace("\n", "\r\n")], ids=["srt", "vtt", "ass", "crlf"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"])
def test_subtitle_files_in_every_encoding(text, encoding, tmp_path):
    file = tmp_path / "talk.en.srt"
    file.write_bytes(text.encode(encoding))
    transcript = read_transcript(file)
    assert plain(transcript) == EXPECTED
    assert transcript.language == "en"
    assert transcript.origin == str(file)


@pytest.mark.parametrize(
    "raw",
    [
        {"text": "…", "segments": SEGMENTS, "language": "en"},  # whisper, whisperX
        SEGMENTS,  # faster-whisper, dumped
        {"chunks": [{"timestamp": [s["start"], s["end"]], "text": s["text"]} for s in SEGMENTS]},  # transformers
        {"transcription": [
            {"offsets": {"from": int(1000 * s["start"]), "to": int(1000 * s["end"])}, "text": s["text"]}
            for s in SEGMENTS
        ]},  # whisper.cpp
        [{"start": s["start"], "duration": s["end"] - s["start"], "text": s["text"]} for s in SEGMENTS],
        {"wireMagic": "pb3", "events": [
            {"tStartMs": 0, "dDurationMs": 9000, "id": 1},
            {"tStartMs": 1000, "dDurationMs": 1500, "segs": [{"utf8": "This is"}, {"utf8": " overfitting,"}]},
            {"tStartMs": 2000, "dDurationMs": 500, "aAppend": 1, "segs": [{"utf8": "\n"}]},
            {"tStartMs": 2600, "dDurationMs": 2400, "segs": [{"utf8": "- she says."}]},
        ]},
    ],
    ids=["whisper", "faster-whisper", "transformers", "whisper.cpp", "duration", "json3"],
)  # fmt: skip
def test_json_of_recognisers(raw):
    assert plain(parse_transcript(json.dumps(raw))) == EXPECTED


def test_an_open_end_is_where_the_next_line_begins():
    raw = {"chunks": [{"timestamp": [0.0, None], "text": "one"}, {"timestamp": [3.0, None], "text": "two"}]}
    assert plain(parse_transcript(json.dumps(raw))) == [(0.0, 3.0, "one"), (3.0, 5.0, "two")]


def test_roll_up_captions_say_each_line_once():
    rolled = [Line(0, 2, "so today"), Line(2, 4, "so today we look"), Line(4, 6, "we look"), Line(5, 8, "at trees")]
    assert [line.text for line in Transcript.of(rolled)] == ["so today", "we look", "at trees"]


def test_automatic_captions_end_where_the_next_begins():
    events = [{"tStartMs": 1000 * i, "dDurationMs": 5000, "segs": [{"utf8": f"line {i}"}]} for i in range(3)]
    assert [line.end for line in parse_transcript(json.dumps({"events": events}))] == [1.0, 2.0, 7.0]


def test_windows_1252_is_said():
    transcript = parse_transcript("1\n00:00:01,000 --> 00:00:02,000\nCafé\n".encode("cp1252"))
    assert transcript[0].text == "Café"
    assert "UTF-8" in transcript.warnings[0]


def test_times_are_mended_or_refused():
    transcript = Transcript.of([Line(5, 3, "turned"), Line(-2, -1, "before"), Line(-1, 1, "half"), Line(0, 9, " ")])
    assert [(line.start, line.end, line.text) for line in transcript] == [(0, 1, "half"), (3, 5, "turned")]
    assert "exchanged" in transcript.warnings[0]
    with pytest.raises(TranscriptError, match="nan"):
        Transcript.of([Line(float("nan"), 1, "x")])


def test_lines_beyond_the_end_are_counted():
    cut = Transcript.of([Line(0, 4, "a"), Line(8, 9, "b"), Line(12, 13, "c")], origin="film.srt").within(8.5)
    assert [(line.text, line.end) for line in cut] == [("a", 4), ("b", 8.5)]
    assert "1 of 3 lines" in cut.warnings[0]


def test_passages_join_what_subtitles_break():
    lines = [Line(0, 2, "We begin"), Line(2.2, 4, "with trees."), Line(4, 5, "Then leaves"), Line(9, 10, "and roots")]
    joined = Transcript.of(lines).passages()
    assert [(line.start, line.end, line.text) for line in joined] == [
        (0, 4, "We begin with trees."), (4, 5, "Then leaves"), (9, 10, "and roots")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty"),
        (b"\xef\xbb\xbf \n", "empty"),
        (b'{"not json', "JSON"),
        (b'{"text": "no segments"}', "segments"),
        (b'[{"text": "no time"}]', "line 0"),
        (b'{"segments": [{"start": "a", "end": 1, "text": "x"}]}', "line 0"),
        (b'{"segments": 3}', "segments"),
        (b"[" * 100_000, "JSON"),
        (b"just some prose without times", "known"),
        (b"WEBVTT\n\n", "no line"),
        (bytes(range(256)) * 4, "transcript|known|line"),
    ],
)
def test_bad_files_say_what_is_wrong(data, says, tmp_path):
    file = tmp_path / "bad.srt"
    file.write_bytes(data)
    with pytest.raises(TranscriptError, match=says) as caught:
        read_transcript(file)
    assert "bad.srt" in str(caught.value)


def test_bitmap_subtitles_and_missing_files(tmp_path):
    with pytest.raises(TranscriptError, match="ocr=True"):
        read_transcript(tmp_path / "film.sup")
    with pytest.raises(TranscriptError, match="No such file"):
        read_transcript(tmp_path / "film.srt")


def test_saved_and_loaded_again():
    transcript = parse_transcript(SRT, name="a.srt")
    assert Transcript.from_dict(json.loads(json.dumps(transcript.to_dict()))) == transcript
    with pytest.raises(TranscriptError, match="saved transcript"):
        Transcript.from_dict({"lines": [[1]]})
