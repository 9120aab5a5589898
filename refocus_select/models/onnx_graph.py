"""Writes convolutional networks as ONNX models, in memory, for inference runtimes other than PyTorch.

An ONNX model is a protobuf message. Only what our networks need is written here, in a tenth of a second and without
the packages `onnx` and `onnxscript`, which `torch.onnx` would import. Field numbers and types: onnx/onnx.proto, IR
version 8, operator set 17.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
from torch import Tensor, nn

_IR_VERSION, _OPERATORS = 8, 17
_TYPES = {np.dtype(np.float32): 1, np.dtype(np.uint8): 2, np.dtype(np.int8): 3, np.dtype(np.int64): 7}
_FLOAT, _INT, _TEXT, _INTS = 1, 2, 3, 7  # types of an attribute

Attribute = float | int | str | Sequence[int]


class OnnxGraph:
    """Collects the operators of a network; each method that adds one returns the name of its output."""

    def __init__(self) -> None:
        self._nodes: list[bytes] = []
        self._constants: list[bytes] = []
        self._names = 0

    def constant(self, values: np.ndarray | Tensor) -> str:
        """Adds a tensor, for example of weights."""
        array = np.ascontiguousarray(values.detach().cpu().numpy() if isinstance(values, Tensor) else values)
        name = self._name()
        fields = [_number(1, size) for size in array.shape]
        fields += [_number(2, _TYPES[array.dtype]), _bytes(8, name.encode()), _bytes(9, array.tobytes())]
        self._constants.append(_bytes(5, b"".join(fields)))
        return name

    def operator(self, kind: str, *inputs: str, **attributes: Attribute) -> str:
        """Adds an operator of the ONNX standard; an empty input name stands for one that is left out."""
        name = self._name()
        fields = [_bytes(1, source.encode()) for source in inputs]
        fields += [_bytes(2, name.encode()), _bytes(3, name.encode()), _bytes(4, kind.encode())]
        fields += [_bytes(5, _attribute(key, value)) for key, value in attributes.items()]
        self._nodes.append(_bytes(1, b"".join(fields)))
        return name

    def convolution(self, module: nn.Conv2d, x: str, pads: Sequence[int] | None = None) -> str:
        """Adds a convolution with its bias; `pads` (top, left, bottom, right) replaces the module's padding."""
        rows, columns = map(int, module.padding)  # numbers, not the words "same" or "valid"
        weights = self.constant(module.weight.float())
        bias = [self.constant(module.bias.float())] if module.bias is not None else []
        return self.operator(
            "Conv", x, weights, *bias,
            kernel_shape=module.kernel_size, strides=module.stride, group=module.groups,
            pads=pads or (rows, columns, rows, columns),
        )  # fmt: skip

    def model(self, source: tuple[str, Sequence[int | str]], output: tuple[str, Sequence[int | str]]) -> bytes:
        """The whole model, serialised.

        Args:
            source: name and shape of the float32 input; a word in a shape is a size that may vary.
            output: the same of the float32 output.
        """
        graph = [*self._nodes, _bytes(2, b"network"), *self._constants]
        graph += [_bytes(11, _value(*source)), _bytes(12, _value(*output))]
        operators = _bytes(1, b"") + _number(2, _OPERATORS)
        return _number(1, _IR_VERSION) + _bytes(8, operators) + _bytes(7, b"".join(graph))

    def _name(self) -> str:
        self._names += 1
        return f"t{self._names}"


def _attribute(name: str, value: Attribute) -> bytes:
    if isinstance(value, float):
        field, kind = _tag(2, 5) + struct.pack("<f", value), _FLOAT
    elif isinstance(value, int):
        field, kind = _number(3, value), _INT
    elif isinstance(value, str):
        field, kind = _bytes(4, value.encode()), _TEXT
    else:
        field, kind = b"".join(_number(8, item) for item in value), _INTS
    return _bytes(1, name.encode()) + field + _number(20, kind)


def _value(name: str, shape: Sequence[int | str]) -> bytes:
    sizes = b"".join(
        _bytes(1, _bytes(2, size.encode()) if isinstance(size, str) else _number(1, size)) for size in shape
    )
    tensor = _number(1, _TYPES[np.dtype(np.float32)]) + _bytes(2, sizes)
    return _bytes(1, name.encode()) + _bytes(2, _bytes(1, tensor))


def _tag(field: int, wire: int) -> bytes:
    return _varint(field << 3 | wire)


def _number(field: int, value: int) -> bytes:
    return _tag(field, 0) + _varint(value & (1 << 64) - 1)


def _bytes(field: int, content: bytes) -> bytes:
    return _tag(field, 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    pieces = bytearray()
    while value > 127:
        pieces.append(value & 127 | 128)
        value >>= 7
    pieces.append(value)
    return bytes(pieces)
