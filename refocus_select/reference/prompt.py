"""From a question and a subset of frames to the inputs of a chat model of transformers, as its users prepare them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..adapters.input_format import InputFormat, processor_kwargs, sentence
from ..adapters.prompts import write_times
from ..errors import InputError
from ..questions import Question, multiple_choice
from ..selection import Selection
from ..video import VideoMetadata
from .clips import Clip

PROMPT_VERSION = 1  # raise it when the words around frames and question change


@dataclass(frozen=True)
class View:
    """Frames of a clip as a processor receives them.

    Attributes:
        frames: a video [K * merge, H, W, 3], or a list of K images.
        words: the sentence that tells their times; "" if the model learns them otherwise.
        clip: the adapters' form of a video, with metadata; None for images.
    """

    frames: Any
    words: str
    clip: Any = None


class Prompter:
    """Prompts and model inputs of one processor.

    Attributes:
        input_format: how this family takes videos; None if the processor takes images only.
        batches: several prompts may be given to the processor at once.
    """

    def __init__(self, processor: Any, *, name: str, template_kwargs: Mapping[str, Any] | None = None) -> None:
        if getattr(processor, "tokenizer", None) is None or not hasattr(processor, "apply_chat_template"):
            raise InputError(
                f"{name} has a {type(processor).__name__} for a processor, which takes no chats with pictures; a "
                "reference model must be an image-text-to-text or video chat model"
            )
        if not getattr(processor, "chat_template", None):
            raise InputError(
                f"the processor of {name} has no chat template, so it is not known how to ask the model; "
                "give processor=… with a chat_template"
            )
        self.processor = processor
        self.name = name
        self._template_kwargs = dict(template_kwargs or {})
        has_videos = getattr(processor, "video_processor", None) is not None
        if not has_videos and getattr(processor, "image_processor", None) is None:
            raise InputError(f"the processor of {name} takes neither videos nor images; give a video chat model")
        # Each frame by itself, so that its tokens are the same in every subset.
        self.input_format = InputFormat.of(processor, temporal_merge="duplicate") if has_videos else None
        if self.input_format is not None and not self.input_format.family.takes_metadata:
            raise InputError(f"{name} is not a chat model ({self.input_format.family.name}); give a video chat model")
        self.batches = self.input_format is None or not self.input_format.family.one_video
        self._letters: dict[int, list[int]] = {}

    @property
    def modality(self) -> str:
        """How frames are given: "video" or "image"."""
        return "image" if self.input_format is None else "video"

    def chat(self, question: Question, num_frames: int) -> str:
        """The question with its options, rendered as a chat that waits for the answer; frames are placeholders.

        Raises:
            InputError: if the answer would begin with a thought.
        """
        pictures = [{"type": "image"}] * num_frames if self.input_format is None else [{"type": "video"}]
        content = [*pictures, {"type": "text", "text": multiple_choice(question)}]
        rendered = self.processor.apply_chat_template(
            [{"role": "user", "content": content}],
            tokenize=False,
            add_generation_prompt=True,
            **self._template_kwargs,
        )
        if str(rendered).rstrip().endswith("<think>"):
            raise InputError(
                f"{self.name} thinks before it answers, so that no letter follows the prompt; give "
                "template_kwargs={'enable_thinking': False}, or a model that answers directly"
            )
        return str(rendered)

    def letters(self, chat: str, count: int) -> list[int]:
        """The tokens of the option letters as the answer's first word.

        A letter directly follows a prompt that ends with a line break, a space or a special token; behind other ends
        ("ASSISTANT:", "[/INST]") models write a space first, and the token is that of " A".

        Raises:
            InputError: if the tokenizer does not write each letter as one token of its own.
        """
        if count not in self._letters:
            self._letters[count] = self._find_letters(chat, count)
        return self._letters[count]

    def _find_letters(self, chat: str, count: int) -> list[int]:
        tokenizer = self.processor.tokenizer
        special = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
        closed = chat[-1:].isspace() or chat.endswith(tuple(special))
        for space in ("", " ") if closed else (" ", ""):
            tokens = [_next_tokens(tokenizer, chat, space + letter) for letter in ascii_uppercase[:count]]
            if all(len(ids) == 1 for ids in tokens) and len({ids[0] for ids in tokens}) == count:
                return [ids[0] for ids in tokens]
        raise InputError(
            f"the tokenizer of {self.name} does not write each of the letters {', '.join(ascii_uppercase[:count])} "
            "behind its prompt as one token of its own, so options cannot be scored by one pass; use another "
            "reference model"
        )

    def view(self, clip: Clip, positions: np.ndarray, pictures: np.ndarray, size: tuple[int, int]) -> View:
        """A subset as this processor takes it.

        Args:
            clip: where it is from.
            positions: which candidates, [K].
            pictures: theirs, uint8 [K, H, W, 3]; only their number matters to `words`.
            size: (height, width) of the pictures, for the metadata.
        """
        times = clip.timestamps[positions]
        if self.input_format is None:
            return View(list(pictures), sentence(times, clip.duration))
        selection = Selection(
            question="",
            selector="",
            indices=np.arange(len(positions)),
            timestamps=times,
            scores=np.zeros(len(positions)),
            candidate_indices=np.arange(len(positions)),
            candidate_timestamps=times,
            video=VideoMetadata(clip.key, len(positions), clip.duration, height=size[0], width=size[1]),
            video_fingerprint=clip.key,
        )
        (video,) = self.input_format.clips(selection, pictures)
        return View(video.frames, self.input_format.time_text(selection), video)

    def inputs(self, chat: str, views: Sequence[View], processor: Any = None) -> dict[str, Any]:
        """Run the processor on one prompt per view; shorter prompts are filled up at the right.

        Args:
            chat: of `chat`.
            views: subsets of equally many frames.
            processor: a stand-in for the own one.

        Returns:
            What the processor gives, as tensors.
        """
        used = self.processor if processor is None else processor
        kwargs: dict[str, Any] = {"return_tensors": "pt"}
        if len(views) > 1:
            kwargs |= {"padding": True, "padding_side": "right"}
        bos = self.processor.tokenizer.bos_token
        if bos is not None and chat.startswith(bos):  # as in apply_chat_template
            kwargs["add_special_tokens"] = False
        if self.input_format is None:
            prompts = [_behind_images(chat, self.processor, view.words) for view in views]
            return dict(used(text=prompts, images=[view.frames for view in views], **kwargs))
        token = str(getattr(self.processor, "video_token", None) or "")
        prompts = [write_times(chat, token, [view.words], [None]) if view.words else chat for view in views]
        clips = [view.clip for view in views]
        kwargs |= processor_kwargs([dict(clip.metadata) for clip in clips], clips, self.input_format)
        found = dict(used(text=prompts, videos=[[view.frames] for view in views], **kwargs))
        found.pop("video_metadata", None)
        return found

    def words_only(self, chat: str, view: View, shape: Mapping[str, Any]) -> dict[str, Any]:
        """The inputs of a subset without looking at its pictures.

        The processor itself writes the prompt, times and placeholders; in place of its video or image processor stands
        one that knows what frames of this size and number came to.

        Args:
            chat: of `chat`.
            view: frames of any content.
            shape: of `picture_shape`.
        """
        part = f"{self.modality}_processor"
        processor = copy.copy(self.processor)
        setattr(processor, part, _Recorded(getattr(self.processor, part), shape))
        return self.inputs(chat, [view], processor)

    def picture_shape(self, chat: str, view: View, *, light: bool) -> dict[str, Any]:
        """What the video or image processor makes of frames, with the pixels themselves left out.

        Args:
            chat: of `chat`.
            view: real frames.
            light: pixels may lose their height and width too, for families whose prompts depend on the number of
                frames only.
        """
        part = f"{self.modality}_processor"
        recorder = _Recorder(getattr(self.processor, part))
        processor = copy.copy(self.processor)
        setattr(processor, part, recorder)
        self.inputs(chat, [view], processor)
        return {key: _hollow(key, value, light=light) for key, value in recorder.found.items()}


class _Wrapped:
    """A part of a processor that passes on everything but the call."""

    def __init__(self, stock: Any) -> None:
        self._stock = stock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stock, name)


class _Recorder(_Wrapped):
    """Remembers what the part made of its pictures."""

    found: dict[str, Any]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        result = self._stock(*args, **kwargs)
        self.found = dict(result)
        return result


class _Recorded(_Wrapped):
    """Gives what the part made of other pictures of the same size and number, with the metadata of these."""

    def __init__(self, stock: Any, shape: Mapping[str, Any]) -> None:
        super().__init__(stock)
        self._shape = shape

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from transformers import BatchFeature

        data = {key: value if _is_pixels(key) else copy.copy(value) for key, value in self._shape.items()}
        if "video_metadata" in data:
            data["video_metadata"] = [_metadata(m) for m in kwargs["video_metadata"]]
        return BatchFeature(data)


def _metadata(given: Any) -> Any:
    from transformers.video_utils import VideoMetadata as ProcessorMetadata

    return ProcessorMetadata(**given) if isinstance(given, Mapping) else given


def _is_pixels(key: str) -> bool:
    return key.startswith("pixel_values")


def _hollow(key: str, value: Any, *, light: bool) -> Any:
    """Pixels as zeros that take no memory; anything else as it is."""
    if not _is_pixels(key) or not isinstance(value, Tensor):
        return value
    shape = (*value.shape[:-3], 1, 1, 1) if light and value.ndim >= 4 else value.shape
    return torch.zeros((), dtype=value.dtype).expand(shape)


def _next_tokens(tokenizer: Any, prompt: str, word: str) -> list[int]:
    """The tokens that a word adds behind a prompt; none if it changes the prompt's own."""
    before = tokenizer.encode(prompt, add_special_tokens=False)
    after = tokenizer.encode(prompt + word, add_special_tokens=False)
    if after[: len(before)] == before:
        return list(after[len(before) :])
    alone = tokenizer.get_vocab().get(word)  # a space at the prompt's end is a token already, the letter is the next
    return [alone] if alone is not None and prompt.endswith(" ") else []


def _behind_images(chat: str, processor: Any, words: str) -> str:
    """A prompt with a sentence behind its last image placeholder."""
    token = str(getattr(processor, "image_token", "") or "")
    before, found, after = chat.rpartition(token) if token else ("", "", chat)
    if not found:
        return f"{words}\n{chat}"
    return write_times(found + after, token, [words], [None]).join((before, ""))
