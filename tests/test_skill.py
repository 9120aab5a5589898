"""The skill for agents: its front matter is what they look for, and its commands are those of the command line."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import yaml

from refocus_select import cli

SKILL = Path(__file__).parents[1] / "skills" / "refocus-select" / "SKILL.md"
TEXT = SKILL.read_text("utf-8")


def test_front_matter():
    _, head, body = TEXT.split("---\n", 2)
    facts = yaml.safe_load(head)
    assert facts.keys() == {"name", "description", "license"}
    assert facts["name"] == SKILL.parent.name
    assert re.fullmatch(r"[a-z0-9-]{1,64}", facts["name"])
    assert 50 < len(facts["description"]) <= 1024
    assert len(body.splitlines()) < 500


def test_commands_parse_as_they_stand():
    commands = re.findall(r"refocus-select (?:info|select|index|search)[^`\n]*", TEXT)
    assert len(commands) >= 4
    for command in commands:
        cli._parser().parse_args(shlex.split(command)[1:])
    options = set(re.findall(r"`(--[a-z-]+)", TEXT)) | set(re.findall(r" (--[a-z-]+)", TEXT))
    help_text = _help_of("select")
    assert [option for option in options if option not in help_text] == []


def test_the_tools_of_the_server_are_named():
    from refocus_select.mcp.server import _Tools

    named = set(re.findall(r"`([a-z_]+)`", TEXT.split("## Steps")[0]))
    assert named == {name for name in vars(_Tools) if not name.startswith("_")}


def _help_of(command):
    import contextlib
    import io

    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        cli._parser().parse_args([command, "--help"])
    return out.getvalue()
