"""`refocus-select train` in the planted world."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from refocus_select.cli import main
from refocus_select.hub import find_checkpoint
from refocus_select.models.checkpoint import load_model
from refocus_select.models.portable import PortablePolicy
from refocus_select.train_selector import ReferenceModel, initialise
from refocus_select.train_selector.checkpoints import numbered

from .planted import Vectors, World
from .small_run import Both

HERE = "tests.train_selector"


def answerer(**_: Any) -> ReferenceModel:
    """For "module:attribute"."""
    return Both([World(60, 1), World(60, 2)])


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Settings of a run whose policy reads the planted vectors instead of the embedded encoder's."""

    class Encoder(Vectors):
        def encode_text(self, texts: Any) -> Any:
            return super().encode_text([text if text.split()[-1].isdigit() else "topic 0" for text in texts])

    monkeypatch.setattr(initialise, "load_encoder", lambda *_: Encoder())

    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({
        "output": str(tmp_path / "run"), "device": "cpu", "test_questions": 20,
        "data": {"train": f"{HERE}.planted:train_world", "validation": f"{HERE}.planted:train_world",
                 "arguments": {"count": 60}},
        "policy": {"d_model": 16, "n_layer": 1, "d_state": 4, "headdim": 8, "attention_heads": 2},
        "reference": {"model": f"{HERE}.test_cli:answerer"},
        "stages": [{"num_frames": [2], "steps": 2, "rollouts": 2}],
        "optimiser": {"batch": 4}, "validation": {"questions": 10},
    }))  # fmt: skip
    return path


def test_train(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(config), "seed=3"]) == 0
    out = capsys.readouterr().out
    assert str(tmp_path / "run" / "selector") in out
    assert "than uniform sampling" in out
    assert "2 frames  uniform" in out
    stored = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert stored["seed"] == 3
    assert stored["policy"]["d_model"] == 16
    report = json.loads((tmp_path / "run" / "selector" / "report.json").read_text())
    assert report["seed"] == 3
    assert report["steps"] == 2
    assert main(["train", str(config), "seed=4"]) == 2
    assert "seed was 3 and is 4" in capsys.readouterr().err


def test_every_weight_learns(config: Path, tmp_path: Path) -> None:
    stages = "stages=[{num_frames: [2], steps: 3, rollouts: 2}]"
    words = ["objective.credit=prefix", "checkpoint_every=1", "keep_checkpoints=3", stages]
    assert main(["train", str(config), *words]) == 0
    first, *_, last = (load_file(folder / "model.safetensors") for folder in numbered(tmp_path / "run" / "checkpoints"))
    assert all(name.startswith("model.") for name in first)  # nothing of the encoders
    same = {name for name in first if torch.equal(first[name], last[name])}
    assert same == {"model.reverse.embedding.weight"}  # which begins picking; that direction picks nothing
    model = load_model(find_checkpoint(tmp_path / "run" / "selector"), device="cpu")
    assert isinstance(model, PortablePolicy)
    assert model.config.attention_heads == 2
    card = (tmp_path / "run" / "selector" / "README.md").read_text()
    assert "1 layers of width 16: Mamba-2, state 4, from either end" in card


def test_dry_run_tells_the_plan_and_writes_nothing(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stages = "stages=[{num_frames: [1, 2], steps: 30, rollouts: 2}, {num_frames: [3], steps: 20, method: similarity}]"
    assert main(["train", str(config), stages, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "60 to learn from" in out
    assert "10 for validation" in out
    assert "answerer" in out
    assert "reinforce   1, 2" in out
    assert "similarity  3" in out
    assert "50 steps, 240 rollouts" in out
    assert not (tmp_path / "run").exists()


def test_settings_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--settings"]) == 0
    out = capsys.readouterr().out
    assert "optimiser.lr" in out
    assert "stages[].entropy_bonus" in out
    assert "[P]" in out
    assert len(out.splitlines()) > 50


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sede=1"], "did you mean 'seed'"),
        (["optimiser.lr=fast"], "optimiser.lr must be a number"),
        (["data.train=null"], "set data.train"),
        (["reference.model="], "reference.model"),
        (["data.train=nowhere.jsonl"], "no questions at nowhere.jsonl"),
        (["reference.model=tests.nowhere:x"], "no module"),
    ],
)
def test_bad_settings_exit_with_2(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["train", str(config), *words]) == 2
    assert message in capsys.readouterr().err


def test_settings_may_stand_behind_an_option(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(config), "--dry-run", "optimiser.lr=fast"]) == 2
    assert "optimiser.lr must be a number" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["train", str(config), "--dry-run", "--unknown"])


def test_a_missing_file_exits_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(tmp_path / "none.yaml")]) == 2
    assert "cannot read" in capsys.readouterr().err
    assert main(["train", "seed=1", f"output={tmp_path / 'run'}"]) == 2  # settings without a file
    assert "no questions: set data.train" in capsys.readouterr().err
