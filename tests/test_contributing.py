"""What CONTRIBUTING.md shows works as it stands there, and the files for citing and building agree."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path

import numpy as np
import yaml

import refocus_select
from refocus_select.adapters.families import FAMILIES, ROUTES, Family, table
from refocus_select.selectors.algorithms import uniform

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
FAMILY, ALGORITHM, CASE = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def test_a_new_family_is_one_row() -> None:
    family = eval(FAMILY, {"Family": Family})
    assert family.route in ROUTES
    assert not {name for f in FAMILIES for name in f.model_types} & set(family.model_types)
    assert "| `<3.4 seconds>` | millisecond metadata; frames within a second share a group" in table([family])


def test_a_new_algorithm_is_one_function() -> None:
    names: dict = {}
    exec(ALGORITHM + CASE, names)
    names["test_peaks"]()
    times = np.arange(40.0)
    picks = names["peaks"](np.random.default_rng(0).normal(size=40), 12, timestamps=times)
    assert len(picks) == 12
    assert (np.diff(picks) > 0).all()
    assert names["peaks"](np.zeros(40), 8, timestamps=times).tolist() == uniform(times, 8).tolist()


def test_every_target_and_file_that_is_named_exists() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = re.findall(r"make ([a-z][a-z-]+)", TEXT)
    assert {"test", "lint", "lock", "test-latest", "test-oldest", "test-engines"} <= set(targets)
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for name in re.findall(r"`([\w./-]+\.(?:py|txt|toml|md))`", TEXT):
        inside = ROOT / "refocus_select/selectors"
        assert (ROOT / name).is_file() or (inside / name).is_file(), name


def test_the_citation_names_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == refocus_select.__version__ == version("refocus-select")
    assert citation["references"][0]["url"] in (ROOT / "pyproject.toml").read_text("utf-8")


def test_the_locked_releases_have_hashes_and_no_addresses() -> None:
    for name in ("runtime", "dev"):
        text = (ROOT / f"requirements/{name}.txt").read_text("utf-8")
        assert "://" not in text
        requirements = text.replace("\\\n", "").splitlines()
        assert len(requirements) > 50
        assert all(re.match(r"[\w.-]+(\[[\w,]+\])?==\S+ .*--hash=sha256:[0-9a-f]{64}", line) for line in requirements)
    runtime = re.findall(r"^(\S+==\S+)", (ROOT / "requirements/runtime.txt").read_text("utf-8"), re.MULTILINE)
    dev = (ROOT / "requirements/dev.txt").read_text("utf-8")
    assert [line for line in runtime if line not in dev] == []  # one environment can hold both
    assert not [line for line in runtime if line.startswith(("ray==", "datasets==", "pytest=="))]
