"""`open_video`: from whatever holds a video to a `Video`."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import numpy as np

from refocus_select.dependencies import check_dependencies
from refocus_select.errors import InputError, MissingDependencyError, VideoOpenError
from refocus_select.video.base import Video
from refocus_select.video.container import check_regular_file
from refocus_select.video.images import AnimatedVideo, open_array, open_folder, open_images, open_still

BACKENDS = ("pyav", "torchcodec", "decord")
BACKEND_VARIABLE = "REFOCUS_VIDEO_BACKEND"
MAX_DOWNLOAD_BYTES = 16 * 2**30
_DOWNLOAD_TIMEOUT = 30.0  # seconds without a byte
_BLOCK = 2**20
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def open_video(
    source: Any,
    *,
    backend: str | None = None,
    timestamps: Any = None,
    fps: float | None = None,
    square_pixels: bool = True,
) -> Video:
    """Opens a video, from wherever it comes.

    Args:
        source: one of
            - a path (str or `PathLike`) of a video file, a picture file, or a folder of pictures (natural order);
            - an `http://` or `https://` URL (str), which is downloaded to a temporary file; or a `file://` URL;
            - the content of a file: bytes, or a binary file object (read from its current position);
            - a list of PIL images or of picture paths;
            - frames: numpy uint8 `[T, H, W, 3]`, torch `[T, C, H, W]` or `[T, H, W, C]`, or a list of numpy
              `[H, W, 3]`; floats from 0 to 1 are accepted;
            - a `Video`, which is returned as it is.
        backend: the decoder for video files: `"pyav"` (default), `"torchcodec"` or `"decord"`; None takes the
            environment variable REFOCUS_VIDEO_BACKEND. Pictures and arrays need no decoder and ignore it.
        timestamps: seconds of each frame, for pictures and arrays only. `Video.timestamps` count from the first.
        fps: frames per second, for pictures and arrays only. Arrays need one of the two; pictures without either
            are taken as one per second, with a warning.
        square_pixels: True scales pictures of files whose pixels are not square (DVD, DV, HDV) to the proportions in
            which they are shown; False returns them as they are stored. `VideoMetadata.pixel_aspect_ratio` tells.

    Returns:
        A `Video`; close it, or use it in a `with` block.

    Raises:
        InputError: the arguments are not usable.
        VideoOpenError: missing, unreadable, empty, not a video, a playlist, or no video stream.
        UnsupportedVideoError: no decoder, pictures too large, or a file that the chosen backend gets wrong.
        MissingDependencyError: the chosen backend is not installed.
    """
    check_dependencies()
    if isinstance(source, Video):
        return source
    if not square_pixels:
        video = open_video(source, backend=backend, timestamps=timestamps, fps=fps)
        video.keep_stored_pixels()
        return video
    chosen = _backend(backend)
    if isinstance(source, str | os.PathLike):
        return _open_text(os.fspath(source), chosen, timestamps, fps)
    if isinstance(source, bytes | bytearray | memoryview):
        return _open_bytes(bytes(source), "bytes", chosen, timestamps, fps)
    if callable(getattr(source, "read", None)):
        return _open_file_object(source, chosen, timestamps, fps)
    if isinstance(source, list | tuple):
        if source and all(_is_array(frame) and getattr(frame, "ndim", 0) == 3 for frame in source):
            return open_array(_stacked(source), timestamps=timestamps, fps=fps)
        return open_images(source, timestamps=timestamps, fps=fps)
    if _is_array(source):
        return open_array(source, timestamps=timestamps, fps=fps)
    raise InputError(
        f"cannot open a video from {type(source).__name__}; pass a path, URL, bytes, binary file object, folder, "
        "list of PIL images, or an array [T, H, W, 3]"
    )


def _backend(backend: str | None) -> str:
    origin = "backend" if backend is not None else BACKEND_VARIABLE
    chosen = backend if backend is not None else os.environ.get(BACKEND_VARIABLE) or "pyav"
    if chosen not in BACKENDS:
        raise InputError(f"{origin} must be one of {', '.join(BACKENDS)}, not {chosen!r}")
    return chosen


# -- text ----------------------------------------------------------------------------------------------------------


def _open_text(text: Any, backend: str, timestamps: Any, fps: float | None) -> Video:
    if isinstance(text, bytes):
        text = os.fsdecode(text)
    if not text:
        raise InputError("an empty path names no video")
    if text[:8].lower().startswith(("http://", "https://")):
        return _open_url(text, backend, timestamps, fps)
    path = text
    if text[:7].lower() == "file://":
        from urllib.parse import urlsplit
        from urllib.request import url2pathname

        parts = urlsplit(text)
        if parts.netloc not in ("", "localhost"):
            raise VideoOpenError(f"{text}: a file on another host ({parts.netloc}); copy it here, or use http")
        path = url2pathname(parts.path)
    elif _SCHEME.match(text) and not os.path.exists(text):
        raise VideoOpenError(f"{text}: only http, https and file addresses can be opened; save the video to a file")
    try:
        path = os.path.abspath(path)
        is_folder = os.path.isdir(path)
    except ValueError as error:  # a NUL in the name
        raise VideoOpenError(f"{text!r}: not a usable path ({error})") from None
    if is_folder:
        return open_folder(path, text, timestamps=timestamps, fps=fps)
    return _open_path(path, text, backend, timestamps, fps)


def _open_path(
    path: str,
    name: str,
    backend: str,
    timestamps: Any,
    fps: float | None,
    fingerprint: str | None = None,
) -> Video:
    check_regular_file(path, name)
    with _readable(path, name) as file:
        kind = _kind(file.read(64), file)
    fingerprint = fingerprint or fingerprint_of(path)
    if kind == "webp":
        return AnimatedVideo(lambda: path, name, fingerprint)
    if kind == "still":
        return open_still(path, name, fingerprint, fps)
    _refuse_times(name, timestamps, fps)
    return _open_with(backend, path, name, fingerprint)


def _open_with(backend: str, path: str, name: str, fingerprint: str) -> Video:
    try:
        if backend == "decord":
            from refocus_select.video._decord import DecordVideo

            return DecordVideo(path, name, fingerprint)
        if backend == "torchcodec":
            from refocus_select.video._torchcodec import TorchCodecVideo

            return TorchCodecVideo(path, name, fingerprint)
        from refocus_select.video._pyav import PyAVVideo
    except ModuleNotFoundError as error:
        if error.name != "av":
            raise
        raise MissingDependencyError("reading video files needs PyAV: pip install av") from error
    return PyAVVideo(path, name, fingerprint)


def _refuse_times(name: str, timestamps: Any, fps: float | None) -> None:
    if timestamps is not None or fps is not None:
        raise InputError(f"{name}: a video file carries its own times; timestamps and fps are for pictures and arrays")


def _readable(path: str, name: str) -> Any:
    try:
        return open(path, "rb")
    except OSError as error:
        raise VideoOpenError(f"{name}: cannot be read ({error.strerror}); check its permissions") from None


def _kind(head: bytes, file: Any) -> str:
    """`"webp"` (animated), `"still"` (one picture), or `"video"` (everything that FFmpeg reads, GIF included)."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp" if head[12:16] == b"VP8X" and head[20] & 2 else "still"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        file.seek(0)
        return "video" if b"acTL" in file.read(4096) else "still"
    if head.startswith((b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*")):
        # Motion JPEG without a container also begins like a picture, but goes on with the next one.
        return "video" if head.startswith(b"\xff\xd8") and _has_second_jpeg(file) else "still"
    return "video"


def _has_second_jpeg(file: Any) -> bool:
    file.seek(0)
    return b"\xff\xd9\xff\xd8\xff" in file.read(4 * _BLOCK)


# -- content -------------------------------------------------------------------------------------------------------


def _open_bytes(data: bytes, name: str, backend: str, timestamps: Any, fps: float | None) -> Video:
    if not data:
        raise VideoOpenError(f"{name}: empty; there is nothing to decode")
    kind = _kind(data[:64], BytesIO(data))
    fingerprint = hashlib.sha256(data).hexdigest()[:32]
    if kind == "webp":
        return AnimatedVideo(lambda: BytesIO(data), name, fingerprint)
    if kind == "still":
        from PIL import Image

        try:
            image = Image.open(BytesIO(data))
            image.load()
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise VideoOpenError(f"{name}: the picture cannot be read ({error})") from None
        return open_still(image, name, fingerprint, fps)
    return _spool(iter([data]), name, backend, timestamps, fps)


def _open_file_object(file: Any, backend: str, timestamps: Any, fps: float | None) -> Video:
    name = getattr(file, "name", None)
    name = name if isinstance(name, str) else "file object"

    def blocks() -> Iterator[bytes]:
        while True:
            try:
                block = file.read(_BLOCK)
            except (OSError, ValueError) as error:
                raise VideoOpenError(f"{name}: the file object cannot be read ({error})") from None
            if isinstance(block, str):
                raise InputError(f"{name}: a text file object; open it with mode 'rb'")
            if not block:
                return
            yield bytes(block)

    return _spool(blocks(), name, backend, timestamps, fps)


def _spool(blocks: Iterator[bytes], name: str, backend: str, timestamps: Any, fps: float | None) -> Video:
    """Writes content to a temporary file, which lives as long as the video: decoders in threads each open it."""
    handle, path = tempfile.mkstemp(prefix="refocus-select-", suffix=".video")
    digest = hashlib.sha256()
    try:
        with os.fdopen(handle, "wb") as file:
            for block in blocks:
                digest.update(block)
                file.write(block)
        video = _open_path(path, name, backend, timestamps, fps, digest.hexdigest()[:32])
    except BaseException:
        os.unlink(path)
        raise
    video._own_file(path)
    return video


# -- URLs ----------------------------------------------------------------------------------------------------------


def _open_url(url: str, backend: str, timestamps: Any, fps: float | None) -> Video:
    import urllib.request  # imported here because it is slow to import and rarely needed

    # Only these handlers: no ftp, file or data addresses, not even by redirection.
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    request = urllib.request.Request(url, headers={"User-Agent": "refocus-select"})
    try:
        response = opener.open(request, timeout=_DOWNLOAD_TIMEOUT)
    except (OSError, ValueError) as error:  # URLError and HTTPError are OSErrors
        raise VideoOpenError(f"{url}: cannot be downloaded ({error}); check the address and the network") from None
    with response:
        return _spool(_download(response, url), url, backend, timestamps, fps)


def _download(response: Any, url: str) -> Iterator[bytes]:
    kind = response.headers.get_content_type()
    if kind == "text/html":
        raise VideoOpenError(f"{url}: a web page, not a video; pass the address of the video file itself")
    total = 0
    while True:
        try:
            block = response.read(_BLOCK)
        except OSError as error:
            raise VideoOpenError(f"{url}: the download broke off after {total} bytes ({error}); try again") from None
        if not block:
            break
        total += len(block)
        if total > MAX_DOWNLOAD_BYTES:
            raise VideoOpenError(
                f"{url}: larger than {MAX_DOWNLOAD_BYTES} bytes; download it yourself and pass the path"
            )
        yield block
    promised = response.headers.get("Content-Length")
    if promised is not None and promised.isdigit() and int(promised) != total:
        raise VideoOpenError(f"{url}: the download broke off after {total} of {promised} bytes; try again")


# -- small things --------------------------------------------------------------------------------------------------


def fingerprint_of(path: str) -> str:
    """A cheap identity of a file's content: size, time of change, and a hash of its head and tail.

    The path is no part of it, so that what was computed for a file still holds after the file has moved.
    """
    status = os.stat(path)
    digest = hashlib.sha256(f"{status.st_size}\0{status.st_mtime_ns}\0".encode())
    with open(path, "rb") as file:
        digest.update(file.read(65536))
        file.seek(max(status.st_size - 65536, 0))
        digest.update(file.read(65536))
    return digest.hexdigest()[:32]


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) or (hasattr(value, "detach") and hasattr(value, "shape"))


def _stacked(frames: list[Any] | tuple[Any, ...]) -> Any:
    arrays = [frame.detach().cpu().numpy() if hasattr(frame, "detach") else frame for frame in frames]
    shapes = {array.shape for array in arrays}
    if len(shapes) > 1:
        raise InputError(f"frames of different shapes {sorted(shapes)}; scale them to one size, or pass PIL images")
    return np.stack(arrays)
