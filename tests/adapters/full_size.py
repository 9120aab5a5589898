"""Processors of ten families with the frame sizes of their released models, and videos of any length and shape."""

from __future__ import annotations

from typing import Any

import numpy as np

from refocus_select.video import Video, open_video

from . import tiny

FAMILIES = (
    "qwen2_5_vl",
    "qwen3_vl",
    "glm46v",
    "video_llama_3",
    "internvl",
    "llava_onevision",
    "gemma4",
    "kimi_k25",
    "minimax_m3_vl",
    "smolvlm",
)


def processor(model_type: str) -> Any:
    """A real processor as its class makes it without settings: those of the released models, as far as it has them."""
    made = tiny.BUILDERS[model_type]()
    made.video_processor = type(made.video_processor)()
    if model_type in ("qwen3_vl", "video_llama_3"):  # all frames of a video together, as Qwen3-VL is released
        made.video_processor.size = {"shortest_edge": 4096, "longest_edge": 25165824}
    if model_type.startswith("qwen"):
        made.image_processor = type(made.image_processor)(patch_size=made.image_processor.patch_size)
    if model_type == "internvl":
        made.image_seq_length = 256
    if model_type == "llava_onevision":
        made.num_image_tokens = 729
    if model_type == "smolvlm":
        made.image_seq_len = 81
    return made


def random_video(rng: np.random.Generator, *, longest: float = 3600.0, lines: int = 1080) -> Video:
    """A video of 20 s to an hour, in any shape from 240 lines to full HD; neighbouring frames differ, as cuts do."""
    short = int(rng.integers(120, lines // 2 + 1)) * 2
    shape = (short, int(short * rng.uniform(1.0, 1.8)) // 2 * 2)
    height, width = shape if rng.random() < 0.7 else shape[::-1]
    seconds = float(np.exp(rng.uniform(np.log(20.0), np.log(longest))))
    count = int(min(512, 4 * seconds))
    times = np.sort(rng.uniform(0.0, seconds, count))
    times[0] = 0.0
    times += np.arange(count) * 1e-3  # no two at once
    colours = rng.integers(0, 256, (count, 1, 1, 3), dtype=np.uint8)
    return open_video([np.broadcast_to(c, (height, width, 3)) for c in colours], timestamps=times.tolist())
