"""The Mamba-2 stack: reading long sequences in chunks with a carried state, and decoding many rows from one state.

Source: refocus-network, section 8, after Dao and Gu, "Transformers are SSMs" (2024), sections 6 and 7.

Letters in shapes: B rows, L tokens, d model width, I = expand * d channels, H heads of P channels, G groups of heads
that share the N-dimensional B and C vectors, K width of the causal convolution.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import RefocusConfig
from .ssd import ssd_scan

NORM_EPS = 1e-5
CPU_TILE = 256  # tokens; the fastest of 64 to 4096 at width 256, level with smaller ones above


class LayerState(NamedTuple):
    """What one layer remembers of the tokens before."""

    conv: Tensor  # [B, K-1, I + 2GN] last inputs of the convolution, oldest first
    ssm: Tensor  # [B, H, P, N] float32


@dataclass(frozen=True)
class BackboneState:
    """The recurrent state of all layers behind some token, for B rows."""

    layers: tuple[LayerState, ...]

    @property
    def rows(self) -> int:
        return self.layers[0].ssm.shape[0]

    def stacked(self) -> tuple[Tensor, Tensor]:
        """All layers in two tensors: conv [n_layer, B, K-1, channels] and ssm [n_layer, B, H, P, N]."""
        return torch.stack([s.conv for s in self.layers]), torch.stack([s.ssm for s in self.layers])

    @classmethod
    def unstacked(cls, conv: Tensor, ssm: Tensor) -> BackboneState:
        return cls(tuple(LayerState(c, s) for c, s in zip(conv, ssm, strict=True)))

    def select_rows(self, rows: Tensor) -> BackboneState:
        return BackboneState(tuple(LayerState(s.conv[rows], s.ssm[rows]) for s in self.layers))

    @classmethod
    def concat(cls, states: Sequence[BackboneState]) -> BackboneState:
        """Rows of several states one after another."""
        return cls(
            tuple(
                LayerState(torch.cat([s.conv for s in same]), torch.cat([s.ssm for s in same]))
                for same in zip(*(state.layers for state in states), strict=True)
            )
        )


class GatedRMSNorm(nn.Module):
    """Gate and root-mean-square norm over each group of channels; computed in float32."""

    def __init__(self, width: int, groups: int, *, norm_before_gate: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.groups = groups
        self.norm_before_gate = norm_before_gate

    def forward(self, y: Tensor, z: Tensor) -> Tensor:
        gate = F.silu(z.float())
        if not self.norm_before_gate:
            y = y * gate
        grouped = y.unflatten(-1, (self.groups, -1))
        y = F.rms_norm(grouped, grouped.shape[-1:], eps=NORM_EPS).flatten(-2) * self.weight.float()
        return y * gate if self.norm_before_gate else y


class DecodeCache:
    """History of one layer while R rows per state are decoded step by step.

    The state of a row after t steps is exp(s_t) S_0 + sum_m exp(s_t - s_m) x_m B_m^T. Keeping the x_m and B_m instead
    of the product leaves S_0 shared by all R rows: it is read once per step, in one GEMM, and never written.
    """

    def __init__(self, state: LayerState, rows: int, steps: int, rates: Tensor, groups: int) -> None:
        heads = len(rates)
        self.rates = rates  # [H], negative
        base, _, self.headdim, n = state.ssm.shape
        ssm, device = state.ssm, state.ssm.device
        self.base = ssm.unflatten(1, (groups, -1)).flatten(2, 3)  # [Bs, G, I/G, N]
        self.conv = state.conv.repeat_interleave(rows, 0)  # [B, K-1, channels]
        count = base * rows
        self.x = torch.empty(count, heads, steps, self.headdim, device=device)
        self.b = torch.empty(count, groups, steps, n, device=device)
        self.decay = torch.empty(count, heads, steps, device=device)  # cumulative log decay s_m
        self.length = 0

    def step(self, x: Tensor, dt: Tensor, b: Tensor, c: Tensor) -> Tensor:
        """One token per row: x [B, H, P], dt [B, H], b and c [B, G, N]; returns y [B, H, P]."""
        rows, heads = dt.shape
        groups, t = b.shape[1], self.length
        if t == self.decay.shape[2]:
            raise IndexError("more decoding steps than the cache was made for")
        decay = dt * self.rates if t == 0 else self.decay[:, :, t - 1] + dt * self.rates
        self.x[:, :, t] = x * dt[..., None]
        self.b[:, :, t] = b
        self.decay[:, :, t] = decay
        self.length = t + 1

        match = torch.einsum("bgtn,bgn->bgt", self.b[:, :, : t + 1], c)
        weight = (decay[..., None] - self.decay[:, :, : t + 1]).exp()  # [B, H, t+1]
        weight = (weight.unflatten(1, (groups, -1)) * match[:, :, None]).flatten(1, 2)
        recent = torch.matmul(weight[:, :, None], self.x[:, :, : t + 1])[:, :, 0]  # [B, H, P]

        shared = c.unflatten(0, (self.base.shape[0], -1)).transpose(1, 2)  # [Bs, G, R, N]
        past = torch.matmul(shared, self.base.transpose(-1, -2))  # [Bs, G, R, I/G]
        past = past.transpose(1, 2).reshape(rows, heads, self.headdim)
        return recent + past * decay.exp()[..., None]


class Mamba2Mixer(nn.Module):
    """One selective state-space layer; parameter names as in the state-spaces checkpoints."""

    def __init__(self, config: RefocusConfig) -> None:
        super().__init__()
        ssm = config.ssm
        self.inner = ssm.expand * config.d_model  # I
        self.heads = self.inner // ssm.headdim
        self.groups, self.d_state, self.kernel = ssm.ngroups, ssm.d_state, ssm.d_conv
        self.channels = self.inner + 2 * ssm.ngroups * ssm.d_state
        self.in_proj = nn.Linear(config.d_model, self.inner + self.channels + self.heads, bias=ssm.bias)
        self.conv1d = nn.Conv1d(self.channels, self.channels, ssm.d_conv, groups=self.channels, bias=ssm.conv_bias)
        # Initial values as in the Mamba-2 paper's code: steps of 1e-3 to 1e-1, decay rates of 1 to 16.
        steps = torch.exp(torch.rand(self.heads) * 4.605170186 - 6.907755279)
        self.dt_bias = nn.Parameter(steps + torch.log(-torch.expm1(-steps)))
        self.A_log = nn.Parameter(torch.log(torch.rand(self.heads) * 15 + 1))
        self.D = nn.Parameter(torch.ones(self.heads))
        self.norm = (
            GatedRMSNorm(self.inner, ssm.ngroups, norm_before_gate=ssm.norm_before_gate) if ssm.rmsnorm else None
        )
        self.out_proj = nn.Linear(self.inner, config.d_model, bias=ssm.bias)

    def empty_state(self, rows: int) -> LayerState:
        """The state before the first token."""
        weight = self.in_proj.weight
        return LayerState(
            weight.new_zeros(rows, self.kernel - 1, self.channels),
            torch.zeros(rows, self.heads, self.inner // self.heads, self.d_state, device=weight.device),
        )

    def forward(self, u: Tensor, state: LayerState, *, return_state: bool = True) -> tuple[Tensor, LayerState | None]:
        """Read L tokens.

        Args:
            u: [B, L, d].
            state: of B rows, or of fewer that divide B: each then stands before B/rows consecutive rows.
            return_state: also compute the state behind the last token.

        Returns:
            [B, L, d] and the new state of B rows (None unless asked for).
        """
        projected = self.in_proj(u)  # [B, L, 2I + 2GN + H]
        if len(u) != len(state.conv):
            state = LayerState(state.conv.repeat_interleave(len(u) // len(state.conv), 0), state.ssm)
        # On a CPU the elementwise work goes tile by tile, so that it stays in the cache between its steps.
        tiles = projected.split(CPU_TILE, 1) if u.device.type == "cpu" else (projected,)
        mixed, after = [], state
        for i, tile in enumerate(tiles):
            y, behind = self._mix(tile, after, return_state=return_state or i + 1 < len(tiles))
            mixed.append(y)
            after = behind or after
        out = self.out_proj(mixed[0] if len(mixed) == 1 else torch.cat(mixed, 1))
        return out, after if return_state else None

    def _mix(self, projected: Tensor, state: LayerState, *, return_state: bool) -> tuple[Tensor, LayerState | None]:
        """Everything between the two projections, for some tokens: [B, l, 2I + 2GN + H] to [B, l, I]."""
        z, xbc, dt = projected.split([self.inner, self.channels, self.heads], -1)
        padded = torch.cat([state.conv.to(xbc.dtype), xbc], 1)  # [B, K-1+l, channels]
        x, b, c = self._split(self._convolve(padded))
        y, ssm = ssd_scan(x, self._step_sizes(dt), self.rates(), b, c, state.ssm, return_state=return_state)
        y = torch.addcmul(y, x.float(), self.D.float()[:, None]).flatten(-2)
        after = None if ssm is None else LayerState(padded[:, 1 - self.kernel :].clone(), ssm)
        return self._gate(y, z), after

    def step(self, u: Tensor, cache: DecodeCache) -> Tensor:
        """Read one token per row, [B, d] to [B, d]; inference only (the cache is written in place)."""
        z, xbc, dt = self.in_proj(u).split([self.inner, self.channels, self.heads], -1)
        padded = torch.cat([cache.conv, xbc[:, None]], 1)  # [B, K, channels]
        cache.conv = padded[:, 1:]
        x, b, c = self._split(self._convolve(padded)[:, 0])
        x, b, c = x.float(), b.float(), c.float()
        y = cache.step(x, self._step_sizes(dt), b, c)
        y = torch.addcmul(y, x, self.D.float()[:, None]).flatten(-2)
        return self.out_proj(self._gate(y, z))

    def rates(self) -> Tensor:
        """Decay rates of the heads, negative, float32 [H]."""
        return -torch.exp(self.A_log.float())

    def _convolve(self, padded: Tensor) -> Tensor:
        """Causal depthwise convolution and SiLU: [B, K-1+L, channels] to [B, L, channels]."""
        length = padded.shape[1] - self.kernel + 1
        taps = self.conv1d.weight[:, 0]  # [channels, K]
        total = padded[:, :length] * taps[:, 0]
        for j in range(1, self.kernel):
            total = torch.addcmul(total, padded[:, j : j + length], taps[:, j])
        if self.conv1d.bias is not None:
            total = total + self.conv1d.bias
        return F.silu(total)

    def _split(self, xbc: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x [..., H, P], B and C [..., G, N]."""
        bc = self.groups * self.d_state
        x, b, c = xbc.split([self.inner, bc, bc], -1)
        return (
            x.unflatten(-1, (self.heads, -1)),
            b.unflatten(-1, (self.groups, -1)),
            c.unflatten(-1, (self.groups, -1)),
        )

    def _step_sizes(self, dt: Tensor) -> Tensor:
        return F.softplus(dt.float() + self.dt_bias.float())

    def _gate(self, y: Tensor, z: Tensor) -> Tensor:
        y = self.norm(y, z) if self.norm is not None else y * F.silu(z.float())
        return y.to(z.dtype)


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


class Mamba2Block(nn.Module):
    """Norm and mixer; the residual is added by the stack."""

    def __init__(self, config: RefocusConfig) -> None:
        super().__init__()
        self.norm = BlockNorm(config.d_model, rms=config.rms_norm)
        self.mixer = Mamba2Mixer(config)


class Mamba2Backbone(nn.Module):
    """Token embedding, the blocks and the final norm."""

    def __init__(self, config: RefocusConfig) -> None:
        super().__init__()
        self.residual_in_fp32 = config.residual_in_fp32
        self.embedding = nn.Embedding(config.embedding_rows, config.d_model)
        self.layers = nn.ModuleList(Mamba2Block(config) for _ in range(config.n_layer))
        self.norm_f = BlockNorm(config.d_model, rms=config.rms_norm)

    @property
    def blocks(self) -> Iterator[Mamba2Block]:
        return cast("Iterator[Mamba2Block]", iter(self.layers))

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
        after: list[LayerState] = []
        for block, before in zip(self.blocks, state.layers, strict=True):
            out, layer_state = block.mixer(block.norm(stream), before, return_state=return_state)
            stream = stream + out
            if layer_state is not None:
                after.append(layer_state)
        return self.norm_f(stream), BackboneState(tuple(after))

    def start_decoding(self, state: BackboneState, rows: int, steps: int) -> list[DecodeCache]:
        """Prepare `rows` independent continuations of every row of `state`, of at most `steps` tokens."""
        return [
            DecodeCache(before, rows, steps, block.mixer.rates(), block.mixer.groups)
            for block, before in zip(self.blocks, state.layers, strict=True)
        ]

    @torch.no_grad()
    def step(self, tokens: Tensor, caches: list[DecodeCache]) -> Tensor:
        """Read one token per row, [B, d] to [B, d], behind the final norm."""
        stream = tokens.float() if self.residual_in_fp32 else tokens
        for block, cache in zip(self.blocks, caches, strict=True):
            stream = stream + block.mixer.step(block.norm(stream), cache)
        return self.norm_f(stream)
