"""Dual encoders: frames and text as vectors of one space. Nothing heavy is imported before an encoder is loaded."""

from __future__ import annotations

from .protocol import DualEncoder, check_encoder
from .registry import encoder_names, load_encoder, load_encoder_for, register_encoder

__all__ = ["DualEncoder", "check_encoder", "encoder_names", "load_encoder", "load_encoder_for", "register_encoder"]
