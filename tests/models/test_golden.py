"""The recorded outputs of the authors' code, and the command that holds the network against them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import pytest
import torch
from safetensors.torch import load_file, save_file

from refocus_select.errors import InputError, SelectorLoadError
from refocus_select.models.prompt import (
    IMAGE_MARKER,
    IMAGE_TOKEN_ID,
    PromptTokenizer,
    multiple_choice_text,
    prompt_text,
)

from .. import golden
from .tiny import byte_tokenizer

DATA = Path(__file__).parents[1] / "data" / "golden"
CASES = ("a_ar_scalar", "b_ar_vector_rank_groups", "f_geometry384")


@pytest.mark.parametrize("case", CASES)
def test_every_recorded_tensor_holds(case: str) -> None:
    rows = list(golden.check_case(DATA / case))
    assert len(rows) > 50
    assert [row for row in rows if not row.holds] == []


def test_resizing_pixels_candidates_export_and_marginals_hold() -> None:
    rows = list(golden.check_aux(DATA / "aux"))
    assert len(rows) == 50
    assert [row for row in rows if not row.holds] == []


@pytest.mark.parametrize("code", ["disabled", "sse42", "avx2"])
def test_resizing_holds_on_other_processors(code: str) -> None:
    """OpenCV reads the choice when it is imported; where it has no such choice, the run is the usual one."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.golden", str(DATA / "aux")],
        env={**os.environ, "OPENCV_IPP": code},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_another_rule_of_resizing_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    stock = cv2.resize
    monkeypatch.setattr(cv2, "resize", lambda frame, shape, interpolation: stock(frame, shape))  # bilinear
    failed = {row.name for row in golden.check_aux(DATA / "aux") if not row.holds}
    cases = ("down_both", "up_384", "up_both", "w_down_h_up", "w_same_h_down", "w_up_h_down")
    assert failed == {f"resize.{case}" for case in cases}


def test_the_command_fails_when_something_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = tmp_path / "case"
    shutil.copytree(DATA / "a_ar_scalar", case)
    assert golden.main([str(case)]) == 0
    outputs = load_file(case / "outputs.safetensors")
    outputs["keys"][3, 5] += 1e-3
    outputs["unheard_of"] = torch.zeros(2)
    save_file(outputs, case / "outputs.safetensors")
    capsys.readouterr()
    assert golden.main([str(case)]) == 1
    failed = [line.split()[1] for line in capsys.readouterr().out.splitlines() if "FAIL" in line]
    assert failed == ["keys", "unheard_of"]
    config = json.loads((case / "config.json").read_text())
    (case / "config.json").write_text(json.dumps({**config, "d_intermediate": 8}))
    assert golden.main([str(case)]) == 2
    assert "d_intermediate=8" in capsys.readouterr().out


def test_differences_see_infinities_shapes_and_nan() -> None:
    inf = float("inf")
    assert golden.difference(torch.tensor([1.0, -inf]), torch.tensor([1.5, -inf])) == 0.5
    for wrong in (
        torch.tensor([1.5, 3.0]),
        torch.tensor([1.5, inf]),
        torch.tensor([float("nan"), -inf]),
        torch.ones(1),
    ):
        assert golden.difference(wrong, torch.tensor([1.5, -inf])) == inf


class RecordedTokenizer:
    """Answers with the recorded ids of each piece of the golden prompts."""

    def __init__(self, prompts: list[dict]) -> None:
        self.table: dict[str, list[int]] = {}
        for entry in prompts:
            ids: list[list[int]] = [[]]
            for token in entry["input_ids"]:
                if token == IMAGE_TOKEN_ID:
                    ids.append([])
                else:
                    ids[-1].append(token)
            self.table |= dict(zip(entry["prompt"].split(IMAGE_MARKER), ids, strict=True))

    def encode(self, text: str, *, add_special_tokens: bool) -> SimpleNamespace:
        assert not add_special_tokens
        return SimpleNamespace(ids=self.table[text])


def test_prompts_are_the_recorded_ones() -> None:
    prompts = json.loads((DATA / "aux" / "prompts.json").read_text())
    tokenizer = PromptTokenizer(RecordedTokenizer(prompts))  # type: ignore[arg-type]
    assert len(prompts) == 6
    for entry in prompts:
        text = entry["question"]
        assert prompt_text(text) == entry["prompt"]
        assert tokenizer.encode(text) == entry["input_ids"]
        marker = entry["input_ids"].index(IMAGE_TOKEN_ID)
        if text.find(IMAGE_MARKER) > 0:
            with pytest.raises(InputError, match="would move the frames"):
                tokenizer.suffix(text)
        else:
            assert tokenizer.prefix().tolist() == entry["input_ids"][:marker]
            assert tokenizer.suffix(text).tolist() == entry["input_ids"][marker + 1 :]


def test_answer_options_are_worded_as_recorded() -> None:
    recorded = json.loads((DATA / "aux" / "prompts.json").read_text())[1]["question"]
    options = ["A dog runs.", "A car stops.", "It rains.", "The door opens."]
    assert multiple_choice_text("What happens last?", options) == recorded
    assert "(A, or B)" in multiple_choice_text("Which?", ["this", "that"])
    for wrong in ([], ["one"], ["x"] * 27):
        with pytest.raises(InputError, match="2 to 26 options"):
            multiple_choice_text("Which?", wrong)


def test_more_than_one_marker_is_refused_and_a_leading_one_is_the_default() -> None:
    tokenizer = PromptTokenizer(byte_tokenizer())
    assert torch.equal(tokenizer.suffix("<image>\nWhy?"), tokenizer.suffix("Why?"))
    assert tokenizer.encode("Why?").count(IMAGE_TOKEN_ID) == 1
    with pytest.raises(InputError, match="without the marker"):
        tokenizer.suffix("<image> and <image>")


def test_a_damaged_tokenizer_is_named(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    for content in (None, "{}", "half of"):
        if content is not None:
            file.write_text(content)
        with pytest.raises(SelectorLoadError, match=r"tokenizer\.json"):
            PromptTokenizer.from_file(file)
