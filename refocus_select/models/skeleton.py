"""Building a network whose weights are read from a file right after."""

from __future__ import annotations

from typing import Any

from torch.overrides import TorchFunctionMode


class unfilled(TorchFunctionMode):
    """Inside `with unfilled():` modules are made without drawing random initial weights.

    Their tensors are allocated but never written, so they take neither time nor resident memory before real weights
    are assigned. The meta device would do as well but for one thing: the first computation on it makes PyTorch import
    the decompositions of its compiler, with sympy and torch.distributed, which takes longer than all else that
    loading a small selector does.
    """

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in _DRAW:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


_DRAW = {"normal_", "uniform_", "trunc_normal_", "kaiming_uniform_", "kaiming_normal_", "xavier_uniform_"}
