"""`Clip`: the candidate frames of one video, as pictures for reference models and as features for policies."""

from __future__ import annotations

import hashlib
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from ..cache import EncodingCache
from ..encoding import VideoEncoding
from ..errors import EncodingError, InputError, VideoDecodeError
from ..locations import is_here
from ..selection import Selection
from ..selectors import FrameSelector
from ..video import CandidatePlan, CandidateRule, Video, open_video, sample_candidates

REFERENCE_VIEW = "reference_embeddings"
"""Tensor of an encoding that readers look at instead of "embeddings", if they see more than selectors do."""


class Clip(ABC):
    """The candidate frames of one video.

    Attributes:
        key: identity of the content and of the choice of candidates.
        timestamps: of the candidates in seconds, float64 [F].
        duration: of the video in seconds.
    """

    key: str
    timestamps: np.ndarray
    duration: float

    def __len__(self) -> int:
        """Number of candidate frames F."""
        return len(self.timestamps)

    @abstractmethod
    def pictures(self, positions: np.ndarray, *, size: tuple[int, int] | None = None) -> np.ndarray:
        """Pictures of some candidates.

        Args:
            positions: among the candidates, int64 [n].
            size: (height, width); None for the video's own.

        Returns:
            uint8 RGB [n, H, W, 3].

        Raises:
            InputError: if only features of this video are known.
            VideoError: if the pictures cannot be read.
        """

    @abstractmethod
    def encoding(self, reader: FrameSelector) -> VideoEncoding:
        """What a selector keeps of the candidates; its tensors have one row for each of them.

        Raises:
            EncodingError: if only the features of another selector are known.
            VideoError: if the video cannot be read.
        """


class ClipSource(Protocol):
    """Where the videos of questions come from."""

    def __call__(self, video: str) -> Clip:
        """The candidates of a video, by the name that questions give it.

        Raises:
            RefocusError: if there is no such video, or it cannot be read.
        """


class VideoClip(Clip):
    """A video that is decoded when it is looked at.

    A candidate that cannot be decoded is an error here: the positions of a subset must mean the same frames to every
    reader.
    """

    def __init__(self, source: str, rule: CandidateRule, *, cache: EncodingCache | None = None) -> None:
        self.source = source
        self.rule = rule
        self._cache: EncodingCache | bool = cache if cache is not None else False
        with open_video(source) as video:
            plan = sample_candidates(video, rule)
            self._fingerprint = video.fingerprint
            self.duration = float(video.metadata.duration)
        self.indices, self.timestamps = plan.indices, plan.timestamps
        self.key = f"{self._fingerprint}-{rule.method}-{rule.fps:g}-{rule.max_frames}"

    def pictures(self, positions: np.ndarray, *, size: tuple[int, int] | None = None) -> np.ndarray:
        with self._opened() as video:
            frames = video.get_frames(self.indices[positions], size=size)
        if not frames.valid.all():
            bad = frames.timestamps[~frames.valid]
            raise VideoDecodeError(f"{self.source}: the frame at {bad[0]:.2f} s is damaged; leave this video out")
        return frames.data

    def encoding(self, reader: FrameSelector) -> VideoEncoding:
        with self._opened() as video:
            encoding = reader.encode(video, candidates=self.rule, cache=self._cache, progress=False)
        if len(encoding) != len(self):
            raise VideoDecodeError(
                f"{self.source}: {len(self) - len(encoding)} of {len(self)} candidate frames are damaged; leave this "
                "video out"
            )
        return encoding

    def _opened(self) -> Video:
        video = open_video(self.source)
        if video.fingerprint != self._fingerprint:
            video.close()
            raise VideoDecodeError(f"{self.source} has changed since it was first read; start again")
        return video


class EncodedClip(Clip):
    """A video of which features are stored; its pictures only if the video itself is still there."""

    def __init__(self, encoding: VideoEncoding, *, name: str = "") -> None:
        self._encoding = encoding
        self.name = name or encoding.video.source
        self.timestamps = encoding.timestamps
        self.duration = encoding.video.duration or float(encoding.timestamps[-1])
        self.key = f"{encoding.video_fingerprint}-{len(encoding)}-{encoding.encoder_fingerprint}"

    def pictures(self, positions: np.ndarray, *, size: tuple[int, int] | None = None) -> np.ndarray:
        source = self._encoding.video.source
        if not is_here(source):
            raise InputError(
                f"{self.name} holds features only, and its video {source!r} is not here; use a reference model that "
                "reads features, or give the video"
            )
        with open_video(source) as video:
            if video.fingerprint != self._encoding.video_fingerprint:
                raise InputError(f"{source} is not the video that {self.name} was made from")
            frames = video.get_frames(self._encoding.indices[positions], size=size)
        return frames.data

    def encoding(self, reader: FrameSelector) -> VideoEncoding:
        if not reader.reads(self._encoding.encoder_fingerprint):
            raise EncodingError(
                f"{self.name} was encoded by {self._encoding.encoder!r} "
                f"({self._encoding.encoder_fingerprint[:12]}), not by {reader.encoding_name!r} "
                f"({reader.encoding_fingerprint[:12]})"
            )
        return self._encoding


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
        source = self._first.video.source
        with open_video(source) as video:
            encoding = reader.encode(video, candidates=plan, cache=False, progress=False)
        if len(encoding) != len(self):
            raise VideoDecodeError(f"{source}: {len(self) - len(encoding)} chosen frames are damaged; leave it out")
        return encoding


class LabelledClip(EncodedClip):
    """A composed video, of which it is known what each frame shows.

    Attributes:
        labels: name of what a frame shows, "" where that is nothing in particular.
        scenes: number of a frame's scene, int64 [F].
        vocabulary: all labels that videos of this world have.
    """

    def __init__(
        self,
        encoding: VideoEncoding,
        labels: Sequence[str],
        scenes: np.ndarray,
        *,
        vocabulary: Sequence[str] = (),
        name: str = "",
    ) -> None:
        super().__init__(encoding, name=name)
        self.labels, self.scenes, self.vocabulary = tuple(labels), scenes, vocabulary


class VideoFiles:
    """The `ClipSource` of files: videos are decoded, `.safetensors` files are stored encodings.

    The last few clips are kept open, since the questions of a video often come together.

    Attributes:
        share: of the videos whose features go into the cache. With many more videos than it has room for, each would be
            thrown out before it is asked for again; a fixed part of them is found again every time.
    """

    def __init__(self, rule: CandidateRule, *, cache: EncodingCache | None = None, keep: int = 64) -> None:
        self.rule = rule
        self.cache = cache
        self.share = 1.0
        self._keep = keep
        self._clips: OrderedDict[str, Clip] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, video: str) -> Clip:
        with self._lock:
            if video in self._clips:
                self._clips.move_to_end(video)
                return self._clips[video]
        clip: Clip
        if video.endswith(".safetensors"):
            clip = EncodedClip(VideoEncoding.load(video), name=video)
        else:
            clip = VideoClip(video, self.rule, cache=self.cache if _part(video) < self.share else None)
        with self._lock:
            self._clips[video] = clip
            while len(self._clips) > self._keep:
                self._clips.popitem(last=False)
        return clip


def _part(video: str) -> float:
    """A number from 0 to 1 that a name decides."""
    return int.from_bytes(hashlib.sha256(video.encode("utf-8", "surrogateescape")).digest()[:6], "big") / 2**48
