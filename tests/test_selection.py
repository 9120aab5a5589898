"""`Selection`: frames, metadata, JSON, files and pictures."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from refocus_select import open_video
from refocus_select.cli import main
from refocus_select.errors import EncodingError, InputError, VideoOpenError
from refocus_select.pictures import clock
from refocus_select.selectors import UniformSelector
from tests.brightness import BrightnessSelector, ramp

TIMES = [0.0, 0.1, 0.25, 0.9, 1.0, 2.0, 2.04, 3.5, 5.0, 5.5, 8.0, 9.0]  # a variable frame rate


@pytest.fixture
def selection():
    video = open_video(ramp(), timestamps=TIMES)
    return BrightnessSelector().select(video, "light", num_frames=4)


@pytest.fixture
def film(tmp_path) -> Path:
    path = tmp_path / "ramp.mp4"
    write_mp4(path, ramp(height=48, width=64))
    return path


def write_mp4(path: Path, frames: np.ndarray) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def test_frames_are_the_chosen_ones_at_full_size(selection):
    assert selection.indices.tolist() == [8, 9, 10, 11]
    np.testing.assert_array_equal(selection.frames, ramp()[8:12])
    assert [image.size for image in selection.images] == [(40, 24)] * 4
    assert selection.picks.tolist() == [8, 9, 10, 11]
    assert len(selection) == 4


def test_metadata_rounds_to_the_nearest_millisecond():
    times = [k * 1001 / 30000 for k in range(12)]  # 29.97 frames per second: 33.37 ms, 66.73 ms, 100.1 ms, …
    selection = UniformSelector().select(open_video(ramp(), timestamps=times), "light", num_frames=12)
    metadata = selection.metadata()
    assert metadata["frames_indices"] == [0, 33, 67, 100, 133, 167, 200, 234, 267, 300, 334, 367]
    assert metadata["total_num_frames"] == round(1000 * selection.duration) == 400


def test_metadata_counts_more_frames_than_the_last_index_of_a_high_speed_camera():
    selection = UniformSelector().select(open_video(ramp(), fps=10_000), "light", num_frames=12)
    metadata = selection.metadata()
    assert round(1000 * selection.duration) == metadata["frames_indices"][-1] == 1
    assert metadata["total_num_frames"] == 2


def test_metadata_gives_every_processor_the_true_times(selection):
    metadata = selection.metadata()
    times = np.array(metadata["frames_indices"]) / metadata["fps"]
    np.testing.assert_allclose(times, [5.0, 5.5, 8.0, 9.0], atol=5e-4)
    assert all(type(index) is int for index in metadata["frames_indices"])
    assert metadata["total_num_frames"] > metadata["frames_indices"][-1]
    assert (metadata["width"], metadata["height"]) == (40, 24)


def test_json_is_strict_and_complete(selection):
    record = json.loads(selection.to_json(), parse_constant=pytest.fail)
    assert record["indices"] == [8, 9, 10, 11]
    assert record["timestamps"] == [5.0, 5.5, 8.0, 9.0]
    assert len(record["scores"]) == len(record["candidate_timestamps"]) == 12
    assert {"video", "question", "selector", "duration", "warnings", "strategy"} <= record.keys()
    endless = BrightnessSelector().select(open_video(ramp(3), fps=1.0), "light", num_frames=2)
    object.__setattr__(endless, "scores", np.array([-np.inf, 1.0, 2.0]))
    assert json.loads(endless.to_json())["scores"] == [None, 1.0, 2.0]


def test_save_writes_frames_named_by_time_and_replaces_an_earlier_save(selection, tmp_path):
    folder = selection.save(tmp_path / "a" / "out", format="png")
    assert sorted(p.name for p in folder.iterdir()) == [
        "000005.000s_frame000008.png",
        "000005.500s_frame000009.png",
        "000008.000s_frame000010.png",
        "000009.000s_frame000011.png",
        "selection.json",
    ]
    np.testing.assert_array_equal(np.asarray(Image.open(folder / "000008.000s_frame000010.png")), ramp()[10])
    (folder / "notes.txt").write_text("mine")
    other = BrightnessSelector().select(open_video(ramp(), timestamps=TIMES), "dark", num_frames=1)
    other.save(folder)
    assert sorted(p.name for p in folder.iterdir()) == ["000000.000s_frame000000.jpg", "notes.txt", "selection.json"]
    assert json.loads((folder / "selection.json").read_text())["files"] == ["000000.000s_frame000000.jpg"]


def test_saving_again_keeps_the_files_that_are_still_meant(selection, tmp_path):
    before = sorted(p.name for p in selection.save(tmp_path).iterdir())
    assert sorted(p.name for p in selection.save(tmp_path).iterdir()) == before
    assert len(before) == len(selection) + 1


def test_save_to_an_impossible_place_says_so(selection, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write to .*file"):
        selection.save(tmp_path / "file")
    with pytest.raises(InputError, match="format"):
        selection.save(tmp_path / "x", format="bmp")
    with pytest.raises(InputError, match=r"must end in \.png"):
        selection.plot(tmp_path / "plot.txt")


@pytest.mark.parametrize("num_frames", [1, 4, 12])
def test_pictures_are_written_whole(selection, tmp_path, num_frames):
    chosen = BrightnessSelector().select(open_video(ramp(), timestamps=TIMES), "light", num_frames=num_frames)
    plot, sheet = chosen.plot(tmp_path / "plot.png"), chosen.contact_sheet(tmp_path / "sheet.png")
    assert Image.open(plot).size[0] > 1000
    columns = int(np.ceil(np.sqrt(num_frames)))
    assert Image.open(sheet).size[0] == columns * 44 + 4
    assert sorted(p.name for p in tmp_path.iterdir()) == ["plot.png", "sheet.png"]  # no temporary files left


def test_files_have_the_permissions_of_ordinary_ones(selection, tmp_path):
    before = os.umask(0o027)
    try:
        written = [selection.plot(tmp_path / "plot.png"), selection.contact_sheet(tmp_path / "sheet.jpg")]
        written += sorted(selection.save(tmp_path / "frames").iterdir())
    finally:
        os.umask(before)
    assert len(written) == 2 + len(selection) + 1
    assert {stat.S_IMODE(path.stat().st_mode) for path in written} == {0o640}


def test_plot_draws_the_chosen_frames_and_survives_flat_scores(tmp_path):
    selector = BrightnessSelector()
    video = open_video(np.full((6, 20, 30, 3), 200, np.uint8), fps=2.0)
    selector.select(video, "light", num_frames=3, flat=True).plot(tmp_path / "flat.png")
    pixels = np.asarray(Image.open(tmp_path / "flat.png").convert("RGB")).reshape(-1, 3)
    assert (pixels == 200).all(axis=1).mean() > 0.2  # the pictures themselves are in the plot


def test_a_file_is_read_again_for_the_frames(film):
    selection = BrightnessSelector().select(film, "light", num_frames=2)
    assert selection.frames.shape == (2, 48, 64, 3)
    np.testing.assert_allclose(selection.frames.mean(axis=(1, 2, 3)), [100, 110], atol=4)


def test_a_changed_or_missing_file_is_not_shown_as_the_selection(film):
    encoding = BrightnessSelector().encode(film)
    changed = BrightnessSelector().select(encoding, "light", num_frames=2)
    write_mp4(film, ramp(height=48, width=64)[::-1])
    os.utime(film, ns=(1, 1))
    with pytest.raises(EncodingError, match="has changed since it was encoded"):
        _ = changed.frames
    film.unlink()
    with pytest.raises(VideoOpenError, match="not here any more"):
        _ = changed.frames


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00.0"), (59.97, "1:00.0"), (61.24, "1:01.2"), (3600.5, "1:00:00.5")]
)
def test_clock(seconds, text):
    assert clock(seconds) == text


# -- damaged frames -----------------------------------------------------------------------------------


@pytest.fixture
def torn(tmp_path) -> Path:
    """A folder of twelve pictures, of which 4, 5 and 9 cannot be read."""
    folder = tmp_path / "torn"
    folder.mkdir()
    for number, picture in enumerate(ramp()):
        Image.fromarray(picture).save(folder / f"{number:02d}.png")
    for number in (4, 5, 9):
        (folder / f"{number:02d}.png").write_bytes(b"no picture")
    return folder


def test_a_selection_says_which_frames_are_substitutes(torn, tmp_path):
    selection = UniformSelector().select(open_video(torn, timestamps=TIMES), "q", num_frames=12)
    quiet = selection.warnings
    assert selection.substitutes == ()
    selection.frames  # noqa: B018
    told = [(s.index, s.timestamp, s.shown_index, s.shown_timestamp) for s in selection.substitutes]
    assert told == [(4, 1.0, 3, 0.9), (5, 2.0, 3, 0.9), (9, 5.5, 8, 5.0)]
    assert selection.shown.indices.tolist() == [0, 1, 2, 3, 3, 3, 6, 7, 8, 8, 10, 11]
    assert selection.shown_timestamps.tolist() == [TIMES[i] for i in selection.shown.indices]
    assert selection.timestamps.tolist() == TIMES
    selection.decode(selection.indices[:5])
    (warning,) = selection.warnings[len(quiet) :]
    assert "3 of 12 chosen frames are damaged" in warning
    assert "frame 5 (2.000 s) by frame 3 (0.900 s)" in warning
    record = json.loads((selection.save(tmp_path / "out", format="png") / "selection.json").read_text("utf-8"))
    assert record["warnings"] == list(selection.warnings)
    assert record["substitutes"][0] == {"index": 4, "timestamp": 1.0, "shown_index": 3, "shown_timestamp": 0.9}
    assert record["files"][3:6] == ["000000.900s_frame000003.png"] * 3
    for name, number in zip(record["files"], selection.shown.indices, strict=True):
        assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / name)), ramp()[number])


def test_frames_can_be_checked_without_keeping_them(torn):
    selection = UniformSelector().select(torn, "q", num_frames=12)
    assert [s.index for s in selection.check()] == [4, 5, 9]
    assert "shown" not in selection.__dict__
    assert selection.to_dict()["substitutes"][2]["shown_index"] == 8


def test_the_command_line_tells_of_substitutes(torn, capsys):
    assert main(["select", str(torn), "q", "-n", "12", "--selector", "uniform", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert [s["index"] for s in record["substitutes"]] == [4, 5, 9]
    assert "chosen frames are damaged" in record["warnings"][-1]
    assert main(["select", str(torn), "q", "-n", "12", "--selector", "uniform"]) == 0
    assert "note: 3 of 12 chosen frames are damaged" in capsys.readouterr().out
