"""From a selection to the input of one family of models: frames, metadata, and times as text."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from refocus_select.errors import InputError

from .families import Family, family_of, merge_size
from .media import resized
from .words import between_frames, check_words, prompt_lines, words_text

if TYPE_CHECKING:
    from refocus_select.budget import Size
    from refocus_select.selection import Selection

TIMESTAMPS = ("auto", "metadata", "text", "interleave")
TEMPORAL_MERGE = ("auto", "near", "duplicate", "pairs", "ignore")

# Qwen-VL and GLM look at two frames per second in training, so merged frames are half a second apart.
PAIR_GAP_SECONDS = 0.5
PAIR_GAP_LIMIT = 2 * PAIR_GAP_SECONDS  # what is shown later is another moment
# Chosen frames this near to each other share a group: the time that is told is wrong by half of it at most.
NEAR_SECONDS = 1.0

_PLAIN = Family("any", (), (), "metadata", "")


@dataclass(frozen=True)
class Clip:
    """Frames as a processor receives them.

    Attributes:
        frames: uint8 RGB [N, H, W, 3], or the caller's own kind of frames.
        milliseconds: when each is shown, [N].
        timestamps: the distinct chosen times in seconds, [K].
        metadata: as for `Selection.metadata`, with one entry of `frames_indices` per frame.
    """

    frames: Any
    milliseconds: tuple[int, ...]
    timestamps: tuple[float, ...]
    metadata: dict[str, Any]

    def padded(self, length: int) -> Clip:
        """The same clip with its last frame repeated up to `length` frames."""
        missing = length - len(self.milliseconds)
        if missing <= 0:
            return self
        positions = [*range(len(self.milliseconds)), *[len(self.milliseconds) - 1] * missing]
        return self.take(positions)

    def take(self, positions: Sequence[int]) -> Clip:
        """Some frames of the clip, in the order asked."""
        milliseconds = tuple(self.milliseconds[p] for p in positions)
        return replace(
            self,
            frames=take_frames(self.frames, positions),
            milliseconds=milliseconds,
            metadata={**self.metadata, "frames_indices": list(milliseconds)},
        )


def take_frames(frames: Any, positions: Sequence[int]) -> Any:
    """Some frames of an array, a tensor, or a list, in the kind they came in."""
    if isinstance(frames, list | tuple):
        return [frames[p] for p in positions]
    return frames[list(positions)]


@dataclass(frozen=True)
class InputFormat:
    """How one model receives frames and their times.

    Attributes:
        family: facts about the model.
        merge: how many frames its vision encoder merges into one.
        timestamps: "metadata" (metadata only), "text" (and a sentence in the prompt), or "interleave" (each frame a
            short video of its own, with its time in front).
        temporal_merge: "near" (chosen frames within a second of each other share a group, all others are given `merge`
            times), "duplicate" (each frame `merge` times, as models treat still pictures), "pairs" (each chosen frame
            with the frames that follow it), or "ignore" (distant frames are merged).
        words: which lines stand in the prompt: "chosen", "all" or False; see `words.prompt_lines`.
    """

    family: Family
    merge: int
    timestamps: str
    temporal_merge: str
    words: str | bool = False

    @classmethod
    def of(
        cls, model: Any, timestamps: str = "auto", temporal_merge: str = "auto", words_in_prompt: str | bool = False
    ) -> InputFormat:
        """Decide.

        Args:
            model: a processor, a model type such as "qwen2_5_vl", or None for frames and metadata as they are.
            timestamps: one of `TIMESTAMPS`.
            temporal_merge: one of `TEMPORAL_MERGE`.
            words_in_prompt: one of `words.WORDS_IN_PROMPT`.

        Raises:
            InputError: if a value is unknown or the model cannot take it.
        """
        if timestamps not in TIMESTAMPS:
            raise InputError(f"timestamps must be one of {', '.join(TIMESTAMPS)}, not {timestamps!r}")
        if temporal_merge not in TEMPORAL_MERGE:
            raise InputError(f"temporal_merge must be one of {', '.join(TEMPORAL_MERGE)}, not {temporal_merge!r}")
        family = _PLAIN if model is None else family_of(model)
        if timestamps == "interleave" and (family.one_video or not family.takes_metadata):
            raise InputError(f"{family.name} takes one video only: timestamps='interleave' needs several; use 'text'")
        merge = family.merge if model is None or isinstance(model, str | Family) else merge_size(model, family)
        if timestamps == "auto":
            timestamps = "text" if family.text else "metadata"
        if temporal_merge == "auto":  # a short video per frame is asked for to have every time exact
            temporal_merge = "duplicate" if timestamps == "interleave" else "near"
        return cls(family, merge, timestamps, temporal_merge, check_words(words_in_prompt))

    def frames_to_choose(self, num_frames: int) -> int:
        """How many frames the selector is asked for.

        Raises:
            InputError: if the model accepts another number only.
        """
        fixed = self.family.fixed_frames
        if fixed is not None and num_frames != fixed:
            raise InputError(
                f"{self.family.name} takes exactly {fixed} frames, not {num_frames}: use num_frames={fixed}"
            )
        return self.moments(num_frames)

    def moments(self, num_frames: int) -> int:
        """How many chosen frames make so many shown ones; an odd number fills its last pair, as the processors do."""
        return -(-num_frames // self.merge) if self.temporal_merge == "pairs" else num_frames

    def groups(self, timestamps: Sequence[float] | np.ndarray) -> list[list[int]]:
        """Which chosen frames the vision encoder merges, as positions: `merge` for each group, repeats included.

        Args:
            timestamps: of the chosen frames in seconds, rising, [K].
        """
        if self.temporal_merge == "ignore":
            padded = [*range(len(timestamps)), *[len(timestamps) - 1] * (-len(timestamps) % self.merge)]
            return [padded[k : k + self.merge] for k in range(0, len(padded), self.merge)]
        gap = NEAR_SECONDS if self.temporal_merge == "near" else -1.0
        return [[g[k * len(g) // self.merge] for k in range(self.merge)] for g in near(timestamps, self.merge, gap)]

    def clip_sizes(self, timestamps: Sequence[float] | np.ndarray, sizes: Sequence[Size]) -> list[Size]:
        """The (height, width) of each clip, from one for all frames, or one for each: the largest of those in it."""
        if len(sizes) == 1:
            interleaved = self.timestamps == "interleave"
            whole = len(timestamps) if self.temporal_merge == "ignore" else len(self.groups(timestamps))
            return [sizes[0]] * (whole if interleaved else 1)
        groups = [[k] for k in range(len(sizes))] if self.temporal_merge == "ignore" else self.groups(timestamps)
        return [max((sizes[k] for k in group), key=lambda s: s[0] * s[1]) for group in groups]

    def clips(self, selection: Selection, frames: Any = None) -> list[Clip]:
        """The chosen frames as this model's videos: one clip, or one per frame if times are interleaved.

        Args:
            selection: what was chosen; its frames get the sizes of its plan, if it has one.
            frames: all frames of the video in the caller's own kind, to take the chosen ones from; decoded if None.
        """
        clips = self._clips(selection, frames)
        plan = selection.plan
        if plan is None or (len(plan.sizes) == 1 and frames is None):  # those were decoded at their size
            return clips
        if len(plan.sizes) > 1 and self.timestamps != "interleave":  # single pictures, which get their sizes later
            return clips
        sizes = self.clip_sizes(clips[0].timestamps if len(clips) == 1 else selection.timestamps, plan.sizes)
        return [replace(c, frames=resized(c.frames, s)) for c, s in zip(clips, sizes, strict=True)]

    def _clips(self, selection: Selection, frames: Any) -> list[Clip]:
        clip = self._merged(selection, frames)
        if self.family.fixed_frames is not None:
            clip = clip.padded(self.family.fixed_frames)
        if self.timestamps != "interleave":
            return [clip.padded(self.merge)]  # the processors of Qwen3-VL and GLM refuse less than one group
        if self.temporal_merge == "ignore":
            return [
                replace(clip.take([k]).padded(self.merge), timestamps=(shown,))
                for k, shown in enumerate(clip.timestamps)
            ]
        seconds = [float(np.mean([clip.timestamps[k] for k in set(g)])) for g in self.groups(clip.timestamps)]
        return [
            replace(clip.take(range(k * self.merge, (k + 1) * self.merge)), timestamps=(shown,))
            for k, shown in enumerate(seconds)
        ]

    def _merged(self, selection: Selection, frames: Any) -> Clip:
        if self.merge > 1 and self.temporal_merge == "pairs":
            indices, times = neighbours(selection, self.merge)
        elif self.merge > 1 and self.temporal_merge != "ignore":
            given = [k for group in self.groups(selection.timestamps) for k in group]
            indices, times = selection.indices[given], selection.timestamps[given]
        else:
            indices, times = selection.indices, selection.timestamps
        if frames is not None:
            pictures = take_frames(frames, indices.tolist())
        else:
            distinct, back = np.unique(indices, return_inverse=True)
            whole, plan = np.array_equal(distinct, selection.indices), selection.plan
            size = plan.sizes[0] if plan is not None and len(plan.sizes) == 1 else None
            shown = selection.shown if whole else selection.get_frames(distinct, size=size)
            pictures = shown.data if len(back) == len(distinct) else shown.data[back]
            times = shown.timestamps[back]  # a damaged frame is shown by another one, at another time
        milliseconds = tuple(round(1000 * float(t)) for t in times)
        metadata = selection.metadata()
        metadata["frames_indices"] = list(milliseconds)
        metadata["total_num_frames"] = max(metadata["total_num_frames"], max(milliseconds) + 1)
        return Clip(pictures, milliseconds, tuple(selection.shown_timestamps.tolist()), metadata)

    def time_text(self, selection: Selection) -> str:
        """The sentence that tells this model when its frames are shown; "" if it learns that otherwise."""
        return (
            sentence(selection.shown_timestamps, selection.duration, numbered=self.family.numbered)
            if self.timestamps == "text"
            else ""
        )

    def text_beside(self, selection: Selection) -> str:
        """What stands behind the frames: their times and the words of these moments; "" for neither."""
        if self.timestamps == "interleave":
            return between_frames(selection.shown_timestamps.tolist(), prompt_lines(selection, self.words))[1].strip()
        texts = (self.time_text(selection), words_text(prompt_lines(selection, self.words)))
        return "\n".join(text for text in texts if text)

    def texts_in_front(self, selection: Selection | None, clips: Sequence[Clip]) -> list[str]:
        """What stands in front of each clip where times are interleaved: the words until then, and its time."""
        seconds = [clip.timestamps[0] for clip in clips]
        lines = () if selection is None else prompt_lines(selection, self.words)
        words, _ = between_frames(seconds, lines)
        return [f"{said}{stamp(shown)}" for said, shown in zip(words, seconds, strict=True)]


def sentence(timestamps: Sequence[float] | np.ndarray, duration: float, *, numbered: bool = False) -> str:
    """A sentence with the times of frames, after the one LLaVA-Video was trained on, which says "uniformly sampled".

    Args:
        timestamps: seconds, [K].
        duration: of the video, in seconds.
        numbered: name the frames Frame1, Frame2, … as prompts of InternVL do.
    """
    count = len(timestamps)
    if numbered:
        times = ", ".join(f"Frame{k} is at {t:.2f}s" for k, t in enumerate(timestamps, start=1))
        return f"The video lasts for {duration:.2f} seconds. {times}."
    times = ",".join(f"{t:.2f}s" for t in timestamps)
    if count == 1:
        return (
            f"The video lasts for {duration:.2f} seconds, and one frame is selected from it. "
            f"This frame is located at {times}."
        )
    return (
        f"The video lasts for {duration:.2f} seconds, and {count} frames are selected from it. "
        f"These frames are located at {times}."
    )


def stamp(seconds: float) -> str:
    """The time of a frame in front of its picture, as Qwen3-VL writes it."""
    return f"<{seconds:.1f} seconds>"


def near(timestamps: Sequence[float] | np.ndarray, most: int, gap: float = NEAR_SECONDS) -> list[list[int]]:
    """Groups of at most `most` frames, each within `gap` seconds of the one before it, in order of time."""
    groups: list[list[int]] = []
    for k, seconds in enumerate(timestamps):
        if groups and len(groups[-1]) < most and seconds - timestamps[k - 1] <= gap + 1e-6:
            groups[-1].append(k)
        else:
            groups.append([k])
    return groups


def neighbours(selection: Selection, merge: int) -> tuple[np.ndarray, np.ndarray]:
    """Each chosen frame with the `merge - 1` frames that follow it at half-second steps.

    Where no frame follows within a second of the one before, as at the end of the video and among sparse pictures, that
    one is repeated: a frame shown later would be merged with a moment that is not its own.

    Returns:
        Frame numbers [K * merge] and their times in seconds [K * merge].
    """
    times = _all_times(selection)
    indices = []
    for first in selection.indices.tolist():
        group = [first]
        for step in range(1, merge):
            wanted = int(np.searchsorted(times, times[first] + step * PAIR_GAP_SECONDS - 1e-6))
            following = max(wanted, group[-1] + 1)
            near = following < len(times) and times[following] - times[group[-1]] <= PAIR_GAP_LIMIT + 1e-6
            group.append(following if near else group[-1])
        indices += group
    chosen = np.asarray(indices, dtype=np.int64)
    return chosen, times[chosen]


def _all_times(selection: Selection) -> np.ndarray:
    from refocus_select.video import Video, open_video

    if isinstance(selection.origin, Video):
        return np.asarray(selection.origin.timestamps)
    with open_video(selection.origin or selection.video.source) as video:
        return np.asarray(video.timestamps)


def equal_length(clips: Sequence[Clip], family: Family) -> list[Clip]:
    """Clips of one call, all of the same length where the family needs it."""
    if not family.equal_frames or not clips:
        return list(clips)
    longest = max(len(c.milliseconds) for c in clips)
    return [c.padded(longest) for c in clips]


def processor_kwargs(
    metadata: Sequence[dict[str, Any]], clips: Sequence[Clip], input_format: InputFormat
) -> dict[str, Any]:
    """What a processor must be told about these clips besides the frames."""
    family = input_format.family
    if not family.takes_metadata or not metadata:
        return {}
    kwargs: dict[str, Any] = {"do_sample_frames": False, "video_metadata": list(metadata)}
    if family.metadata_object:
        kwargs["video_metadata"] = _metadata_object(metadata, family)
    if family.return_metadata and _returns_metadata():
        kwargs["return_metadata"] = True
    if family.spacing_from_fps and clips:
        kwargs["fps"] = input_format.merge / float(np.mean([seconds_per_grid(c, input_format.merge) for c in clips]))
    return kwargs


@functools.cache
def _returns_metadata() -> bool:
    """Whether metadata can be asked back; transformers 4 fails to make a tensor of it."""
    from transformers import BatchFeature

    return "skip_tensor_conversion" in inspect.signature(BatchFeature.__init__).parameters


def _metadata_object(metadata: Sequence[dict[str, Any]], family: Family) -> Any:
    from transformers.video_utils import VideoMetadata

    if len(metadata) > 1:
        raise InputError(f"{family.name} takes one video per call, not {len(metadata)}")
    return VideoMetadata(**metadata[0])


def seconds_per_grid(clip: Clip, merge: int) -> float:
    """Mean spacing of the frame groups that a model sees, in seconds: the duration over their number."""
    groups = -(-len(clip.milliseconds) // merge)
    return max(float(clip.metadata["duration"]), 1e-3) / groups
