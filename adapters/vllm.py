"""vLLM: inputs for the offline engine, and a video loader for the server that knows the question.

For a request to a running server from the client's side see `refocus_select.adapters.openai.video_request`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from refocus_select.budget import TokenBudget
from refocus_select.errors import InputError
from refocus_select.weights import DEFAULT_SELECTOR

from .choose import load
from .engines import vllm_loader_format, vllm_timestamps
from .media import image_of, is_image_block, to_image
from .messages import selected_messages
from .questions import Query

LOADER = "refocus_select"


def generate_inputs(
    messages: Sequence[Any],
    processor: Any,
    selector: Any = DEFAULT_SELECTOR,
    *,
    num_frames: int | str | None = None,
    token_budget: int | TokenBudget | None = None,
    query: Query = "last_user",
    timestamps: str = "auto",
    temporal_merge: str = "auto",
    chat_template_kwargs: dict[str, Any] | None = None,
    **select_kwargs: Any,
) -> dict[str, Any]:
    """What `vllm.LLM.generate` takes for a chat with videos.

        llm = LLM("Qwen/Qwen3-VL-8B-Instruct")
        processor = AutoProcessor.from_pretrained("Qwen/Qwen3-VL-8B-Instruct")
        llm.generate(generate_inputs(messages, processor, selector, num_frames=32), sampling_params)

    Args:
        messages: one chat.
        processor: the model's processor, for its chat template and to fit the frames to it.
        selector: a `FrameSelector`, or the name of one.
        num_frames: how many frames K per video (default: 8, or what a budget allows).
        token_budget: how many tokens the videos may cost, see `with_frame_selection`.
        query: what counts as the question, see `select_messages`.
        timestamps: see `select_messages`; "auto" adds a sentence for models that vLLM tells no times.
        temporal_merge: see `select_messages`.
        chat_template_kwargs: more arguments of `apply_chat_template`.
        **select_kwargs: `encoder` (see `select_messages`), and more arguments of `FrameSelector.select`.

    Returns:
        `{"prompt": …, "multi_modal_data": {"video": [(frames, metadata), …], "image": […]}}`. The metadata has
        milliseconds (`fps=1000`) and `do_sample_frames=False`, so that vLLM takes the frames as they are.

    Pictures of the chat may be files, URLs (also as blocks "image_url" of OpenAI) or PIL images.

    Raises:
        InputError: if the chat has no question, a picture cannot be read, or vLLM gives this model no video.
        VideoError: if a video cannot be read.
    """
    chosen = selected_messages(
        messages,
        selector,
        num_frames=num_frames,
        token_budget=token_budget,
        query=query,
        model=processor,
        timestamps=vllm_timestamps(processor, timestamps),
        temporal_merge=temporal_merge,
        keep_kind=False,
        **select_kwargs,
    )
    images: list[Any] = []

    def block(b: Any) -> Any:
        if not is_image_block(b):
            return b
        images.append(to_image(image_of(b)))
        return {"type": "image"}

    chat = [
        {**m, "content": [block(b) for b in m["content"]]} if isinstance(m.get("content"), list) else m
        for m in chosen[0]
    ]
    prompt = processor.apply_chat_template(
        chat, tokenize=False, **{"add_generation_prompt": True, **(chat_template_kwargs or {})}
    )
    blocks = [b for m in chat if isinstance(m.get("content"), list) for b in m["content"]]
    frames = [b["video"] for b in blocks if b.get("type") == "video"]
    videos = [(f, {**m, "do_sample_frames": False}) for f, m in zip(frames, chosen.metadata, strict=True)]
    data = {**({"video": videos} if videos else {}), **({"image": images} if images else {})}
    return {"prompt": prompt, **({"multi_modal_data": data} if data else {})}


def register() -> None:
    """Entry point `vllm.general_plugins`: adds the video loader "refocus_select" to vLLM.

    The loader sees the video only, so a request names the question (the server needs `--trust-request-mm-kwargs`), and
    the request or the server names the model:

        vllm serve Qwen/Qwen3-VL-8B-Instruct --trust-request-mm-kwargs \\
            --media-io-kwargs '{"video": {"video_backend": "refocus_select", "model": "qwen3_vl", "num_frames": 32}}'

        extra_body = {"media_io_kwargs": {"video": {"query": question}}}

    The selector is named by the environment variable `REFOCUS_SELECTOR` of the server, "mini-policy" by default, and
    its encoder by `REFOCUS_ENCODER`. Without a `query` frames are spread over the video. Models that are told times in
    words are refused, because a loader cannot write any: see `refocus_select.adapters.openai.video_request`.
    """
    from vllm.multimodal.video import VIDEO_LOADER_REGISTRY, VideoLoader

    if LOADER in getattr(VIDEO_LOADER_REGISTRY, "name2class", {}):  # vLLM loads plugins in every process, maybe twice
        return

    @VIDEO_LOADER_REGISTRY.register(LOADER)
    class SelectingVideoLoader(VideoLoader):
        """Chooses frames of a video for the question in `query`."""

        @classmethod
        def load_bytes(cls, data: bytes, num_frames: int = -1, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
            return load_video(data, num_frames, **kwargs)


def load_video(
    data: bytes,
    num_frames: int = -1,
    *,
    query: str | None = None,
    model: str | None = None,
    timestamps: str = "auto",
    temporal_merge: str = "auto",
    **unused: Any,
) -> tuple[Any, dict[str, Any]]:
    """Choose frames of an encoded video, as a vLLM video loader returns them.

    Args:
        data: the file.
        num_frames: how many frames K; -1 for 32, the default of vLLM.
        query: the question; without one frames are spread over the video.
        model: a model type such as "qwen3_vl": what is done about models that merge frames.
        timestamps: "metadata" to do without the sentence with times that some models need.
        temporal_merge: see `select_messages`.
        **unused: other arguments of vLLM's own loaders (`fps`, `max_duration`, …).

    Returns:
        uint8 frames [N, H, W, 3], and metadata in milliseconds.

    Raises:
        InputError: if `num_frames` is not usable, no model is named, or its times cannot arrive.
        VideoError: if the video cannot be read.
    """
    count = 32 if num_frames == -1 else num_frames
    if count < 1:
        raise InputError(f"num_frames must be at least 1, or -1 for 32, not {num_frames}")
    input_format = vllm_loader_format(model, timestamps, temporal_merge)
    name = os.environ.get("REFOCUS_SELECTOR", DEFAULT_SELECTOR)
    chooser = _selector(name, os.environ.get("REFOCUS_ENCODER")) if query else _selector("uniform", None)
    selection = chooser.select(data, query or "the whole video", num_frames=input_format.frames_to_choose(count))
    (clip,) = input_format.clips(selection)
    return clip.frames, {**clip.metadata, "do_sample_frames": False}


@lru_cache(maxsize=2)
def _selector(name: str, encoder: str | None) -> Any:
    return load(name, encoder)
