"""The prompt: a fixed template around the question, split at the image marker."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import InputError, SelectorLoadError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

IMAGE_MARKER = "<image>"
IMAGE_TOKEN_ID = -200
TOKENIZER_ID = "EleutherAI/gpt-neox-20b"
TOKENIZER_FILE = "tokenizer.json"

_BEFORE = "<|system|>You are a helpful AI assistant.<|endoftext|><|user|>"
_AFTER = "<|endoftext|>"
_CHOICE_HEAD = (
    "Select the best answer to the following multiple-choice question based on the video. Respond with only the letter "
    "({letters}) of the correct option."
)
_CHOICE_TAIL = "The best answer is:"


def multiple_choice_text(question: str, options: Sequence[str]) -> str:
    """Question and answer options as the Video-MME task words them, which is what the released policy was run on.

    Raises:
        InputError: for fewer than two or more than 26 options.
    """
    if not 2 <= len(options) <= 26:
        raise InputError(f"a multiple-choice question has 2 to 26 options, not {len(options)}")
    letters = string.ascii_uppercase[: len(options)]
    named = ", ".join(letters[:-1]) + f", or {letters[-1]}"
    lines = [f"{letter}. {option}" for letter, option in zip(letters, options, strict=True)]
    return "\n".join([_CHOICE_HEAD.format(letters=named), question, *lines, _CHOICE_TAIL])


def prompt_text(text: str) -> str:
    """The whole prompt; the frames stand where the text has its marker, or before the text if it has none."""
    context = text if IMAGE_MARKER in text else f"{IMAGE_MARKER}\n{text}"
    return f"{_BEFORE}{context}{_AFTER}"


@dataclass(frozen=True)
class PromptTokenizer:
    """Turns questions into token ids.

    Attributes:
        tokenizer: the GPT-NeoX tokenizer (`tokenizers.Tokenizer`); no special tokens are added.
    """

    tokenizer: Tokenizer

    @classmethod
    def from_file(cls, path: str | Path) -> PromptTokenizer:
        """Read a `tokenizer.json`.

        Raises:
            SelectorLoadError: if it is missing or damaged.
        """
        from tokenizers import Tokenizer

        try:
            return cls(Tokenizer.from_file(str(path)))
        except Exception as error:  # the library raises plain Exception
            raise SelectorLoadError(
                f"{path} is missing or no tokenizer file ({error}); put the tokenizer.json of {TOKENIZER_ID} there"
            ) from error

    def encode(self, text: str) -> list[int]:
        """Token ids of the prompt for `text`, with `IMAGE_TOKEN_ID` at every marker."""
        pieces = prompt_text(text).split(IMAGE_MARKER)
        ids = self._ids(pieces[0])
        for piece in pieces[1:]:
            ids += [IMAGE_TOKEN_ID, *self._ids(piece)]
        return ids

    def prefix(self) -> Tensor:
        """Ids before the frames when the question does not place them itself, int64 [L]."""
        return torch.tensor(self._ids(_BEFORE), dtype=torch.int64)

    def suffix(self, text: str) -> Tensor:
        """Ids behind the frames, int64 [L], for an encoding whose frames follow the standard prefix.

        Raises:
            InputError: if the text moves the frames away from there or asks for more than one video. The frames are
                read before any question is known, so such a prompt cannot be answered from an encoding.
        """
        if text.count(IMAGE_MARKER) > 1 or text.find(IMAGE_MARKER) > 0:
            raise InputError(
                f"the question contains {IMAGE_MARKER!r} after other text, which would move the frames there; but "
                f"frames are read once, before the question: write it without the marker, or with one "
                f"{IMAGE_MARKER!r} at its very beginning"
            )
        ids = self.encode(text)
        return torch.tensor(ids[ids.index(IMAGE_TOKEN_ID) + 1 :], dtype=torch.int64)

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids) if text else []
