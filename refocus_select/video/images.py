"""Videos that are pictures already: a folder, a list of PIL images, an animated WebP, an array."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from refocus_select.errors import InputError, UnsupportedVideoError, VideoDecodeError, VideoOpenError
from refocus_select.video.arrays import Pixels, is_array
from refocus_select.video.base import MAX_PIXELS, SpanReader, Video, VideoMetadata
from refocus_select.video.engine import Put, Span
from refocus_select.video.plan import Plan

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".gif"}
ASSUMED_FPS = 1.0  # for pictures without any times
_SPAN = 8  # pictures per span


class PictureVideo(Video):
    """Pictures that can be loaded one by one, in any order, from several threads."""

    def __init__(
        self,
        load: Callable[[int, tuple[int, int] | None], NDArray[np.uint8]],
        count: int,
        source: str,
        kind: str,
        fingerprint: str,
        *,
        timestamps: ArrayLike | None,
        fps: float | None,
        last: float | None = None,
        warnings: Sequence[str] = (),
    ) -> None:
        """`load(i, (height, width) or None)` gives picture i as RGB; it may raise `OSError` or `ValueError`.

        `last` is the seconds that the last picture stays, if known.
        """
        self._load = load
        times, duration = seconds_of(source, count, timestamps, fps, last)
        notes = list(warnings)
        fingerprint = hashlib.sha256(fingerprint.encode() + times.tobytes()).hexdigest()[:32]  # times are content
        height, width = self._first_size(source, count)
        steps = np.diff(times)
        metadata = VideoMetadata(
            source=source,
            num_frames=count,
            duration=duration,
            start_time=0.0,
            average_fps=count / (duration - float(times[0])),
            is_vfr=bool(len(steps) > 1 and np.ptp(steps) > 1e-3 + 0.02 * np.median(steps)),
            width=width,
            height=height,
            rotation=0,
            codec="array" if kind == "array" else "image",
            container=kind,
            keyframe_interval=float(np.median(steps)) if len(steps) else None,
            backend=kind,
        )
        super().__init__(metadata, times, fingerprint, notes)

    def _first_size(self, source: str, count: int) -> tuple[int, int]:
        problem: Exception | None = None
        for number in range(min(count, 16)):
            try:
                height, width = self._load(number, None).shape[:2]
                return height, width
            except (OSError, ValueError, SyntaxError) as error:
                problem = problem or error
        raise VideoOpenError(f"{source}: its pictures cannot be read ({problem}); are they damaged?") from problem

    def _plan(self, targets: NDArray[np.int64], workers: int) -> Plan:
        count = len(targets)
        spans = [Span(a, min(a + _SPAN, count), None) for a in range(0, count, _SPAN)]
        return Plan(spans, max(1, min(workers, len(spans))))

    def _reader(self, targets: NDArray[np.int64], size: tuple[int, int], plan: Plan) -> SpanReader:
        return _PictureReader(self, targets, size)

    def picture(self, index: int, size: tuple[int, int]) -> NDArray[np.uint8] | None:
        """Picture `index` as RGB at `size`; None if it cannot be read."""
        try:
            return self._load(index, size)
        except (OSError, ValueError, SyntaxError):
            return None


class _PictureReader:
    def __init__(self, video: PictureVideo, targets: NDArray[np.int64], size: tuple[int, int]) -> None:
        self.video, self.targets, self.size = video, targets, size

    def read(self, span: Span, put: Put, check: Callable[[], None]) -> None:
        for position in range(span.start, span.stop):
            check()
            index = int(self.targets[position])
            picture = self.video.picture(index, self.size)
            if picture is not None:
                put(position, picture, index, True)
            else:
                put(position, *self._neighbour(index), False)

    def _neighbour(self, index: int) -> tuple[NDArray[np.uint8], int]:
        count = self.video.metadata.num_frames
        for other in (*range(index - 1, -1, -1), *range(index + 1, count)):
            picture = self.video.picture(other, self.size)
            if picture is not None:
                return picture, other
        raise VideoDecodeError(f"{self.video.metadata.source}: not one of its pictures can be read")

    def close(self) -> None:
        pass


def open_folder(
    path: str, source: str, *, timestamps: ArrayLike | None = None, fps: float | None = None
) -> PictureVideo:
    """A folder of pictures, in natural order of their names (`frame9` before `frame10`).

    Raises:
        VideoOpenError: it cannot be listed or holds no picture.
    """
    try:
        names = [e.name for e in os.scandir(path) if not e.name.startswith(".") and e.is_file()]
    except OSError as error:
        raise VideoOpenError(f"{source}: the folder cannot be listed ({error.strerror})") from None
    files = [os.path.join(path, n) for n in sorted(names, key=_natural) if Path(n).suffix.lower() in SUFFIXES]
    if not files:
        raise VideoOpenError(f"{source}: a folder without pictures ({', '.join(sorted(SUFFIXES))})")
    digest = hashlib.sha256()
    for file in files:
        digest.update(_state_of_file(file))
    return _open_pictures(files, source, digest.hexdigest()[:32], timestamps, fps)


def open_images(
    images: Sequence[Any], source: str = "images", *, timestamps: ArrayLike | None = None, fps: float | None = None
) -> PictureVideo:
    """A list of pictures, in order: PIL images, paths, contents of picture files (bytes), or arrays `[H, W, 3]`.

    Raises:
        InputError: the list is empty or holds something else.
    """
    from PIL import Image

    if not images:
        raise InputError("an empty list holds no frames; pass at least one picture")
    pictures = [Image.fromarray(Pixels([image])[0]) if is_array(image) else image for image in images]
    digest = hashlib.sha256()
    for place, picture in enumerate(pictures):
        if isinstance(picture, Image.Image):
            digest.update(f"{picture.mode}{picture.size}".encode() + picture.tobytes())
        elif isinstance(picture, bytes):
            digest.update(hashlib.sha256(picture).digest())
        elif isinstance(picture, str | os.PathLike):
            digest.update(_state_of_file(os.fspath(picture)))
        else:
            raise InputError(
                f"entry {place} is {type(picture).__name__}; a list of frames holds PIL images, paths, URLs, bytes or "
                "arrays"
            )
    return _open_pictures(pictures, source, digest.hexdigest()[:32], timestamps, fps)


def _state_of_file(path: str) -> bytes:
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # reported when it is read
        return f"{path}\0".encode(errors="surrogateescape")
    return f"{path}\0{status.st_size}\0{status.st_mtime_ns}\0".encode(errors="surrogateescape")


def open_still(
    file: Any, source: str, fingerprint: str, timestamps: ArrayLike | None = None, fps: float | None = None
) -> PictureVideo:
    """One picture file (path, PIL image) as a video of one frame."""
    if timestamps is None and fps is None:
        fps = ASSUMED_FPS
    video = _open_pictures([file], source, fingerprint, timestamps, fps)
    video._warn(f"{source}: a single picture; it is treated as a video of one frame")
    return video


class _Pictures:
    """Loads pictures of a list one by one; those of another size take that of the first."""

    def __init__(self, pictures: Sequence[Any], source: str) -> None:
        self._pictures, self._source = pictures, source
        self._common: tuple[int, int] | None = None

    def __call__(self, index: int, size: tuple[int, int] | None) -> NDArray[np.uint8]:
        image = _rgb(self._pictures[index], size, self._source)
        wanted = size or self._common
        if wanted is None:
            self._common = (image.height, image.width)
        elif (image.height, image.width) != wanted:
            from PIL import Image

            image = image.resize((wanted[1], wanted[0]), Image.Resampling.BILINEAR)
        return np.asarray(image)


def _open_pictures(
    pictures: Sequence[Any],
    source: str,
    fingerprint: str,
    timestamps: ArrayLike | None,
    fps: float | None,
) -> PictureVideo:
    notes = _mixed_sizes(pictures, source)
    if timestamps is None and fps is None:
        fps = ASSUMED_FPS
        notes.append(f"{source}: no times given; {ASSUMED_FPS:g} picture per second is assumed (pass fps=)")
    return PictureVideo(
        _Pictures(pictures, source),
        len(pictures),
        source,
        "images",
        fingerprint,
        timestamps=timestamps,
        fps=fps,
        warnings=notes,
    )


def _rgb(picture: Any, size: tuple[int, int] | None, source: str) -> Image:
    """A picture as an upright RGB image; transparent parts become white, as on a page."""
    from PIL import Image, ImageOps

    try:
        image = picture if isinstance(picture, Image.Image) else Image.open(_file(picture))
    except Image.DecompressionBombError as error:
        raise UnsupportedVideoError(f"{source}: {error}; scale the picture down first") from None
    try:
        if image.width * image.height > MAX_PIXELS:
            raise UnsupportedVideoError(
                f"{source}: a picture of {image.width}x{image.height} exceeds the limit of {MAX_PIXELS} pixels"
            )
        if size is not None and image is not picture:
            image.draft("RGB", (2 * size[1], 2 * size[0]))  # JPEG can be decoded at a fraction of its size
        upright = ImageOps.exif_transpose(image)
        if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
            layer = upright.convert("RGBA")
            upright = Image.new("RGBA", layer.size, "white")
            upright.alpha_composite(layer)
        return upright.convert("RGB")
    finally:
        if image is not picture:
            image.close()


def _file(picture: Any) -> Any:
    """What Pillow opens: the content of a picture file as a file."""
    return BytesIO(picture) if isinstance(picture, bytes) else picture


def _mixed_sizes(pictures: Sequence[Any], source: str) -> list[str]:
    """A note if pictures differ in size (header reads only)."""
    from PIL import Image

    sizes = set()
    for picture in pictures:
        if isinstance(picture, Image.Image):
            sizes.add(picture.size)
            continue
        try:
            with Image.open(_file(picture)) as image:
                sizes.add(image.size)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            continue
    if len(sizes) <= 1:
        return []
    return [f"{source}: pictures of {len(sizes)} different sizes; at full size all take the size of the first"]


# -- animated WebP -------------------------------------------------------------------------------------------------


class AnimatedVideo(PictureVideo):
    """An animated WebP through Pillow; FFmpeg does not read it. Pictures build on each other: one reader."""

    def __init__(self, content: str | bytes, source: str, fingerprint: str) -> None:
        """`content` is a path, or what is in a file."""
        from PIL import Image

        self._content = content
        times: list[float] = []
        clock = last = 0.0
        notes: list[str] = []
        try:
            with Image.open(_file(content)) as image:
                promised = getattr(image, "n_frames", 1)
                for number in range(promised):
                    image.seek(number)
                    image.load()
                    times.append(clock)
                    last = max(float(image.info.get("duration", 0)), 10.0) / 1000
                    clock += last
        except (OSError, ValueError, EOFError, SyntaxError, Image.DecompressionBombError) as error:
            if not times:
                raise VideoOpenError(f"{source}: this picture file cannot be read ({error})") from error
            notes.append(f"{source}: damaged after picture {len(times)} of {promised}; only those before are used")
        super().__init__(
            self._decode_one,
            len(times),
            source,
            "webp",
            fingerprint,
            timestamps=times,
            fps=None,
            last=last,
            warnings=notes,
        )

    def _plan(self, targets: NDArray[np.int64], workers: int) -> Plan:
        return Plan([Span(0, len(targets), None)] if len(targets) else [], 1)

    def _reader(self, targets: NDArray[np.int64], size: tuple[int, int], plan: Plan) -> SpanReader:
        return _AnimatedReader(_file(self._content), targets, size)

    def _decode_one(self, index: int, size: tuple[int, int] | None) -> NDArray[np.uint8]:
        from PIL import Image

        with Image.open(_file(self._content)) as image:
            image.seek(index)
            return np.asarray(_scaled(image, size))


class _AnimatedReader:
    def __init__(self, file: Any, targets: NDArray[np.int64], size: tuple[int, int]) -> None:
        from PIL import Image

        self.image, self.targets, self.size = Image.open(file), targets, size

    def read(self, span: Span, put: Put, check: Callable[[], None]) -> None:
        for position in range(span.start, span.stop):
            check()
            index = int(self.targets[position])
            self.image.seek(index)  # opening has read every picture once, so this one can be read
            put(position, np.asarray(_scaled(self.image, self.size)), index, True)

    def close(self) -> None:
        self.image.close()


def _scaled(image: Image, size: tuple[int, int] | None) -> Image:
    from PIL import Image as PIL

    picture = _rgb(image, None, "webp")
    if size is None or size == (picture.height, picture.width):
        return picture
    return picture.resize((size[1], size[0]), PIL.Resampling.BILINEAR)


# -- arrays --------------------------------------------------------------------------------------------------------


class _Arrays:
    """Loads frames in memory one by one."""

    def __init__(self, pixels: Pixels) -> None:
        self._pixels = pixels

    def __call__(self, index: int, size: tuple[int, int] | None) -> NDArray[np.uint8]:
        return self._pixels[index] if size is None else resized(self._pixels[index], size)


def open_array(
    frames: Any, source: str = "array", *, timestamps: ArrayLike | None = None, fps: float | None = None
) -> PictureVideo:
    """Frames in memory.

    Args:
        frames: what `arrays.Pixels` takes. Not copied: do not change it while the video is open.
        source: its name in messages.
        timestamps, fps: one of them is required: an array says nothing of time.

    Raises:
        InputError: shape, type or range is not usable, or no times are given.
    """
    pixels = Pixels(frames)
    if timestamps is None and fps is None:
        raise InputError(
            "frames in an array carry no times: pass fps=... (frames per second) or timestamps=[...] (seconds)"
        )

    return PictureVideo(_Arrays(pixels), len(pixels), source, "array", pixels.digest(), timestamps=timestamps, fps=fps)


def resized(picture: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """An RGB picture `[H, W, 3]` at (height, width), bilinear with antialiasing."""
    if picture.shape[:2] == size:
        return picture
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(picture))
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.BILINEAR))


# -- times ---------------------------------------------------------------------------------------------------------


def seconds_of(
    source: str, count: int, timestamps: ArrayLike | None, fps: float | None, last: float | None = None
) -> tuple[NDArray[np.float64], float]:
    """Seconds of each picture, and until when the last one is shown. Times that a caller gives stay as they are."""
    if timestamps is not None and fps is not None:
        raise InputError("pass timestamps or fps, not both")
    if timestamps is None:
        if isinstance(fps, bool) or not isinstance(fps, int | float | np.number) or not 0 < fps < np.inf:
            raise InputError(f"fps must be a number above 0, not {fps!r}")
        if not 1e-9 <= fps <= 1e9:
            raise InputError(f"fps must lie between 1e-9 and 1e9 frames per second, not {fps:g}")
        return np.arange(count) / float(fps), count / float(fps)
    try:
        times = np.asarray(timestamps, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError("timestamps must be numbers, in seconds") from None
    if times.shape != (count,):
        raise InputError(f"{source}: {count} frames need {count} timestamps, not an array of shape {times.shape}")
    if not np.isfinite(times).all() or (np.diff(times) <= 0).any():
        raise InputError(f"{source}: timestamps must be finite and increase from frame to frame")
    if times[0] < 0:
        raise InputError(f"{source}: timestamps must not be negative, the first is {times[0]:g} s; count from zero on")
    if last is None:
        last = float(np.median(np.diff(times))) if count > 1 else 1 / ASSUMED_FPS
    return times, float(times[-1]) + last


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Sorts `frame9` before `frame10`; names that differ only in case keep a fixed order."""
    parts = re.split(r"(\d+)", name.lower())
    return [(0, int(p), "") if p.isdigit() and p.isascii() else (1, 0, p) for p in parts] + [(2, 0, name)]
