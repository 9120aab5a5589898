"""Exact temporal positions for Qwen2.5-VL, whose own positions know only the mean spacing of frames."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from refocus_select.errors import InputError
from refocus_select.selection import Selection

from .input_format import InputFormat

if TYPE_CHECKING:
    import torch


def qwen2_5_vl_position_ids(
    model: Any,
    inputs: Mapping[str, Any],
    selections: Selection | Sequence[Selection],
    *,
    temporal_merge: str = "auto",
) -> torch.Tensor:
    """Position ids in which every frame of a Qwen2.5-VL prompt stands at its own time.

        inputs = processor.apply_chat_template(messages, tokenize=True, return_dict=True, return_tensors="pt")
        position_ids = qwen2_5_vl_position_ids(model, inputs, last_selections(processor))
        model.generate(**inputs, position_ids=position_ids)

    The model computes temporal positions as `grid number * tokens_per_second * second_per_grid` (Qwen2.5-VL, section
    2.1.3, "absolute time"). Here `grid number * second_per_grid` is replaced by the time of the grid since the first
    one; everything else, the positions of text among it, is as the model computes it. `generate` takes them from
    transformers 5 on; in 4.57 only the model's `forward` does.

    Args:
        model: a `Qwen2_5_VLForConditionalGeneration`.
        inputs: what the processor gave, with `input_ids`, `video_grid_thw`, `second_per_grid_ts`.
        selections: what was chosen for each video, in order.
        temporal_merge: as the processor was given it.

    Returns:
        Position ids [4, B, L]: text positions, then temporal, height and width positions.

    Raises:
        InputError: if the inputs hold another number of videos, or of frames.
    """
    import torch

    input_format = InputFormat.of("qwen2_5_vl", "text", temporal_merge)
    chosen = [selections] if isinstance(selections, Selection) else list(selections)
    grids = inputs["video_grid_thw"]
    if len(grids) != len(chosen):
        raise InputError(f"the inputs hold {len(grids)} videos, but there are {len(chosen)} selections")
    ids, mask = inputs["input_ids"], inputs.get("attention_mask")
    known = inspect.signature(model.model.get_rope_index).parameters  # transformers 4 has no mm_token_type_ids
    names = ("mm_token_type_ids", "image_grid_thw", "video_grid_thw", "second_per_grid_ts")
    given = {name: inputs.get(name) for name in names if name in known}
    vision, deltas = model.model.get_rope_index(ids, attention_mask=mask, **given)
    config = model.config.vision_config
    rate, merge = config.tokens_per_second, config.spatial_merge_size
    videos = iter(zip(grids.tolist(), chosen, strict=True))
    for row in range(len(ids)):
        for start, end in _runs((ids[row] == model.config.video_token_id).tolist()):
            (grid_t, grid_h, grid_w), selection = next(videos)
            tokens = grid_h * grid_w // merge**2
            seconds = _grid_seconds(selection, grid_t, input_format)
            if tokens * grid_t != end - start:
                raise InputError(f"a video has {end - start} tokens in the prompt, but its grid has {tokens * grid_t}")
            offsets = torch.tensor([int(rate * (s - seconds[0])) for s in seconds], device=vision.device)
            vision[0, row, start:end] = vision[0, row, start] + offsets.repeat_interleave(tokens).to(vision.dtype)
    model.model.rope_deltas = deltas
    text = torch.arange(ids.shape[1], device=ids.device).expand(ids.shape[0], -1)
    if mask is not None:
        text = (mask.long().cumsum(-1) - 1).clamp(min=0)
    return torch.cat([text[None].to(vision.dtype), vision], dim=0)


def _runs(marked: list[bool]) -> list[tuple[int, int]]:
    """Where each run of marked tokens begins and ends."""
    runs, start = [], None
    for k, mark in enumerate([*marked, False]):
        if mark and start is None:
            start = k
        elif not mark and start is not None:
            runs.append((start, k))
            start = None
    return runs


def _grid_seconds(selection: Selection, grids: int, input_format: InputFormat) -> list[float]:
    """The time of each grid: the mean of the different frames in it."""
    times = [float(t) for t in selection.timestamps]
    groups = input_format.groups(times)
    if grids != len(groups):
        raise InputError(
            f"{len(times)} frames were selected and make {len(groups)} groups with temporal_merge="
            f"{input_format.temporal_merge!r}, but the inputs hold {grids}; give the temporal_merge of the processor"
        )
    return [sum(times[k] for k in set(group)) / len(set(group)) for group in groups]
