"""What counts as a video in a chat, and whether its frames are still to be chosen."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

VIDEO_KEYS = ("video", "url", "path", "video_url")

# Keys of a video block that say how to sample it; they mean nothing once frames are chosen.
SAMPLING_KEYS = frozenset(
    {"fps", "nframes", "num_frames", "min_frames", "max_frames", "video_start", "video_end", "raw_fps", "sample_fps"}
    | {"timestamps", "video_metadata"}
)


def is_video_block(block: Any) -> bool:
    """Whether a content block holds a video."""
    return isinstance(block, Mapping) and block.get("type") in ("video", "video_url") and video_of(block) is not None


def video_of(block: Mapping[str, Any]) -> Any:
    """The video of a block: the value of `video`, `url`, `path`, or OpenAI's `video_url`."""
    value = next((block[key] for key in VIDEO_KEYS if block.get(key) is not None), None)
    return value.get("url") if isinstance(value, Mapping) else value


def is_source(value: Any) -> bool:
    """Whether frames are still to be chosen: a path, URL, bytes, an open `Video` or a `VideoEncoding`."""
    if isinstance(value, str | os.PathLike | bytes):
        return True
    from refocus_select.encoding import VideoEncoding
    from refocus_select.video import Video

    return isinstance(value, Video | VideoEncoding)


def is_frame(value: Any) -> bool:
    """Whether a value is one picture: a PIL image, or an array or tensor of three dimensions."""
    return getattr(value, "ndim", None) == 3 or (hasattr(value, "getbands") and hasattr(value, "size"))


def is_frames(value: Any) -> bool:
    """Whether a value is the frames of one video: an array or tensor [T, ...], or a list of pictures."""
    if isinstance(value, list | tuple):
        return bool(value) and all(is_frame(v) for v in value)
    return getattr(value, "ndim", None) == 4


def name_of(value: Any) -> str:
    """How errors name a video."""
    from refocus_select.encoding import VideoEncoding
    from refocus_select.video import Video

    if isinstance(value, VideoEncoding):
        return f"encoding of {value.video.source}"
    if isinstance(value, Video):
        return str(value.metadata.source)
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if isinstance(value, str | os.PathLike):
        text = str(os.fspath(value))
        return text if len(text) <= 200 else f"{text[:80]}…"
    return f"{type(value).__name__} of frames"


def to_pictures(value: Any) -> np.ndarray:
    """Frames of any kind as uint8 RGB [T, H, W, 3], for a selector to look at."""
    if isinstance(value, list | tuple):
        return np.stack([_to_picture(v) for v in value])
    return np.stack([_to_picture(v) for v in _to_numpy(value)])


def _to_numpy(value: Any) -> np.ndarray:
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float() if value.is_floating_point() else value
        return np.asarray(value.numpy())
    return np.asarray(value)


def _to_picture(value: Any) -> np.ndarray:
    if hasattr(value, "getbands"):
        return np.asarray(value.convert("RGB"))
    picture = _to_numpy(value)
    if picture.shape[-1] not in (1, 3, 4) and picture.shape[0] in (1, 3, 4):
        picture = np.moveaxis(picture, 0, -1)
    if np.issubdtype(picture.dtype, np.floating):
        picture = picture * 255 if picture.size and picture.max() <= 1 else picture
        picture = np.clip(np.rint(picture), 0, 255)
    picture = picture.astype(np.uint8)
    return np.repeat(picture, 3, axis=-1) if picture.shape[-1] == 1 else picture[..., :3]


def sound_of(source: Any, sampling_rate: int) -> np.ndarray | None:
    """The sound track of a video, mono float32 in [-1, 1], or None if it is silent.

    Args:
        source: a path, a URL, or bytes.
        sampling_rate: samples per second of the result.

    Raises:
        VideoOpenError: if the source cannot be opened.
    """
    import io

    import av

    from refocus_select.errors import VideoOpenError

    file = io.BytesIO(source) if isinstance(source, bytes) else str(os.fspath(source)).removeprefix("file://")
    try:
        with av.open(file) as container:
            if not container.streams.audio:
                return None
            resampler = av.AudioResampler(format="flt", layout="mono", rate=sampling_rate)
            pieces = [p.to_ndarray()[0] for frame in container.decode(audio=0) for p in resampler.resample(frame)]
            pieces += [p.to_ndarray()[0] for p in resampler.resample(None)]
    except (OSError, av.FFmpegError) as error:
        raise VideoOpenError(f"the sound of {name_of(source)} cannot be read: {error}") from error
    return np.concatenate(pieces) if pieces else None
