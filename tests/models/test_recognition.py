"""Whether a thing is to be seen: the peak of its match beside those of unrelated texts."""

from __future__ import annotations

import pytest
import torch

from refocus_select.models.recognition import UNRELATED, peak_size, prominence, rank, seen

WIDTH = 96


def video(shown: torch.Tensor, frames: int = 40, seed: int = 0) -> torch.Tensor:
    """Unlike frames, four of which show a thing."""
    draw = torch.Generator().manual_seed(seed)
    rows = torch.randn(frames, WIDTH, generator=draw)
    rows[10:14] += 4 * shown / shown.norm() * WIDTH**0.5 / 4
    return rows


@pytest.mark.parametrize("scale", [1.0, 20.0])
@pytest.mark.parametrize("gap", [0.0, 5.0])
def test_what_is_there_stands_out_and_what_is_not_does_not(scale: float, gap: float) -> None:
    draw = torch.Generator().manual_seed(1)
    texts, unrelated = torch.randn(30, WIDTH, generator=draw), torch.randn(len(UNRELATED), WIDTH, generator=draw)
    aside = gap * torch.randn(WIDTH, generator=draw) / WIDTH**0.5
    there, absent = (
        torch.stack([prominence(scale * video(texts[i - back], seed=i), text + aside, unrelated + aside)
                     for i, text in enumerate(texts)])
        for back in (0, 1)
    )  # fmt: skip
    assert float(there.median()) > 4
    assert float(absent.median()) < 2.5  # the best of forty frames
    assert float((there[:, None] > absent).float().mean()) > 0.95


def test_questions_are_recognised_by_any_of_their_things() -> None:
    draw = torch.Generator().manual_seed(2)
    thing, other = torch.randn(2, WIDTH, generator=draw)
    unrelated = torch.randn(len(UNRELATED), WIDTH, generator=draw)
    frames, none = video(thing), torch.zeros(WIDTH)
    texts = torch.stack([torch.stack(pair) for pair in ((thing, none), (other, none), (other, thing), (none, none))])
    assert seen(frames, texts, unrelated, 0.99) == [True, False, True, True]
    assert seen(frames, texts, unrelated, None) == [True] * 4


@pytest.mark.parametrize("liked", [-3.0, 3.0])
def test_what_an_encoder_likes_whatever_it_sees_does_not_decide(liked: float) -> None:
    """A text's constant similarity with all frames: disliked, it is still found; liked, an absent thing still ranks."""
    draw = torch.Generator().manual_seed(3)
    frames = torch.cat([video(thing := torch.randn(WIDTH, generator=draw)), torch.full((40, 1), WIDTH**0.5)], 1)
    unrelated = torch.cat([torch.randn(len(UNRELATED), WIDTH, generator=draw), torch.zeros(len(UNRELATED), 1)], 1)
    there = torch.cat([thing, torch.tensor([liked])])
    assert float(rank(frames, there, unrelated)) > 0.9
    absent = torch.cat([torch.randn(20, WIDTH, generator=draw), torch.zeros(20, 1)], 1)
    ranks = rank(frames, absent, unrelated)
    assert 0.3 < float(ranks.mean()) < 0.85  # as any other text
    assert bool(((ranks >= 0) & (ranks <= 1)).all())


def test_peaks_grow_with_the_video() -> None:
    assert [peak_size(n) for n in (1, 31, 32, 64, 500)] == [1, 1, 2, 3, 4]


def test_unrelated_things_are_many_and_distinct() -> None:
    assert len(set(UNRELATED)) == len(UNRELATED) >= 32
