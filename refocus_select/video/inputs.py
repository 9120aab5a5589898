"""What people hand over as a video, with the keys beside it: one reading for every door of the package."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from refocus_select.errors import InputError
from refocus_select.locations import is_data, local_path, short_name, split_data_url
from refocus_select.plain_text import seconds_of, shown
from refocus_select.video.arrays import is_array

logger = logging.getLogger(__name__)

# Where a mapping holds the video: chats of transformers and OpenAI, `datasets.Video` and `Image`, arrays with metadata.
SOURCE_KEYS = ("video", "video_url", "array", "frames", "bytes", "url", "path", "image", "image_url")
# What is said of the video beside it. The names are those of qwen-vl-utils, transformers and vLLM.
TIME_KEYS = ("timestamps", "video_metadata", "sample_fps", "raw_fps")
SAMPLING_KEYS = ("fps", "nframes", "num_frames", "min_frames", "max_frames", "video_start", "video_end")
# What others understand; it is passed on.
OTHER_KEYS = frozenset(
    {"type", "min_pixels", "max_pixels", "total_pixels", "resized_height", "resized_width", "detail", "format"}
    | {"mime_type", "uuid", "id", "cache_control"}
)
_LONGEST = 1e12  # seconds
_told: set[str] = set()  # unknown keys are named once


@dataclass(frozen=True)
class VideoInput:
    """A video as it was handed over.

    Attributes:
        source: what `open_video` opens.
        timestamps, fps: of its pictures; None for video files, which carry their own times.
        num_frames: how many frames K the caller wants of this video; None if nothing is said.
        sampling: arguments of `FrameSelector.encode`: `start`, `end`, `fps`, `max_frames`, `min_frames`.
    """

    source: Any
    timestamps: Any = None
    fps: float | None = None
    num_frames: int | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> str | None:
        """The local file or folder from which the same video can be opened again, if that is all it takes."""
        return local_path(self.source) if self.timestamps is None and self.fps is None else None


def read_input(value: Any, beside: Mapping[str, Any] | None = None) -> VideoInput:
    """Read what was handed over as a video.

    Args:
        value: a source of `open_video`; a mapping that holds one under `video`, `video_url`, `url`, `path`, `bytes`,
            `array` or `frames`; or a pair (frames, metadata).
        beside: more keys, such as those of the block of a chat in which the value stands.

    Beside pictures (a folder, a list, an array) `sample_fps`, `fps` or `raw_fps` is their rate, and `timestamps` or
    `video_metadata` (`frames_indices / fps`) are their times. Beside a file `fps`, `min_frames` and `max_frames` limit
    the candidates. `nframes` or `num_frames` is K; `video_start` and `video_end` (seconds, or "m:ss") are the part that
    is looked at. Other keys are named in a warning.

    Raises:
        InputError: a mapping without a video, or a value that is not usable.
    """
    if isinstance(value, VideoInput) and not beside:
        return value
    source, keys = _unwrapped(value, dict(beside or {}))
    _warn_of_unknown(keys)
    keys = {name: given for name, given in keys.items() if given is not None}
    sampling = {ours: _seconds(keys[key], key) for key, ours in _PART.items() if key in keys}
    count = next((_whole(keys[key], key) for key in ("nframes", "num_frames") if key in keys), None)
    if _opened_already(source) or not is_pictures(source):
        unused = [key for key in TIME_KEYS if key in keys]
        if unused:
            logger.warning("%s beside a video: not used, it carries its own times", ", ".join(unused))
        limits: dict[str, Any] = {key: _whole(keys[key], key) for key in ("min_frames", "max_frames") if key in keys}
        rate = {"fps": _positive(keys["fps"], "fps")} if "fps" in keys else {}
        return VideoInput(source, None, None, count, {**sampling, **rate, **limits})
    times, rate_of_pictures = _times_beside(keys)
    return VideoInput(source, times, rate_of_pictures, count, sampling)


def is_pictures(source: Any) -> bool:
    """Whether a source is pictures without times of their own: a folder, a list, an array, or a sequence as a URL."""
    if isinstance(source, list | tuple) or is_array(source) or hasattr(source, "getbands"):
        return True
    if not isinstance(source, str | os.PathLike):
        return False
    text = os.fsdecode(os.fspath(source))
    if is_data(text):
        head, body = split_data_url(text)
        return head[:16].lower() == "data:video/jpeg;" or (head.lower().endswith(";base64") and "," in body)
    path = local_path(text)
    try:
        return path is not None and os.path.isdir(path)
    except ValueError:
        return False


def name_of_source(source: Any) -> str:
    """How messages name a video that is not open yet."""
    if isinstance(source, VideoInput):
        return name_of_source(source.source)
    if isinstance(source, str | os.PathLike):
        return short_name(os.fsdecode(os.fspath(source)))
    if isinstance(source, bytes | bytearray | memoryview):
        return f"{len(source)} bytes"
    name = getattr(source, "name", None)
    if callable(getattr(source, "read", None)):
        return name if isinstance(name, str) else "file object"
    if isinstance(source, list | tuple):
        return f"{len(source)} pictures"
    return f"{type(source).__name__} of frames" if is_array(source) else type(source).__name__


# -- mappings ------------------------------------------------------------------------------------------------------


def _unwrapped(value: Any, keys: dict[str, Any], depth: int = 8) -> tuple[Any, dict[str, Any]]:
    """The source within mappings and pairs, and all keys beside it; inner ones count more."""
    if depth == 0:
        raise InputError("a video as a dict within dicts, too many of them; give the innermost")
    if isinstance(value, VideoInput):
        known = {"timestamps": value.timestamps, "sample_fps": value.fps, "num_frames": value.num_frames}
        known |= {theirs: value.sampling.get(ours) for theirs, ours in _PART.items()}
        known |= {name: value.sampling.get(name) for name in ("fps", "min_frames", "max_frames")}
        return value.source, {**keys, **{name: given for name, given in known.items() if given is not None}}
    if _is_pair(value):
        return _unwrapped(value[0], {**keys, "video_metadata": value[1]}, depth - 1)
    encoded = getattr(value, "_hf_encoded", None)  # a decoder that `datasets.Video` made
    if isinstance(encoded, Mapping) and (encoded.get("bytes") is not None or local_path(encoded.get("path"))):
        return _unwrapped(encoded, keys, depth - 1)
    if not isinstance(value, Mapping):
        return value, keys
    held = [name for name in SOURCE_KEYS if value.get(name) is not None]
    if not held:
        raise InputError(
            f"a video as a dict needs one of the keys {', '.join(SOURCE_KEYS)}; this one has "
            f"{', '.join(map(str, value)) or 'none'}"
        )
    others = {name: given for name, given in value.items() if name not in SOURCE_KEYS}
    return _unwrapped(value[held[0]], {**keys, **others}, depth - 1)


def _is_pair(value: Any) -> bool:
    """(frames, metadata), as `load_video` of transformers returns it and vLLM takes it."""
    if not isinstance(value, tuple) or len(value) != 2 or not is_array(value[0]):
        return False
    return isinstance(value[1], Mapping) or hasattr(value[1], "frames_indices")


def _opened_already(source: Any) -> bool:
    return hasattr(source, "fingerprint") or hasattr(source, "video_fingerprint")


def _warn_of_unknown(keys: Mapping[str, Any]) -> None:
    known = {*SOURCE_KEYS, *TIME_KEYS, *SAMPLING_KEYS, *OTHER_KEYS}
    unknown = sorted(str(key) for key in keys if key not in known and key not in _told)
    if unknown:
        _told.update(unknown)
        logger.warning(
            "not understood beside a video: %s (understood are %s)",
            ", ".join(unknown),
            ", ".join([*TIME_KEYS, *SAMPLING_KEYS]),
        )


# -- values --------------------------------------------------------------------------------------------------------

_PART = {"video_start": "start", "video_end": "end"}


def _times_beside(keys: Mapping[str, Any]) -> tuple[Any, float | None]:
    """Times and rate of pictures: times count more than a rate, and their own rate more than that of the video."""
    metadata = keys.get("video_metadata")
    if "timestamps" in keys:
        return keys["timestamps"], None
    for key in ("sample_fps", "fps"):
        if key in keys:
            return None, _positive(keys[key], key)
    if metadata is not None:
        return _times_of_metadata(metadata)
    return None, _positive(keys["raw_fps"], "raw_fps") if "raw_fps" in keys else None


def _times_of_metadata(metadata: Any) -> tuple[Any, float | None]:
    if not isinstance(metadata, Mapping) and not hasattr(metadata, "fps"):
        raise InputError(f"video_metadata must be a dict with fps and frames_indices, not {shown(metadata)}")
    read = metadata.get if isinstance(metadata, Mapping) else lambda name: getattr(metadata, name, None)
    fps, indices, times = (
        read("fps"),
        read("frames_indices"),
        read("timestamps") if isinstance(metadata, Mapping) else None,
    )
    if times is not None:
        return times, None
    if fps is None:
        return None, None
    rate = _positive(fps, "fps in video_metadata")
    if indices is None:
        return None, rate
    try:
        return np.asarray(indices, dtype=np.float64) / rate, None
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"frames_indices in video_metadata must be numbers, not {shown(indices)}") from None


def _positive(value: Any, name: str) -> float:
    if isinstance(value, list | tuple) and len(value) == 1:  # qwen-vl-utils returns rates in lists
        value = value[0]
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not 0 < number < math.inf:
        raise InputError(f"{name} must be a number above 0, not {shown(value)}")
    return number


def _whole(value: Any, name: str) -> int:
    number = _positive(value, name)
    if number != int(number):
        raise InputError(f"{name} must be a whole number of at least 1, not {value!r}")
    return int(number)


def _seconds(value: Any, name: str) -> float:
    """Seconds, from a number, or from text: seconds, m:ss or h:mm:ss."""
    if isinstance(value, str):
        return parse_clock(value, name)
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not abs(value) < _LONGEST:
        raise InputError(f"{name} must be a time in seconds, or text such as '1:30', not {shown(value)}")
    return float(value)


def parse_clock(text: str, name: str = "time") -> float:
    """Seconds from "90", "1:30", "1:30.5" or "0:01:30"; errors begin with `name`.

    Raises:
        InputError: if it is not a time.
    """
    try:
        return seconds_of(text.strip())
    except InputError as error:
        raise InputError(f"{name}: {error}") from None


def with_rate(given: VideoInput, timestamps: Any, fps: float | None) -> VideoInput:
    """The same input with times that were given as arguments, which count more than those beside it."""
    if timestamps is None and fps is None:
        return given
    return replace(given, timestamps=timestamps, fps=fps)
