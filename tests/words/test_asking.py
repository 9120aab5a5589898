"""What questions ask of words."""

from __future__ import annotations

import pytest

from refocus_select.words.asking import what_is_asked


@pytest.mark.parametrize(
    ("question", "contents"),
    [
        ("Where does she explain overfitting?", ("overfitting",)),
        ("At which point does the professor talk about the price of bread?", ("the price of bread",)),
        ("What is on the screen while he says that taxes will rise?", ("taxes will rise",)),
        ("Find the part about winter wheat.", ("winter wheat",)),
        ("When is the trial mentioned?", ("the trial",)),
        ("Who tells the others that the dam has burst?", ("the dam has burst",)),
        ("Which slide mentions the bias?", ("the bias",)),
        ("What does he say about life after death?", ("life after death",)),
    ],
)
def test_what_is_said_is_told_in_a_clause(question, contents):
    asked = what_is_asked(question)
    assert asked.contents == contents
    assert asked.clause
    assert asked.for_words
    assert not asked.relation


@pytest.mark.parametrize(
    ("question", "relation", "contents"),
    [
        ("What comes right after she says that the dam has burst?", "after", ("the dam has burst",)),
        ("Once he has mentioned the trial, what do we see?", "after", ("the trial",)),
        ("Which slide precedes the talk about gravity?", "before", ("gravity",)),
        ("What is shown just before the trial is mentioned?", "before", ("the trial",)),
        ("What happens between the talk about trees and the talk about roots?", "between", ("trees", "roots")),
        ("When does she mention taxes for the first time?", "first", ("taxes",)),
        ("When are taxes mentioned for the last time?", "last", ("taxes",)),
        ("What follows the title “Second act”?", "after", ("Second act",)),
    ],
)
def test_when_relative_to_what_is_said(question, relation, contents):
    asked = what_is_asked(question)
    assert (asked.relation, asked.contents) == (relation, contents)
    assert asked.for_words


def test_writing():
    for question in ("Which slide is titled “Trees”?", "Where is “Trees” written?", "the slide with the formula"):
        asked = what_is_asked(question)
        assert asked.for_writing
        assert asked.for_words
    assert not what_is_asked("What is on the next slide after he mentions trees?").for_writing


@pytest.mark.parametrize(
    "question",
    [
        "Which animal runs over the meadow?",
        "What does the man with the hat do after the dog barks?",
        "What does the sign say?",  # it names nothing that could be looked for
        "Who is talking?",
        "Where in the credits does the squirrel show up?",
    ],
)
def test_questions_about_pictures(question):
    assert not what_is_asked(question).for_words
