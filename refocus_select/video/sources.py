"""`open_video`: from whatever holds a video to a `Video`."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BytesIO
from typing import Any

from refocus_select.dependencies import check_dependencies
from refocus_select.errors import InputError, MissingDependencyError, VideoOpenError
from refocus_select.locations import is_data, is_web, local_path, read_data_url, short_name
from refocus_select.video.arrays import is_array
from refocus_select.video.base import Video
from refocus_select.video.container import check_regular_file
from refocus_select.video.images import AnimatedVideo, open_array, open_folder, open_images, open_still
from refocus_select.video.inputs import VideoInput, is_pictures, name_of_source, read_input, with_rate

BACKENDS = ("pyav", "torchcodec", "decord")
BACKEND_VARIABLE = "REFOCUS_VIDEO_BACKEND"
MAX_DOWNLOAD_BYTES = 16 * 2**30
_DOWNLOAD_TIMEOUT = 30.0  # seconds without a byte
_BLOCK = 2**20


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
            - an `http://` or `https://` URL (str), which is downloaded to a temporary file; a `file:` URL; or a
              `data:` URL, also of a sequence of pictures (`data:video/jpeg;base64,A,B,C`);
            - the content of a file: bytes, or a binary file object (read from its current position, which is put back);
            - frames: an array or tensor `[T, H, W, C]`, `[T, C, H, W]` or `[T, H, W]`, or a list of arrays; grey, RGB
              or RGBA; uint8, or floats from 0 to 1 or 0 to 255 (see `arrays.Pixels`);
            - a list of pictures: PIL images, paths, URLs, contents (bytes), `{"path", "bytes"}`, or arrays;
            - a dict with one of these, such as the block of a chat, a value of `datasets.Video`, or
              `{"array", "video_metadata"}`; times and rates in it are obeyed (see `inputs.read_input`);
            - a `VideoDecoder` of torchcodec;
            - a `Video`, which is returned as it is.
        backend: the decoder for video files: `"pyav"` (default), `"torchcodec"` or `"decord"`; None takes the
            environment variable REFOCUS_VIDEO_BACKEND. Pictures and arrays need no decoder and ignore it.
        timestamps: seconds of each frame, for pictures and arrays only. They stay as they are: frames from the middle
            of a longer video keep the times that they have there.
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
    given = with_rate(read_input(source), timestamps, fps)
    source, timestamps, fps = given.source, given.timestamps, given.fps
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
    if is_array(source):
        return open_array(source, timestamps=timestamps, fps=fps)
    if isinstance(source, list | tuple) or hasattr(source, "getbands"):
        return _open_list(list(source) if isinstance(source, list | tuple) else [source], timestamps, fps)
    if callable(getattr(source, "get_frames_at", None)) and hasattr(source, "metadata"):
        from refocus_select.video._torchcodec import open_decoder

        return open_decoder(source)
    raise InputError(
        f"cannot open a video from {type(source).__name__}; pass a path, URL, bytes, binary file object, folder, "
        "list of PIL images, or an array [T, H, W, 3]"
    )


@contextmanager
def opened(given: VideoInput, backend: str | None = None) -> Iterator[Video]:
    """Opens what is not open. A path is closed again (it can be reopened for the frames); anything else stays open."""
    source = given.source if isinstance(given.source, Video) else open_video(given, backend=backend)
    try:
        yield source
    finally:
        if given.path is not None:
            source.close()


def _backend(backend: str | None) -> str:
    origin = "backend" if backend is not None else BACKEND_VARIABLE
    chosen = backend if backend is not None else os.environ.get(BACKEND_VARIABLE) or "pyav"
    if chosen not in BACKENDS:
        raise InputError(f"{origin} must be one of {', '.join(BACKENDS)}, not {chosen!r}")
    return chosen


# -- text ----------------------------------------------------------------------------------------------------------


def _open_text(text: Any, backend: str, timestamps: Any, fps: float | None) -> Video:
    text = os.fsdecode(text)
    if not text:
        raise InputError("an empty path names no video")
    name = short_name(text)
    if is_web(text):
        return _open_url(text, backend, timestamps, fps)
    if is_data(text):
        parts = read_data_url(text)
        if is_pictures(text):
            return open_images(parts, name, timestamps=timestamps, fps=fps)
        return _open_bytes(parts[0], name, backend, timestamps, fps)
    path = local_path(text)
    if path is None:
        raise VideoOpenError(
            f"{name}: only http, https, file and data addresses can be opened; save the video to a file"
        )
    try:
        path = os.path.abspath(path)
        is_folder = os.path.isdir(path)
    except ValueError as error:  # a NUL in the name
        raise VideoOpenError(f"{name!r}: not a usable path ({error})") from None
    if is_folder:
        return open_folder(path, name, timestamps=timestamps, fps=fps)
    return _open_path(path, name, backend, timestamps, fps)


def _open_list(items: list[Any], timestamps: Any, fps: float | None) -> Video:
    if len(items) == 1 and is_array(items[0]) and items[0].ndim == 4:  # a list of one clip
        return open_array(items[0], timestamps=timestamps, fps=fps)
    if items and all(is_array(item) for item in items):
        return open_array(items, timestamps=timestamps, fps=fps)
    pictures = [picture for item in items for picture in _pictures_of(item)]
    return open_images(pictures, timestamps=timestamps, fps=fps)


def _pictures_of(item: Any) -> list[Any]:
    """An entry of a list of pictures as what `open_images` takes."""
    if isinstance(item, Mapping):
        item = read_input(item).source
    if isinstance(item, bytearray | memoryview):
        return [bytes(item)]
    if callable(getattr(item, "read", None)) and not hasattr(item, "getbands"):
        return [b"".join(_blocks_of(item, name_of_source(item)))]
    if isinstance(item, str):
        if is_data(item):
            return list(read_data_url(item))
        if is_web(item):
            return [b"".join(download(item))]
    if isinstance(item, str | os.PathLike):
        return [local_path(item) or item]
    return [item]


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
        return AnimatedVideo(path, name, fingerprint)
    if kind == "still":
        return open_still(path, name, fingerprint, timestamps, fps)
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
    if head.startswith((b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*", b"P5", b"P6")):
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
        return AnimatedVideo(data, name, fingerprint)
    if kind == "still":
        from PIL import Image

        try:
            image = Image.open(BytesIO(data))
            image.load()
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise VideoOpenError(f"{name}: the picture cannot be read ({error})") from None
        return open_still(image, name, fingerprint, timestamps, fps)
    return _spool(iter([data]), name, backend, timestamps, fps)


def _open_file_object(file: Any, backend: str, timestamps: Any, fps: float | None) -> Video:
    name = name_of_source(file)
    return _spool(_blocks_of(file, name), name, backend, timestamps, fps)


def _blocks_of(file: Any, name: str) -> Iterator[bytes]:
    """The content of a file object from where it stands; then it is put back there, for whoever reads it next."""
    begin = _position(file)
    try:
        while True:
            try:
                block = file.read(_BLOCK)
            except Exception as error:  # of somebody else's class
                raise VideoOpenError(f"{name}: the file object cannot be read ({error})") from error
            if isinstance(block, str):
                raise InputError(f"{name}: a text file object; open it with mode 'rb'")
            if not isinstance(block, bytes | bytearray | memoryview | None):
                raise InputError(f"{name}: a file object that gives {type(block).__name__} instead of bytes")
            if not block:
                return
            yield bytes(block)
    finally:
        if begin is not None:
            with suppress(OSError, ValueError):
                file.seek(begin)


def _position(file: Any) -> int | None:
    try:
        return int(file.tell()) if file.seekable() else None
    except (AttributeError, OSError, ValueError, TypeError):
        return None


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
    return _spool(download(url), short_name(url), backend, timestamps, fps)


def download(url: str, *, max_bytes: int | None = None, allow: Callable[[str], None] | None = None) -> Iterator[bytes]:
    """The content of an address, in pieces.

    Args:
        url: http or https.
        max_bytes: most that is read (default: 16 GiB).
        allow: called with the address, and with each one that it is redirected to; may raise to refuse it.

    Raises:
        VideoOpenError: if it cannot be reached, breaks off, is too large, or is a web page.
    """
    import urllib.request  # imported here because it is slow to import and rarely needed

    class Redirects(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
            if allow is not None:
                allow(newurl)
            return super().redirect_request(req, fp, code, msg, headers, newurl)

    if allow is not None:
        allow(url)
    redirects = Redirects()
    # Only these handlers: no ftp, file or data addresses, not even by redirection.
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        redirects,
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
        yield from _content(response, url, MAX_DOWNLOAD_BYTES if max_bytes is None else max_bytes)


def _content(response: Any, url: str, max_bytes: int) -> Iterator[bytes]:
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
        if total > max_bytes:
            raise VideoOpenError(f"{url}: larger than {max_bytes} bytes; download it yourself and pass the path")
        yield block
    promised = response.headers.get("Content-Length")
    if promised is not None and promised.isdigit() and int(promised) != total:
        raise VideoOpenError(f"{url}: the download broke off after {total} of {promised} bytes; try again")


# -- small things --------------------------------------------------------------------------------------------------


def fingerprint_of(path: str) -> str:
    """A cheap identity of a file's content: size, time of change, and a hash of its head and tail.

    The path is not part of it, so that what was computed for a file still holds after the file has moved.
    """
    status = os.stat(path)
    digest = hashlib.sha256(f"{status.st_size}\0{status.st_mtime_ns}\0".encode())
    with open(path, "rb") as file:
        digest.update(file.read(65536))
        file.seek(max(status.st_size - 65536, 0))
        digest.update(file.read(65536))
    return digest.hexdigest()[:32]
