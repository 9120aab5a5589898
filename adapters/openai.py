"""Requests in the style of OpenAI: times and pictures for any server, or a JPEG sequence with metadata for vLLM."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from refocus_select.budget import TokenBudget
from refocus_select.errors import InputError
from refocus_select.selection import Selection
from refocus_select.weights import DEFAULT_SELECTOR

from .engines import vllm_timestamps
from .input_format import stamp
from .media import image_of, is_image_block, is_video_block, resized, to_image, to_pictures
from .messages import SelectedMessages, selected_messages
from .questions import Query
from .tokens import PictureMeter
from .words import between_frames, prompt_lines


def image_messages(
    messages: Sequence[Mapping[str, Any]],
    selector: Any = DEFAULT_SELECTOR,
    *,
    num_frames: int | str | None = None,
    token_budget: int | TokenBudget | None = None,
    model: Any = None,
    query: Query = "last_user",
    max_side: int | None = 768,
    quality: int = 90,
    detail: str | None = None,
    words_in_prompt: str | bool = False,
    **select_kwargs: Any,
) -> list[dict[str, Any]]:
    """Replace every video by pictures, each with its time in front: understood by every OpenAI-compatible server.

        client.chat.completions.create(model=name, messages=image_messages(messages, selector, num_frames=16))

    The times are exact on every server and for every model. The price: the model sees single pictures, with its token
    budget and its limit for pictures, and no temporal merging.

    Args:
        messages: a chat; videos are blocks of type "video" or "video_url".
        selector: a `FrameSelector`, or the name of one.
        num_frames: how many frames K per video (default: 8, or what a budget allows).
        token_budget: how many tokens the pictures of the videos and their times may cost. Important frames become
            large, those around them half as long and wide; `max_side` is not used then.
        model: the processor of the model behind the server, which measures the tokens; needed for a budget only.
        query: what counts as the question, see `select_messages`.
        max_side: pictures are scaled down to this many pixels on the longer side; None keeps their size.
        quality: of the JPEG files, 1 to 95.
        detail: "low", "high" or "auto", for servers that know `detail`.
        words_in_prompt: "chosen" or "all" puts what is said or written between the pictures, in the order of time: see
            `select_messages`.
        **select_kwargs: `encoder` (see `select_messages`), and more arguments of `FrameSelector.select`.

    Returns:
        Messages for `chat.completions`, JSON-ready.

    Raises:
        InputError: if the chat has no question.
        VideoError: if a video cannot be read.
    """
    if token_budget is not None:
        max_side = None
    chosen = pictures_within(
        messages,
        selector,
        num_frames=num_frames,
        token_budget=token_budget,
        processor=model,
        query=query,
        words_in_prompt=words_in_prompt,
        **select_kwargs,
    )
    videos = iter(zip(chosen.metadata, chosen.selections, strict=True))
    extra = {} if detail is None else {"detail": detail}

    def blocks(block: Any) -> list[Any]:
        if not is_video_block(block):
            return [_openai_block(block)]
        return [
            {"type": "text", "text": part}
            if isinstance(part, str)
            else {"type": "image_url", "image_url": {"url": jpeg_url(part, max_side, quality), **extra}}
            for part in stamped(block["video"], *next(videos), words_in_prompt)
        ]

    return [_mapped(m, blocks) for m in chosen[0]]


def pictures_within(
    messages: Sequence[Any], selector: Any, *, token_budget: Any, processor: Any, **kwargs: Any
) -> SelectedMessages:
    """`selected_messages` for frames that become single pictures; a budget is measured with the processor.

    Raises:
        InputError: if there is a budget and no processor.
    """
    meter = None
    if token_budget is not None:
        if processor is None or isinstance(processor, str):
            raise InputError(
                "token_budget: tokens are measured with the processor of the model behind the server; give "
                "model=AutoProcessor.from_pretrained(...)"
            )
        meter = PictureMeter(processor, kwargs.get("words_in_prompt", False))
    return selected_messages(
        messages, selector, token_budget=token_budget, meter=meter, keep_kind=False, place_words=False, **kwargs
    )


def video_request(
    messages: Sequence[Mapping[str, Any]],
    selector: Any = DEFAULT_SELECTOR,
    *,
    num_frames: int | str | None = None,
    token_budget: int | TokenBudget | None = None,
    model: Any = None,
    query: Query = "last_user",
    max_side: int | None = 768,
    quality: int = 90,
    timestamps: str = "auto",
    temporal_merge: str = "auto",
    **select_kwargs: Any,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A request for a vLLM server: the frames as one JPEG sequence, with their true times in milliseconds.

        messages, extra_body = video_request(messages, selector, num_frames=32, model="qwen3_vl")
        client.chat.completions.create(model=name, messages=messages, extra_body=extra_body)

    The server must run with `--trust-request-mm-kwargs`, or it refuses `media_io_kwargs` of a request. They hold for
    all videos of a request, so there can be one video only. The frames are not written into a short video file: its
    times would be those of the file.

    Args:
        messages: a chat with one video, a block of type "video" or "video_url".
        selector: a `FrameSelector`, or the name of one.
        num_frames: how many frames K (default: 8, or what a budget allows).
        token_budget: how many tokens the video may cost, see `with_frame_selection`; `model` must be the processor
            then, and `max_side` is not used.
        model: the model type behind the server, e.g. "qwen3_vl" (`model_type` in its config.json): some merge frames,
            and some are told times in words only.
        query: what counts as the question, see `select_messages`.
        max_side: frames are scaled down to this many pixels on the longer side; None keeps their size.
        quality: of the JPEG files, 1 to 95.
        timestamps: see `select_messages`; "auto" adds a sentence for models that vLLM tells no times.
        temporal_merge: see `select_messages`.
        **select_kwargs: `encoder` (see `select_messages`), and more arguments of `FrameSelector.select`.

    Returns:
        Messages and `extra_body`, JSON-ready.

    Raises:
        InputError: if the chat has not exactly one video, or no question; if no model is named, or vLLM gives it no
            video.
        VideoError: if the video cannot be read.
    """
    if model is None:
        raise InputError(
            'model: name the model behind the server, e.g. model="qwen3_vl" (`model_type` in its config.json): some '
            "merge frames, and some are told times in words only"
        )
    if timestamps == "interleave":
        raise InputError("timestamps='interleave' needs several videos, and a request has one; use image_messages")
    chosen = selected_messages(
        messages,
        selector,
        num_frames=num_frames,
        token_budget=token_budget,
        query=query,
        model=model,
        timestamps=vllm_timestamps(model, timestamps),
        temporal_merge=temporal_merge,
        keep_kind=False,
        **select_kwargs,
    )
    if len(chosen.selections) != 1:
        raise InputError(
            f"the chat has {len(chosen.selections)} videos; media_io_kwargs of vLLM hold for all videos of a request, "
            "so send one video per request, or use image_messages"
        )
    (metadata,) = chosen.metadata
    if token_budget is not None:
        max_side = None

    def blocks(block: Any) -> list[Any]:
        if not is_video_block(block):
            return [_openai_block(block)]
        pictures = ",".join(jpeg_base64(frame, max_side, quality) for frame in to_pictures(block["video"]))
        return [{"type": "video_url", "video_url": {"url": f"data:video/jpeg;base64,{pictures}"}}]

    video_kwargs = {
        "num_frames": -1,  # vLLM cuts the sequence after its default of 32 otherwise
        "fps": metadata["fps"],
        "frames_indices": metadata["frames_indices"],
        "total_num_frames": metadata["total_num_frames"],
        "duration": metadata["duration"],
        "do_sample_frames": False,
    }
    return [_mapped(m, blocks) for m in chosen[0]], {"media_io_kwargs": {"video": video_kwargs}}


def stamped(
    frames: Any, metadata: Mapping[str, Any], selection: Selection | None, words_in_prompt: str | bool
) -> list[str | np.ndarray]:
    """Pictures, each with its time in words in front, and what is said and written between them.

    Without times where the caller's frames have none. Their sizes are those of the selection's plan, if it has one.
    """
    fps, pictures = metadata.get("fps"), list(to_pictures(frames))
    if selection is not None and selection.plan is not None:
        pictures = [resized(p[None], selection.plan.size_of(k))[0] for k, p in enumerate(pictures)]
    numbers = metadata.get("frames_indices") or range(len(pictures))
    seconds = [index / fps for index in numbers] if fps else []
    lines = () if selection is None else prompt_lines(selection, words_in_prompt)
    words, rest = between_frames(seconds, lines)
    texts = [f"{said}{stamp(shown)}" for said, shown in zip(words, seconds, strict=True)] or [""] * len(pictures)
    parts = [part for pair in zip(texts, pictures, strict=True) for part in pair]
    return [part for part in (*parts, rest) if not isinstance(part, str) or part]


def _mapped(message: Mapping[str, Any], blocks: Any) -> dict[str, Any]:
    content = message.get("content")
    if not isinstance(content, list):
        return dict(message)
    return {**message, "content": [part for block in content for part in blocks(block)]}


def _openai_block(block: Any) -> Any:
    """Blocks of transformers' chats in OpenAI's words."""
    if not is_image_block(block) or block["type"] == "image_url":
        return block
    return {"type": "image_url", "image_url": {"url": image_url(image_of(block))}}


def image_url(image: Any) -> str:
    """A picture as a server takes it: URLs as they are, everything else as a `data:` URL."""
    if isinstance(image, str) and image.startswith(("http://", "https://", "data:")):
        return image
    return jpeg_url(to_image(image), None, 95)


def jpeg_url(frame: Any, max_side: int | None, quality: int) -> str:
    """A picture as a `data:` URL."""
    return f"data:image/jpeg;base64,{jpeg_base64(frame, max_side, quality)}"


def jpeg_base64(frame: Any, max_side: int | None, quality: int) -> str:
    """A picture as a JPEG file in base64.

    Args:
        frame: a PIL image, or an array or tensor [H, W, 3] or [3, H, W].
        max_side: scale down to this many pixels on the longer side.
        quality: 1 to 95.
    """
    from PIL import Image

    image = Image.fromarray(to_pictures([frame])[0])
    if max_side is not None:
        image.thumbnail((max_side, max_side), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return base64.b64encode(file.getvalue()).decode("ascii")
