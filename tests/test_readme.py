"""The README's promises, run: its Python blocks, in order, in one namespace, and its commands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import yaml

from refocus_select import cli
from tests.adapters import models, tiny

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder that looks like the repository's root to relative paths."""
    for name in ("examples", "benchmarks"):
        (tmp_path / name).symlink_to(ROOT / name)
    settings = yaml.safe_load((ROOT / "examples" / "train_tiny.yaml").read_text("utf-8"))
    settings["stages"] = [{"num_frames": [4], "steps": 2, "rollouts": 2}]
    settings["validation"], settings["test_questions"] = {"questions": 4}, 8
    settings["data"]["arguments"] |= {"num_questions": 40, "validation_num_questions": 20}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings), "utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_python_blocks_run_as_they_stand(here, monkeypatch, capsys):
    processor = tiny.qwen2_5_vl()  # nothing is downloaded: the names of the Hub give tiny ones of the same kind
    model = models.qwen2_5_vl(processor)
    monkeypatch.setattr("transformers.AutoProcessor.from_pretrained", lambda name: processor)
    monkeypatch.setattr("transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained", lambda name, **kwargs: model)
    names: dict[str, object] = {}
    blocks = re.findall(r"```python\n(.*?)```", README, re.S)
    assert len(blocks) == 4
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    selection = names["selection"]
    assert selection.frames.shape == (8, 270, 480, 3)
    assert (np.diff(selection.timestamps) > 0).all()
    assert (here / "why.png").stat().st_size > 50_000
    assert len(list((here / "frames").glob("*.jpg"))) == 8
    assert len(names["first"]) == len(names["second"]) == 4
    assert names["inputs"]["pixel_values_videos"].shape[0] > 0
    assert (names["result"].folder / "model.safetensors").is_file()
    shown = README.split("```text\n")[1].split("```")[0].splitlines()
    printed = capsys.readouterr().out.splitlines()[:8]
    assert len(shown) == 8
    assert len(set(shown) & set(printed)) >= 4  # processors round differently, which may move a pick


def test_commands_parse_as_they_stand():
    lines = [line.strip() for line in README.splitlines() if line.startswith("    refocus-select ")]
    assert len(lines) >= 3
    for line in lines:
        words = shlex.split(line.split(">")[0].split("   #")[0])
        if "--help" not in words:
            cli._parser().parse_args(words[1:])
