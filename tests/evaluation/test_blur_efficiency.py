"""The blur test and the efficiency table, on selectors whose behaviour is known."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from refocus_select.cli import main
from refocus_select.evaluation.blur import blur_test
from refocus_select.evaluation.efficiency import efficiency
from refocus_select.questions import Question
from refocus_select.selectors import FrameSelector
from refocus_select.selectors.base import Choice
from refocus_select.video import CandidateRule

from ..models.tiny import selector_folder
from ..video import clips


class Sharpest(FrameSelector):
    """Chooses the sharpest frames, or always the first ones."""

    name = fingerprint = "sharpest"
    rule = CandidateRule(4.0, 64)

    def __init__(self, looks: bool) -> None:
        self.looks = looks

    def encode_frames(self, frames: Iterator[Any], total: int) -> tuple[dict[str, torch.Tensor], dict]:
        rows = [np.abs(np.diff(piece.data.astype(float), axis=2)).mean((1, 2, 3)) for piece in frames]
        return {"sharpness": torch.tensor(np.concatenate(rows))}, {}

    def choose(self, encoding: Any, questions: Sequence[str], num_frames: int, *_: Any, **__: Any) -> list[Choice]:
        scores = encoding.tensors["sharpness"].numpy()
        order = np.argsort(-scores, kind="stable") if self.looks else np.arange(len(scores))
        return [Choice(order[:num_frames], scores)] * len(questions)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("blur") / "film.mp4"
    clips.encode(path, 48, fps=8, width=64, height=48)
    return path


def test_who_looks_leaves_what_is_blurred_and_who_does_not_keeps_it(film: Path) -> None:
    questions = [Question("1", str(film), "What is sharp?"), Question("2", str(film.with_name("gone.mp4")), "What?")]
    for looks, left in ((True, 0.0), (False, 1.0)):
        found = blur_test(Sharpest(looks), questions, 3, (0.0, 0.1))
        assert (found["questions"], found["unreadable"]) == (1, 1)
        assert found["chosen"]["0"]["mean"] == 1.0
        assert found["chosen"]["0.1"]["mean"] == left


def test_frames_of_evidence_are_blurred_where_it_is_known(film: Path) -> None:
    asked = Question("1", str(film), "What is sharp?", evidence=((0.0, 1.0), (2.0, 3.0)))
    found = blur_test(Sharpest(False), [asked], 2, (0.0, 0.1))
    assert found["chosen"]["0.1"]["mean"] == 0.5  # the first frames lie in the first of two spans


def test_parameters_and_operations_of_a_network_are_counted(film: Path, tmp_path: Path) -> None:
    selector = FrameSelector.from_pretrained(selector_folder(tmp_path / "tiny"), device="cpu")
    found = efficiency(selector, str(film), "What?", 4, runs=1)
    assert found["parameters"] == {"model": sum(p.numel() for p in selector.model.parameters())}  # type: ignore[attr-defined]
    model = selector.model  # type: ignore[attr-defined]
    # At least the input and output maps of every block, for every visual token.
    tokens = found["candidates"] * model.config.tokens_per_frame
    least = (
        2
        * tokens
        * sum(b.mixer.in_proj.weight.numel() + b.mixer.out_proj.weight.numel() for b in model.backbone.blocks)
    )
    assert found["tera_flops"]["video"] * 1e12 > least
    assert found["tera_flops"]["video"] > found["tera_flops"]["question"] > 0


def test_commands(film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "q.jsonl"
    table.write_text(json.dumps({"video": str(film), "question": "What is shown?", "id": "a"}) + "\n")
    folder = str(selector_folder(tmp_path / "tiny"))
    assert main(["evaluate", "blur", str(table), "--selector", folder, "--device", "cpu", "-n", "3"]) == 0
    assert "blurred and chosen still" in capsys.readouterr().out
    assert main(["evaluate", "efficiency", str(film), "What?", "--selector", folder, "--device", "cpu", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["device"] == "cpu"
    table.write_text('{"question": 3}\n')
    assert main(["evaluate", "blur", str(table), "--selector", folder]) == 2
