"""A network's computation by ONNX Runtime, which on a CPU takes about half of PyTorch's time for small convolutions."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

logger = logging.getLogger(__name__)


def onnxruntime_installed() -> bool:
    """Whether ONNX Runtime is there; nothing is loaded."""
    return find_spec("onnxruntime") is not None


@cache
def onnxruntime_works() -> bool:
    """Whether ONNX Runtime can be loaded; what fails is logged once."""
    try:
        import onnxruntime  # noqa: F401
    except ImportError as error:
        logger.warning("ONNX Runtime cannot be loaded (%s); frames are encoded by PyTorch, which takes longer", error)
        return False
    return True


class OnnxNetwork:
    """Runs an ONNX model of one input and one output on the CPU.

    A call computes on the thread that it is made from; several threads may call at once. The model is made at the
    first call, and again in a process that this object is sent to.

    Args:
        build: makes the model.
    """

    def __init__(self, build: Callable[[], bytes]) -> None:
        self._build = build
        self._lock = threading.Lock()
        self._session: Any = None

    def __call__(self, x: Tensor) -> Tensor:
        """The output for `x`, float32 on the CPU."""
        session = self._session or self._start()
        (output,) = session.run(None, {session.get_inputs()[0].name: x.float().contiguous().numpy()})
        return torch.from_numpy(output)

    def _start(self) -> Any:
        import onnxruntime

        with self._lock:
            if self._session is None:
                options = onnxruntime.SessionOptions()
                # Callers spread frames over threads: that scales better than threads inside of small layers.
                options.intra_op_num_threads = options.inter_op_num_threads = 1
                options.log_severity_level = 3
                self._session = onnxruntime.InferenceSession(self._build(), options, providers=["CPUExecutionProvider"])
            return self._session

    def __getstate__(self) -> dict[str, Any]:
        return {"_build": self._build}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**{"build": state["_build"]})  # type: ignore[misc]
