"""`DualEncoder`: what an encoder must have, and the checks that every selector makes on one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import EncoderError

if TYPE_CHECKING:
    import numpy as np
    import torch


class DualEncoder(Protocol):
    """Vectors of frames and of text in one space, compared by their dot product.

    `MiniEncoder`, `HFEncoder`, or an object of your own. It may say more about itself:

    - `name`: for people; by default that of its class;
    - `frame_size`: (height, width) that frames are best decoded at, or None for the video's own size; an encoder that
      wants a size for each video has a method `decode_size(height, width)`;
    - `dimensions`: the length D of its vectors, by which an encoding of another length is noticed;
    - `logit_scale`: what its model multiplies cosines with.

    Attributes:
        fingerprint: identity of weights and configuration; encodings are kept under it.
    """

    @property
    def fingerprint(self) -> str: ...

    def encode_frames(self, frames: np.ndarray) -> torch.Tensor:
        """Uint8 RGB [N, H, W, 3] to float32 [N, D] on the CPU."""

    def encode_text(self, texts: Sequence[str]) -> torch.Tensor:
        """Float32 [len(texts), D] on the CPU."""


def check_encoder(encoder: Any) -> DualEncoder:
    """The encoder itself, if it has all that selectors need.

    Raises:
        EncoderError: naming what it lacks, and the remedy.
    """
    lacking = [name for name in ("encode_frames", "encode_text") if not callable(getattr(encoder, name, None))]
    called = type(encoder).__name__
    if lacking == ["encode_text"]:
        raise EncoderError(
            f"the encoder {called} has no encode_text: it sees frames but reads no questions. Give a dual encoder such "
            "as 'google/siglip2-base-patch16-224', or add encode_text(texts) with vectors of the same space"
        )
    if lacking:
        raise EncoderError(
            f"{called} is not an encoder: it has no {' and no '.join(lacking)}. Give a name, a folder, a Hub id, or an "
            "object with encode_frames(frames), encode_text(texts) and a fingerprint"
        )
    fingerprint = getattr(encoder, "fingerprint", None)
    if not isinstance(fingerprint, str) or not fingerprint:
        raise EncoderError(
            f"the encoder {called} has no fingerprint, under which encodings are kept; give it one that changes with "
            f'the weights, e.g. fingerprint = "my-encoder-1"'
        )
    return encoder


def name_of(encoder: DualEncoder) -> str:
    """What to call an encoder."""
    return str(getattr(encoder, "name", None) or type(encoder).__name__)
