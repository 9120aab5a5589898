"""The presets: they load, say where every number is from, and the ablations change one thing."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from refocus_select.errors import InputError
from refocus_select.train_selector import TrainConfig, presets

FOLDER = Path(presets.__file__).parent
ABLATIONS = [name for name in presets.preset_names() if name != "paper"]


def differences(one: Any, other: Any, where: str = "") -> set[str]:
    if dataclasses.is_dataclass(one) and type(one) is type(other):
        pairs = [(f.name, getattr(one, f.name), getattr(other, f.name)) for f in dataclasses.fields(one)]
        return {path for name, a, b in pairs for path in differences(a, b, f"{where}.{name}".lstrip("."))}
    return set() if one == other else {where}


@pytest.mark.parametrize("name", presets.preset_names())
def test_every_number_says_where_it_is_from(name: str) -> None:
    marked = re.compile(r"#.*(\[[PWC][^\]]*\]|\bours\b)")
    lines = (FOLDER / f"{name}.yaml").read_text().splitlines()
    numbers = [line for line in lines if re.search(r"\d", line.split("#")[0]) and not line.startswith(("output", "#"))]
    assert numbers or name.startswith("paper-reward")
    for line in numbers:
        assert marked.search(line), line


def test_the_paper_is_what_is_published() -> None:
    config = TrainConfig.load(None, preset="paper")
    assert [stage.num_frames for stage in config.stages] == [(4,), (8,), (16,), (32,)]
    assert {stage.entropy_bonus for stage in config.stages} == {1e-3}
    assert config.total_steps == 900
    assert (config.objective.reward, config.objective.advantage) == ("tanh_margin", "group")
    assert (config.data.fps, config.data.max_frames, config.data.options_to_policy) == (4.0, 512, True)
    assert (config.policy.d_model, config.policy.n_layer, config.policy.reinitialise) == (2048, 48, "paper")
    assert config.filter.threshold == 0.21
    assert config.validation.released


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_changes_one_thing(name: str) -> None:
    paper, changed = TrainConfig.load(None, preset="paper"), TrainConfig.load(None, preset=name)
    assert changed.total_steps == paper.total_steps
    found = differences(paper, changed) - {"output"}
    of = {
        "entropy": {"stages"}, "curriculum": {"stages"}, "reward": {"reference.model"},
        "policy": {"policy.d_model", "policy.n_layer"},
    }[name.split("-")[1]]  # fmt: skip
    assert found
    assert found <= of


def test_a_file_and_words_go_beyond_a_preset(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("optimiser: {lr: 3.0e-5}\n")
    config = TrainConfig.load(str(path), ["policy.n_layer=2"], preset="paper")
    assert (config.optimiser.lr, config.optimiser.batch) == (3e-5, 64)
    assert (config.policy.n_layer, config.policy.d_model) == (2, 2048)
    with pytest.raises(InputError, match="there is no preset 'papers'; there are paper, paper-curriculum"):
        TrainConfig.load(None, preset="papers")
