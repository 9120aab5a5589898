"""LLaVA-Video as its users run it: the LLaVA-NeXT code base, which is not part of transformers.

Where the example of LLaVA-Video calls `load_video(path, max_frames_num, 1, force_sample=True)` and builds its time
instruction, write

    inputs = llava_video_inputs("match.mp4", "Who scores first?", image_processor, num_frames=64)
    conversation.append_message(conversation.roles[0], inputs.prompt)
    output = model.generate(ids, images=[inputs.video.to(model.device, model.dtype)], modalities=["video"], ...)

Which checkpoints go where: `lmms-lab/LLaVA-Video-*` have model type `llava_qwen` and need that code base, and this
module. Checkpoints converted to transformers have model type `llava_onevision`; give their processor to
`with_frame_selection`, which adds the same sentence. The conversion is exact only for checkpoints with one newline
token per video (`mm_newline_position = "one_token"`); the training default of LLaVA-NeXT is "grid", a newline per row,
which transformers' LLaVA-OneVision does not have. Look at `config.json` of the original checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from refocus_select.errors import InputError
from refocus_select.selection import Selection
from refocus_select.weights import DEFAULT_SELECTOR

from .choose import load

if TYPE_CHECKING:
    import torch

WORDINGS = {"selected": "are selected from it", "training": "are uniformly sampled from it"}


@dataclass(frozen=True)
class LlavaVideoInputs:
    """What the LLaVA-NeXT code wants of a video.

    Attributes:
        video: preprocessed frames [K, 3, H, W]; give the model `images=[video]` and `modalities=["video"]`.
        frame_time: "0.10s,0.33s,…", as `load_video` of LLaVA-Video returns it.
        video_time: length of the video in seconds.
        instruction: the time instruction.
        prompt: `<image>`, the instruction, and the question, as one user message.
        selection: what was chosen.
    """

    video: torch.Tensor
    frame_time: str
    video_time: float
    instruction: str
    prompt: str
    selection: Selection


def llava_video_inputs(
    video: Any,
    question: str,
    image_processor: Any,
    selector: Any = DEFAULT_SELECTOR,
    *,
    num_frames: int = 64,
    prompt: str | None = None,
    wording: str = "selected",
    encoder: Any = None,
    **select_kwargs: Any,
) -> LlavaVideoInputs:
    """Choose frames for a question, in the form of the LLaVA-NeXT code.

    Args:
        video: anything that `FrameSelector.select` takes.
        question: what frames are chosen for.
        image_processor: the one that `load_pretrained_model` of LLaVA-NeXT returns.
        selector: a `FrameSelector`, or the name of one.
        num_frames: how many frames K; LLaVA-Video was trained with up to 64.
        prompt: what the model is asked; the question by default (benchmarks add options and instructions here).
        wording: "selected" says that the frames "are selected", which is true; "training" keeps the words that the
            model was trained on, "are uniformly sampled".
        encoder: whose vectors the selector compares, for those that read vectors: see `refocus_select.encoders`.
        **select_kwargs: more arguments of `FrameSelector.select`.

    Raises:
        InputError: if the wording is unknown, or an argument is not usable.
        VideoError: if the video cannot be read.
    """
    if wording not in WORDINGS:
        raise InputError(f"wording must be one of {', '.join(WORDINGS)}, not {wording!r}")
    selection = load(selector, encoder).select(video, question, num_frames=num_frames, **select_kwargs)
    pixels = image_processor.preprocess(list(selection.frames), return_tensors="pt")["pixel_values"]
    frame_time = ",".join(f"{t:.2f}s" for t in selection.shown_timestamps)
    instruction = (
        f"The video lasts for {selection.duration:.2f} seconds, and {len(selection)} frames {WORDINGS[wording]}. "
        f"These frames are located at {frame_time}.Please answer the following questions related to this video."
    )
    return LlavaVideoInputs(
        video=pixels,
        frame_time=frame_time,
        video_time=selection.duration,
        instruction=instruction,
        prompt=f"<image>\n{instruction}\n{question if prompt is None else prompt}",
        selection=selection,
    )
