"""The page on encoders: its code blocks that need no download run, and say what they print."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "encoders.md"


def test_the_code_of_the_page_runs() -> None:
    blocks = re.findall(r"<!-- run -->\n```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 2
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)
    last = blocks[1].strip().splitlines()[-1]
    call, printed = last.split("  # ")
    assert repr(eval(call, names)) == printed


@pytest.mark.parametrize("name", re.findall(r"`refocus_select\.[a-z_.]+[A-Za-z]*`", PAGE.read_text(encoding="utf-8")))
def test_what_it_names_is_there(name: str) -> None:
    from importlib import import_module

    module, _, attribute = name.strip("`").rpartition(".")
    assert module == "refocus_select" or hasattr(import_module(module), attribute)
