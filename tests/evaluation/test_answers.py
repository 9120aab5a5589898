"""What a model says, and which option it means."""

from __future__ import annotations

import pytest

from refocus_select.evaluation.answers import parse_choice, prompt_of
from refocus_select.questions import Question

OPTIONS = ("a red car", "A book", "the cup", "nothing of these")


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("B", 1),
        (" b.", 1),
        ("(C)", 2),
        ("**D**", 3),
        ("C: the cup", 2),
        ("B. A book", 1),
        ("A) a red car", 0),
        ("D - nothing", 3),
        ("The answer is (B).", 1),
        ("The best option is C because of the handle", 2),
        ("Answer: **A**", 0),
        ("I first thought the answer is A. But the answer is D.", 3),
        ("Best option: (C", 2),
        ("It must be (D), as nothing else fits", 3),
        ("the cup", 2),
        ("I see a red car in the street.", 0),
        ("<think>The answer is A.</think>\n\nC", 2),
        ("thinking … the answer is A</think> B", 1),
        # no answer
        ("", None),
        ("A man walks his dog.", None),
        ("E", None),
        ("The answer is unclear.", None),
        ("(A) or (B)", None),
        ("a red car or the cup", None),
        ("I cannot tell.", None),
        ("\U0001f600", None),
    ],
)
def test_parse(text, choice):
    assert parse_choice(text, OPTIONS) == choice


def test_an_option_within_another_does_not_confuse():
    assert parse_choice("It is a red car there", ("a red car", "red", "car")) == 0
    assert parse_choice("10", ("1", "10", "100")) == 1


def test_two_equal_options_are_no_answer():
    assert parse_choice("red", ("red", "Red")) is None


def test_prompt():
    question = Question("q", "v.mp4", "What is there?", ("a car", "a cup"), 0)
    assert prompt_of(question).splitlines()[:3] == ["What is there?", "A. a car", "B. a cup"]
    assert prompt_of(question).splitlines()[-1].startswith("Answer with the option's letter")
    assert prompt_of(question, preamble="Look.", instruction="Best option: (").splitlines() == [
        "Look.", "What is there?", "A. a car", "B. a cup", "Best option: (",
    ]  # fmt: skip
    assert prompt_of(question, instruction="") == "What is there?\nA. a car\nB. a cup"
