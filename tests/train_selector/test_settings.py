"""Settings: strict about names and types, and every default with its meaning and source."""

from __future__ import annotations

import dataclasses
import json
import typing
from pathlib import Path
from typing import Any

import pytest
import yaml

from refocus_select.errors import InputError
from refocus_select.train_selector.config import ObjectiveConfig, OptimiserConfig, StageConfig, TrainConfig
from refocus_select.train_selector.data import read_object, rows
from refocus_select.train_selector.settings import describe


def load(*words: str) -> TrainConfig:
    return TrainConfig.load(None, list(words))


def test_every_setting_is_told_with_meaning_and_source() -> None:
    def names(kind: Any, prefix: str = "") -> set[str]:
        found = set()
        for name, hint in typing.get_type_hints(kind).items():
            inner = (typing.get_args(hint) or (None,))[0]
            if dataclasses.is_dataclass(hint):
                found |= names(hint, f"{prefix}{name}.")
                continue
            found.add(f"{prefix}{name}")
            if dataclasses.is_dataclass(inner):
                found |= names(inner, f"{prefix}{name}[].")
        return found

    rows = list(describe(TrainConfig))
    assert {name for name, *_ in rows} == names(TrainConfig)
    assert len(rows) == len({name for name, *_ in rows}) > 50
    assert [name for name, _, meaning, source in rows if not meaning or not source] == []
    told = {name: (default, source) for name, default, _, source in rows}
    assert told["optimiser.lr"] == ("0.0005", "S")
    assert told["stages[].entropy_bonus"] == ("0.001", "P")
    assert told["data.root"][0] == ""


def test_a_round_trip_through_yaml_and_json(tmp_path: Path) -> None:
    config = load(
        "stages=[{num_frames: [2, 4], steps: 3, categories: [a, b]}, {method: evidence}]", "optimiser.lr=1e-4",
        "optimiser.mixed_precision=bf16", "data.arguments={count: 3, deep: {a: [1]}}", "reference.also=[x/y]",
        "validation.max_drop=null",
    )  # fmt: skip
    assert TrainConfig.from_dict(config.to_dict()) == config
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    path = tmp_path / "c.yaml"
    for given in (config, TrainConfig()):
        path.write_text(yaml.safe_dump(given.to_dict()))
        assert TrainConfig.load(str(path)) == given


def test_words_replace_what_the_file_says(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("seed: 3\noptimiser: {lr: 1e-3, batch: 8}\nstages: [{num_frames: [2], lr: 2e-4}]\n")
    config = TrainConfig.load(str(path), ["optimiser.lr=1e-4", "validation.every=1e2", "policy.random_eyes=true"])
    assert (config.seed, config.optimiser.lr, config.optimiser.batch) == (3, 1e-4, 8)
    assert config.stages[0].lr == 2e-4
    assert config.validation.every == 100
    assert config.policy.random_eyes is True
    assert load("validation.num_frames=[4]").validation.num_frames == (4,)
    assert load("optimiser.mixed_precision=no").optimiser.mixed_precision == "no"  # YAML's false
    assert load("output=a=b").output == "a=b"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("sede=1", r"no setting 'sede'; did you mean 'seed'"),
        ("optimiser.rate=1", r"no setting 'optimiser.rate'; known are"),
        ("optimizer.lr=1", r"'optimizer'; did you mean 'optimiser'"),
        ("stages=[{frames: [2]}]", r"no setting 'stages\[0\]\.frames'"),
        ("watch.every=3", "the setting 'watch' is called 'validation' now"),
        ("policy.wording_noise=1", "the setting 'policy.wording_noise' is called 'policy.sentence_noise' now"),
        ("policy.question_mentions=1", "the setting 'policy.question_mentions' is called 'policy.entities' now"),
        ("seed=soon", "seed must be a whole number, not 'soon'"),
        ("seed=1.5", "seed must be a whole number"),
        ("seed=true", "seed must be a whole number, not True"),
        ("optimiser.lr=fast", "optimiser.lr must be a number, not 'fast'"),
        ("optimiser.lr=true", "optimiser.lr must be a number"),
        ("optimiser.lr=0", "optimiser.lr must be above 0"),
        ("optimiser.lr=nan", "optimiser.lr must be above 0"),
        ("optimiser.lr=null", "optimiser.lr must be a number, not None"),
        ("optimiser=3", "optimiser must be 'name: value' pairs"),
        ("optimiser.mixed_precision=fp8", "must be one of no, bf16, not 'fp8'"),
        ("optimiser.batch=0", "optimiser.batch must be at least 1"),
        ("stages=[]", "stages is empty"),
        ("stages=8", "stages must be a list"),
        ("stages=[{num_frames: 8}]", r"stages\[0\]\.num_frames must be a list"),
        ("stages=[{num_frames: []}]", "num_frames must be at least 1"),
        ("stages=[{num_frames: [two]}]", r"stages\[0\]\.num_frames\[0\] must be a whole number"),
        ("stages=[{rollouts: 1}]", "rollouts must be at least 2"),
        ("stages=[{entropy_bonus: -1}]", "entropy_bonus must be at least 0"),
        ("stages=[{method: luck}]", "must be one of reinforce, similarity, evidence"),
        ("stages.0.steps=4", "stages must be a list"),
        ("data.arguments=3", "data.arguments must be 'name: value' pairs"),
        ("data.train=[a]", "data.train must be text"),
        ("policy.random_eyes=1", "policy.random_eyes must be true or false"),
        ("objective.credit=pick", "objective.credit must be one of subset, prefix, not 'pick'"),
        ("objective.reward=score", "must be one of tanh_margin, probability_margin, probability, correct"),
        ("objective.temperature=0", "objective.temperature must be above 0"),
        ("validation.patience=0", "validation.patience must be at least 1"),
        ("filter.num_frames=0", "filter.num_frames must be at least 1"),
        ("keep_checkpoints=0", "keep_checkpoints must be at least 1"),
        ("seed", "'seed' is no setting; write name=value"),
        ("=1", "is no setting"),
        ("seed=[1", "the value is no YAML"),
    ],
)
def test_wrong_settings_are_named(word: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(word)


def test_wrong_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    with pytest.raises(InputError, match=r"cannot read .*c\.yaml"):
        TrainConfig.load(str(path))
    for content, message in (("a: [", "is no YAML"), ("- a\n- b\n", "must hold settings"), ("just words", "must hold")):
        path.write_text(content)
        with pytest.raises(InputError, match=message):
            TrainConfig.load(str(path))
    path.write_bytes(b"\xff\xfe\x00broken")
    with pytest.raises(InputError, match="cannot read"):
        TrainConfig.load(str(path))
    path.write_text("watch: {every: 3}\n")
    with pytest.raises(InputError, match="'watch' is called 'validation' now"):
        TrainConfig.load(str(path))
    path.write_text("")
    assert TrainConfig.load(str(path)) == TrainConfig()


def test_objects_are_checked_as_files_are() -> None:
    with pytest.raises(InputError):
        StageConfig(steps=0)
    with pytest.raises(InputError):
        ObjectiveConfig(passes=2)
    with pytest.raises(InputError):
        OptimiserConfig(micro_batch=0)


@pytest.mark.parametrize(
    "text", ["[" * 50_000, "{a: " * 300 + "1" + "}" * 300, "seed: 2024-13-45", "a: &b [*b]", "\x00"]
)
def test_yaml_that_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"c\.yaml"):
        TrainConfig.load(str(path))


def test_rows_of_a_damaged_log(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 2}\n' + b"[" * 100_000 + b'\n{"step": 3}\n')
    assert [row["step"] for row in rows(path)] == [1, 2]
    path.write_bytes(b'{"step": 1}\n[]\n')
    assert list(rows(path)) == [{"step": 1}]
    path.write_bytes('{"name": "\u2028"}\n{"step": "é"}'.encode()[:-3])  # a line ends at "\n" only
    assert list(rows(path)) == [{"name": "\u2028"}]


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"[" * 100_000])
def test_a_damaged_record_of_a_run(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "identity.json").write_bytes(content)
    with pytest.raises(InputError, match=r"identity\.json cannot be read"):
        read_object(tmp_path / "identity.json")
