"""`process_vision_info` of qwen-vl-utils with selected frames and true metadata.

qwen-vl-utils gives frame lists the times of a constant frame rate (QwenLM/Qwen3-VL#2117). This replacement lets it load
pictures and resize as always, and states the true times:

    from refocus_select.adapters.qwen_vl_utils import process_vision_info      # instead of qwen_vl_utils

    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    images, videos, kwargs = process_vision_info(
        messages, selector, num_frames=32, image_patch_size=16, return_video_kwargs=True, return_video_metadata=True
    )
    videos, metadata = zip(*videos)
    inputs = processor(text=[text], images=images, videos=list(videos), video_metadata=list(metadata),
                       do_resize=False, return_tensors="pt", **kwargs)

Qwen2.5-VL is told one spacing for all frames, and Qwen2-VL nothing: their times are written into the prompt, so the
messages change too. Use `select_vision_info` for them; `process_vision_info` warns where frames are not evenly spaced.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from refocus_select.budget import TokenBudget
from refocus_select.errors import MissingDependencyError
from refocus_select.selection import Selection
from refocus_select.weights import DEFAULT_SELECTOR

from .families import family_of
from .input_format import InputFormat
from .messages import is_batch, selected_messages
from .questions import Query
from .tokens import Meter

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class VisionInfo:
    """What the processor of a Qwen model is called with.

    Attributes:
        messages: the chat for `apply_chat_template`.
        images: pictures, or None.
        videos: float frames [T, 3, H, W] per video, resized; or None.
        video_metadata: true times per video.
        selections: what was chosen per video.
    """

    messages: Any
    images: list[Any] | None
    videos: list[Any] | None
    video_metadata: list[dict[str, Any]]
    selections: tuple[Selection | None, ...]

    @property
    def kwargs(self) -> dict[str, Any]:
        """Keyword arguments for the processor besides the text."""
        video = {"videos": self.videos, "video_metadata": self.video_metadata} if self.videos else {}
        return {"images": self.images, **video, "do_sample_frames": False, "do_resize": False}


def select_vision_info(
    conversations: Sequence[Any],
    selector: Any = DEFAULT_SELECTOR,
    *,
    num_frames: int | str | None = None,
    token_budget: int | TokenBudget | None = None,
    model: Any = "qwen3_vl",
    image_patch_size: int | None = None,
    query: Query = "last_user",
    timestamps: str = "auto",
    temporal_merge: str = "auto",
    **select_kwargs: Any,
) -> VisionInfo:
    """Choose frames and prepare them with qwen-vl-utils.

        info = select_vision_info(messages, selector, num_frames=32, model="qwen2_5_vl")
        text = processor.apply_chat_template(info.messages, tokenize=False, add_generation_prompt=True)
        inputs = processor(text=[text], return_tensors="pt", **info.kwargs)

    Args:
        conversations: a chat or a list of chats; `min_pixels`, `max_pixels`, `total_pixels`, `resized_height` and
            `resized_width` of a video block are heeded.
        selector: a `FrameSelector`, or the name of one.
        num_frames: how many frames K per video (default: 8, or what a budget allows).
        token_budget: how many tokens the videos may cost, see `with_frame_selection`; `model` must be the processor
            then, and the budget decides the size of the frames.
        model: a processor, or "qwen2_vl", "qwen2_5_vl", "qwen3_vl", ….
        image_patch_size: 14 for Qwen2-VL and Qwen2.5-VL, 16 for later ones (default: by the model).
        query: what counts as the question, see `select_messages`.
        timestamps: see `select_messages`.
        temporal_merge: see `select_messages`.
        **select_kwargs: `encoder` (see `select_messages`), and more arguments of `FrameSelector.select`.

    Raises:
        MissingDependencyError: if qwen-vl-utils is not installed.
        InputError: if a chat has no question.
        VideoError: if a video cannot be read.
    """
    stock = _stock()
    meter = None
    if token_budget is not None and getattr(model, "video_processor", None) is not None:
        meter = Meter(model, InputFormat.of(model, timestamps, temporal_merge), {"do_resize": False})
    chosen = selected_messages(
        conversations,
        selector,
        num_frames=num_frames,
        token_budget=token_budget,
        meter=meter,
        query=query,
        model=model,
        timestamps=timestamps,
        temporal_merge=temporal_merge,
        keep_kind=False,
        **select_kwargs,
    )
    patch = image_patch_size or (14 if _name(model) in ("qwen2_vl", "qwen2_5_vl") else 16)
    images, videos, _ = stock(
        _with_lists(chosen[0], keep_size=token_budget is not None), return_video_kwargs=True, image_patch_size=patch
    )
    metadata = [
        {**m, "frames_indices": _padded(m["frames_indices"], len(v))}
        for m, v in zip(chosen.metadata, videos or [], strict=True)
    ]
    return VisionInfo(chosen[0], images, videos, metadata, chosen.selections)


def process_vision_info(
    conversations: Sequence[Any],
    selector: Any = DEFAULT_SELECTOR,
    *,
    num_frames: int | str | None = None,
    return_video_kwargs: bool = False,
    return_video_metadata: bool = False,
    image_patch_size: int = 14,
    **kwargs: Any,
) -> tuple[Any, ...]:
    """The function of qwen-vl-utils, with frames chosen for the question.

    Args:
        conversations: a chat or a list of chats.
        selector: a `FrameSelector`, or the name of one.
        num_frames: how many frames K per video.
        return_video_kwargs: return `{"do_sample_frames": False}` as a third value. There is no `fps` in it:
            transformers 5 refuses a list, and the metadata has the times.
        return_video_metadata: make each video a pair (frames, metadata). Without it nobody is told the times of frames,
            which is warned about.
        image_patch_size: 14 for Qwen2.5-VL, 16 for Qwen3-VL.
        **kwargs: more arguments of `select_vision_info`.
    """
    kwargs.setdefault("model", "qwen2_5_vl" if image_patch_size == 14 else "qwen3_vl")
    info = select_vision_info(
        conversations, selector, num_frames=num_frames, image_patch_size=image_patch_size, **kwargs
    )
    _warn_of_lost_times(info, kwargs["model"], return_video_metadata)
    videos: list[Any] | None = info.videos
    if return_video_metadata and info.videos is not None:
        videos = list(zip(info.videos, info.video_metadata, strict=True))
    result = (info.images, videos)
    return (*result, {"do_sample_frames": False}) if return_video_kwargs else result


def _warn_of_lost_times(info: VisionInfo, model: Any, with_metadata: bool) -> None:
    """Say what the model will believe of the times, if that is wrong."""
    chosen = [s for s in info.selections if s is not None]
    if not chosen:
        return
    if not with_metadata:
        logger.warning(
            "process_vision_info without return_video_metadata=True: the processor will assume 24 frames per second; "
            "pass video_metadata=, or use select_vision_info"
        )
        return
    if not family_of(model).text:
        return
    worst = max(chosen, key=_misplaced)
    spacing = worst.duration / len(worst)
    if _misplaced(worst) > spacing:
        logger.warning(
            "%s assumes one frame every %.2f s, which misplaces a chosen frame by %.1f s: use select_vision_info, "
            "which writes the times into the prompt",
            family_of(model).name,
            spacing,
            _misplaced(worst),
        )


def _misplaced(selection: Selection) -> float:
    """By how many seconds a frame is off, at most, if all are believed to be evenly spaced over the video."""
    times = selection.shown_timestamps
    believed = times[0] + np.arange(len(times)) * selection.duration / len(times)
    return float(np.abs(times - believed).max())


def _stock() -> Any:
    try:
        from qwen_vl_utils import process_vision_info as stock
    except ImportError as error:
        raise MissingDependencyError("this needs qwen-vl-utils: pip install qwen-vl-utils") from error
    return stock


def _name(model: Any) -> str:
    if isinstance(model, str):
        return model
    patch = getattr(getattr(model, "video_processor", None), "patch_size", 16)
    return "qwen2_5_vl" if patch == 14 else "qwen3_vl"


def _read_by_qwen(image: Any) -> Any:
    """A picture as qwen-vl-utils takes it: PIL, or a path or URL as text."""
    from .media import to_image

    return image if isinstance(image, str) else to_image(image)


def _padded(milliseconds: list[int], length: int) -> list[int]:
    """qwen-vl-utils repeats the last frame of an odd number."""
    return [*milliseconds, *[milliseconds[-1]] * (length - len(milliseconds))]


def _with_lists(messages: Any, *, keep_size: bool = False) -> Any:
    """qwen-vl-utils takes frames as lists of pictures only; pictures it reads under "image" and "image_url" as text.

    With `keep_size` it is told to leave the size of frames as it is.
    """
    from .media import image_of, is_image_block, to_images

    def block(b: Any) -> Any:
        if isinstance(b, dict) and b.get("type") == "video":
            pictures = to_images(b["video"])
            width, height = pictures[0].size
            return {**b, "video": pictures, **({"resized_height": height, "resized_width": width} if keep_size else {})}
        if is_image_block(b):
            kept = {k: v for k, v in b.items() if k not in ("type", "image_url", "url", "path", "bytes")}
            return {**kept, "type": "image", "image": _read_by_qwen(image_of(b))}
        return b

    def message(m: dict[str, Any]) -> dict[str, Any]:
        content = m.get("content")
        return {**m, "content": [block(b) for b in content]} if isinstance(content, list) else m

    chats = messages if is_batch(messages) else [messages]
    return [[message(m) for m in chat] for chat in chats]
