"""The variance filter: windows, variances, and going on after a break."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from refocus_select.cli import main
from refocus_select.errors import InputError, VideoDecodeError
from refocus_select.questions import read_questions
from refocus_select.train_selector import Request
from refocus_select.train_selector.data import QuestionSet, rows
from refocus_select.train_selector.filter import filter_questions, probes, variances, windows
from refocus_select.train_selector.reward import RewardModel

from .planted import Answerer, World


def test_windows_by_hand() -> None:
    eight = windows(8)
    assert [w.tolist() for w in eight[:8]] == [[0, 1], [1, 2], [2, 3], [3, 4], [4, 5], [5, 6], [6, 7], [0, 7]]
    sixteen = windows(16)
    assert [w.tolist() for w in sixteen[:8]] == [
        [0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7], [6, 7, 8, 9], [8, 9, 10, 11], [10, 11, 12, 13], [12, 13, 14, 15],
        [0, 1, 14, 15],
    ]  # fmt: skip
    ten = windows(10)  # a quarter is 2.5 frames: 2 after rounding; the starts are those of an eighth, rounded down
    assert [w.tolist() for w in ten[:8]] == [[0, 1], [1, 2], [2, 3], [3, 4], [5, 6], [6, 7], [7, 8], [8, 9]]
    with pytest.raises(InputError, match="1 candidate frames cannot be probed"):
        windows(1)


@pytest.mark.parametrize("frames", [2, 3, 5, 8, 10, 16, 33, 512])
def test_windows_and_complements(frames: int) -> None:
    parts = windows(frames)
    assert len(parts) == 16
    for window, rest in zip(parts[:8], parts[8:], strict=True):
        assert sorted([*window, *rest]) == list(range(frames))
        assert len(window) == len(parts[0])
        assert (np.diff(window) > 0).all()
        assert (np.diff(rest) > 0).all()
    for part, probe in zip(parts, probes(frames, 4), strict=True):
        assert len(probe) == min(4, len(part)) == len(set(probe.tolist()))
        assert np.isin(probe, part).all()
        assert probe[0] == part[0]
        assert probe[-1] == part[-1]


class Graded(Answerer):
    """The margin grows with the chance to see the evidence, by a factor that depends on the question."""

    def __init__(self, world: World, before: Callable[[int], None] = lambda _: None, fingerprint: str = "g") -> None:
        super().__init__(world, fingerprint)
        self._before, self.seen = before, 0

    def option_logits(self, requests: Sequence[Request]) -> list[Tensor]:
        self._before(self.seen)
        self.seen += 1
        found = []
        for request in requests:
            logits = torch.zeros(len(request.subsets), 3)
            near = (request.subsets - self.world.evidence(request.question.video)).abs().amin(1).float()
            logits[:, request.question.answer] = near * (1 + int(request.question.video) % 5) / 10
            found.append(logits)
        return found


def filtered(world: World, folder: Path, **more: object) -> object:
    arguments = {"reference": Graded(world), **more}
    return filter_questions(
        QuestionSet(world, world, "w"),
        RewardModel([arguments.pop("reference")], "tanh_margin"),
        folder,
        num_frames=3,  # type: ignore[list-item]
        **arguments,  # type: ignore[arg-type]
    )


def kept(folder: Path) -> list[str]:
    return [json.loads(line)["id"] for line in (folder / "kept.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    filtered(World(50, 3), folder, threshold=0.0125)
    return folder


def test_variance_and_threshold(whole: Path) -> None:
    world = World(50, 3)
    margins = {row["id"]: row for row in rows(whole / "margins-0-of-1.jsonl")}
    assert len(margins) == 50
    for place in range(50):
        row, evidence, factor = margins[f"q{place}"], world.evidence(str(place)), (1 + place % 5) / 10
        by_hand = [float(np.abs(probe - evidence).min()) * factor for probe in probes(12, 3)]
        assert row["margins"] == pytest.approx(by_hand)
        assert row["variance"] == pytest.approx(np.var(np.tanh(np.array(by_hand) / 2), ddof=1), rel=1e-4)
        assert row["margin_variance"] == pytest.approx(np.var(by_hand, ddof=1), rel=1e-4)
    expected = [name for name, row in margins.items() if row["variance"] > 0.0125]
    assert 5 < len(expected) < 45
    assert kept(whole) == expected
    summary = json.loads((whole / "summary.json").read_text())
    assert summary["kept"] == len(expected)
    assert summary["probed"] == 50
    assert summary["threshold"] == 0.0125
    assert sum(part["of"] for part in summary["categories"].values()) == 50
    assert (whole / "histogram.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_kept_reads_back_as_questions(whole: Path) -> None:
    found, problems = read_questions(whole / "kept.jsonl", root="")
    assert not problems
    world = World(50, 3)
    assert found == [world[int(q.video)] for q in found]
    assert all(len(q.extra["margins"]) == 16 and q.extra["variance"] > 0.0125 for q in found)


def test_the_bounded_variance_ends_where_the_authors_histogram_does() -> None:
    half = torch.tensor([40.0, -40.0] * 8)  # as far apart as margins can be
    found = variances(half)
    assert found["variance"] == pytest.approx(16 / 15)
    assert found["margin_variance"] == pytest.approx(1600 * 16 / 15)
    assert variances(half / 80)["variance"] == pytest.approx(np.tanh(0.25) ** 2 * 16 / 15, rel=1e-4)


def test_margins_of_an_earlier_release_are_judged_anew(whole: Path, tmp_path: Path) -> None:
    """It stored the variance of the margins themselves, which is another quantity."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "margins-0-of-1.jsonl"
    old = [{**row, "variance": row["margin_variance"]} for row in rows(path)]
    for row in old:
        del row["margin_variance"]
    path.write_text("".join(json.dumps(row) + "\n" for row in old))
    filtered(World(50, 3), tmp_path, threshold=0.0125)
    assert (tmp_path / "kept.jsonl").read_text() == (whole / "kept.jsonl").read_text()


class Stopped(Exception):
    pass


@pytest.mark.parametrize("scrap", ["", '{"id": "q32", "marg', "whole"])
def test_a_broken_off_filter_goes_on(whole: Path, tmp_path: Path, scrap: str) -> None:
    def stop(call: int) -> None:
        if call == 40:
            raise Stopped

    world = World(50, 3)
    with pytest.raises(Stopped):
        filtered(world, tmp_path, threshold=0.0125, reference=Graded(world, stop))
    path = tmp_path / "margins-0-of-1.jsonl"
    lines = path.read_text().splitlines()
    assert 16 <= len(lines) < 50
    assert not (tmp_path / "kept.jsonl").exists()
    if scrap == "whole":  # killed between a row and the end of its line
        path.write_text("\n".join(lines))
    else:
        path.write_text("\n".join(lines) + "\n" + scrap)
    again = Graded(world)
    filtered(world, tmp_path, threshold=0.0125, reference=again)
    assert again.seen <= 50 - len(lines) + 1  # what was probed is not probed again
    assert [row["id"] for row in rows(path)] == [f"q{i}" for i in range(50)]
    assert (tmp_path / "kept.jsonl").read_text() == (whole / "kept.jsonl").read_text()
    finished = Graded(world)
    filtered(world, tmp_path, threshold=0.0125, reference=finished)
    assert finished.seen == 0


def test_shards_together_are_the_whole(whole: Path, tmp_path: Path) -> None:
    world = World(50, 3)
    first = filtered(world, tmp_path, threshold=0.0125, shard=(0, 2))
    assert (first.complete, first.probed) == (False, 25)  # type: ignore[attr-defined]
    assert not (tmp_path / "kept.jsonl").exists()
    second = filtered(world, tmp_path, threshold=0.0125, shard=(1, 2))
    assert (second.complete, second.probed) == (True, 50)  # type: ignore[attr-defined]
    assert (tmp_path / "kept.jsonl").read_text() == (whole / "kept.jsonl").read_text()
    later = filtered(world, tmp_path, threshold=1.0)  # another threshold needs no margins anew
    assert later.kept == 0
    assert kept(tmp_path) == []


def test_margins_of_others_are_refused(whole: Path) -> None:
    world = World(50, 3)
    with pytest.raises(InputError, match=r"holds margins for other reference; give another filter\.out"):
        filtered(world, whole, reference=Graded(world, fingerprint="other"))
    with pytest.raises(InputError, match="for other questions"):
        filtered(World(51, 3), whole)


def test_broken_videos_are_left_out(tmp_path: Path) -> None:
    class Torn(World):
        def __call__(self, video: str) -> object:  # type: ignore[override]
            if video == "2":
                raise VideoDecodeError("2 is torn")
            return super().__call__(video)

    class Short(Torn):
        def _layout(self, i: int) -> tuple[int, int, Tensor]:
            topic, evidence, vectors = super()._layout(i)
            return topic, evidence, vectors[:1] if i == 4 else vectors

    result = filtered(Short(6, 3), tmp_path, threshold=0.0)
    assert (result.complete, result.probed, result.unreadable) == (True, 4, 2)  # type: ignore[attr-defined]
    unreadable = {
        row["id"]: row["unreadable"] for row in rows(tmp_path / "margins-0-of-1.jsonl") if "unreadable" in row
    }
    assert unreadable["q2"] == "2 is torn"
    assert "single candidate frame" in unreadable["q4"]


def graded(**_: object) -> Graded:
    """For "module:attribute"."""
    return Graded(World(9, 1))


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["filter", f"output={tmp_path}", "data.train=tests.train_selector.planted:train_world",
             "data.arguments={count: 9}", "reference.model=tests.train_selector.test_filter:graded",
             "filter.threshold=0.0125", "filter.num_frames=3"]  # fmt: skip
    assert main([*words, "--shard", "0/2"]) == 0
    assert "4 questions of other shards" in capsys.readouterr().out
    assert main([*words, "--shard", "1/2"]) == 0
    out = capsys.readouterr().out
    assert "of 9 questions kept" in out
    assert str(tmp_path / "filtered" / "kept.jsonl") in out
    for shard in ("2/2", "x", "-1/2"):
        assert main([*words, f"--shard={shard}"]) == 2
    assert main(["filter", f"output={tmp_path}"]) == 2
    assert "needs data.train and reference.model" in capsys.readouterr().err
