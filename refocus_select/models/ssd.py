"""The state-space-duality scan of Mamba-2 in plain PyTorch: exact for every chunk length, differentiable.

Source: Dao and Gu, "Transformers are SSMs" (2024), section 6. With s_l the cumulative sum
of dt * a inside a chunk:

    y_l   = sum_{m <= l} exp(s_l - s_m) (C_l . B_m) dt_m x_m  +  exp(s_l) S C_l
    S_out = exp(s_last) S + sum_m exp(s_last - s_m) dt_m x_m B_m^T

Letters in shapes: B rows, L tokens, H heads of P channels, G groups of heads, I = H * P, N state size, l tokens of a
chunk. B and C belong to a group of heads, so C B^T is computed once per group, and the products with the state are one
GEMM per group: [l, N] x [N, I/G] and [I/G, l] x [l, N].
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import torch
from torch import Tensor

CPU_CHUNK = 64  # the fastest of 32 to 256 at widths 256 and 512, level with them at 2048
GPU_CHUNK = 128


def ssd_scan(
    x: Tensor,
    dt: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    state: Tensor,
    *,
    return_state: bool = True,
    chunk: int | None = None,
    parallel: bool | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Run S_t = exp(dt_t a) S_{t-1} + dt_t x_t B_t^T and y_t = S_t C_t over L tokens, in float32.

    Args:
        x: [B, L, H, P].
        dt: step sizes, positive, float32 [B, L, H].
        a: decay rates, negative, float32 [H].
        b: [B, L, G, N].
        c: [B, L, G, N].
        state: S before the first token, float32 [Bs, H, P, N]; Bs divides B, each row serves B/Bs consecutive rows.
        return_state: also give S behind the last token.
        chunk: tokens per chunk; a speed setting only.
        parallel: compute all chunks at once and only pass the states along (default: on a GPU, where many small
            operations cost more than memory).

    Returns:
        y [B, L, H, P] and S [B, H, P, N] (None unless asked for).
    """
    if x.is_cuda and (kernel := gpu_kernel()) is not None:
        return _kernel_scan(kernel, x, dt, a, b, c, state, return_state=return_state)
    x, b, c = x.float(), b.float(), c.float()
    length = x.shape[1]
    chunk = chunk or (GPU_CHUNK if x.is_cuda else CPU_CHUNK)
    parallel = x.is_cuda if parallel is None else parallel
    pieces, start = [], 0
    if parallel and length > chunk:
        start = length - length % chunk
        whole = slice(0, start)
        y, state = _chunks_at_once(x[:, whole], dt[:, whole], a, b[:, whole], c[:, whole], state, chunk)
        pieces.append(y)
    for first in range(start, length, chunk):
        part = slice(first, first + chunk)
        steps, scaled = _log_decay(dt[:, part], a), x[:, part] * dt[:, part, :, None]
        b_part, c_part = b[:, part].transpose(1, 2), c[:, part].transpose(1, 2)
        y = _within(scaled, steps, b_part, c_part) + _from_state(state, steps, c_part)
        pieces.append(y.transpose(1, 2))
        if return_state or first + chunk < length:
            keep = steps[..., -1:, None].exp()
            state = torch.addcmul(_contribution(scaled, steps, b_part), _rows(state, len(x)), keep)
    y = pieces[0] if len(pieces) == 1 else torch.cat(pieces, 1)
    return y, _rows(state, len(x)) if return_state else None


def _chunks_at_once(
    x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, state: Tensor, chunk: int
) -> tuple[Tensor, Tensor]:
    """All chunks as rows of one batch; L is a multiple of `chunk`."""
    rows = len(x)
    x, dt, b, c = (t.unflatten(1, (-1, chunk)).flatten(0, 1) for t in (x, dt, b, c))  # [B * n, l, ...]
    steps, scaled = _log_decay(dt, a), x * dt[..., None]
    b, c = b.transpose(1, 2), c.transpose(1, 2)
    added = _contribution(scaled, steps, b).unflatten(0, (rows, -1))  # [B, n, H, P, N]
    keep = steps[..., -1:, None].exp().unflatten(0, (rows, -1))
    state, before = _rows(state, rows), []
    for k in range(added.shape[1]):
        before.append(state)
        state = torch.addcmul(added[:, k], state, keep[:, k])
    y = _within(scaled, steps, b, c) + _from_state(torch.stack(before, 1).flatten(0, 1), steps, c)
    return y.transpose(1, 2).unflatten(0, (rows, -1)).flatten(1, 2), state


def _log_decay(dt: Tensor, a: Tensor) -> Tensor:
    """Inclusive cumulative log decay s_l <= 0: [B, l, H] to [B, H, l]."""
    return (dt * a).cumsum(1).transpose(1, 2)


def _within(scaled: Tensor, steps: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """The part of y from tokens of the same chunk: dt * x [B, l, H, P], s [B, H, l], B and C [B, G, l, N]."""
    match = torch.matmul(c, b.transpose(-1, -2)).tril()  # [B, G, l, l]
    # The clamp touches only m > l, where `match` is zero: without it exp could overflow there.
    decay = (steps[..., :, None] - steps[..., None, :]).clamp(max=0).exp()  # [B, H, l, l]
    weights = (decay.unflatten(1, (match.shape[1], -1)) * match[:, :, None]).flatten(1, 2)
    return torch.matmul(weights, scaled.transpose(1, 2))  # [B, H, l, P]


def _from_state(state: Tensor, steps: Tensor, c: Tensor) -> Tensor:
    """The part of y from the state before the chunk; rows that share a state share one GEMM. [B, H, l, P]."""
    shared, heads, width, n = state.shape
    groups, length = c.shape[1:3]
    flat = state.reshape(shared, groups, -1, n)  # [Bs, G, I/G, N]
    asked = c.unflatten(0, (shared, -1)).transpose(1, 2).flatten(2, 3)  # [Bs, G, R*l, N]
    y = torch.matmul(asked, flat.transpose(-1, -2))  # [Bs, G, R*l, I/G]
    y = y.reshape(shared, groups, -1, length, heads // groups, width).permute(0, 2, 1, 4, 3, 5)
    return y.reshape(-1, heads, length, width) * steps.exp()[..., None]


def _contribution(scaled: Tensor, steps: Tensor, b: Tensor) -> Tensor:
    """What the chunk adds to the state behind it, [B, H, P, N]."""
    rows, length, heads, width = scaled.shape
    groups, n = b.shape[1], b.shape[3]
    weighted = scaled * (steps[..., -1:] - steps).exp().transpose(1, 2)[..., None]  # [B, l, H, P]
    weighted = weighted.reshape(rows, length, groups, -1).permute(0, 2, 3, 1)  # [B, G, I/G, l]
    return torch.matmul(weighted, b).reshape(rows, heads, width, n)


def _rows(state: Tensor, rows: int) -> Tensor:
    """One state per row."""
    return state if len(state) == rows else state.repeat_interleave(rows // len(state), 0)


@cache
def gpu_kernel() -> Any:
    """The fused scan of the mamba_ssm package, or None; REFOCUS_SELECT_KERNELS=0 switches it off."""
    if os.environ.get("REFOCUS_SELECT_KERNELS", "1") == "0":
        return None
    try:
        from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined
    except ImportError:
        return None
    return mamba_chunk_scan_combined


def _kernel_scan(
    kernel: Any, x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, state: Tensor, *, return_state: bool
) -> tuple[Tensor, Tensor | None]:
    """The same scan by mamba_ssm's Triton kernel, in the type of x."""
    before = _rows(state, len(x)).contiguous()
    x, b, c = x.contiguous(), b.contiguous(), c.contiguous()
    y, after = kernel(x, dt, a, b, c, GPU_CHUNK, initial_states=before, return_final_states=True)
    return y.float(), after.float() if return_state else None
