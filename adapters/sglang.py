"""SGLang, as far as its interface allows. Not tried against a running server.

SGLang 0.5 takes no times with a video: `video_url` has no field for them, and frames that were decoded before arrive
without metadata. So videos become pictures with their times in front, which every SGLang server understands:

    from refocus_select.adapters.sglang import chat_messages
    client.chat.completions.create(model=name, messages=chat_messages(messages, selector, num_frames=16))

and for `sglang.Engine`:

    engine.generate(**engine_inputs(messages, processor, selector, num_frames=16))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from refocus_select.budget import TokenBudget
from refocus_select.weights import DEFAULT_SELECTOR

from .media import image_of, is_image_block, is_video_block
from .openai import image_messages as chat_messages
from .openai import image_url, jpeg_url, pictures_within, stamped
from .questions import Query

__all__ = ["chat_messages", "engine_inputs"]


def engine_inputs(
    messages: Sequence[Any],
    processor: Any,
    selector: Any = DEFAULT_SELECTOR,
    *,
    num_frames: int | str | None = None,
    token_budget: int | TokenBudget | None = None,
    query: Query = "last_user",
    max_side: int | None = 768,
    quality: int = 90,
    words_in_prompt: str | bool = False,
    **select_kwargs: Any,
) -> dict[str, Any]:
    """What `sglang.Engine.generate` takes for a chat with videos: a prompt with times, and pictures as `data:` URLs.

    Args:
        messages: one chat.
        processor: the model's processor, for its chat template.
        selector: a `FrameSelector`, or the name of one.
        num_frames: how many frames K per video (default: 8, or what a budget allows).
        token_budget: how many tokens the videos may cost, see `openai.image_messages`.
        query: what counts as the question, see `select_messages`.
        max_side: pictures are scaled down to this many pixels on the longer side; None keeps their size.
        quality: of the JPEG files, 1 to 95.
        words_in_prompt: see `refocus_select.adapters.openai.image_messages`.
        **select_kwargs: `encoder` (see `select_messages`), and more arguments of `FrameSelector.select`.

    Returns:
        `{"prompt": …, "image_data": […]}`: pictures are `data:` URLs, those that the chat names by URL stay URLs.

    Raises:
        InputError: if the chat has no question, or a picture cannot be read.
        VideoError: if a video cannot be read.
    """
    if token_budget is not None:
        max_side = None
    chosen = pictures_within(
        messages, selector, num_frames=num_frames, token_budget=token_budget, processor=processor, query=query,
        words_in_prompt=words_in_prompt, **select_kwargs,
    )  # fmt: skip
    videos = iter(zip(chosen.metadata, chosen.selections, strict=True))
    pictures: list[Any] = []

    def blocks(block: Any) -> list[Any]:
        if is_image_block(block):
            pictures.append(image_url(image_of(block)))
            return [{"type": "image"}]
        if not is_video_block(block):
            return [block]
        parts = stamped(block["video"], *next(videos), words_in_prompt)
        pictures.extend(jpeg_url(part, max_side, quality) for part in parts if not isinstance(part, str))
        return [{"type": "text", "text": part} if isinstance(part, str) else {"type": "image"} for part in parts]

    chat = [
        {**m, "content": [p for b in m["content"] for p in blocks(b)]} if isinstance(m.get("content"), list) else m
        for m in chosen[0]
    ]
    prompt = processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    return {"prompt": prompt, "image_data": pictures}
