"""`DualEncoder`: what an encoder must have, and the checks that every selector makes on one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import EncoderError
from .languages import foreign_script

if TYPE_CHECKING:
    import numpy as np
    import torch


class DualEncoder(Protocol):
    """Vectors of frames and of text in one space, compared by their dot product.

    `MiniEncoder`, `HFEncoder`, `SentenceTransformersEncoder`, `OpenCLIPEncoder`, or an object of your own. It may say
    more about itself:

    - `name`: for people; by default that of its class;
    - `frame_size`: (height, width) that frames are best decoded at, or None for the video's own size; an encoder that
      wants a size for each video has a method `decode_size(height, width)`;
    - `dimensions`: the length D of its vectors, by which an encoding of another length is noticed;
    - `logit_scale`: what its model multiplies cosines with;
    - `languages`: codes of the languages that it reads, such as ("en",); None if it reads many, or nobody knows;
    - `max_text_tokens`: tokens of the longest text that it reads at once, and `count_tokens(texts)`, which counts them;
      None for any length.

    A question in a script that none of the languages is written in, or with more tokens, gives a warning.

    Attributes:
        fingerprint: identity of weights and configuration; encodings are kept under it.
    """

    @property
    def fingerprint(self) -> str: ...

    def encode_frames(self, frames: np.ndarray) -> torch.Tensor:
        """Uint8 RGB [N, H, W, 3] to float32 [N, D] on the CPU.

        An encoder without this method serves encodings that were made elsewhere (`VideoEncoding.from_vectors`).
        """

    def encode_text(self, texts: Sequence[str]) -> torch.Tensor:
        """Float32 [len(texts), D] on the CPU."""


def check_encoder(encoder: Any) -> DualEncoder:
    """The encoder itself, if it has all that selectors need.

    Raises:
        EncoderError: naming what it lacks, and the remedy.
    """
    called = type(encoder).__name__
    sees, reads = (callable(getattr(encoder, name, None)) for name in ("encode_frames", "encode_text"))
    if sees and not reads:
        raise EncoderError(
            f"the encoder {called} has no encode_text: it sees frames but reads no questions. Give a dual encoder such "
            "as 'google/siglip2-base-patch16-224', or add encode_text(texts) with vectors of the same space"
        )
    if not reads:
        raise EncoderError(
            f"{called} is not an encoder: it has no encode_frames and no encode_text. Give a name, a folder, a Hub "
            "id, or an object with encode_frames(frames), encode_text(texts) and a fingerprint"
        )
    fingerprint = getattr(encoder, "fingerprint", None)
    if not isinstance(fingerprint, str) or not fingerprint:
        raise EncoderError(
            f"the encoder {called} has no fingerprint, under which encodings are kept; give it one that changes with "
            f'the weights, e.g. fingerprint = "my-encoder-1"'
        )
    return encoder


def checked_vectors(encoder: DualEncoder, vectors: Any, count: int, what: str) -> torch.Tensor:
    """What an encoder gave, float32 [count, D] on the CPU.

    Args:
        encoder: for messages.
        vectors: of any type that torch understands.
        count: how many there must be.
        what: "frames" or "text".

    Raises:
        EncoderError: if they are not vectors, too few or many, or not finite.
    """
    import torch

    try:
        found: torch.Tensor = torch.as_tensor(vectors)
    except (TypeError, ValueError, RuntimeError) as error:
        raise EncoderError(f"{name_of(encoder)} gives no vectors of {what} but {type(vectors).__name__}") from error
    if found.ndim != 2 or len(found) != count:
        raise EncoderError(
            f"{name_of(encoder)} gives {list(found.shape)} for {count} {what}; one vector for each is needed, "
            f"[{count}, D]"
        )
    found = found.detach().float().cpu()
    if not found.isfinite().all():
        raise EncoderError(
            f"{name_of(encoder)} gives vectors of {what} that hold NaN or infinity; load it with "
            'dtype="float32", or check its weights'
        )
    return found


def check_one_space(encoder: DualEncoder, of_text: int, of_frames: int) -> None:
    """See that vectors of text and of frames are of one length.

    Raises:
        EncoderError: otherwise.
    """
    if of_text != of_frames:
        raise EncoderError(
            f"{name_of(encoder)} gives vectors of {of_text} numbers for text and of {of_frames} for frames: they "
            "cannot be compared. Both must come from one model, after its projection into the common space"
        )


def question_warnings(encoder: DualEncoder, question: str) -> tuple[str, ...]:
    """What to tell who asks a question that the encoder may not understand."""
    name, found = name_of(encoder), []
    languages = getattr(encoder, "languages", None)
    script = foreign_script(question, languages)
    if script:
        found.append(
            f"the question is written in {script} letters, but {name} reads {', '.join(languages or ())} only: ask in "
            "that language, or take an encoder of more languages"
        )
    most, count = getattr(encoder, "max_text_tokens", None), getattr(encoder, "count_tokens", None)
    longest = len(question.encode("utf-8", "surrogatepass")) + 2  # a token is a byte at least; begin and end
    if most and count is not None and longest > most and (tokens := int(count([question])[0])) > most:
        found.append(f"the question has {tokens} tokens, more than the {most} that {name} reads at once: ask shorter")
    return tuple(found)


def name_of(encoder: DualEncoder) -> str:
    """What to call an encoder."""
    return str(getattr(encoder, "name", None) or type(encoder).__name__)
