"""What a service keeps, shares between threads, and stops."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from refocus_select import FrameSelector
from refocus_select.corpus.index import Index
from refocus_select.errors import AccessError, InputError, RefocusError
from refocus_select.service import Access, CancelledError, Limits, VideoService
from refocus_select.service.jpeg import jpegs
from refocus_select.service.store import Kept
from refocus_select.service.tasks import Slots, Task
from tests.corpus.clips import write_clips

LONG = 3600.0


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("service")
    write_clips(folder, 3)
    return folder


@pytest.fixture
def reads(monkeypatch):
    """Videos in the order in which they were really read."""
    read, encode = [], FrameSelector.encode

    def counted(self, video, **kwargs):
        read.append(video)
        return encode(self, video, **kwargs)

    monkeypatch.setattr(FrameSelector, "encode", counted)
    return read


def test_answers_are_those_of_the_selector(root):
    with VideoService(Access.below([root])) as service:
        found = service.select("clip000.mp4", "Where is the bird?", num_frames=4)
        wanted = FrameSelector.from_pretrained().select(str(root / "clip000.mp4"), "Where is the bird?", num_frames=4)
        assert found.indices.tolist() == wanted.indices.tolist()
        assert found.video.source == "clip000.mp4"
        assert found.frames.shape == wanted.frames.shape


def test_a_video_is_read_once_per_part_and_encoder(root, reads):
    with VideoService(Access.below([root])) as service:
        service.select("clip000.mp4", "Where is the bird?", num_frames=4)
        service.select("clip000.mp4", "Where is the dog?", num_frames=2, selector="mmr")  # the same vectors
        assert len(reads) == 1
        service.select("clip000.mp4", "Where is the dog?", num_frames=2, start=1.0)
        assert len(reads) == 2
        service.select("clip000.mp4", "Where is the dog?", num_frames=60)  # more than were read
        assert len(reads) == 3
        service.select("clip000.mp4", "Where is the dog?", num_frames=60)
        assert len(reads) == 3


def test_a_file_that_was_replaced_is_read_anew(root, reads, tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes((root / "clip000.mp4").read_bytes())
    with VideoService(Access.below([tmp_path])) as service:
        service.select("clip.mp4", "Where is the bird?")
        path.write_bytes((root / "clip001.mp4").read_bytes())
        assert service.select("clip.mp4", "Where is the bird?").video.num_frames == 80
        assert len(reads) == 2


def test_threads_that_ask_about_one_video_share_one_reading(root, reads):
    with VideoService(Access.below([root]), limits=Limits(max_concurrent=4)) as service:
        with ThreadPoolExecutor(4) as pool:
            asked = [pool.submit(service.select, "clip001.mp4", f"Where is thing {i}?") for i in range(4)]
            assert all(len(found.result()) == 8 for found in asked)
        assert len(reads) == 1


def test_memory_is_bounded(root):
    with VideoService(Access.below([root]), limits=Limits(memory=1)) as service:
        for name in ("clip000.mp4", "clip001.mp4", "clip002.mp4"):
            service.select(name, "Where is the bird?", num_frames=2)
            assert len(service._encodings) == 1


def test_look_gives_what_is_on_screen(root):
    with VideoService(Access.below([root])) as service:
        metadata, frames = service.look("clip000.mp4", [0.5, 0.0, 1.03, metadata_end(root)], longest=64)
        assert frames.indices.tolist() == [0, 12, 25, metadata.num_frames - 1]
        assert max(frames.data.shape[1:3]) == 64
        for bad in (-0.1, 100.0, float("nan")):
            with pytest.raises(InputError, match="lies outside of the video"):
                service.look("clip000.mp4", [bad])
        with pytest.raises(InputError, match="empty"):
            service.look("clip000.mp4", [])


def metadata_end(root):
    from refocus_select import open_video

    with open_video(root / "clip000.mp4") as video:
        return video.metadata.duration


def test_describe_tells_what_is_said(root, tmp_path):
    (tmp_path / "talk.mp4").write_bytes((root / "clip000.mp4").read_bytes())
    (tmp_path / "talk.srt").write_text("1\n00:00:00,500 --> 00:00:01,000\nGood morning.\n", "utf-8")
    with VideoService(Access.below([tmp_path])) as service:
        found = service.describe("talk.mp4", overview=5)
    assert [(line.start, line.text) for line in found.lines] == [(0.5, "Good morning.")]
    assert found.words_from == "talk.srt"
    assert len(found.overview) == 5


def test_a_reading_can_be_cancelled_and_another_takes_over(root, reads):
    with VideoService(Access.below([root])) as service:
        begun, go_on = threading.Event(), threading.Event()

        def pause(done, total):
            begun.set()
            go_on.wait(60)

        first = service.task(pause)
        with ThreadPoolExecutor(2) as pool:
            cancelled = pool.submit(service.select, "clip002.mp4", "Where is the bird?", task=first)
            assert begun.wait(60)
            waiting = pool.submit(service.select, "clip002.mp4", "Where is the dog?")
            first.cancel()
            go_on.set()
            with pytest.raises(CancelledError):
                cancelled.result()
            assert len(waiting.result()) == 8
        assert len(reads) == 2


def test_a_request_ends_when_its_time_is_over(root):
    access = Access.below([root])
    with VideoService(access, limits=Limits(timeout=1e-9)) as service, pytest.raises(AccessError, match="--timeout"):
        service.select("clip000.mp4", "Where is the bird?")


def test_too_many_requests_are_refused():
    slots, inside, leave = Slots(1, 1), threading.Event(), threading.Event()

    def hold():
        with slots.taken(Task(LONG)):
            inside.set()
            leave.wait(60)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(hold)
        assert inside.wait(60)
        gone = Task(LONG)
        second = pool.submit(lambda: slots.taken(gone).__enter__())
        while slots._inside < 2:
            pass
        with pytest.raises(AccessError, match="--max-concurrent"), slots.taken(Task(LONG)):
            pass
        gone.cancel()
        with pytest.raises(CancelledError):
            second.result()
        leave.set()
        first.result()
    with slots.taken(Task(LONG)):
        pass


def test_search_asks_an_index(root, tmp_path):
    Index.build([root], tmp_path / "index", progress=False)
    with VideoService(Access.below([tmp_path])) as service:
        hits = service.search("index", "a number", 3)
        assert len(hits) == 3
        assert all(hit.video.startswith(str(root)) for hit in hits)
        with pytest.raises(AccessError):
            service.search(str(root), "a number")


def test_an_index_cannot_name_what_is_loaded(root, tmp_path):
    Index.build([root], tmp_path / "index", progress=False)
    facts = tmp_path / "index" / "index.json"
    text = facts.read_text("utf-8")
    (tmp_path / "evil.py").write_text("raise SystemExit('run')", "utf-8")
    with VideoService(Access.below([tmp_path])) as service:
        for change in ('"arguments": {"encoder": "evil:encoder"}', '"arguments": {"encoder": "someone/clip"}'):
            facts.write_text(text.replace('"arguments": {}', change), "utf-8")
            assert facts.read_text("utf-8") != text
            with pytest.raises(AccessError, match="--encoder"):
                service.search("index", "a number")
        facts.write_text(text.replace('"selector": "mini"', '"selector": "someone/policy"'), "utf-8")
        with pytest.raises(AccessError, match="--selector"):
            service.search("index", "a number")


def test_kept_values_are_bounded_and_failures_are_not_kept():
    gone = []
    kept = Kept(10, size=int, forget=gone.append)
    with pytest.raises(RefocusError):
        kept.get("a", lambda: (_ for _ in ()).throw(RefocusError("no")), Task(LONG))
    assert kept.get("a", lambda: 4, Task(LONG)) == 4
    assert kept.get("b", lambda: 5, Task(LONG)) == 5
    assert kept.get("a", lambda: 9, Task(LONG)) == 4  # used last
    assert kept.get("c", lambda: 6, Task(LONG)) == 6
    assert gone == [5]
    assert kept.get("a", lambda: 3, Task(LONG), fits=lambda value: value < 4) == 3
    assert gone == [5, 4]
    assert kept._making == {}
    kept.clear()
    assert sorted(gone) == [3, 4, 5, 6]


def test_pictures_stay_below_a_number_of_bytes():
    noise = np.random.default_rng(0).integers(0, 256, (6, 240, 320, 3), dtype=np.uint8)
    assert sum(map(len, jpegs(noise, 10**6))) > 200_000
    assert sum(map(len, jpegs(noise, 50_000))) <= 50_000
