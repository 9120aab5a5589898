"""`VideoEncoding`: what selectors keep of a video, independent of any question, and its file format."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import EncodingError, InputError
from .files import replacing
from .plain_text import parse_json, shown

if TYPE_CHECKING:
    import torch

    from .arguments import VideoSource
    from .encoders import DualEncoder
    from .video import Video, VideoMetadata
    from .words.found import VideoWords

VECTORS = "embeddings"
"""Name of the frames' vectors among the tensors of an encoding by a dual encoder."""

_EDGE = 0.5  # seconds that given times may lie beyond the first and the last frame: they are often rounded
_NO_VIDEO = "(vectors)"  # in place of a source
_FORMAT = "refocus-select/video-encoding"
_VERSION = "2"
_WITHOUT_CHECKSUM = "1"  # still read: its fields are checked, but a flipped bit in a number cannot be noticed
_TEXTS = ("video", "video_fingerprint", "encoder", "encoder_fingerprint", "warnings")
_NEEDED = {"source", "num_frames", "duration"}
_NUMBERS = ("num_frames", "duration", "start_time", "average_fps", "width", "height", "rotation", "keyframe_interval")


@dataclass(frozen=True)
class VideoEncoding:
    """A video as one encoder sees it: encode once, ask as many questions as you like.

    Attributes:
        tensors: what the encoder computed; tensors of one row per candidate have the leading size F.
        indices: frame numbers of the candidates in the video, int64 [F].
        timestamps: their times in seconds on the clock of `Video.timestamps`, float64 [F].
        video: metadata of the video.
        video_fingerprint: identity of the video's content.
        encoder: who made the tensors, for people: an encoder, or a policy that reads pictures itself.
        encoder_fingerprint: identity of its weights and configuration. Every selector with this `encoding_fingerprint`
            can use the encoding.
        warnings: what was unusual while reading the video.
        words: what is said and written in the video, if that was asked for and there is any.
        origin: what to open again for full-size frames: a path, or an open `Video`; not saved.
    """

    tensors: Mapping[str, torch.Tensor]
    indices: np.ndarray
    timestamps: np.ndarray
    video: VideoMetadata
    video_fingerprint: str
    encoder: str
    encoder_fingerprint: str
    warnings: tuple[str, ...] = ()
    words: VideoWords | None = None
    origin: Any = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        """Number of candidate frames F."""
        return len(self.indices)

    @classmethod
    def from_vectors(
        cls,
        vectors: np.ndarray | torch.Tensor,
        timestamps: Sequence[float] | np.ndarray,
        *,
        encoder: str | os.PathLike[str] | DualEncoder,
        indices: Sequence[int] | np.ndarray | None = None,
        video: VideoSource | None = None,
    ) -> VideoEncoding:
        """Take vectors of frames that exist already, e.g. from the index of a search engine.

            encoding = VideoEncoding.from_vectors(vectors, times, encoder="google/siglip2-base-patch16-224")
            FrameSelector.from_pretrained("mmr", encoder="google/siglip2-base-patch16-224").select(encoding, "a goal")

        Every algorithm, and every policy that reads vectors, takes the encoding when it is loaded with this encoder.

        Args:
            vectors: one per frame, as the encoder's `encode_frames` gives them, [F, D].
            timestamps: of the frames in seconds, rising, [F].
            encoder: the one that made the vectors (see `load_encoder`); it reads the questions. An object without
                `encode_frames` is enough.
            indices: frame numbers in the video, rising, [F] (default: the frames of `video` nearest to these times;
                without a video 0 to F - 1).
            video: where full-size frames are read from later; without it a selection has numbers and times only.

        Raises:
            InputError: if vectors, times and frame numbers do not fit each other or the video.
            EncoderError: if the encoder cannot be used, or its vectors of text have another length.
            VideoError: if the video cannot be opened.
        """
        import torch

        from .encoders import load_encoder
        from .encoders.protocol import check_one_space, name_of

        reader = load_encoder(encoder)
        found = torch.as_tensor(vectors).detach().float().cpu()
        times = np.asarray(timestamps, dtype=np.float64)
        if found.ndim != 2 or not len(found) or times.shape != (len(found),):
            raise InputError(
                f"vectors {list(found.shape)} and timestamps {list(times.shape)}: give [F, D] and [F], one of each for "
                "every frame"
            )
        if not found.isfinite().all():
            bad = int((~found.isfinite().all(dim=1)).nonzero()[0])
            raise InputError(f"the vectors hold NaN or infinity, first at row {bad}; leave such frames out")
        if not np.isfinite(times).all() or (np.diff(times) < 0).any():
            raise InputError("timestamps must be finite and rising; sort them together with the vectors")
        check_one_space(reader, int(reader.encode_text(["a"]).shape[1]), found.shape[1])
        digest = hashlib.sha256(found.contiguous().numpy().data)
        digest.update(times.tobytes())
        return cls(
            tensors={VECTORS: found},
            timestamps=times,
            encoder=name_of(reader),
            encoder_fingerprint=reader.fingerprint,
            **_place(times, indices, video, f"vectors-{digest.hexdigest()}"),
        )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the encoding as one safetensors file with a checksum, under a temporary name first.

        Raises:
            EncodingError: if the file cannot be written.
        """
        return write_encoding(self, Path(path))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> VideoEncoding:
        """Read a file that `save` wrote. Files of format 1, which have no checksum, are read as well.

        Raises:
            EncodingError: if the file is missing, damaged, or not an encoding.
        """
        return read_encoding(Path(path))


def write_encoding(encoding: VideoEncoding, target: Path, *, key: str = "") -> Path:
    """`VideoEncoding.save`; the file also tells the key under which it is kept, if there is one.

    Raises:
        EncodingError: if the file cannot be written.
    """
    import torch
    from safetensors.torch import save_file

    header = {
        "format": _FORMAT,
        "version": _VERSION,
        "video": json.dumps(encoding.video.to_dict()),
        "video_fingerprint": encoding.video_fingerprint,
        "encoder": encoding.encoder,
        "encoder_fingerprint": encoding.encoder_fingerprint,
        "warnings": json.dumps(list(encoding.warnings)),
        **({"key": key} if key else {}),
    }
    body = {f"tensors.{name}": tensor.detach().cpu().contiguous() for name, tensor in encoding.tensors.items()}
    body["indices"] = torch.from_numpy(np.ascontiguousarray(encoding.indices, dtype=np.int64))
    body["timestamps"] = torch.from_numpy(np.ascontiguousarray(encoding.timestamps, dtype=np.float64))
    if encoding.words is not None:
        header["words"] = encoding.words.header()
        body["words"] = encoding.words.vectors.detach().cpu().contiguous()
    header["checksum"] = _checksum(header, body)
    try:
        with replacing(target) as temporary:
            save_file(body, temporary, metadata=header)
    except OSError as error:
        raise EncodingError(f"cannot write the encoding to {target}: {error.strerror or error}") from error
    return target


def read_encoding(source: Path, *, key: str = "") -> VideoEncoding:
    """`VideoEncoding.load`; a file that was not written under the key, if one is given, is refused.

    Raises:
        EncodingError: if the file is missing, damaged, not an encoding, or of another key.
    """
    if not source.is_file():
        raise EncodingError(f"no encoding at {source}; make one with selector.encode(video).save({str(source)!r})")
    header, body = _read(source)
    if header.get("format") != _FORMAT or header.get("version") not in (_VERSION, _WITHOUT_CHECKSUM):
        raise EncodingError(f"{source} is not a video encoding of this version; encode the video again")
    promised = header.pop("checksum", None)
    if (promised is not None or header["version"] == _VERSION) and promised != _checksum(header, body):
        raise EncodingError(f"{source} is damaged: its checksum is wrong; encode the video again")
    if key and header.get("key") != key:
        raise EncodingError(f"{source} holds another encoding than its name says; encode the video again")
    if header["version"] == _WITHOUT_CHECKSUM:
        header = _renamed(header)
    try:
        encoding = VideoEncoding(
            tensors={name.removeprefix("tensors."): t for name, t in body.items() if name.startswith("tensors.")},
            indices=_series(body, "indices", np.int64),
            timestamps=_series(body, "timestamps", np.float64),
            words=_words(header, body),
            **_facts(header),
        )
        _check_series(encoding)
    except ValueError as error:
        raise EncodingError(f"{source} is damaged: {error}; encode the video again") from error
    return encoding


def check_tensors(
    encoding: VideoEncoding, expected: Mapping[str, tuple[Sequence[int], Collection[torch.dtype]]]
) -> None:
    """Check that an encoding holds the tensors that a selector reads; others may be there as well.

    Args:
        encoding: from a file, or of a caller.
        expected: by name the shape, with 0 for a side of any length above 0, and the types.

    Raises:
        EncodingError: for a tensor that is missing, of another shape or type, or holds what is not a finite number.
    """
    for name, (shape, kinds) in expected.items():
        tensor = encoding.tensors.get(name)
        if tensor is None:
            raise _unusable(encoding, f"has no {name}")
        found = list(tensor.shape)
        if len(found) != len(shape) or any(side != want if want else not side for side, want in zip(found, shape)):  # noqa: B905
            raise _unusable(encoding, f"holds {name} {found}, not {[side or 'D' for side in shape]}")
        if tensor.dtype not in kinds:
            raise _unusable(encoding, f"holds {name} of {tensor.dtype}")
        if not tensor.float().norm(dim=-1).isfinite().all():
            raise _unusable(encoding, f"holds {name} with NaN, infinity, or numbers near it")


def _unusable(encoding: VideoEncoding, why: str) -> EncodingError:
    return EncodingError(
        f"the encoding of {encoding.video.source} by {encoding.encoder!r} {why} ({len(encoding)} frames); encode the "
        "video again"
    )


def _check_series(encoding: VideoEncoding) -> None:
    """Whether frame numbers and times belong together.

    Raises:
        ValueError: saying what is wrong.
    """
    indices, timestamps = encoding.indices, encoding.timestamps
    if not len(indices) or len(indices) != len(timestamps):
        raise ValueError(f"{len(indices)} frame numbers and {len(timestamps)} times")
    if indices[0] < 0 or (np.diff(indices) < 0).any():
        raise ValueError("the frame numbers are negative or out of order")
    if indices[-1] >= encoding.video.num_frames:
        raise ValueError(f"frame number {indices[-1]} of a video of {encoding.video.num_frames} frames")
    if not np.isfinite(timestamps).all() or (np.diff(timestamps) < 0).any():
        raise ValueError("the times are not finite or out of order")


def _place(times: np.ndarray, indices: Any, video: VideoSource | None, fingerprint: str) -> dict[str, Any]:
    """Frame numbers of given times, and what is known of the video."""
    from .video import VideoMetadata, opened, read_input

    numbers = None if indices is None else np.asarray(indices)
    if numbers is not None:
        if numbers.shape != times.shape or not np.issubdtype(numbers.dtype, np.integer):
            raise InputError(f"indices must be {len(times)} whole numbers, one for each vector")
        if numbers[0] < 0 or (np.diff(numbers) <= 0).any():
            raise InputError("indices must be rising from 0 on; sort them together with the vectors")
    if video is None:
        numbers = np.arange(len(times)) if numbers is None else numbers
        step = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
        facts = VideoMetadata(_NO_VIDEO, int(numbers[-1]) + 1, float(times[-1]) + step)
        return {"indices": numbers.astype(np.int64), "video": facts, "video_fingerprint": fingerprint}
    handed = read_input(video)
    with opened(handed) as source:
        if numbers is None:
            numbers = _nearest(source, times)
        if numbers[-1] >= len(source):
            raise InputError(f"{source.metadata.source} has {len(source)} frames, and no frame {numbers[-1]}")
        return {
            "indices": numbers.astype(np.int64),
            "video": source.metadata,
            "video_fingerprint": source.fingerprint,
            "warnings": source.warnings,
            "origin": source if handed.path is None else handed.path,
        }


def _nearest(source: Video, times: np.ndarray) -> np.ndarray:
    """Numbers of the frames of a video nearest to given times.

    Raises:
        InputError: if a time lies outside the video, or two times mean one frame.
    """
    shown, name = source.timestamps, source.metadata.source
    if times[0] < shown[0] - _EDGE or times[-1] > source.metadata.duration + _EDGE:
        raise InputError(
            f"timestamps from {times[0]:.3f} s to {times[-1]:.3f} s lie outside {name} ({shown[0]:.3f} s to "
            f"{source.metadata.duration:.3f} s): give seconds from its first frame on"
        )
    after = np.searchsorted(shown, times).clip(1, max(1, len(shown) - 1))
    before = after - 1
    after = after.clip(max=len(shown) - 1)
    numbers = np.where(times - shown[before] <= shown[after] - times, before, after)
    if (np.diff(numbers) <= 0).any():
        raise InputError(f"two of the timestamps are nearest to one frame of {name}; give indices, or fewer vectors")
    return numbers


def _read(source: Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    """Header and tensors of a safetensors file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(source), framework="pt") as file:
            return dict(file.metadata() or {}), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    # RuntimeError: torch, of a file removed meanwhile; the others: types that this torch does not have.
    except (SafetensorError, OSError, RuntimeError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise EncodingError(f"{source} is damaged or no safetensors file ({error}); encode again") from error


def _renamed(header: Mapping[str, str]) -> dict[str, str]:
    """The header of format 1, where an encoding belonged to a selector, with the names of today."""
    now = dict(header)
    for name in ("encoder", "encoder_fingerprint"):
        before = now.pop(name.replace("encoder", "selector"), None)
        if isinstance(before, str):
            now[name] = before.removeprefix("embeddings-1-")
    return now


def _checksum(header: Mapping[str, str], body: Mapping[str, torch.Tensor]) -> str:
    """sha256 over header and tensors, in the order of their names."""
    import torch

    digest = hashlib.sha256(json.dumps(dict(header), sort_keys=True).encode())
    for name in sorted(body):
        tensor = body[name]
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _series(body: Mapping[str, torch.Tensor], name: str, kind: type[np.generic]) -> np.ndarray:
    """One of the two series, [F]."""
    if name not in body:
        raise ValueError(f"it has no {name}")
    found = body[name].numpy() if str(body[name].dtype) == f"torch.{np.dtype(kind)}" else None
    if found is None or found.ndim != 1:
        raise ValueError(f"{name} are {body[name].dtype} {list(body[name].shape)}, not {np.dtype(kind)} [F]")
    return found


def _words(header: Mapping[str, str], body: Mapping[str, torch.Tensor]) -> VideoWords | None:
    """The words of the video, if the file holds any."""
    if "words" not in header:
        return None
    from .words.found import VideoWords

    return VideoWords.from_header(header["words"], body.get("words"))


def _facts(header: Mapping[str, str]) -> dict[str, Any]:
    """The fields that the header holds."""
    from .video import VideoMetadata

    missing = [name for name in _TEXTS if not isinstance(header.get(name), str)]
    if missing:
        raise ValueError(f"its header has no {', '.join(missing)}")
    video, warnings = parse_json(header["video"]), parse_json(header["warnings"])
    if not isinstance(video, dict) or not isinstance(video.get("source"), str) or not video.keys() >= _NEEDED:
        raise ValueError("its header does not describe a video")
    for name in _NUMBERS:
        value = video.get(name, 0)
        if name == "keyframe_interval" and value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{name} of the video is {shown(value)}")
    if not isinstance(warnings, list) or not all(isinstance(warning, str) for warning in warnings):
        raise ValueError("its warnings are not texts")
    return {
        "video": VideoMetadata.from_dict(video),
        "video_fingerprint": header["video_fingerprint"],
        "encoder": header["encoder"],
        "encoder_fingerprint": header["encoder_fingerprint"],
        "warnings": tuple(warnings),
    }
