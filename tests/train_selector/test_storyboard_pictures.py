"""Storyboards as pictures: drawn again from their records, and written as videos that show the layout."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from benchmarks.storyboards.concepts import _clean, _folder_kind
from benchmarks.storyboards.render import frames, render
from benchmarks.storyboards.views import STEPS, background_frames, draw_series
from refocus_select.train_selector.storyboards import Bank, Storyboards
from refocus_select.video import open_video

from .tiny_world import tiny_bank

SIZE = 96


@pytest.fixture(scope="module")
def materials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A red disc with an alpha channel, a still, an animation, and the folder that they are below."""
    root = tmp_path_factory.mktemp("materials")
    disc = Image.new("RGBA", (120, 120))
    ImageDraw.Draw(disc).ellipse((10, 10, 110, 110), (220, 20, 20, 255))
    disc.save(root / "disc.png")
    still = Image.fromarray(np.random.default_rng(0).integers(0, 90, (120, 160, 3), dtype=np.uint8))
    still.save(root / "still.png")
    steps = [Image.new("RGB", (120, 120), (0, 60 * i, 200)) for i in range(4)]
    steps[0].save(root / "moving.webp", save_all=True, append_images=steps[1:], duration=100, lossless=True)
    return root


@pytest.fixture(scope="module")
def bank() -> Bank:
    """The tiny world with records of pictures that can be drawn."""
    plain = tiny_bank()
    places = {
        0: {"source": "still", "path": "still.png", "frames": [0.2, 0.5, 0.8]},
        1: {"source": "animation", "path": "moving.webp", "frames": [0, 1, 3]},
    }
    backgrounds = tuple({**clip, **places[i % 2]} for i, clip in enumerate(plain.backgrounds))
    series = tuple(
        {
            **record,
            "picture": ["cards", ("credits", "title", "page")[-1 - record["concept"]], 7]
            if record["concept"] < 0
            else ["openclipart", "disc.png", 0],
            "seed": i,
            "background": i % len(backgrounds) if i % 3 else -1,
        }
        for i, record in enumerate(plain.series)
    )
    return replace(plain, backgrounds=backgrounds, series=series)


def test_series_are_drawn_the_same_again_and_move(bank: Bank, materials: Path) -> None:
    records = [dict(clip) for clip in bank.backgrounds]
    for number in (0, 1, 2, 4):
        once = draw_series(materials, dict(bank.series[number]), records, SIZE)
        again = draw_series(materials, dict(bank.series[number]), records, SIZE)
        assert once.shape == (STEPS, SIZE, SIZE, 3)
        assert (once == again).all()
        assert (once[0] != once[1]).mean() > 0.02
        red = once[..., 0].astype(int) - once[..., 1]
        assert (red > 60).mean() > 0.1  # the disc is there
    assert (once != draw_series(materials, dict(bank.series[7]), records, SIZE)).mean() > 0.1


def test_backgrounds_are_the_frames_of_their_records(materials: Path) -> None:
    moving = background_frames(materials, ("animation", "moving.webp", (0, 1, 3)), 32)
    assert [int(picture[0, 0, 1]) for picture in moving] == pytest.approx([0, 60, 180], abs=3)
    pan = background_frames(materials, ("still", "still.png", (0.2, 0.8)), 32)
    assert (pan[0] != pan[1]).any()


def test_the_video_shows_the_layout(bank: Bank, materials: Path, tmp_path: Path) -> None:
    boards = Storyboards(bank, "train", num_questions=3, num_candidates=32)
    _, layout = boards.item(1)
    expected = np.stack(list(frames(bank, layout, materials, size=SIZE)))
    path = render(bank, layout, materials, tmp_path / "v.mp4", size=SIZE)
    with open_video(str(path)) as video:
        assert np.allclose(video.timestamps, layout.timestamps)
        shown = video.get_frames(np.arange(len(video))).data
    assert shown.shape == expected.shape
    error = np.abs(shown.astype(int) - expected).mean(axis=(1, 2, 3))
    other = np.abs(shown.astype(int) - np.roll(expected, 7, axis=0)).mean(axis=(1, 2, 3))
    assert error.max() < 20
    assert error.mean() < 0.3 * other.mean()
    for scene in layout.scenes:
        for position in range(scene.start, scene.stop):
            drawn = draw_series(materials, dict(bank.series[scene.series]), [dict(c) for c in bank.backgrounds], SIZE)[
                layout.step[position]
            ]
            assert (drawn == expected[position]).all()
    twice = render(bank, layout, materials, tmp_path / "w.mp4", size=SIZE, repeat=2)
    with open_video(str(twice)) as video:
        assert len(video) == 2 * len(layout.timestamps)
        assert np.allclose(video.timestamps[::2], layout.timestamps)


def test_names_are_cleaned() -> None:
    assert _clean("Baseball cap (b and w)") == "baseball cap"
    assert _clean("clipart by nicu buculei   pear") == "pear"
    assert _clean("face with symbols on the mouth here") == ""
    assert _folder_kind(Path("/x/png/animals/birds/owl.png")) == "bird"
    assert _folder_kind(Path("/x/png/animals/cow.png")) == "animal"
