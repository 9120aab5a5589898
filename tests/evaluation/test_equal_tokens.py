"""Selectors compared at equal measured tokens."""

from __future__ import annotations

import pytest

from refocus_select.evaluation.qa import Prediction
from refocus_select.evaluation.tables import at_equal_tokens


def prediction(name: int, selector: str, frames: int, tokens: int, right: bool) -> Prediction:
    return Prediction(
        id=f"q{name}", video=f"v{name}", selector=selector, num_frames=frames, indices=(0,), timestamps=(0.0,),
        strategy="selected", choice=int(right), target=1, tokens=tokens,
    )  # fmt: skip


def test_a_selector_is_read_at_the_tokens_of_the_baseline() -> None:
    results = []
    for k in range(4):
        results += [prediction(k, "uniform", frames, 100 * frames, k == 0) for frames in (4, 8)]
        # frames near each other: half the tokens; right on two questions with four frames, on all with eight
        results += [prediction(k, "near", frames, 50 * frames, frames == 8 or k < 2) for frames in (4, 8, 16)]
    found = {item.baseline_frames: item for item in at_equal_tokens(results, lambda r: float(r.correct))}
    assert sorted(found) == [4, 8]
    assert (found[4].tokens, found[4].frames, found[4].value.mean) == (400, 8, 1.0)
    assert found[4].gain.mean == pytest.approx(0.75)
    assert (found[8].frames, found[8].value.mean) == (16, 0.5)


def test_between_two_numbers_of_frames_values_change_in_a_straight_line_and_nothing_is_guessed() -> None:
    results = [prediction(k, "uniform", 4, 300, False) for k in range(3)]
    results += [prediction(k, "other", 4, 200, False) for k in range(3)]
    results += [prediction(k, "other", 8, 400, True) for k in range(3)]
    (found,) = at_equal_tokens(results, lambda r: float(r.correct))
    assert (found.selector, found.frames, found.value.mean) == ("other", 6, 0.5)
    far = [r for r in results if not (r.selector == "other" and r.num_frames == 8)]
    assert at_equal_tokens(far, lambda r: float(r.correct)) == []
