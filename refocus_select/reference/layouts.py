"""How families of transformers turn frames into visual tokens, for those in which every frame stands alone.

A frame stands alone if its tokens depend on no other frame, so that they can be computed once and put together into
any subset. Video models that merge neighbouring frames are given each frame `merge` times (see
`refocus_select.adapters`), and their vision towers attend within one merged frame only; then that holds for them too.
The facts are those of transformers 5.23 and 5.24.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

Features = tuple[Tensor, ...]  # of one frame: its tokens [t, d], then what deeper layers add to them


class Layout(ABC):
    """Pixels and visual tokens of one family.

    Attributes:
        modality: the key of `mm_encoder_outputs` that `forward` reads them from.
        pixel_names: processor outputs that the vision tower reads.
        light: the prompt depends on the number of frames, not on the size of their pixels.
    """

    modality: ClassVar[str] = "video"
    pixel_names: ClassVar[tuple[str, ...]] = ("pixel_values_videos",)
    light: ClassVar[bool] = False

    @abstractmethod
    def pixels(self, inputs: Mapping[str, Any], frames: int) -> Tensor:
        """The pixels of each frame of a call with one video, [frames, ...]."""

    @abstractmethod
    def encode(self, model: Any, pixels: Tensor, inputs: Mapping[str, Any]) -> list[Features]:
        """Run the vision tower on frames.

        Args:
            model: the whole model.
            pixels: [n, ...], on the model's device.
            inputs: of a call with frames of the same size.

        Returns:
            For each frame its features.
        """

    @abstractmethod
    def outputs(self, model: Any, subsets: Sequence[Sequence[Features]]) -> Any:
        """Encoder outputs as `forward` expects them, for a batch of subsets of equally many frames."""


def _rows(subsets: Sequence[Sequence[Features]], part: int = 0) -> Tensor:
    """One part of all frames after another, [frames * t, d]."""
    return torch.cat([frame[part] for subset in subsets for frame in subset])


def _encoder_output(tokens: Any, **more: Any) -> Any:
    """Visual tokens as a vision tower of transformers returns them: `forward` hands them on as one of its outputs."""
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    output = BaseModelOutputWithPooling(pooler_output=tokens)
    for name, value in more.items():
        setattr(output, name, value)
    return output


class Grids(Layout):
    """Qwen-VL, GLM-4V: patches of all frames in one row, with a grid (frames, height, width) per video.

    Qwen3-VL adds tokens of earlier vision layers to the first layers of the language model (DeepStack).
    """

    def pixels(self, inputs: Mapping[str, Any], frames: int) -> Tensor:
        patches: Tensor = inputs["pixel_values_videos"]
        return patches.view(frames, -1, patches.shape[-1])

    def encode(self, model: Any, pixels: Tensor, inputs: Mapping[str, Any]) -> list[Features]:
        grid = inputs["video_grid_thw"][:1].clone()
        grid[:, 0] = len(pixels)
        found = model.get_video_features(
            pixel_values_videos=pixels.flatten(0, 1), video_grid_thw=grid.to(pixels.device), return_dict=True
        )
        deeper = getattr(found, "deepstack_features", None) or []
        layers = getattr(model.config.vision_config, "deepstack_visual_indexes", None) or []
        if len(deeper) != len(layers):
            raise ValueError(f"the vision tower gives tokens of {len(deeper)} earlier layers, not of {len(layers)}")
        parts = [found.pooler_output, *deeper]
        each = [torch.cat(tuple(part)).unflatten(0, (len(pixels), -1)) for part in parts]  # [n, t, d]
        return list(zip(*each, strict=True))

    def outputs(self, model: Any, subsets: Sequence[Sequence[Features]]) -> Any:
        deeper = [(_rows(subsets, part),) for part in range(1, len(subsets[0][0]))]
        return _encoder_output((_rows(subsets),), deepstack_features=deeper)


class Images(Layout):
    """InternVL: every frame of a video is an image of one tile."""

    modality = "image"
    pixel_names = ("pixel_values",)
    light = True

    def pixels(self, inputs: Mapping[str, Any], frames: int) -> Tensor:
        pixels: Tensor = inputs["pixel_values"]
        return pixels

    def encode(self, model: Any, pixels: Tensor, inputs: Mapping[str, Any]) -> list[Features]:
        found = model.get_image_features(pixel_values=pixels, return_dict=True).pooler_output
        return [(tokens,) for tokens in found]

    def outputs(self, model: Any, subsets: Sequence[Sequence[Features]]) -> Any:
        return _encoder_output(torch.stack([f[0] for subset in subsets for f in subset]))


class ImageList(Images):
    """LLaVA 1.5, LLaVA-Interleave: images, kept as a list."""

    light = False

    def outputs(self, model: Any, subsets: Sequence[Sequence[Features]]) -> Any:
        return _encoder_output([f[0] for subset in subsets for f in subset])


class OneVision(Layout):
    """LLaVA-OneVision: pooled frame by frame, and one newline token behind the last frame of each video."""

    light = True

    def pixels(self, inputs: Mapping[str, Any], frames: int) -> Tensor:
        pixels: Tensor = inputs["pixel_values_videos"]
        return pixels[0]

    def encode(self, model: Any, pixels: Tensor, inputs: Mapping[str, Any]) -> list[Features]:
        found = model.model.get_video_features(pixel_values_videos=pixels[None], return_dict=True).pooler_output
        return [(tokens,) for tokens in found[0, :-1].unflatten(0, (len(pixels), -1))]

    def outputs(self, model: Any, subsets: Sequence[Sequence[Features]]) -> Any:
        videos = _rows(subsets).unflatten(0, (len(subsets), -1))  # [N, K * t, d]
        newline = model.model.image_newline.to(videos).expand(len(subsets), 1, -1)
        return _encoder_output(torch.cat([videos, newline], dim=1))


class NextVideo(Layout):
    """LLaVA-NeXT-Video: pooled frame by frame."""

    def pixels(self, inputs: Mapping[str, Any], frames: int) -> Tensor:
        pixels: Tensor = inputs["pixel_values_videos"]
        return pixels[0]

    def encode(self, model: Any, pixels: Tensor, inputs: Mapping[str, Any]) -> list[Features]:
        found = model.model.get_video_features(pixel_values_videos=pixels[None], return_dict=True).pooler_output
        return [(tokens,) for tokens in found[0].unflatten(0, (len(pixels), -1))]

    def outputs(self, model: Any, subsets: Sequence[Sequence[Features]]) -> Any:
        return _encoder_output(_rows(subsets).unflatten(0, (len(subsets), -1)))  # [N, K * t, d]


LAYOUTS: dict[str, Layout] = {
    **dict.fromkeys(("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe"), Grids()),
    **dict.fromkeys(("glm4v", "glm46v"), Grids()),
    "internvl": Images(),
    "llava": ImageList(),
    "llava_onevision": OneVision(),
    "llava_next_video": NextVideo(),
}
