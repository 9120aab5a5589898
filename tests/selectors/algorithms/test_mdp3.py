"""MDP3 against a plain reading of its definition: determinants, all states, no shared work."""

from __future__ import annotations

import numpy as np
import pytest

from refocus_select.selectors.algorithms import mdp3, uniform

PAPER = [2.0**e for e in (-3, -2, 0, 1, 2)]
RELEASED = [2.0**e for e in (-3, -2, -1, 0, 1)]


def kernel(a, b, widths):
    apart = ((a[:, None] - b) ** 2).sum(axis=2)
    return sum(np.exp(-apart / (2 * width)) for width in widths)


def plain_mdp3(embeddings, question, count, size, *, faithful):
    widths = RELEASED if faithful else PAPER
    whole = kernel(embeddings, embeddings, widths)
    relevance = 2 / 0.2 * np.log(kernel(embeddings, question[None], widths)[:, 0])

    def value(frames):
        return relevance[frames].sum() + np.linalg.slogdet(whole[np.ix_(frames, frames)])[1] if frames else 0.0

    states = {0: (0.0, [])}
    for start in range(0, len(embeddings), size):
        part = list(range(start, min(start + size, len(embeddings))))
        following = dict(states)
        for before, (so_far, trace) in sorted(states.items()):
            condition = trace[-1:]
            taken = []
            while len(taken) < min(count - before, len(part)):
                rest = [i for i in part if i not in taken]
                taken.append(max(rest, key=lambda i: value([*condition, *taken, i])))
                gain = value(condition + taken) - (0.0 if faithful else value(condition))
                total = so_far + gain
                if before + len(taken) not in following or total > following[before + len(taken)][0]:
                    following[before + len(taken)] = (total, trace + sorted(taken))
        states = following
    return states[count][1]


def video(seed, total=24, width=6):
    generator = np.random.default_rng(seed)
    steps = generator.normal(size=(total, width)).cumsum(axis=0) + generator.normal(size=width)
    embeddings = steps / np.linalg.norm(steps, axis=1, keepdims=True)
    question = generator.normal(size=width)
    return embeddings, question / np.linalg.norm(question)


@pytest.mark.parametrize("faithful", [False, True])
@pytest.mark.parametrize("count", [1, 2, 5, 9])
def test_mdp3_agrees_with_the_definition(count, faithful):
    for seed in range(6):
        embeddings, question = video(seed)
        expected = plain_mdp3(embeddings, question, count, 8, faithful=faithful)
        picks = mdp3(
            embeddings @ question,
            count,
            timestamps=np.arange(24.0),
            embeddings=embeddings,
            segment=8,
            faithful=faithful,
        )
        assert picks.tolist() == expected, seed


def test_counting_the_condition_again_changes_the_answer():
    """The released code's value favours taking frames in another segment when r > 1: other frames come out."""
    answers = []
    for seed in range(10):
        embeddings, question = video(seed)
        inputs = {"timestamps": np.arange(24.0), "embeddings": embeddings, "segment": 4}
        answers.append([mdp3(embeddings @ question, 6, faithful=f, **inputs).tolist() for f in (False, True)])
    assert any(sound != released for sound, released in answers)


def test_mdp3_with_one_segment_is_greedy():
    embeddings, question = video(3)
    scores = embeddings @ question
    picks = mdp3(scores, 1, timestamps=np.arange(24.0), embeddings=embeddings)
    assert picks.tolist() == [int(scores.argmax())]


def test_mdp3_survives_frames_that_are_all_alike():
    embeddings = np.tile(np.array([[0.6, 0.8]]), (100, 1))
    scores = np.linspace(0, 0.5, 100)
    picks = mdp3(scores, 40, timestamps=np.arange(100.0), embeddings=embeddings)
    assert len(set(picks.tolist())) == 40
    flat = mdp3(np.full(100, 0.2), 40, timestamps=np.arange(100.0), embeddings=embeddings)
    assert flat.tolist() == uniform(np.arange(100.0), 40).tolist()


def test_a_last_segment_that_is_short_takes_part():
    """The released code reads over the end of a video whose length is not a multiple of the segment."""
    embeddings, _ = video(1, total=35)
    scores = np.zeros(35)
    scores[34] = 1.0
    assert 34 in mdp3(scores, 3, timestamps=np.arange(35.0), embeddings=embeddings).tolist()
