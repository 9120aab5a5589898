"""The training of the paper end to end on tiny networks: filter, four stages, report, both formats, load, select."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from refocus_select.cli import main
from refocus_select.reference import TransformersReference
from refocus_select.reference.server import ReferenceServer
from refocus_select.selectors import FrameSelector
from refocus_select.selectors.policy import PolicySelector

from ..models.tiny import video_model
from ..reference.chat_models import build
from ..video import clips
from .small_run import rows_of


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Questions in the layout of STAR, and their videos: 34 candidates each."""
    folder = tmp_path_factory.mktemp("star")
    (folder / "Charades").mkdir()
    rows = []
    for i in range(4):
        clips.encode(folder / "Charades" / f"V{i}.mp4", 68 + 2 * i, fps=8, width=64, height=48)
        choices = [{"choice_id": n, "choice": f"The {n + i}."} for n in range(3)]
        rows.append({"question_id": f"Sequence_T1_{i}", "question": f"What is number {i}?", "video_id": f"V{i}",
                     "start": 0.5, "end": 4.0, "answer": f"The {1 + i}.", "choices": choices})  # fmt: skip
    for split in ("train", "val"):
        (folder / f"STAR_{split}.json").write_text(json.dumps(rows))
    return folder


@pytest.fixture
def url() -> Iterator[str]:
    """A real video chat model of transformers, tiny, behind our server."""
    torch.set_num_threads(1)
    with ReferenceServer(TransformersReference(*build("internvl"), name="tiny-internvl")) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_from_a_backbone_to_selectors_in_both_formats(
    films: Path, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = video_model(tmp_path / "backbone")
    stages = ", ".join(f"{{num_frames: [{k}], steps: 1, rollouts: 2, entropy_bonus: 1.0e-3}}" for k in (4, 8, 16, 32))
    common = [
        "--preset", "paper", f"output={tmp_path / 'run'}", "device=cpu", f"reference.url={url}",
        "reference.arguments.pause=0.05", f"policy.init={start}", f"data.validation={films / 'STAR_val.json'}",
        f"data.root={films}", "optimiser.mixed_precision=no", "optimiser.batch=2", f"stages=[{stages}]", "trackers=[]",
    ]  # fmt: skip
    published = ["data.format=star", f"data.train={films / 'STAR_train.json'}"]

    assert main(["filter", *common, *published, "filter.threshold=0", "filter.num_frames=4"]) == 0
    kept = tmp_path / "run" / "filtered" / "kept.jsonl"
    margins = [json.loads(line) for line in kept.read_text().splitlines()]
    assert margins
    assert all(0 < row["variance"] < 16 / 15 for row in margins)

    assert main(["train", *common, *published, "--dry-run"]) == 0
    plan = capsys.readouterr().out
    assert "measured in whole steps" in plan
    assert "GiB  in all, at 512 candidates" in plan

    # What the filter kept is a table of ours, and so may the held-out questions be.
    tables = [f"data.train={kept}", f"data.validation={kept}"]
    assert main(["train", *common, *tables]) == 0
    assert [row["num_frames"] for row in rows_of(tmp_path / "run", "train")] == [4, 8, 16, 32]
    looked = rows_of(tmp_path / "run", "held_out")
    assert {row["num_frames"] for row in looked} == {32}
    assert all(0 <= row["released_accuracy"] <= 1 for row in looked)
    ours, theirs = tmp_path / "run" / "selector", tmp_path / "run" / "selector-authors"
    report = json.loads((ours / "report.json").read_text())
    assert [row["num_frames"] for row in report["accuracy"]] == [4, 8, 16, 32]
    assert len(report["stages"]) == 4
    assert "By the protocol of the released evaluation" in (ours / "README.md").read_text()

    chosen = []
    for folder in (ours, theirs):
        selector = FrameSelector.from_pretrained(folder, device="cpu")
        assert isinstance(selector, PolicySelector)
        assert selector.model.config.answer_options is True  # as data.options_to_policy of the preset
        selection = selector.select(
            str(films / "Charades" / "V1.mp4"), "What is number 1?", num_frames=4, options=["The 1.", "The 2."]
        )
        chosen.append((selection.indices.tolist(), selection.scores.tolist()))
    assert chosen[0] == chosen[1]
    assert json.loads((theirs / "config.json").read_text())["model_type"] == "refocus"
