"""NanoDet-g, the detector that tells the embedded encoder of people and other things that ImageNet has no class for.

Architecture: RangiLyu, "NanoDet" (2021), variant g: a CSP backbone of plain 3x3 convolutions, a feature pyramid that
adds instead of concatenating (PAN), and one small head for each of three scales. Only the class scores are computed
here; where the boxes lie does not matter to a selector. Batch normalisation is folded into the convolutions, as
published.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .onnx_graph import OnnxGraph

CLASSES = 80
_WIDTHS = ((32, 1), (64, 2), (128, 2), (256, 3))  # of the four stages: channels, small blocks
_NECK = 128
_SLOPE = 0.1
_MEAN, _SPREAD = (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)  # of blue, green and red

# COCO's 80 classes in the order of the network's outputs.
COCO = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow",
    "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee",
    "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard",
    "tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple",
    "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch",
    "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard",
    "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors",
    "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip


class LeakyConv(nn.Conv2d):
    """3x3 convolution, then a leaky ReLU."""

    def __init__(self, before: int, after: int, *, stride: int = 1) -> None:
        super().__init__(before, after, 3, stride, 1)

    def forward(self, x: Tensor) -> Tensor:  # [N, C, H, W] -> [N, C', ceil(H / stride), ceil(W / stride)]
        return F.leaky_relu_(super().forward(x), _SLOPE)


class Stage(nn.Module):
    """A convolution, small blocks that keep half of what they see, and one more; both ends side by side."""

    def __init__(self, before: int, width: int, blocks: int, *, stride: int) -> None:
        super().__init__()
        self.enter = LeakyConv(before, width, stride=stride)
        self.first = nn.ModuleList(LeakyConv(width, width // 2) for _ in range(blocks))
        self.second = nn.ModuleList(LeakyConv(width // 2, width // 2) for _ in range(blocks))
        self.leave = LeakyConv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        entered = x = self.enter(x)
        for first, second in zip(self.first, self.second, strict=True):
            half = first(x)
            x = torch.cat([second(half), half], 1)
        return torch.cat([self.leave(x), entered], 1)


class NanoDet(nn.Module):
    """Class scores at every place of three scales."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = LeakyConv(3, 32, stride=2)
        before, stages = 32, []
        for number, (width, blocks) in enumerate(_WIDTHS):
            stages.append(Stage(before, width, blocks, stride=1 if number == 0 else 2))
            before = 2 * width
        self.stages = nn.ModuleList(stages)
        self.lateral = nn.ModuleList(nn.Conv2d(2 * width, _NECK, 1) for width, _ in _WIDTHS[1:])
        self.mix = nn.ModuleList(LeakyConv(_NECK, _NECK) for _ in self.lateral)
        self.classify = nn.ModuleList(nn.Conv2d(_NECK, CLASSES, 1) for _ in self.lateral)

    @staticmethod
    def normalised(pixels: Tensor) -> Tensor:
        """What the network reads of RGB pixels, 0 to 255, `[N, 3, H, W]` with sides of at least 32.

        What is beyond a multiple of 32 is cut off.
        """
        height, width = _sides(pixels.shape[2], pixels.shape[3])
        mean, spread = (torch.tensor(row, device=pixels.device)[:, None, None] for row in (_MEAN, _SPREAD))
        return (pixels[:, :, :height, :width].float().flip(1) - mean) / spread

    def forward(self, pixels: Tensor) -> Tensor:
        """The best score of each class anywhere in the picture, float32 `[N, 80]`, 0 to 1, of `normalised` pixels."""
        x = F.max_pool2d(self.stem(pixels.to(self.stem.weight.dtype, memory_format=torch.channels_last)), 3, 2, 1)
        levels = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        fine, middle, coarse = (lateral(level) for lateral, level in zip(self.lateral, levels[1:], strict=True))
        middle = middle + _resized(coarse, middle)
        fine = fine + _resized(middle, fine)
        middle = middle + _resized(fine, middle)
        coarse = coarse + _resized(middle, coarse)
        heads = zip((fine, middle, coarse), self.mix, self.classify, strict=True)
        return (
            torch.stack([classify(mix(level)).amax((2, 3)) for level, mix, classify in heads]).amax(0).float().sigmoid()
        )

    def to_onnx(self, size: tuple[int, int]) -> bytes:
        """`forward` for frames of `size` (height, width) as an ONNX model: "pixels" to "scores"."""
        graph = OnnxGraph()

        def convolve(layer: nn.Module, x: str) -> str:
            assert isinstance(layer, nn.Conv2d)
            x = graph.convolution(layer, x)
            return graph.operator("LeakyRelu", x, alpha=_SLOPE) if isinstance(layer, LeakyConv) else x

        def add(x: str, other: str, scale: float) -> str:
            scales = graph.constant(np.array([1, 1, scale, scale], np.float32))
            return graph.operator("Add", x, graph.operator("Resize", other, "", scales, mode="linear"))

        x = convolve(self.stem, "pixels")
        x = graph.operator("MaxPool", x, kernel_shape=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1))
        levels = []
        for stage in self.stages:
            assert isinstance(stage, Stage)
            entered = x = convolve(stage.enter, x)
            for first, second in zip(stage.first, stage.second, strict=True):
                half = convolve(first, x)
                x = graph.operator("Concat", convolve(second, half), half, axis=1)
            x = graph.operator("Concat", convolve(stage.leave, x), entered, axis=1)
            levels.append(x)
        fine, middle, coarse = (
            convolve(lateral, level) for lateral, level in zip(self.lateral, levels[1:], strict=True)
        )
        middle = add(middle, coarse, 2.0)
        fine = add(fine, middle, 2.0)
        middle = add(middle, fine, 0.5)
        coarse = add(coarse, middle, 0.5)
        heads = zip((fine, middle, coarse), self.mix, self.classify, strict=True)
        best = [graph.operator("GlobalMaxPool", convolve(classify, convolve(mix, x))) for x, mix, classify in heads]
        scores = graph.operator("Flatten", graph.operator("Sigmoid", graph.operator("Max", *best)))
        return graph.model(("pixels", ("frames", 3, *_sides(*size))), (scores, ("frames", CLASSES)))


def _sides(height: int, width: int) -> tuple[int, int]:
    return height // 32 * 32, width // 32 * 32


def _resized(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[2:], mode="bilinear")
