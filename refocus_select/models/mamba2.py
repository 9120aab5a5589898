"""The Mamba-2 layer: reading long sequences in chunks with a carried state, and decoding many rows from one state.

Source: Dao and Gu, "Transformers are SSMs" (2024), sections 6 and 7.

Letters in shapes: B rows, L tokens, d model width, I = expand * d channels, H heads of P channels, G groups of heads
that share the N-dimensional B and C vectors, K width of the causal convolution.
"""

from __future__ import annotations

from typing import Any, NamedTuple

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
    """One selective state-space layer; parameter names as in the state-spaces checkpoints.

    Attributes:
        at_once: on a CPU too, read all tokens at once as on a GPU, to measure what that keeps for the backward pass.
    """

    at_once = False

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

    def forward(
        self, u: Tensor, state: tuple[Tensor, ...], *, return_state: bool = True
    ) -> tuple[Tensor, LayerState | None]:
        """Read L tokens.

        Args:
            u: [B, L, d].
            state: a `LayerState` of B rows, or of fewer that divide B: each then stands before B/rows consecutive rows.
            return_state: also compute the state behind the last token.

        Returns:
            [B, L, d] and the new state of B rows (None unless asked for).
        """
        projected = self.in_proj(u)  # [B, L, 2I + 2GN + H]
        after = LayerState(*state)
        if len(u) != len(after.conv):
            after = after._replace(conv=after.conv.repeat_interleave(len(u) // len(after.conv), 0))
        # On a CPU the elementwise work goes tile by tile, so that it stays in the cache between its steps.
        tiles = projected.split(CPU_TILE, 1) if u.device.type == "cpu" and not self.at_once else (projected,)
        mixed = []
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
        how: dict[str, Any] = {"chunk": 128, "parallel": True} if self.at_once else {}
        y, ssm = ssd_scan(x, self._step_sizes(dt), self.rates(), b, c, state.ssm, return_state=return_state, **how)
        y = torch.addcmul(y, x.float(), self.D.float()[:, None]).flatten(-2)
        after = None if ssm is None else LayerState(padded[:, 1 - self.kernel :].clone(), ssm)
        return self._gate(y, z), after

    def start_decoding(self, state: tuple[Tensor, ...], rows: int, steps: int) -> DecodeCache:
        """Prepare `rows` continuations of every row of `state`, of at most `steps` tokens."""
        return DecodeCache(LayerState(*state), rows, steps, self.rates(), self.groups)

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
