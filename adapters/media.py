"""What counts as a video in a chat, and whether its frames are still to be chosen."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from refocus_select.errors import InputError, VideoError
from refocus_select.video.inputs import SAMPLING_KEYS, SOURCE_KEYS, TIME_KEYS, VideoInput, read_input

if TYPE_CHECKING:
    from refocus_select.video import Video

# Keys of a block that its frames replace: where the video was, and how it was to be sampled.
REPLACED_KEYS = frozenset({*SOURCE_KEYS, *TIME_KEYS, *SAMPLING_KEYS})


def is_video_block(block: Any) -> bool:
    """Whether a content block holds a video."""
    return names_video(block) and any(block.get(key) is not None for key in SOURCE_KEYS)


def names_video(block: Any) -> bool:
    """Whether a block is a video, or stands for one that is given to the processor later."""
    return isinstance(block, Mapping) and block.get("type") in ("video", "video_url")


def is_image_block(block: Any) -> bool:
    """Whether a content block is a picture, in transformers' or OpenAI's words."""
    return isinstance(block, Mapping) and block.get("type") in ("image", "image_url")


def image_of(block: Mapping[str, Any]) -> Any:
    """The picture of a block: a path, URL, bytes, or pixels.

    Raises:
        InputError: if the block holds none.
    """
    keys = ("image", "image_url", "url", "path", "bytes")
    value = next((block[key] for key in keys if block.get(key) is not None), None)
    value = value.get("url") if isinstance(value, Mapping) and "url" in value else value
    if value is None:
        raise InputError(f"a picture in the chat has none of the keys {', '.join(keys)}; it has {', '.join(block)}")
    return value


def to_image(value: Any) -> Any:
    """A picture of any kind as a PIL image; PIL images stay as they are.

    Raises:
        InputError: if it cannot be read.
    """
    if hasattr(value, "getbands"):
        return value
    try:
        return to_images([value])[0]
    except VideoError as error:
        raise InputError(f"the picture {name_of(value)} cannot be read: {error}") from error


def keys_beside(block: Mapping[str, Any]) -> dict[str, Any]:
    """What a block says of its video."""
    return {key: value for key, value in block.items() if key not in SOURCE_KEYS and key != "type"}


def is_source(value: Any) -> bool:
    """Whether frames are still to be chosen: a path, URL, bytes, file, dict, an open `Video` or a `VideoEncoding`."""
    if isinstance(value, str | os.PathLike | bytes | bytearray | memoryview | Mapping | VideoInput):
        return True
    if callable(getattr(value, "read", None)) or callable(getattr(value, "get_frames_at", None)):
        return not hasattr(value, "getbands")
    return _is_open(value)


def is_frame(value: Any) -> bool:
    """Whether a value is one picture: a PIL image, or an array or tensor of three dimensions (two, if it is grey)."""
    return getattr(value, "ndim", None) in (2, 3) or (hasattr(value, "getbands") and hasattr(value, "size"))


def is_frames(value: Any) -> bool:
    """Whether a value is the frames of one video: an array or tensor [T, ...], or a list of pictures."""
    if isinstance(value, list | tuple):
        return bool(value) and all(is_frame(v) for v in value)
    return getattr(value, "ndim", None) in (3, 4)


def prepared(given: VideoInput) -> Any:
    """What a selector is given for a video: what it can open again, or else the opened video.

    Raises:
        VideoError, InputError: if it cannot be opened.
    """
    from refocus_select.video import open_video

    if given.path is not None:
        return given.path
    timed = given.timestamps is not None or given.fps is not None
    if _is_open(given.source) or (isinstance(given.source, str | bytes) and not timed):
        return given.source
    return open_video(given)


def name_of(value: Any) -> str:
    """How errors name a video."""
    from refocus_select.encoding import VideoEncoding
    from refocus_select.video import Video
    from refocus_select.video.inputs import name_of_source

    if isinstance(value, VideoEncoding):
        return f"encoding of {value.video.source}"
    return str(value.metadata.source) if isinstance(value, Video) else name_of_source(value)


def to_pictures(value: Any) -> np.ndarray:
    """Frames of any kind as uint8 RGB [T, H, W, 3]; what floats mean is judged over all of them."""
    with _as_video(value) as video:
        return video.get_frames(np.arange(len(video))).data


def to_images(value: Any) -> list[Any]:
    """Frames of any kind as PIL images; lists of files and URLs too."""
    from PIL import Image

    return [Image.fromarray(picture) for picture in to_pictures(value)]


def resized(frames: Any, size: tuple[int, int]) -> Any:
    """Frames of one video at another size, in the kind they came in.

    Args:
        frames: uint8 pictures [N, H, W, 3] or [N, 3, H, W], a float tensor of that shape, or a list of pictures.
        size: (height, width) in pixels.
    """
    from PIL import Image

    if isinstance(frames, list | tuple):
        if all(hasattr(frame, "getbands") for frame in frames):
            return [frame.resize(size[::-1], Image.Resampling.BICUBIC) for frame in frames]
        return [resized(frame[None], size)[0] for frame in frames]
    if not isinstance(frames, np.ndarray):
        return _resized_tensor(frames, size)
    if frames.dtype != np.uint8 or frames.shape[-1] != 3:
        import torch

        return _resized_tensor(torch.from_numpy(np.ascontiguousarray(frames)), size).numpy()
    if frames.shape[1:3] == size:
        return frames
    return np.stack([np.asarray(Image.fromarray(f).resize(size[::-1], Image.Resampling.BICUBIC)) for f in frames])


def _resized_tensor(frames: Any, size: tuple[int, int]) -> Any:
    from torch.nn.functional import interpolate

    last = frames.shape[-1] in (1, 3) and frames.shape[1] not in (1, 3)
    planes = (frames.movedim(-1, 1) if last else frames).float()
    planes = interpolate(planes, size, mode="bicubic", antialias=True)
    if not frames.dtype.is_floating_point:
        planes = planes.round().clamp(0, 255)
    planes = planes.to(frames.dtype)
    return planes.movedim(1, -1) if last else planes


def _as_video(value: Any) -> Video:
    from refocus_select.video import open_video

    return open_video(value, fps=1.0)


def _is_open(value: Any) -> bool:
    from refocus_select.encoding import VideoEncoding
    from refocus_select.video import Video

    return isinstance(value, Video | VideoEncoding)


def sound_of(source: Any, sampling_rate: int) -> np.ndarray | None:
    """The sound track of a video, mono float32 in [-1, 1], or None if it is silent.

    Args:
        source: a path, a URL, bytes, or what else `open_video` reads as a file.
        sampling_rate: samples per second of the result.

    Raises:
        VideoOpenError: if the source cannot be opened.
    """
    import io

    import av

    from refocus_select.errors import VideoOpenError
    from refocus_select.locations import is_data, local_path, read_data_url

    source = read_input(source).source
    if isinstance(source, str) and is_data(source):
        source = read_data_url(source)[0]
    file = io.BytesIO(source) if isinstance(source, bytes) else local_path(source) or source
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
