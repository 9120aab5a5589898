"""JSON from strangers: a value, or a `ValueError`."""

import json
import re

import pytest

from refocus_select.plain_text import (
    MAX_DEPTH,
    check_depth,
    is_utf8,
    json_text,
    markdown_block,
    markdown_code,
    markdown_paragraph,
    markdown_text,
    parse_json,
    printable,
    shown,
)


@pytest.mark.parametrize("text", ["", "{", b"\xff", "[" * 100_000, "{'a': 1}", '{"a":' * 5000, "\ufeff[]x"])
def test_what_is_no_json_is_a_value_error(text):
    with pytest.raises(ValueError):  # noqa: PT011 (of any text)
        parse_json(text)


def test_nesting_is_limited():
    inside = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert parse_json(inside)
    with pytest.raises(ValueError, match="deeper than"):
        parse_json(f"[{inside}]")
    assert parse_json(json.dumps([[]] * 1000)) == [[]] * 1000
    endless: list = []
    endless.append(endless)
    with pytest.raises(ValueError, match="deeper than"):
        check_depth(endless)


def test_a_number_of_many_digits_stays_what_it_is():
    digits = "9" * 5000
    assert parse_json(f'{{"a": {digits}, "b": 12, "c": -1.5}}') == {"a": digits, "b": 12, "c": -1.5}
    assert parse_json("1" + "0" * 30) == 10**30


def test_names_that_are_no_utf8_survive_json():
    name = b"caf\xe9.mp4".decode("utf-8", "surrogateescape")
    text = json_text({"video": name, "title": "Käse 🧀"})
    assert "Käse 🧀" in text
    assert json.loads(text.encode("utf-8")) == {"video": name, "title": "Käse 🧀"}
    assert not is_utf8(name)
    assert is_utf8("Käse 🧀")
    assert printable(name) == "caf\\udce9.mp4"


def test_numbers_that_are_not_finite_are_not_written():
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_text([float("nan")])


def test_any_value_can_be_shown():
    class Rude:
        def __repr__(self):
            raise RuntimeError("no")

    endless: list = []
    endless.append(endless)
    for value in (Rude(), endless, 10**5000, "\ud800" * 500, ["a" * 10**6] * 10**4, {"a": {"b": [1] * 999}}):
        assert is_utf8(shown(value))
        assert len(shown(value)) < 1000


@pytest.mark.parametrize("text", ["a", "`a`", "a``b", "```", "| x", "<b>", ""])
def test_code_in_markdown_ends_where_it_ends(text):
    found = markdown_code(text)
    ticks = re.match("`+", found)[0]
    inside = found[len(ticks) : -len(ticks)]
    assert found.endswith(ticks)
    assert inside.strip() == text
    assert ticks not in inside


def test_a_block_of_code_ends_where_it_ends():
    assert markdown_block("a: 1\n", "yaml") == "```yaml\na: 1\n```"
    assert markdown_block("a: |\n  ```\n  # out\n") == "````\na: |\n  ```\n  # out\n````"


def test_nothing_of_a_text_is_marked_up():
    assert markdown_text("a|b\n# c <b> $x$ [l](u) _m_ a_b") == r"a\|b # c \<b> \$x\$ [l]\(u) \_m\_ a_b"
    assert [markdown_paragraph(text) for text in ("# a", "1. b", "- c")] == [r"\# a", r"1\. b", r"\- c"]
