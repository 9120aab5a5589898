"""The recurrent stack: token embedding, blocks of Mamba-2 layers with norm and residual, and the final norm.

Letters in shapes: B rows, L tokens, d model width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .config import RefocusConfig
from .mamba2 import NORM_EPS, LayerState, Mamba2Mixer


@dataclass(frozen=True)
class BackboneState:
    """The recurrent state of all layers behind some token, for B rows.

    Attributes:
        layers: what each layer remembers, `LayerState(conv, ssm)`.
    """

    layers: tuple[tuple[Tensor, ...], ...]

    @property
    def rows(self) -> int:
        return len(self.layers[0][0])

    def stacked(self) -> tuple[Tensor, ...]:
        """Each tensor of all layers in one: conv [n_layer, B, K-1, channels] and ssm [n_layer, B, H, P, N]."""
        return tuple(torch.stack(same) for same in zip(*self.layers, strict=True))

    @classmethod
    def unstacked(cls, *tensors: Tensor) -> BackboneState:
        return cls(tuple(zip(*tensors, strict=True)))

    def select_rows(self, rows: Tensor) -> BackboneState:
        return BackboneState(tuple(tuple(tensor[rows] for tensor in layer) for layer in self.layers))

    @classmethod
    def concat(cls, states: Sequence[BackboneState]) -> BackboneState:
        """Rows of several states one after another."""
        return cls(
            tuple(
                tuple(torch.cat(tensors) for tensors in zip(*same, strict=True))
                for same in zip(*(state.layers for state in states), strict=True)
            )
        )


class BlockNorm(nn.Module):
    """RMSNorm or LayerNorm of the residual stream, computed in float32."""

    def __init__(self, width: int, *, rms: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = None if rms else nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        weight, shape = self.weight.float(), self.weight.shape
        if self.bias is None:
            out = F.rms_norm(x.float(), shape, weight, eps=NORM_EPS)
        else:
            out = F.layer_norm(x.float(), shape, weight, self.bias.float(), eps=NORM_EPS)
        return out.to(self.weight.dtype)


class Block(nn.Module):
    """Norm and mixer; the residual is added by the stack."""

    def __init__(self, config: RefocusConfig) -> None:
        super().__init__()
        self.norm = BlockNorm(config.d_model, rms=config.rms_norm)
        self.mixer = Mamba2Mixer(config)

    def forward(
        self, stream: Tensor, before: tuple[Tensor, ...], return_state: bool
    ) -> tuple[Tensor, LayerState | None]:
        """What is added to the stream [B, L, d], and the state behind it; see `Mamba2Mixer.forward`."""
        return self.mixer(self.norm(stream), before, return_state=return_state)


class Backbone(nn.Module):
    """Token embedding, the blocks and the final norm.

    Attributes:
        gradient_checkpointing: in training, keep of each block only its input, and compute the rest again.
    """

    gradient_checkpointing = False

    def __init__(self, config: RefocusConfig) -> None:
        super().__init__()
        self.residual_in_fp32 = config.residual_in_fp32
        self.embedding = nn.Embedding(config.embedding_rows, config.d_model)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.norm_f = BlockNorm(config.d_model, rms=config.rms_norm)

    @property
    def blocks(self) -> Iterator[Block]:
        return cast("Iterator[Block]", iter(self.layers))

    def empty_state(self, rows: int = 1) -> BackboneState:
        """The state before the first token."""
        return BackboneState(tuple(block.mixer.empty_state(rows) for block in self.blocks))

    def forward(
        self, tokens: Tensor, state: BackboneState | None = None, *, return_state: bool = True
    ) -> tuple[Tensor, BackboneState]:
        """Read a piece of a sequence.

        Args:
            tokens: input vectors, [B, L, d].
            state: what was read before; B must be a multiple of its rows (each serves B/rows consecutive rows).
            return_state: False saves the work of computing the state behind the last token (an empty one is returned).

        Returns:
            Outputs behind the final norm, [B, L, d], and the state of B rows.
        """
        state = state or self.empty_state()
        stream = tokens.float() if self.residual_in_fp32 else tokens
        after: list[tuple[Tensor, ...]] = []
        sparing = self.gradient_checkpointing and torch.is_grad_enabled()
        for block, before in zip(self.blocks, state.layers, strict=True):
            if sparing:  # nothing in a block is random
                out, layer_state = checkpoint(
                    block, stream, before, return_state, use_reentrant=False, preserve_rng_state=False
                )
            else:
                out, layer_state = block(stream, before, return_state)
            stream = stream + out
            if layer_state is not None:
                after.append(layer_state)
        return self.norm_f(stream), BackboneState(tuple(after))

    def start_decoding(self, state: BackboneState, rows: int, steps: int) -> list[Any]:
        """Prepare `rows` independent continuations of every row of `state`, of at most `steps` tokens."""
        return [
            block.mixer.start_decoding(before, rows, steps)
            for block, before in zip(self.blocks, state.layers, strict=True)
        ]

    @torch.no_grad()
    def step(self, tokens: Tensor, caches: list[Any]) -> Tensor:
        """Read one token per row, [B, d] to [B, d], behind the final norm."""
        stream = tokens.float() if self.residual_in_fp32 else tokens
        for block, cache in zip(self.blocks, caches, strict=True):
            stream = stream + block.mixer.step(block.norm(stream), cache)
        return self.norm_f(stream)
