"""The same batches on a real local Ray cluster: interrupted, resumed, with workers that are killed."""

from __future__ import annotations

import builtins
import os
import shutil

import pytest

from refocus_select.corpus import cluster, read_results, select_batch
from refocus_select.errors import MissingDependencyError
from tests import brightness
from tests.brightness import BrightnessSelector
from tests.corpus import selectors
from tests.corpus.clips import FILM, write_clips, write_questions
from tests.corpus.selectors import Counting, Mortal

ray = pytest.importorskip("ray")


@pytest.fixture(scope="module", autouse=True)
def local_cluster():
    """Two CPUs in processes of their own; the selectors of these tests travel with their source."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="WARNING")
    for module in (brightness, selectors):
        ray.cloudpickle.register_pickle_by_value(module)
    yield
    for module in (brightness, selectors):
        ray.cloudpickle.unregister_pickle_by_value(module)
    ray.shutdown()


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    """Twelve videos, the film among them, sixty questions, one file that is not a video; and the result of one run."""
    folder = tmp_path_factory.mktemp("collection")
    clips = write_clips(folder, 10, seconds=1.0)
    film = str(shutil.copy(FILM, folder / "film.mp4"))
    (folder / "broken.mp4").write_bytes(b"nothing")
    questions = write_questions(folder / "questions.jsonl", [*map(str, clips), film, str(folder / "broken.mp4")], 60)
    with questions.open("a") as file:
        file.write('{"video": "clip000.mp4"}\n')
    return questions, clips


def select(questions, out, selector, **arguments):
    return select_batch(questions, out, selector=selector, num_frames=3, fps=4.0, max_frames=40, **arguments)


@pytest.fixture(scope="module")
def expected(collection, tmp_path_factory):
    out = tmp_path_factory.mktemp("expected") / "out.jsonl"
    assert select(collection[0], out, BrightnessSelector()).failed == 6
    return out.read_bytes()


@pytest.mark.parametrize(("first", "second"), [("local", "ray"), ("ray", "local")])
def test_each_engine_goes_on_where_the_other_was_broken_off(collection, expected, tmp_path, first, second):
    questions, clips = collection
    out = tmp_path / "out.jsonl"
    with pytest.raises(KeyboardInterrupt):
        select(questions, out, Interrupting(BrightnessSelector()), engine=first)
    kept = sum(len(path.read_text().splitlines()) for path in (tmp_path / "out.jsonl.parts").glob("part-*"))
    assert kept == 1 + 3 * 5  # the row that is no question, and three videos
    selector = Counting(tmp_path / "log")
    result = select(questions, out, selector, engine=second, resume=True)
    assert result.answered == 61 - kept
    assert selector.encodings <= len(clips) + 1 - 2  # of the three one may be the file that is not a video
    assert out.read_bytes() == expected


class Interrupting(BrightnessSelector):
    """Stands for a run that is interrupted."""

    def __init__(self, selector: BrightnessSelector) -> None:
        self.selector = selector


@pytest.fixture(autouse=True)
def interruption(monkeypatch):
    """Ctrl-C when the rows of three videos are written, in runs of `Interrupting`."""
    from refocus_select.corpus import batch

    writer = batch.PartWriter
    running = {"interrupting": False}

    class Stopping(writer):
        groups = 0

        def write(self, rows):
            super().write(rows)
            self.groups += 1
            if running["interrupting"] and self.groups == 4:
                raise KeyboardInterrupt

    original = batch._runner

    def runner(engine, selector, *rest):
        running["interrupting"] = isinstance(selector, Interrupting)
        return original(engine, selector.selector if running["interrupting"] else selector, *rest)

    monkeypatch.setattr(batch, "PartWriter", Stopping)
    monkeypatch.setattr(batch, "_runner", runner)


def test_a_worker_that_is_killed_is_replaced(collection, expected, tmp_path):
    questions, _ = collection
    flag = tmp_path / "flag"
    result = select(questions, tmp_path / "out.jsonl", Mortal(flag), engine="ray")
    assert flag.exists()
    assert result.complete
    assert (tmp_path / "out.jsonl").read_bytes() == expected


def test_a_video_that_kills_every_worker_becomes_a_row(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "RETRIES", 0)
    clips = write_clips(tmp_path / "clips", 3, seconds=1.0)  # of 25, 30 and 35 frames
    flag = tmp_path / "flag"
    flag.touch()
    rows = [{"video": str(clip), "question": "light?"} for clip in clips]
    result = select_batch(rows, tmp_path / "out.jsonl", selector=Mortal(flag, deadly=30), engine="ray")
    assert len(flag.read_text().splitlines()) == 2  # with the others, and for itself
    errors = [row["error"] for row in read_results(result.path)]
    assert [error is None for error in errors] == [True, False, True]
    assert "died every time" in errors[1]


def test_a_selector_by_name_and_its_frames(collection, tmp_path):
    _, clips = collection
    rows = [{"video": str(clip), "question": "light?"} for clip in clips[:3]]
    found = []
    for engine in ("local", "ray"):
        out, frames = tmp_path / f"{engine}.jsonl", tmp_path / engine
        select_batch(rows, out, selector="uniform", num_frames=3, engine=engine, frames=frames, scores=True)
        found.append((list(read_results(out)), {p.name: p.read_bytes() for p in frames.rglob("*.jpg")}))
    assert found[0] == found[1]
    assert found[0][1]


def test_without_ray_the_message_says_what_to_install(collection, tmp_path, monkeypatch):
    real = builtins.__import__

    def without_ray(name, *arguments, **kwargs):
        if name.split(".")[0] == "ray":
            raise ImportError(name)
        return real(name, *arguments, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_ray)
    with pytest.raises(MissingDependencyError, match="pip install"):
        select(collection[0], tmp_path / "out.jsonl", BrightnessSelector(), engine="ray")
    assert os.listdir(tmp_path) == []
