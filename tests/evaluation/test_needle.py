"""Needle in a haystack with selectors simple enough to know what they find."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from refocus_select import open_video
from refocus_select.cli import main
from refocus_select.errors import InputError
from refocus_select.evaluation.needle import Needle, load_needles, run_needles, text_card
from refocus_select.evaluation.needle_trials import (
    Trial,
    draw_heat_maps,
    read_trials,
    recall_grid,
    summarise,
    table,
    write_trial,
)
from refocus_select.selectors import UniformSelector
from refocus_select.selectors.training_free import AlgorithmSelector
from tests.brightness import BrightnessSelector
from tests.leftovers import name_of_a_dead_process

WHITE = Needle("white", "light", (Image.new("RGB", (40, 24), "white"),))
BLACK = Needle("black", "dark", (Image.new("RGB", (40, 24), "black"),))


class Brightness:
    """(light, dark) of a frame."""

    fingerprint = "two-1"
    frame_size = (8, 8)

    def __init__(self):
        self.seen = 0

    def encode_frames(self, frames):
        self.seen += len(frames)
        light = torch.from_numpy(frames.mean(axis=(1, 2, 3)) / 255).float()
        return F.normalize(torch.stack([light, 1 - light], dim=1), dim=1)

    def encode_text(self, texts):
        return torch.tensor([[1.0, 0.0] if "light" in text else [0.0, 1.0] for text in texts])


def grey(count=40):
    """A haystack of middling grey, each frame a little different."""
    frames = np.full((count, 24, 40, 3), 100, np.uint8)
    frames += np.arange(count, dtype=np.uint8)[:, None, None, None] % 50
    return open_video(frames, fps=5.0)


def run(selectors, needles=(WHITE, BLACK), **options):
    options = {"lengths": (10, 20), "depths": (0.0, 0.5, 1.0), "num_frames": 2, "jitter": 0.0, **options}
    return list(run_needles(grey(), list(needles), selectors, **options))


def test_a_needle_that_stands_out_is_found_at_every_depth():
    trials = run([AlgorithmSelector("topk", Brightness())])
    assert len(trials) == 2 * 2 * 3
    assert all(trial.found == 1 for trial in trials)
    assert {(trial.length, trial.depth, trial.position) for trial in trials} == {
        (10, 0.0, 0), (10, 0.5, 4), (10, 1.0, 9), (20, 0.0, 0), (20, 0.5, 10), (20, 1.0, 19),
    }  # fmt: skip
    assert all(len(trial.picked) == 2 and trial.position in trial.picked for trial in trials)


def test_uniform_finds_what_lies_on_its_way():
    trials = run([UniformSelector()])
    for trial in trials:
        # K = 2 of N seconds: the candidates nearest to a quarter and to three quarters
        quarters = [(trial.length - 1) * share for share in (0.25, 0.75)]
        expected = any(abs(trial.position - quarter) <= 0.5 for quarter in quarters)
        assert (trial.found > 0) == expected


def test_places_cover_the_video_and_are_the_same_for_all_selectors():
    needles = [Needle(f"n{number}", "light", WHITE.pictures) for number in range(30)]
    options = {"needles": needles, "lengths": (20,), "num_frames": 4, "jitter": None}
    drawn, again = (run([s], **options) for s in (UniformSelector(), AlgorithmSelector("topk", Brightness())))
    assert [trial.position for trial in drawn] == [trial.position for trial in again]
    assert {trial.position for trial in drawn} == set(range(20))
    assert all(abs(trial.position / 19 - trial.depth) <= 0.25 + 0.5 / 19 for trial in drawn)
    # With places all over the video uniform sampling finds about as many as chance, 4 of 20.
    assert summarise(drawn)[0].recall == pytest.approx(0.2, abs=0.12)


def test_the_whole_video_gives_the_same_as_encodings_put_together():
    """`BrightnessSelector` keeps a tensor for the whole video, so every haystack is read as a video."""
    together = run([AlgorithmSelector("topk", Brightness())])
    as_videos = run([BrightnessSelector()])
    assert [trial.picked for trial in as_videos] == [trial.picked for trial in together]


def test_each_frame_is_encoded_once_for_all_algorithms():
    encoder = Brightness()
    run([AlgorithmSelector(name, encoder) for name in ("topk", "mmr", "aks")])
    assert encoder.seen == 20 + 2  # the haystack and two needles


def test_a_needle_may_have_several_frames():
    clip = Needle("clip", "light", WHITE.pictures * 3)
    trials = run([AlgorithmSelector("topk", Brightness())], needles=[clip], num_frames=5)
    assert all(trial.size == 3 and trial.found == 3 for trial in trials)
    assert {trial.position for trial in trials if trial.depth == 1.0} == {7, 17}


def test_done_trials_are_left_out():
    selectors = [AlgorithmSelector("topk", Brightness())]
    trials = run(selectors)
    rest = run(selectors, done={trial.key for trial in trials[:7]})
    assert rest == trials[7:]


def test_a_needle_keeps_its_shape():
    """A square picture in a wide video: black at both sides, not stretched."""
    seen = []

    class Watching(Brightness):
        frame_size = None

        def encode_frames(self, frames):
            seen.extend(frames)
            return super().encode_frames(frames)

    square = Needle("square", "light", (Image.new("RGB", (10, 10), "white"),))
    run([AlgorithmSelector("topk", Watching())], needles=[square], lengths=(10,), depths=(0.0,))
    needle = seen[-1]
    assert needle.shape == (24, 40, 3)
    assert needle[:, 10:30].min() > 250
    assert max(needle[:, :6].max(), needle[:, -6:].max()) < 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lengths": (10, 41)}, "40 frames, fewer than the largest length 41"),
        ({"num_frames": 11}, "between 1 and the smallest length 10"),
        ({"depths": (1.5,)}, "between 0 and 1"),
        ({"lengths": ()}, "must not be empty"),
        ({"needles": [Needle("long", "light", WHITE.pictures * 10)]}, "10 frames does not fit into 10"),
    ],
)
def test_what_cannot_be_measured_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        run([UniformSelector()], **options)


# -- needles --------------------------------------------------------------------------------------


def test_needles_are_pictures_texts_and_clips(tmp_path):
    Image.new("RGBA", (30, 20), "red").save(tmp_path / "red.png")
    Image.new("RGB", (16, 16), "red").save(
        tmp_path / "clip.gif", save_all=True, append_images=[Image.new("RGB", (16, 16), "blue")] * 9, duration=100
    )
    listed = [
        {"name": "red", "file": "red.png", "question": "What is red?"},
        {"file": "clip.gif", "question": "What flashes?"},
        {"text": "The code is 42", "question": "What is the code?"},
    ]
    (tmp_path / "needles.json").write_text(json.dumps(listed))
    red, clip, card = load_needles(tmp_path)
    assert (red.name, red.pictures[0].mode, red.pictures[0].size) == ("red", "RGB", (30, 20))
    assert clip.name == "clip.gif"
    assert 2 <= len(clip.pictures) <= 4
    assert card.name == "The code is 42"
    assert card.question == "What is the code?"


def test_a_card_is_filled_and_nothing_is_cut_off():
    for text in ("42", "A long sentence that must become small to fit\non the card in two lines"):
        card = np.asarray(text_card(text)).min(axis=2)
        dark = np.argwhere(card < 128)
        assert len(dark) > 200
        assert (dark.min(axis=0) > 2).all()
        assert (dark.max(axis=0) < np.array(card.shape) - 3).all()


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        (None, "cannot read"),
        ("{", "not JSON"),
        ("[]", "at least one"),
        ('[{"file": "a.png"}]', "needle 1: it needs a question"),
        ('[{"question": "?"}]', "either a file or a text"),
        ('[{"question": "?", "file": "a.png"}]', "cannot read the picture"),
        ('[{"question": "?", "text": "a"}, {"question": "!", "text": "a"}]', "same name"),
    ],
)
def test_a_wrong_list_is_named(tmp_path, listed, message):
    if listed is not None:
        (tmp_path / "needles.json").write_text(listed)
    with pytest.raises(InputError, match=message):
        load_needles(tmp_path)


# -- results --------------------------------------------------------------------------------------


def trial(selector="s", needle="a", length=10, depth=0.0, found=1, num_frames=2, size=1):
    return Trial(selector, needle, length, depth, num_frames, 0, size, (0, 5), found)


def test_recall_interval_and_chance_by_hand():
    trials = [
        trial(found=1),
        trial(depth=1.0, found=0),
        trial(needle="b", found=0),
        trial(needle="b", depth=1.0, found=0),
    ]
    (score,) = summarise(trials)
    assert (score.trials, score.recall, score.worst) == (4, 0.25, 0.0)
    assert score.chance == pytest.approx(0.2)
    # Needles have recall 1/2 and 0: resampled means are 0, 1/4 or 1/2
    assert (score.low, score.high) == (0.0, 0.5)
    grid, depths, lengths = recall_grid(trials)
    assert grid.tolist() == [[0.5], [0.0]]
    assert (depths, lengths) == ([0.0, 1.0], [10])
    assert np.isnan(summarise(trials[:2])[0].low)
    assert "| s | 0.250 | 0.000 – 0.500 | 0.00 | 0.200 | 4 |" in table([score])


def test_chance_of_a_longer_needle():
    # 1 - (8/10 * 7/9): two of ten frames are drawn, the needle holds two
    assert summarise([trial(size=2)])[0].chance == pytest.approx(1 - 8 / 10 * 7 / 9)


def test_heat_maps_are_drawn(tmp_path):
    trials = [trial(selector=f"s{n}", depth=d, length=m) for n in range(4) for d in (0.0, 1.0) for m in (8, 16)]
    with Image.open(draw_heat_maps(trials, tmp_path / "new" / "maps.png")) as picture:
        colours = len(picture.convert("RGB").getcolors(1 << 24))
    assert colours > 20


def test_trials_are_kept_and_a_broken_line_is_cut_off(tmp_path):
    path = tmp_path / "trials.jsonl"
    with path.open("w") as file:
        for item in (trial(), trial(depth=1.0)):
            write_trial(item, file)
        file.write('{"selector": "s", "nee')
    assert read_trials(path) == [trial(), trial(depth=1.0)]
    with path.open("a") as file:
        write_trial(trial(depth=0.5), file)
    assert len(read_trials(path)) == 3
    path.write_text('{"other": 1}\n')
    with pytest.raises(InputError, match="no trials"):
        read_trials(path)
    assert read_trials(tmp_path / "none.jsonl") == []


# -- the command ----------------------------------------------------------------------------------


@pytest.fixture
def setting(tmp_path):
    pictures = tmp_path / "film"
    pictures.mkdir()
    for number in range(20):
        Image.new("RGB", (40, 24), (number * 10,) * 3).save(pictures / f"{number:02d}.png")
    (tmp_path / "needles.json").write_text(json.dumps([{"name": "card", "text": "42", "question": "Which number?"}]))
    return [
        "evaluate", "needle", str(pictures), "--needles", str(tmp_path), "--selectors", "uniform", "random",
        "--lengths", "8", "16", "--depths", "3", "-n", "4",
    ]  # fmt: skip


def test_the_command_prints_draws_and_resumes(setting, tmp_path, capsys):
    out = tmp_path / "results"
    assert main([*setting, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "| uniform |" in printed
    assert "| random |" in printed
    record = out / "trials.jsonl"
    whole = record.read_text().splitlines()
    assert len(whole) == 2 * 2 * 3
    assert (out / "needle.png").stat().st_size > 5000
    assert [score["selector"] for score in json.loads((out / "summary.json").read_text())] == ["uniform", "random"]
    left = out / name_of_a_dead_process(out)
    left.write_text("half a picture")
    # Interrupted after four trials, in the midst of the fifth
    record.write_text("\n".join(whole[:4]) + "\n" + whole[4][:30])
    assert main([*setting, "--out", str(out)]) == 0
    assert record.read_text().splitlines() == whole
    assert not left.exists()
    assert capsys.readouterr().out == printed


def test_the_command_does_not_mix_videos(setting, tmp_path, capsys):
    out = tmp_path / "results"
    assert main([*setting, "--out", str(out)]) == 0
    Image.new("RGB", (40, 24), "red").save(tmp_path / "film" / "20.png")
    assert main([*setting, "--out", str(out)]) == 2
    assert "another video" in capsys.readouterr().err


def test_the_command_needs_no_folder_for_results(setting, capsys):
    assert main(setting) == 0
    assert "| uniform |" in capsys.readouterr().out
