"""EfficientNet-Lite, the image tower of the embedded selector, with batch normalisation folded into the convolutions.

Architecture: Tan & Le, "EfficientNet" (2019) and the Lite variant published with the TensorFlow TPU models: no
squeeze-and-excitation, ReLU6, stem and head of fixed width. Only inference is offered: the folded form is what
`weights/mini` stores, and it needs a third fewer memory passes than convolution and normalisation apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from .onnx_graph import OnnxGraph

FEATURES = 1280  # channels of the last feature map; the same in every Lite variant


@dataclass(frozen=True)
class LiteConfig:
    """Width and depth multipliers and the training resolution (pixels) of one Lite variant."""

    width: float
    depth: float
    image_size: int


LITE_VARIANTS: Mapping[str, LiteConfig] = {
    "lite0": LiteConfig(1.0, 1.0, 224),
    "lite1": LiteConfig(1.0, 1.1, 240),
    "lite2": LiteConfig(1.1, 1.2, 260),
    "lite3": LiteConfig(1.2, 1.4, 280),
    "lite4": LiteConfig(1.4, 1.8, 300),
}

# (repeats, kernel, stride, expansion, channels in, channels out) of the seven stages at width and depth 1.
_STAGES = (
    (1, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24),
    (2, 5, 2, 6, 24, 40),
    (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192),
    (1, 3, 1, 6, 192, 320),
)


def scale_channels(channels: int, width: float) -> int:
    """`channels` times `width`, rounded to a multiple of 8 without losing more than a tenth."""
    scaled = channels * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


def block_shapes(config: LiteConfig) -> Iterator[tuple[int, int, int, int, int]]:
    """Yields (kernel, stride, expansion, channels in, channels out) for every block of a variant."""
    for stage, (repeats, kernel, stride, expansion, before, after) in enumerate(_STAGES):
        # The first and last stage keep their depth, and the stem keeps its 32 channels.
        if 0 < stage < len(_STAGES) - 1:
            repeats = math.ceil(repeats * config.depth)
        before = before if stage == 0 else scale_channels(before, config.width)
        after = scale_channels(after, config.width)
        for repeat in range(repeats):
            yield kernel, stride if repeat == 0 else 1, expansion, before if repeat == 0 else after, after


class SameConv(nn.Conv2d):
    """Convolution with TensorFlow's "SAME" padding, then ReLU6 unless `linear`.

    With stride 2 and an even input the padding is one pixel larger at the far side, which `nn.Conv2d` cannot do by
    itself. Sizes of the form 32 m + 1 (193, 225, 257) stay odd through the whole network and need no extra padding.
    """

    def __init__(
        self, before: int, after: int, kernel: int, *, stride: int = 1, groups: int = 1, linear: bool = False
    ) -> None:
        super().__init__(before, after, kernel, stride, kernel // 2, groups=groups, bias=True)
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:  # [N, C, H, W] -> [N, C', ceil(H / stride), ceil(W / stride)]
        padding: tuple[int, int] = self.padding  # type: ignore[assignment]
        top, left, bottom, right = self.pads(x.shape[2], x.shape[3])
        if (top, left) != (bottom, right):
            x, padding = F.pad(x, (left, right, top, bottom)), (0, 0)
        x = F.conv2d(x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)
        return x if self.linear else F.hardtanh_(x, 0.0, 6.0)

    def pads(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Pixels added at the top, left, bottom and right of an input of that size."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        rows, columns = (max((math.ceil(n / stride) - 1) * stride + kernel - n, 0) for n in (height, width))
        return rows // 2, columns // 2, rows - rows // 2, columns - columns // 2


class InvertedBottleneck(nn.Module):
    """Widen (1x1), filter each channel, narrow (1x1); a skip where the shape stays the same."""

    def __init__(self, kernel: int, stride: int, expansion: int, before: int, after: int) -> None:
        super().__init__()
        wide = before * expansion
        self.expand = SameConv(before, wide, 1) if expansion > 1 else nn.Identity()
        self.depthwise = SameConv(wide, wide, kernel, stride=stride, groups=wide)
        self.project = SameConv(wide, after, 1, linear=True)
        self.skip = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.depthwise(self.expand(x)))
        return y.add_(x) if self.skip else y


class EfficientNetLite(nn.Module):
    """The feature extractor and classifier of one Lite variant.

    Attributes:
        config: the variant's multipliers and its training resolution.
    """

    def __init__(self, variant: str = "lite2", classes: int = 1000) -> None:
        super().__init__()
        self.config = LITE_VARIANTS[variant]
        self.stem = SameConv(3, 32, 3, stride=2)
        shapes = list(block_shapes(self.config))
        self.blocks = nn.Sequential(*(InvertedBottleneck(*shape) for shape in shapes))
        self.head = SameConv(shapes[-1][-1], FEATURES, 1)
        self.classifier = nn.Linear(FEATURES, classes)

    def feature_map(self, pixels: Tensor) -> Tensor:
        """Features at every position.

        Args:
            pixels: `[N, 3, H, W]` in -1..1 (that is, `value / 127.5 - 1`).

        Returns:
            `[N, 1280, ceil(H / 32), ceil(W / 32)]`, non-negative.
        """
        return self.head(self.blocks(self.stem(pixels)))

    def forward(self, pixels: Tensor) -> Tensor:
        """The pooled features `[N, 1280]` of `pixels` `[N, 3, H, W]` in -1..1."""
        return self.feature_map(pixels).mean(dim=(2, 3))

    def to_onnx(self, size: tuple[int, int]) -> bytes:
        """`forward` for frames of `size` (height, width) as an ONNX model: "pixels" to "features"."""
        graph = OnnxGraph()
        limits = graph.constant(np.float32(0)), graph.constant(np.float32(6))
        x = "pixels"

        def convolve(layer: SameConv, x: str) -> str:
            nonlocal size
            x = graph.convolution(layer, x, layer.pads(*size))
            size = (math.ceil(size[0] / layer.stride[0]), math.ceil(size[1] / layer.stride[0]))
            return x if layer.linear else graph.operator("Clip", x, *limits)

        shape = ("frames", 3, *size)
        x = convolve(self.stem, x)
        for block in self.blocks:
            assert isinstance(block, InvertedBottleneck)
            y = convolve(block.expand, x) if isinstance(block.expand, SameConv) else x
            y = convolve(block.project, convolve(block.depthwise, y))
            x = graph.operator("Add", y, x) if block.skip else y
        x = graph.operator("Flatten", graph.operator("GlobalAveragePool", convolve(self.head, x)))
        return graph.model(("pixels", shape), (x, ("frames", FEATURES)))
