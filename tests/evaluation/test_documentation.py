"""The page for researchers: its commands parse, its names exist."""

from __future__ import annotations

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

from refocus_select import cli
from refocus_select.evaluation.formats import BENCHMARKS

PAGE = (Path(__file__).parents[2] / "refocus_select" / "evaluation" / "README.md").read_text("utf-8")
COMMANDS = [
    shlex.split(match[1])
    for match in re.finditer(
        r"^    (?:torchrun --nproc-per-node 8 -m refocus_select|refocus-select) (evaluate .*)$",
        PAGE.replace("\\\n", " "),
        re.M,
    )
]


def test_there_are_commands():
    assert {command[1] for command in COMMANDS} == {"qa", "evidence", "needle", "export"}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command[1:3]))
def test_the_command_line_understands_them(command):
    assert callable(cli._parser().parse_args(command).run)


def test_all_benchmarks_are_listed():
    listed = re.findall(r"^\| `(\w+)` \|", PAGE.split("## Benchmarks")[1].split("## Evidence")[0], re.M)
    assert listed == [*BENCHMARKS, "questions"]


def test_the_functions_it_names_exist():
    named = re.findall(
        r"`(refocus_select\.)?(\w+)\.(\w+)`", PAGE.split("The functions behind the commands")[1].split("##")[0]
    )
    assert len(named) == 6
    for package, module, name in named:
        assert callable(getattr(import_module(f"{package or 'refocus_select.evaluation.'}{module}"), name))
