"""Indexes: kept up to date, checked, asked about one video, searched over all."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
import torch

from refocus_select import FrameSelector, cli
from refocus_select.corpus import Index
from refocus_select.corpus.index_files import Entry
from refocus_select.corpus.search import open_search
from refocus_select.encoding import VideoEncoding
from refocus_select.errors import EncodingError, InputError
from refocus_select.video import VideoMetadata
from tests.corpus.clips import FILM, write_clips
from tests.corpus.selectors import Counting


@pytest.fixture(scope="module")
def mini():
    return FrameSelector.from_pretrained("mini")


@pytest.fixture(scope="module")
def built(tmp_path_factory, mini):
    """The film and three clips."""
    folder = tmp_path_factory.mktemp("collection")
    write_clips(folder / "clips", 3, seconds=2.0)
    shutil.copy(FILM, folder / "film.mp4")
    index = Index.build([folder], folder / "index", selector=mini, max_frames=24)
    return folder, index


def test_one_video_is_asked_without_reading_it_again(built, mini):
    folder, index = built
    selection = index.select("Who holds a bow and arrow?", video=folder / "film.mp4", num_frames=4)
    direct = mini.select(str(FILM), "Who holds a bow and arrow?", num_frames=4, max_frames=24)
    assert selection.indices.tolist() == direct.indices.tolist()
    assert np.abs(selection.scores - direct.scores).max() < 0.01  # vectors are kept in half precision
    assert index.select("a bird", video="film.mp4").video == selection.video
    assert selection.frames.shape[0] == 4  # from the video itself
    with pytest.raises(InputError, match="not in"):
        index.select("a bird", video="nowhere.mp4")


def test_an_index_is_opened_again_by_name(built):
    folder, index = built
    again = Index(folder / "index")
    assert again.videos == index.videos == sorted(index.videos)
    assert len(again) == 4
    hits = again.search("Who holds a bow and arrow?", 3)
    assert [hit.to_dict() for hit in hits] == [hit.to_dict() for hit in index.search("Who holds a bow and arrow?", 3)]


def test_search_finds_the_best_frames_of_all_videos(built, mini):
    _, index = built
    question = "a butterfly over a meadow"
    vector = mini.encoder.encode_text([question]).numpy()[0]
    everything = sorted(
        (
            (float(vector @ embedding), video, float(time))
            for video, encoding in ((video, index.encoding(video)) for video in index.videos)
            for embedding, time in zip(encoding.tensors["embeddings"].float().numpy(), encoding.timestamps, strict=True)
        ),
        reverse=True,
    )
    hits = index.search(question, 5)
    assert [(hit.video, hit.timestamp) for hit in hits] == [(video, time) for _, video, time in everything[:5]]
    assert [hit.score for hit in hits] == pytest.approx([score for score, _, _ in everything[:5]], abs=1e-4)
    assert len(index.search(question, 10_000)) == len(everything)
    apart = index.search(question, 6, min_gap=5.0)
    for a, first in enumerate(apart):
        assert all(
            first.video != second.video or abs(first.timestamp - second.timestamp) >= 5.0 for second in apart[a + 1 :]
        )


def test_moments_exactly_the_gap_apart_are_both_found(tmp_path):
    vectors = torch.eye(8)[:, :1] + torch.linspace(0, 0.5, 8)[:, None]
    encoding = VideoEncoding(
        {"embeddings": vectors}, np.arange(8), np.arange(8) / 2, VideoMetadata("", 8, 4.0), "", "", ""
    )
    search = open_search("exact", [Entry("v", "v", "v", "", 0, 8, 4.0)], lambda entry: encoding, tmp_path)
    hits = search.best(np.ones(1, dtype=np.float32), 8, 1.0)
    assert [hit.timestamp for hit in hits] == [0.0, 3.5, 2.5, 1.5]


def test_faiss_finds_the_same(built):
    pytest.importorskip("faiss")
    folder, index = built
    exact, likely = (index.search("a rabbit", 3, engine=engine) for engine in ("exact", "faiss"))
    assert [(h.video, h.index) for h in exact] == [(h.video, h.index) for h in likely]
    assert [h.score for h in exact] == pytest.approx([h.score for h in likely], abs=1e-2)
    stored = (folder / "index" / "search.faiss").stat().st_mtime_ns
    again = Index(folder / "index").search("a rabbit", 3, engine="faiss")
    assert [h.to_dict() for h in again] == [h.to_dict() for h in likely]
    assert (folder / "index" / "search.faiss").stat().st_mtime_ns == stored


def test_faiss_misses_little_in_a_large_collection(tmp_path):
    """20,000 vectors around 200 centres."""
    pytest.importorskip("faiss")
    random = np.random.default_rng(0)
    centres = random.normal(size=(200, 64)).astype(np.float32)
    vectors = (centres[random.integers(0, 200, 20_000)] + 0.7 * random.normal(size=(20_000, 64))).astype(np.float32)
    encodings = {
        str(number): VideoEncoding(
            {"embeddings": torch.from_numpy(part)},
            np.arange(200),
            np.arange(200) / 2,
            VideoMetadata("", 200, 100.0),
            "",
            "",
            "",
        )
        for number, part in enumerate(np.split(vectors, 100))
    }
    entries = [Entry(name, name, name, "", 0, len(encoding), 100.0) for name, encoding in encodings.items()]

    def found(engine, folder):
        searched = open_search(engine, entries, lambda entry: encodings[entry.video], folder)
        asked = centres[:40] + 0.3 * np.random.default_rng(1).normal(size=(40, 64)).astype(np.float32)
        return [{(h.video, h.index) for h in searched.best(vector, 10, 0.0)} for vector in asked]

    pairs = list(zip(found("exact", tmp_path), found("faiss", tmp_path), strict=True))
    assert all(len(exact) == 10 for exact, _ in pairs)
    assert np.mean([len(exact & likely) / 10 for exact, likely in pairs]) > 0.95


def test_only_what_is_new_or_changed_is_read(tmp_path):
    folder, out = tmp_path / "videos", tmp_path / "index"
    clips = write_clips(folder, 4, seconds=1.0)
    selector = Counting(tmp_path / "log")

    def update():
        before = selector.encodings
        done = Index.build(folder, out, selector=selector).last_update
        facts = (done.added, done.changed, done.moved, done.removed, done.unchanged, done.total)
        return facts, selector.encodings - before

    assert update() == ((4, 0, 0, 0, 0, 4), 4)
    assert update() == ((0, 0, 0, 0, 4, 4), 0)
    os.utime(clips[0], (1, 1))  # changed
    clips[1].unlink()  # deleted
    clips[2].rename(folder / "renamed.mp4")  # moved
    write_clips(folder / "more", 1, seconds=2.0)  # new
    assert update() == ((1, 1, 1, 1, 1, 4), 2)
    assert len(list((out / "encodings").iterdir())) == 4
    (folder / "broken.mp4").write_bytes(b"nothing")
    done = Index.build(folder, out, selector=selector).last_update
    assert [os.path.basename(video) for video, _ in done.failed] == ["broken.mp4"]
    assert done.total == 4


def test_a_build_that_was_broken_off_goes_on(tmp_path):
    folder, out = tmp_path / "videos", tmp_path / "index"
    write_clips(folder, 3, seconds=1.0)
    selector = Counting(tmp_path / "log")
    Index.build(folder, out, selector=selector)
    (out / "videos.parquet").unlink()  # killed before the table was written
    assert Index.build(folder, out, selector=selector).last_update.total == 3
    assert selector.encodings == 3


def test_damage_is_noticed(tmp_path):
    folder, out = tmp_path / "videos", tmp_path / "index"
    clips = write_clips(folder, 3, seconds=1.0)
    selector = Counting(tmp_path / "log")
    index = Index.build(folder, out, selector=selector)
    assert index.check() == []
    entry = index.entries[str(clips[0])]
    path = out / "encodings" / entry.encoding
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # one bit of a time
    path.write_bytes(content)
    clips[1].unlink()
    os.utime(clips[2], (1, 1))
    assert [problem.where for problem in index.check()] == [str(clip) for clip in clips]
    with pytest.raises(EncodingError, match="damaged"):
        Index(out, selector=selector).select("light?", video=clips[0])


def test_misuse_is_explained(tmp_path, built, mini):
    folder, index = built
    with pytest.raises(InputError, match="no index"):
        Index(tmp_path / "nothing")
    with pytest.raises(InputError, match="no such file"):
        Index.build(tmp_path / "nothing", tmp_path / "index", selector=mini)
    with pytest.raises(InputError, match="another selector or sampling"):
        Index.build(folder, folder / "index", selector=mini, max_frames=12)
    with pytest.raises(EncodingError, match="made by"):
        Index(folder / "index", selector=Counting(tmp_path / "log"))
    for arguments in ({"k": 0}, {"min_gap": -1.0}, {"engine": "magic"}):
        with pytest.raises(InputError):
            index.search("a bird", **arguments)
    clips = write_clips(tmp_path / "videos", 1, seconds=1.0)
    blind = Index.build(clips, tmp_path / "blind", selector=Counting(tmp_path / "log"))
    with pytest.raises(InputError, match="compares nothing"):
        blind.search("a bird")


def test_the_command_line(tmp_path, capsys):
    write_clips(tmp_path / "videos", 2, seconds=1.0)

    def run(*arguments):
        assert cli.main(list(map(str, arguments))) == 0
        return capsys.readouterr().out

    assert "2 videos (2 new" in run("index", tmp_path / "videos", "--out", tmp_path / "index", "--quiet")
    rows = [json.loads(line) for line in run("search", tmp_path / "index", "a bird", "-k", 2, "--json").splitlines()]
    assert len(rows) == 2
    assert {"video", "timestamp", "index", "score", "quote"} == rows[0].keys()
    assert rows[0]["score"] >= rows[1]["score"]
    assert "0 problems" in run("index", "--out", tmp_path / "index", "--check")
