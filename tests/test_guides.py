"""The guides of the documentation: their Python, run block by block as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.adapters import models, tiny

ROOT = Path(__file__).parents[1]
GUIDES = [
    "docs/start.md",
    "docs/agents.md",
    *sorted(f"docs/guides/{p.name}" for p in (ROOT / "docs/guides").glob("*.md")),
]
ELSEWHERE = {"docs/encoders.md", "docs/words.md", "docs/budget.md", "docs/engines.md"}  # their topics' tests


def blocks_of(page):
    return re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text("utf-8"), re.S | re.M)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder that looks like the repository's root to relative paths; names of the Hub give tiny models."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    processor = tiny.qwen2_5_vl()
    model = models.qwen2_5_vl(processor)
    monkeypatch.setattr("transformers.AutoProcessor.from_pretrained", lambda name: processor)
    monkeypatch.setattr("transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained", lambda name, **kwargs: model)
    return tmp_path


@pytest.fixture(autouse=True)
def registered():
    """What a guide registers is gone afterwards."""
    from refocus_select.encoders import registry as encoders
    from refocus_select.selectors import registry as selectors

    kept = [(registry, dict(vars(registry)["_registered"])) for registry in (selectors._SELECTORS, encoders._ENCODERS)]
    yield
    for registry, before in kept:
        vars(registry)["_registered"].clear()
        vars(registry)["_registered"].update(before)


@pytest.mark.parametrize("page", GUIDES)
def test_the_code_of_a_guide_runs(page, here):
    names: dict[str, object] = {}
    blocks = blocks_of(page)
    assert blocks
    for number, block in enumerate(blocks, start=1):
        exec(compile(block, f"{page}, block {number}", "exec"), names)


def test_no_page_with_code_is_left_out():
    pages = {str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")}
    assert {page for page in pages if blocks_of(page)} <= {*GUIDES, *ELSEWHERE}
