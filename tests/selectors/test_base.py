"""The contract of every selector: exactly min(K, candidates) distinct frames, sorted; clear errors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refocus_select import FrameSelector, VideoEncoding, open_video
from refocus_select.errors import EncodingError, InputError, SelectorLoadError, VideoOpenError
from refocus_select.selectors import UniformSelector, complete_picks
from refocus_select.selectors.algorithms import uniform
from tests.brightness import BrightnessSelector, ramp


@given(
    scores=st.lists(st.floats(allow_nan=True), min_size=1, max_size=40),
    picks=st.lists(st.integers(0, 39), max_size=50),
    num_frames=st.integers(1, 60),
    repeat=st.integers(1, 3),
)
def test_picks_are_completed_to_the_contract(scores, picks, num_frames, repeat):
    total = len(scores)
    indices = np.arange(total) // repeat  # slow videos: several candidates are one frame
    clean = np.nan_to_num(np.array(scores), nan=-np.inf)
    given_picks = np.array([p % total for p in picks], dtype=np.int64)
    chosen = complete_picks(given_picks, clean, indices, num_frames)
    frames = indices[chosen]
    assert len(chosen) == min(num_frames, len(set(indices.tolist())))
    assert (np.diff(frames) > 0).all()
    kept = list(dict.fromkeys(indices[given_picks].tolist()))[:num_frames]
    assert set(kept) <= set(frames.tolist())


def test_missing_picks_are_filled_by_score_earlier_first():
    scores = np.array([0.0, 5.0, 1.0, 5.0, 4.0])
    assert complete_picks(np.array([2]), scores, np.arange(5), 3).tolist() == [1, 2, 3]


@given(
    gaps=st.lists(st.floats(1e-3, 100.0), min_size=1, max_size=60),
    num_frames=st.integers(1, 80),
)
def test_uniform_is_sorted_distinct_and_complete(gaps, num_frames):
    times = np.cumsum(gaps)
    picks = uniform(times, num_frames)
    assert len(picks) == min(num_frames, len(times))
    assert (np.diff(picks) > 0).all()
    assert picks[0] >= 0
    assert picks[-1] < len(times)


def test_uniform_takes_the_centres_of_equal_segments_in_time():
    assert uniform(np.arange(101) / 10.0, 5).tolist() == [10, 30, 50, 70, 90]
    irregular = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 5.0, 9.9, 10.0])
    assert uniform(irregular, 2).tolist() == [4, 6]  # centres 2.5 and 7.5 s, not the 2nd and 6th frame


@settings(max_examples=25, deadline=None)
@given(count=st.integers(1, 25), num_frames=st.integers(1, 30))
def test_every_selector_returns_exactly_min_k_candidates(count, num_frames):
    video = open_video(ramp(count), fps=2.0)
    for selector in (BrightnessSelector(), UniformSelector()):
        selection = selector.select(video, "light", num_frames=num_frames)
        assert len(selection) == min(num_frames, count)
        assert (np.diff(selection.indices) > 0).all()
        np.testing.assert_allclose(selection.timestamps, selection.indices / 2.0)


def test_select_answers_the_question_and_is_deterministic():
    selector = BrightnessSelector()
    encoding = selector.encode(ramp_video())
    light, dark = selector.select(encoding, ["light", "dark"], num_frames=3)
    assert light.indices.tolist() == [9, 10, 11]
    assert dark.indices.tolist() == [0, 1, 2]
    assert selector.select(ramp_video(), "light", num_frames=3).indices.tolist() == light.indices.tolist()
    assert encoding.tensors["whole"].tolist() == [12]


def ramp_video(count: int = 12):
    return open_video(ramp(count), fps=4.0)


def test_more_frames_than_candidates_gives_all_and_says_so():
    selection = BrightnessSelector().select(ramp_video(3), "light", num_frames=8)
    assert selection.indices.tolist() == [0, 1, 2]
    assert any("8 frames asked for" in w and "3 candidates" in w for w in selection.warnings)


def test_options_reach_the_policy_and_nobody_else():
    selector = BrightnessSelector()
    selector.select(ramp_video(), "light", options=["yes", "no"])
    assert selector.options == [["yes", "no"]]
    selector.select(ramp_video(), ["light", "dark"], options=[["a"], ["b"]])
    assert selector.options == [["a"], ["b"]]
    with pytest.raises(InputError, match="2 questions but options for 1"):
        selector.select(ramp_video(), ["light", "dark"], options=[["a"]])


@pytest.mark.parametrize("question", ["", "  \n", None, 3, b"light"])
def test_a_question_must_be_text(question):
    with pytest.raises((InputError, TypeError), match=r"question|iterable"):
        BrightnessSelector().select(ramp_video(), [question])


@pytest.mark.parametrize("num_frames", [0, -1, 2.5, True, "8", None])
def test_num_frames_must_be_a_positive_whole_number(num_frames):
    with pytest.raises(InputError, match="num_frames"):
        BrightnessSelector().select(ramp_video(), "light", num_frames=num_frames)


def test_unknown_arguments_are_named():
    with pytest.raises(InputError, match=r"brightness.*temperature"):
        BrightnessSelector().select(ramp_video(), "light", temperature=1.0)
    encoding = BrightnessSelector().encode(ramp_video())
    with pytest.raises(InputError, match="fps: decided when the video was encoded"):
        BrightnessSelector().select(encoding, "light", fps=1.0)


def test_a_range_limits_the_candidates():
    encoding = BrightnessSelector().encode(ramp_video(), start=1.0, end=2.0)
    assert encoding.timestamps.min() >= 1.0
    assert encoding.timestamps.max() <= 2.0
    assert len(encoding) >= 4


def test_an_encoding_of_another_selector_is_refused():
    encoding = BrightnessSelector().encode(ramp_video())
    with pytest.raises(EncodingError, match=r"made by 'brightness'.*reads those of 'uniform'"):
        UniformSelector().select(encoding, "light")


def test_encoding_round_trip(tmp_path):
    selector = BrightnessSelector()
    encoding = selector.encode(ramp_video())
    path = encoding.save(tmp_path / "deep" / "ramp.safetensors")
    assert [p.name for p in path.parent.iterdir()] == ["ramp.safetensors"]
    loaded = VideoEncoding.load(path)
    before, after = (selector.select(e, "light", num_frames=4) for e in (encoding, loaded))
    assert before.to_dict() == after.to_dict()
    with pytest.raises(VideoOpenError, match="not here any more"):
        _ = after.frames


@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "foreign"])
def test_a_damaged_encoding_is_refused(tmp_path, damage):
    path = BrightnessSelector().encode(ramp_video()).save(tmp_path / "e.safetensors")
    if damage == "missing":
        path.unlink()
    elif damage == "foreign":
        from safetensors.numpy import save_file

        save_file({"x": np.zeros(3)}, path)
    else:
        path.write_bytes(path.read_bytes()[: 0 if damage == "empty" else -5])
    with pytest.raises(EncodingError, match=r"e\.safetensors"):
        VideoEncoding.load(path)


def test_unknown_selector_names_say_what_there_is():
    with pytest.raises(SelectorLoadError, match=r"no selector 'minni'.*'mini', 'mini-policy', 'uniform'"):
        FrameSelector.from_pretrained("minni")
    assert isinstance(FrameSelector.from_pretrained("uniform"), UniformSelector)
    with pytest.raises(InputError, match="is a UniformSelector, not a BrightnessSelector"):
        BrightnessSelector.from_pretrained("uniform")


# -- short videos -------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_frames", [8, 32, 45, 60, 70])
def test_every_selector_fills_the_budget_of_a_short_video(num_frames):
    video = open_video(np.random.default_rng(0).integers(0, 255, (60, 32, 48, 3), np.uint8), fps=30.0)  # two seconds
    for name in ("uniform", "mini", "mini-policy", "mmr", "aks"):
        selection = FrameSelector.from_pretrained(name).select(video, "what is shown?", num_frames=num_frames)
        assert len(selection) == min(num_frames, 60), name
        assert len(set(selection.indices.tolist())) == len(selection)
        assert any("only 60 candidates" in w for w in selection.warnings) == (num_frames > 60)


def test_a_callers_limits_hold_in_a_short_video():
    video = open_video(np.zeros((60, 4, 4, 3), np.uint8), fps=30.0)
    selector = FrameSelector.from_pretrained("uniform")
    assert len(selector.select(video, "q", num_frames=8, max_frames=5)) == 5
    assert selector.select(video, "q", num_frames=2, fps=2).candidate_indices.tolist() == [7, 22, 37, 52]
    assert len(selector.select(video, "q", num_frames=8, fps=2)) == 8
    assert len(selector.select(video, "q", num_frames=8, start=1.0, end=1.5)) == 8
    encoding = selector.encode(video, max_frames=5)
    with_few = selector.select(encoding, "q", num_frames=8)
    assert len(with_few) == 5
    assert "only 5 candidates" in with_few.warnings[0]
