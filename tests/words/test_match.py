"""Who decides, and which frames show what is meant."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from refocus_select import FrameSelector, VideoEncoding
from refocus_select.selectors.words import UNSURE, cover_lines, word_matches
from refocus_select.words import Line, Transcript
from refocus_select.words.asking import what_is_asked
from refocus_select.words.found import VideoWords
from refocus_select.words.match import OPEN_UNASKED, frames_of, words_decide
from refocus_select.words.sentences import sentences_for

LECTURE = (
    "We draw the straight line that comes nearest to all the dots.",
    "Imagine standing on a hill in fog and feeling which way leads down.",
    "The model memorises the training data, noise and all.",
    "A doctor asks one question after another until only one illness is left.",
    "A camera system missed dark faces, since it had hardly seen any.",
    "Tomorrow we shall meet in the large hall beside the library.",
)
SECONDS = 10.0


@pytest.fixture(scope="module")
def policy():
    return FrameSelector.from_pretrained("mini-policy")


@pytest.fixture(scope="module")
def encoding(policy):
    """One candidate a second; a scene of random vectors, alike within ten seconds, for each line."""
    generator = torch.Generator().manual_seed(1)
    scenes = torch.nn.functional.normalize(
        torch.randn(len(LECTURE), policy.encoder.dimensions, generator=generator), dim=-1
    )
    vectors = scenes.repeat_interleave(int(SECONDS), 0)
    vectors = vectors + 0.01 * torch.randn(vectors.shape, generator=generator)
    plain = VideoEncoding.from_vectors(vectors, np.arange(len(vectors)) + 0.5, encoder=policy.encoder)
    return replace(plain, words=words_of(policy, LECTURE))


def words_of(policy, texts, source="spoken"):
    lines = [Line(SECONDS * k + 2, SECONDS * k + 6, text, source) for k, text in enumerate(texts)]
    return VideoWords.of(Transcript.of(lines), sentences_for(policy.encoder))


def lines_shown(selection):
    return {int(t // SECONDS) for t in selection.timestamps}


def test_a_paraphrase_without_the_word_itself_opens_the_gate(policy, encoding):
    chosen = policy.select(encoding, "Where does she explain overfitting?", num_frames=4)
    assert chosen.quotes[0].text == LECTURE[2]
    assert 2 in lines_shown(chosen)
    assert UNSURE not in chosen.warnings


@pytest.mark.parametrize(
    ("question", "line"),
    [
        ("At which point does he talk about linear regression?", 0),
        ("What can be seen while she mentions that some people were not recognised by the machine?", 4),
        ("When is the meeting place of the next day mentioned?", 5),
    ],
)
def test_what_is_said_in_other_words_is_found(policy, encoding, question, line):
    assert line in lines_shown(policy.select(encoding, question, num_frames=4))


def test_what_is_not_said_is_not_claimed(policy, encoding):
    for question in ("Where does she explain the rules of ice hockey?", "When is the price of olive oil mentioned?"):
        chosen = policy.select(encoding, question, num_frames=4)
        assert not chosen.quotes or UNSURE in chosen.warnings


@pytest.mark.parametrize(
    ("question", "scene"),
    [
        ("What comes right after she says that the model learns its examples by heart?", 3),
        ("Which slide precedes the talk about a model that memorises its training data?", 1),
    ],
)
def test_the_policy_reads_lines_as_it_reads_pictures(policy, encoding, question, scene):
    """The weights are the shipped ones; the rows of similarity are those of the words."""
    chosen = policy.select(encoding, question, num_frames=4)
    assert scene in lines_shown(chosen)
    assert chosen.quotes[0].text == LECTURE[2]


TAXES = (
    "We begin with the history of the town.",
    "Taxes on land were raised twice in that decade.",
    "The harbour was built by monks.",
    "A fire destroyed the northern quarter.",
    "Later the taxes on land were abolished.",
    "Today tourists come for the fish market.",
)


@pytest.mark.parametrize(
    ("question", "scene", "name"),
    [
        ("When does she mention taxes on land for the first time?", 1, "mini"),
        ("When are taxes on land mentioned for the last time?", 4, "mini"),
        ("When does she mention taxes on land for the first time?", 1, "mini-policy"),
        ("What comes right after she says that the harbour was built by monks?", 3, "mini-policy"),
        (
            "What comes between the remark that the harbour was built by monks and the remark that the taxes on land "
            "were abolished?",
            3,
            "mini-policy",
        ),
    ],
)
def test_when_relative_to_what_is_said(policy, encoding, question, scene, name):
    chooser = policy if name == "mini-policy" else FrameSelector.from_pretrained(name)
    chosen = chooser.select(replace(encoding, words=words_of(policy, TAXES)), question, num_frames=3)
    shown = (chosen.timestamps // SECONDS).astype(int)
    assert np.bincount(shown).argmax() == scene, shown


def test_questions_about_pictures_are_answered_to_the_bit_as_without_words(policy, encoding):
    questions = ["Which animal runs over the meadow?", "What comes after the red car?", "Who wins?"]
    with_words = policy.select(encoding, questions, num_frames=8)
    without = policy.select(replace(encoding, words=None), questions, num_frames=8)
    for one, other in zip(with_words, without, strict=True):
        assert one.indices.tolist() == other.indices.tolist()
        assert one.scores.tobytes() == other.scores.tobytes()
        assert one.warnings == other.warnings


def test_the_gate_weighs_what_is_asked_what_is_said_and_what_is_seen():
    clause, cue, none = map(
        what_is_asked, ("Where does she explain trees?", "the slide with trees", "Where are trees?")
    )
    decided = {
        kind: [words_decide(asked, prominence, lambda: 5.0) for prominence in (-2.0, 2.0, 5.0, 8.0)]
        for kind, asked in (("clause", clause), ("cue", cue), ("none", none))
    }
    assert decided == {
        "clause": [False, True, True, True],
        "cue": [False, False, True, True],
        "none": [False, False, False, True],
    }
    assert not words_decide(none, OPEN_UNASKED + 1, lambda: OPEN_UNASKED + 2)

    def never():
        raise AssertionError("the pictures need not be looked at")

    words_decide(clause, 5.0, never)
    words_decide(none, 1.0, never)


def test_what_the_pictures_show_clearly_keeps_the_words_out(policy, encoding):
    words = words_of(policy, ("Galaxies", *LECTURE[1:]))
    named = replace(encoding, words=words)
    ((_, decides),) = word_matches(named, ["Galaxies"], policy.encoder, lambda encoding, question: 0.0)
    assert decides
    ((_, decides),) = word_matches(named, ["Galaxies"], policy.encoder, lambda encoding, question: 1000.0)
    assert not decides


def test_a_question_for_a_title_means_the_title(policy, encoding):
    both = (*LECTURE, "The model memorises the training data")
    lines = [Line(SECONDS * k + 2, SECONDS * k + 6, text) for k, text in enumerate(both[:-1])]
    words = VideoWords.of(
        Transcript.of([*lines, Line(52.0, 58.0, both[-1], "written", 55.0)]), sentences_for(policy.encoder)
    )
    mixed = replace(encoding, words=words)
    title = policy.select(mixed, "Which slide is titled “The model memorises the training data”?", num_frames=1)
    said = policy.select(mixed, "When does she say that the model memorises the training data?", num_frames=1)
    assert lines_shown(title) == {5}
    assert lines_shown(said) == {2}


def test_frames_go_to_several_lines_unless_one_is_sure(policy, encoding):
    sure, unsure = (
        word_matches(encoding, [question], policy.encoder)[0][0]
        for question in (f"Who says that {LECTURE[1][:-1]}?", "Where does he talk about people?")
    )

    def spread(match):
        return len({int(encoding.timestamps[pick] // SECONDS) for pick in cover_lines(match, encoding.timestamps, 3)})

    assert spread(sure) == 1
    assert spread(unsure) > 1
    assert len(set(cover_lines(sure, encoding.timestamps, 1000).tolist())) == len(encoding)


def test_a_line_lends_weight_while_it_is_said_and_after_it():
    times = np.arange(0.0, 20.0)
    spoken = frames_of(Line(5.0, 8.0, "x"), times)
    assert (spoken[5:9] >= 0.9).all()
    assert spoken.argmax() in (6, 7)
    assert 0 < spoken[10] < spoken[9] < 1
    assert spoken[:5].max() == spoken[12:].max() == 0
    written = frames_of(Line(5.0, 8.0, "x", "written", 6.9), times)
    assert written.argmax() == 7
    assert written[9:].max() == 0
    short = frames_of(Line(5.4, 5.5, "x"), times)
    assert short[5] == 1


def test_ten_hours_of_lines(policy):
    rng = np.random.default_rng(0)
    nouns = ("river", "tax", "guitar", "engine", "bakery", "planet", "judge", "goalkeeper", "virus", "harbour")
    lines = [
        Line(3.0 * k, 3.0 * k + 2.5, f"Item {k}: the {rng.choice(nouns)} and the {rng.choice(nouns)}.")
        for k in range(12_000)
    ]
    lines[7_000] = Line(21_000.0, 21_003.0, "Marmots whistle when an eagle is near.")
    vectors = torch.nn.functional.normalize(torch.randn(256, policy.encoder.dimensions), dim=-1)
    times = np.linspace(0, 36_000, 256)
    plain = VideoEncoding.from_vectors(vectors, times, encoder=policy.encoder)
    known = torch.nn.functional.normalize(torch.randn(len(lines), 384), dim=-1)
    sentences = sentences_for(policy.encoder)
    known[7_000] = sentences.encode([lines[7_000].text])[0]
    words = VideoWords(Transcript(tuple(lines)), known, sentences.fingerprint)
    chosen = policy.select(replace(plain, words=words), "Where does he explain that marmots whistle?", num_frames=4)
    assert chosen.quotes[0].text == lines[7_000].text
    assert np.abs(chosen.timestamps - 21_001.5).min() < 100
