"""`VideoEncoding`: what a selector keeps of a video, independent of any question, and its file format."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import EncodingError

if TYPE_CHECKING:
    import torch

_FORMAT = "refocus-select/video-encoding"
_VERSION = "1"


@dataclass(frozen=True)
class VideoEncoding:
    """A video as one selector sees it: encode once, ask as many questions as you like.

    Attributes:
        tensors: what the selector computed; tensors of one row per candidate have the leading size F.
        indices: frame numbers of the candidates in the video, int64 [F].
        timestamps: their presentation times in seconds from the first frame, float64 [F].
        video: the video's metadata as plain values (`source`, `duration`, `width`, …).
        video_fingerprint: identity of the video's content.
        selector: name of the selector that made the encoding.
        selector_fingerprint: identity of its weights and configuration.
        warnings: what was unusual while reading the video.
        origin: what to open again for full-size frames: a path, or an open `Video`; not saved.
    """

    tensors: Mapping[str, torch.Tensor]
    indices: np.ndarray
    timestamps: np.ndarray
    video: Mapping[str, Any]
    video_fingerprint: str
    selector: str
    selector_fingerprint: str
    warnings: tuple[str, ...] = ()
    origin: Any = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        """Number of candidate frames F."""
        return len(self.indices)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the encoding as one safetensors file, under a temporary name first.

        Raises:
            EncodingError: if the file cannot be written.
        """
        import torch
        from safetensors.torch import save_file

        target = Path(path)
        header = {
            "format": _FORMAT,
            "version": _VERSION,
            "video": json.dumps(dict(self.video)),
            "video_fingerprint": self.video_fingerprint,
            "selector": self.selector,
            "selector_fingerprint": self.selector_fingerprint,
            "warnings": json.dumps(list(self.warnings)),
        }
        body = {f"tensors.{name}": tensor.detach().cpu().contiguous() for name, tensor in self.tensors.items()}
        body["indices"] = torch.from_numpy(np.ascontiguousarray(self.indices, dtype=np.int64))
        body["timestamps"] = torch.from_numpy(np.ascontiguousarray(self.timestamps, dtype=np.float64))
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
            os.close(handle)
            try:
                save_file(body, temporary, metadata=header)
                os.replace(temporary, target)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise EncodingError(f"cannot write the encoding to {target}: {error.strerror or error}") from error
        return target

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> VideoEncoding:
        """Read a file that `save` wrote.

        Raises:
            EncodingError: if the file is missing, damaged, or not an encoding.
        """
        from safetensors import SafetensorError, safe_open

        source = Path(path)
        if not source.is_file():
            raise EncodingError(f"no encoding at {source}; make one with selector.encode(video).save({str(source)!r})")
        try:
            with safe_open(str(source), framework="pt") as file:
                header = file.metadata() or {}
                body = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, RuntimeError) as error:  # RuntimeError: torch, of a file removed meanwhile
            raise EncodingError(f"{source} is damaged or no safetensors file ({error}); encode again") from error
        if header.get("format") != _FORMAT or header.get("version") != _VERSION:
            raise EncodingError(f"{source} is not a video encoding of this version; encode the video again")
        return cls(
            tensors={name.removeprefix("tensors."): t for name, t in body.items() if name.startswith("tensors.")},
            indices=body["indices"].numpy(),
            timestamps=body["timestamps"].numpy(),
            video=json.loads(header["video"]),
            video_fingerprint=header["video_fingerprint"],
            selector=header["selector"],
            selector_fingerprint=header["selector_fingerprint"],
            warnings=tuple(json.loads(header["warnings"])),
        )
