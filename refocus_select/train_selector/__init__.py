"""Training of frame selection policies by reinforcement learning, after ReFoCUS (arXiv 2506.01274).

    from refocus_select.train_selector import TrainConfig, train_selector

    result = train_selector(TrainConfig.load("config.yaml"))
    print(result.report["accuracy"])

Read `trainer.py` for the loop, `objective.py` and `reward.py` for what is ascended, `config.py` for every setting.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..reference import ReferenceModel, Request
    from ..reference.clips import Clip, EncodedClip, VideoClip, VideoFiles
    from .config import TrainConfig
    from .report import TrainResult
    from .run import train_selector

__all__ = [
    "Clip", "EncodedClip", "ReferenceModel", "Request", "TrainConfig", "TrainResult", "VideoClip", "VideoFiles",
    "train_selector",
]  # fmt: skip

_HOME = {
    "Clip": "..reference.clips", "EncodedClip": "..reference.clips", "VideoClip": "..reference.clips",
    "VideoFiles": "..reference.clips", "ReferenceModel": "..reference", "Request": "..reference",
    "TrainConfig": ".config", "TrainResult": ".report", "train_selector": ".run",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name], __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
