"""What frames cost in tokens, measured with the very processor that will read them; nothing is looked up in a table.

Blank frames go through the processor as chosen ones do, with the same metadata and words; the tokens that the prompt
gains are the cost. Measurements are kept in memory per configuration of the processor, and in a folder if there is one.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from refocus_select.budget import Cost, Size
from refocus_select.cache import FOLDER_VARIABLE
from refocus_select.errors import InputError
from refocus_select.files import write_json
from refocus_select.plain_text import parse_json
from refocus_select.selection import Selection
from refocus_select.video.base import VideoMetadata

from .input_format import Clip, InputFormat, processor_kwargs, stamp
from .prompts import write_times
from .words import between_frames, prompt_lines

logger = logging.getLogger(__name__)

# Arguments of a call that have to do with words, other media, or the form of the result; the others decide sizes.
_NOT_OF_FRAMES = frozenset({
    "text", "images", "videos", "audio", "padding", "truncation", "max_length", "return_tensors", "text_kwargs",
    "images_kwargs", "audio_kwargs", "common_kwargs", "video_metadata", "do_sample_frames", "num_frames", "fps",
    "return_metadata", "load_audio_from_video", "use_audio_in_video", "audio_from_video_indices",
    "return_mm_token_type_ids",
})  # fmt: skip

_PLAIN = str | int | float | bool | list | tuple | dict | None
_measured: dict[str, dict[str, int]] = {}


@dataclass(frozen=True)
class FrameTokens:
    """What frames of one size cost.

    Attributes:
        per_group: tokens of each group of frames that the model merges: pictures, separators, and its time.
        group: how many frames such a group has; 1 for models that merge none.
        fixed: tokens of a video whatever its number of frames.
    """

    per_group: float
    group: int
    fixed: float

    @property
    def per_frame(self) -> float:
        """Tokens of one frame, if groups are full."""
        return self.per_group / self.group

    def of(self, num_frames: int) -> float:
        """Tokens of a video with so many frames, the last group filled up."""
        return self.fixed + -(-num_frames // self.group) * self.per_group


def tokens_per_frame(
    processor: Any,
    size: Size,
    *,
    timestamps: str = "auto",
    duration: float = 100.0,
    cache: str | os.PathLike[str] | None = None,
    **processor_kwargs: Any,
) -> FrameTokens:
    """Measure what frames of one size cost with a processor.

        tokens_per_frame(processor, (448, 448)).per_frame

    Args:
        processor: a processor of a video model, with or without frame selection.
        size: (height, width) of the frames in pixels, as they are handed over; the processor may resize them.
        timestamps: how times reach the model, see `with_frame_selection`; times in words cost tokens too.
        duration: of the video in seconds: late times are longer words.
        cache: a folder where measurements are kept between runs (default: REFOCUS_CACHE_DIR if it is set, else
            nowhere).
        **processor_kwargs: arguments of the call that decide sizes, e.g. `do_resize`.

    Raises:
        InputError: if the processor takes no video, or no frames of that size.
    """
    format = InputFormat.of(processor, timestamps, "duplicate")
    cost = Meter(processor, format, processor_kwargs, cache=cache).cost(size, duration)
    return FrameTokens(cost.each, format.merge, cost.fixed)


class Meter:
    """Counts what videos add to the prompts of one processor."""

    _reader = "video_processor"

    def __init__(
        self,
        processor: Any,
        input_format: InputFormat,
        call_kwargs: Mapping[str, Any] | None = None,
        *,
        cache: str | os.PathLike[str] | None = None,
    ) -> None:
        """Prepare.

        Args:
            processor: whose prompts are counted.
            input_format: how frames and times are handed to it.
            call_kwargs: arguments of the call for which it is counted.
            cache: see `tokens_per_frame`.
        """
        self.processor, self.input_format = processor, input_format
        self._base = getattr(type(processor), "_refocus_base", type(processor))
        if getattr(processor, self._reader, None) is None:
            what = "video" if self._reader == "video_processor" else "picture"
            raise InputError(f"{self._base.__name__} takes no {what}, so frames cannot be measured with it")
        self._kwargs = {k: v for k, v in (call_kwargs or {}).items() if k not in _NOT_OF_FRAMES}
        nested = self._kwargs.get("videos_kwargs")
        if isinstance(nested, Mapping):
            self._kwargs["videos_kwargs"] = {k: v for k, v in nested.items() if k not in _NOT_OF_FRAMES}
        self._prompts = self._rendered()
        self._folder = cache or os.environ.get(FOLDER_VARIABLE)
        self._known = self._remembered()

    @property
    def grid(self) -> int | None:
        """Of what number the sides of frames are multiples for this processor; None if it does not say."""
        owner = getattr(self.processor, self._reader)
        patch, merge = getattr(owner, "patch_size", None), getattr(owner, "merge_size", None)
        return patch * merge if isinstance(patch, int) and isinstance(merge, int) and patch * merge > 1 else None

    @property
    def graded(self) -> bool:
        """Whether the frames of a video may have different sizes."""
        return self.input_format.timestamps == "interleave"

    def cost(self, size: Size, duration: float) -> Cost:
        """What frames of one size cost that share nothing with each other, with times as long as those at the end.

        Raises:
            InputError: if the processor does not take such frames.
        """
        end = 10.0 ** max(1, len(str(int(duration)))) - 0.1
        # Told apart at a small size: many frames of a large one some processors make smaller.
        step = self.grid or 28
        one, two = (self._count_apart(n, end, (4 * step, 4 * step)) for n in (1, 2))
        fixed = max(0, 2 * one - two)
        each = max(self._count_apart(1, end, size) - fixed, 1)
        shared = self.input_format.merge if self.input_format.temporal_merge == "ignore" else 1
        return Cost(fixed, each / shared)

    def _count_apart(self, count: int, end: float, size: Size) -> int:
        """Tokens of frames that lie too far apart to share a group; measured once."""
        key = f"{count} of {size[0]}x{size[1]} until {end:g}"
        if key not in self._known:
            seconds = [end - 7.0 * k for k in range(count)][::-1]
            self._known[key] = self.count(seconds, end, [size], temporal_merge="duplicate")
            self._keep()
        return self._known[key]

    def count(
        self,
        timestamps: Sequence[float],
        duration: float,
        sizes: Sequence[Size],
        *,
        words: Selection | None = None,
        temporal_merge: str | None = None,
    ) -> int:
        """Tokens that a video adds to a prompt.

        Args:
            timestamps: of the chosen frames in seconds, [K].
            duration: of the video.
            sizes: one for all frames, or one for each.
            words: whose lines stand in the prompt, where the format has them there.
            temporal_merge: other than the one of the format.
        """
        selection = _blank_selection(np.asarray(timestamps, dtype=np.float64), duration)
        if words is not None:
            selection = replace(selection, quotes=words.quotes, lines=words.lines)
        merge = temporal_merge or self.input_format.temporal_merge
        # The frames beside the chosen ones are not known here; their number is.
        format = replace(self.input_format, temporal_merge="duplicate" if merge == "pairs" else merge)
        clips = format.clips(selection, _Blank())
        of_clips = format.clip_sizes(selection.timestamps, sizes)
        clips = [replace(c, frames=_plain_frames(c, size)) for c, size in zip(clips, of_clips, strict=True)]
        return self.count_clips(clips, selection)

    def count_clips(self, clips: Sequence[Clip], selection: Selection) -> int:
        """Tokens that the clips of one video, and the words beside them, add to a prompt."""
        with_video, without = self._prompts
        token = str(getattr(self.processor, "video_token", None) or "")
        format = self.input_format
        front = format.texts_in_front(selection, clips) if format.timestamps == "interleave" else None
        prompt = write_times(with_video, token, [format.text_beside(selection)], [front])
        family = self.input_format.family
        ours = processor_kwargs([c.metadata for c in clips], clips, self.input_format)
        kwargs = {**self._kwargs}
        if "videos_kwargs" in kwargs:
            kwargs["videos_kwargs"] = {**kwargs["videos_kwargs"], **ours}
        else:
            kwargs.update(ours)
        frames = [c.frames for c in clips]
        given = {"videos": [frames]} if family.takes_metadata else {"images": frames}
        try:
            outputs = self._base.__call__(self.processor, text=[prompt], **given, return_tensors="pt", **kwargs)
        except (ValueError, RuntimeError, TypeError, IndexError) as error:
            shape = tuple(np.shape(frames[0])[1:3])
            raise InputError(
                f"{self._base.__name__} does not take {len(frames[0])} frames of {shape[0]} x {shape[1]} pixels "
                f"({error}); "
                "for a token budget choose sizes that it takes with min_side and max_side, or let it resize them "
                "(do_resize=True)"
            ) from error
        return len(outputs["input_ids"][0]) - self._words(without)

    def count_chat(self, chat: Sequence[Any]) -> int:
        """Tokens of a chat without videos, pictures included, with the words that begin the answer."""
        outputs = self._base.apply_chat_template(
            self.processor, list(chat), tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
        )
        return len(outputs["input_ids"][0])

    def _words(self, prompt: str) -> int:
        """Tokens of a prompt without video."""
        tokenizer = getattr(self.processor, "tokenizer", None)
        return len(tokenizer(prompt)["input_ids"]) if tokenizer is not None else 0

    def _rendered(self) -> tuple[str, str]:
        """A prompt with a video and the same without, as the processor's chat template writes them."""
        words = {"type": "text", "text": "x"}
        token = str(getattr(self.processor, "video_token", None) or "")
        if not getattr(self.processor, "chat_template", None):
            return f"{token}x", "x"
        prompts = [
            self._base.apply_chat_template(self.processor, [{"role": "user", "content": content}], tokenize=False)
            for content in ([{"type": "video"}, words], [words])
        ]
        return prompts[0], prompts[1]

    # -- what was measured before ---------------------------------------------------------------------

    def _remembered(self) -> dict[str, int]:
        self._fingerprint = _fingerprint(self.processor, self.input_format, self._kwargs, self._prompts)
        known = _measured.setdefault(self._fingerprint, {})
        path = self._file()
        if path is not None and path.is_file():
            try:
                stored = parse_json(path.read_bytes())
                known.update({str(k): int(v) for k, v in stored.items() if k not in known})
            except (OSError, ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
                logger.warning("measured tokens in %s cannot be read and are measured again: %s", path, error)
        return known

    def _keep(self) -> None:
        path = self._file()
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, self._known)
        except OSError as error:
            logger.warning("measured tokens cannot be kept in %s: %s", path, error)

    def _file(self) -> Path | None:
        return None if not self._folder else Path(self._folder) / "tokens" / f"{self._fingerprint}.json"


class PictureMeter(Meter):
    """Counts what frames add to a prompt as single pictures, each with its time in front."""

    _reader = "image_processor"

    def __init__(
        self, processor: Any, words_in_prompt: str | bool = False, *, cache: str | os.PathLike[str] | None = None
    ) -> None:
        super().__init__(
            processor, InputFormat.of(None, words_in_prompt=words_in_prompt), {"pictures": True}, cache=cache
        )

    @property
    def graded(self) -> bool:
        return True

    def _rendered(self) -> tuple[str, str]:
        return "x", "x"  # pictures are counted within chats

    def count(
        self,
        timestamps: Sequence[float],
        duration: float,
        sizes: Sequence[Size],
        *,
        words: Selection | None = None,
        temporal_merge: str | None = None,
    ) -> int:
        from PIL import Image

        content: list[dict[str, Any]] = []
        lines = () if words is None else prompt_lines(words, self.input_format.words)
        front, rest = between_frames([float(t) for t in timestamps], lines)
        for k, seconds in enumerate(timestamps):
            height, width = sizes[k if len(sizes) > 1 else 0]
            content += [
                {"type": "text", "text": f"{front[k]}{stamp(seconds)}"},
                {"type": "image", "image": Image.new("RGB", (width, height), (255 * (k % 2),) * 3)},
            ]
        question = {"type": "text", "text": f"{rest}x"}
        try:
            full = self.count_chat([{"role": "user", "content": [*content, question]}])
        except (ValueError, RuntimeError, TypeError, IndexError) as error:
            raise InputError(f"{self._base.__name__} does not take frames as pictures here ({error})") from error
        return full - self.count_chat([{"role": "user", "content": [{"type": "text", "text": "x"}]}])


def words_of_prompt(processor: Any, prompt: str, images: Sequence[Any] = ()) -> int:
    """Tokens of a prompt whose videos were taken out, pictures included."""
    base = getattr(type(processor), "_refocus_base", type(processor))
    pictures = {"images": [list(images)]} if images else {}
    return len(base.__call__(processor, text=[prompt], **pictures, return_tensors="pt")["input_ids"][0])


@dataclass(frozen=True)
class _Blank:
    """Frames of which only the number matters."""

    taken: int = field(default=0)

    def __getitem__(self, positions: Sequence[int]) -> _Blank:
        return _Blank(len(positions))

    def __len__(self) -> int:
        return self.taken


def _plain_frames(clip: Clip, size: Size) -> np.ndarray:
    """Black and white frames in turn: a processor that leaves out what does not change (VideoLLaMA 3) keeps all."""
    frames = np.zeros((len(clip.milliseconds), *size, 3), np.uint8)
    frames[1::2] = 255
    return frames


def _blank_selection(timestamps: np.ndarray, duration: float) -> Selection:
    indices = np.arange(len(timestamps))
    return Selection(
        question="", selector="", indices=indices, timestamps=timestamps, scores=np.zeros(len(indices)),
        candidate_indices=indices, candidate_timestamps=timestamps, video_fingerprint="",
        video=VideoMetadata("blank frames", len(indices), max(duration, float(timestamps[-1]) + 0.001)),
    )  # fmt: skip


def _fingerprint(processor: Any, input_format: InputFormat, kwargs: Mapping[str, Any], prompts: tuple[str, str]) -> str:
    """Identity of all that decides how many tokens frames become."""
    import transformers

    owners = [processor, *(getattr(processor, name, None) for name in ("video_processor", "image_processor"))]
    settings = [
        sorted((k, repr(v)) for k, v in vars(owner).items() if isinstance(v, _PLAIN) or k == "size")
        for owner in owners
        if owner is not None
    ]
    tokenizer = getattr(processor, "tokenizer", None)
    said = "The video lasts for 98765.43 seconds, and 21 frames <0.1 seconds> 00:10"
    facts = [
        transformers.__version__, [type(owner).__name__ for owner in owners], settings, input_format.family.name,
        input_format.timestamps, input_format.merge, sorted(kwargs.items()), prompts,
        tokenizer(said)["input_ids"] if tokenizer is not None else "",
    ]  # fmt: skip
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]
