"""`exact=False` through a selector: candidates move to keyframes, and it is told where they went."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from refocus_select import open_video
from tests.brightness import BrightnessSelector, ramp
from tests.test_selection import write_mp4


def test_candidates_move_and_their_true_times_are_told(tmp_path: Path) -> None:
    path = tmp_path / "ramp.mp4"
    write_mp4(path, ramp(48, 48, 64))
    selector = BrightnessSelector()
    with open_video(path) as video:
        times = video.timestamps
        exact, moved = (selector.encode(video, fps=8.0, exact=exact) for exact in (True, False))
        pictures = video.get_frames(moved.indices).data
    assert set(moved.indices.tolist()) != set(exact.indices.tolist())
    assert (np.diff(moved.indices) > 0).all()
    np.testing.assert_array_equal(moved.timestamps, times[moved.indices])
    # what was encoded is the picture that is told, not the one that was asked for
    encoded = moved.tensors["brightness"].numpy()
    np.testing.assert_allclose(encoded, pictures.mean(axis=(1, 2, 3)), atol=2)  # neighbours differ by 10
    chosen = selector.select(path, "light", num_frames=2, fps=8.0, exact=False)
    assert set(chosen.indices.tolist()) <= set(moved.indices.tolist())
    np.testing.assert_array_equal(chosen.timestamps, times[chosen.indices])
