"""Chosen frames of a video as a clip that reference models read."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from ..encoding import VideoEncoding
from ..errors import VideoDecodeError
from ..selection import Selection
from ..selectors import FrameSelector
from ..train_selector.clips import Clip
from ..video import CandidatePlan, open_video


class ChosenClip(Clip):
    """The union of several selections of one video, in order of time.

    Attributes:
        indices: frame numbers in the video, int64 [F].
    """

    def __init__(self, selections: Sequence[Selection]) -> None:
        self._first = selections[0]
        self.indices, places = np.unique(np.concatenate([s.indices for s in selections]), return_index=True)
        self.timestamps = np.concatenate([s.timestamps for s in selections])[places]
        self.duration = self._first.duration
        digest = hashlib.sha256(self.indices.tobytes()).hexdigest()[:16]
        self.key = f"{self._first.video_fingerprint}-{digest}"

    def pictures(self, positions: np.ndarray, *, size: tuple[int, int] | None = None) -> np.ndarray:
        """See `Clip`."""
        return self._first.decode(self.indices[np.asarray(positions)], size=size)

    def encoding(self, reader: FrameSelector) -> VideoEncoding:
        """See `Clip`. Only the chosen frames are encoded, not the candidates that they were chosen from."""
        plan = CandidatePlan(self.indices, self.timestamps)
        source = str(self._first.video["source"])
        with open_video(source) as video:
            size = reader._decode_size(video.metadata)
            encoding = reader._read(video, plan, size=size, exact=True, workers=None, progress=False)
        if len(encoding) != len(self):
            raise VideoDecodeError(f"{source}: {len(self) - len(encoding)} chosen frames are damaged; leave it out")
        return encoding
