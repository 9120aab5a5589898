"""The state-space-duality scan of Mamba-2 in plain PyTorch: exact for every chunk length, differentiable.

Letters in shapes: B rows, L tokens, H heads of P channels, G groups of heads, N state size, l tokens of a chunk.
"""

from __future__ import annotations

import torch
from torch import Tensor

CPU_CHUNK = 64  # measured best of 32..256 by benchmarks/network.py
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
) -> tuple[Tensor, Tensor | None]:
    """Run S_t = exp(dt_t a) S_{t-1} + dt_t x_t B_t^T and y_t = S_t C_t over L tokens.

    Args:
        x: [B, L, H, P] float32.
        dt: step sizes, positive, [B, L, H].
        a: decay rates, negative, [H].
        b: [B, L, G, N].
        c: [B, L, G, N].
        state: S before the first token, [Bs, H, P, N]; Bs divides B, each row serves B/Bs consecutive rows.
        return_state: also give S behind the last token.
        chunk: tokens per chunk; a speed setting only.

    Returns:
        y [B, L, H, P] and S [B, H, P, N] (None unless asked for).
    """
    length = x.shape[1]
    chunk = chunk or (CPU_CHUNK if x.device.type == "cpu" else GPU_CHUNK)
    pieces = []
    for start in range(0, length, chunk):
        part = slice(start, start + chunk)
        more = return_state or start + chunk < length
        y, after = _ssd_chunk(x[:, part], dt[:, part], a, b[:, part], c[:, part], state, return_state=more)
        pieces.append(y)
        state = after if after is not None else state
    y = pieces[0] if len(pieces) == 1 else torch.cat(pieces, 1)
    return y, state if return_state else None


def _ssd_chunk(
    x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, state: Tensor, *, return_state: bool
) -> tuple[Tensor, Tensor | None]:
    """One chunk of l tokens, all matrix products; same shapes as `ssd_scan` with L = l.

    B and C belong to a group of heads, so C B^T is computed once per group, and the products with the state are one
    GEMM per group: [l, N] x [N, I/G] and [I/G, l] x [l, N].
    """
    rows, length, heads, width = x.shape
    groups, n = b.shape[2], b.shape[3]
    before = state.shape[0]
    steps = (dt * a).cumsum(1).transpose(1, 2)  # [B, H, l] inclusive log decay s_l <= 0
    scaled = x * dt[..., None]  # [B, l, H, P]
    b, c = b.transpose(1, 2), c.transpose(1, 2)  # [B, G, l, N]

    # Within the chunk: y_l = sum_{m <= l} exp(s_l - s_m) (C_l . B_m) dt_m x_m.
    match = torch.matmul(c, b.transpose(-1, -2)).tril()  # [B, G, l, l]
    # The clamp touches only m > l, where `match` is zero: without it exp could overflow there.
    decay = (steps[..., :, None] - steps[..., None, :]).clamp(max=0).exp()  # [B, H, l, l]
    weights = (decay.unflatten(1, (groups, -1)) * match[:, :, None]).flatten(1, 2)
    y = torch.matmul(weights, scaled.transpose(1, 2))  # [B, H, l, P]

    # From the state before the chunk: exp(s_l) S C_l; rows that share a state share one GEMM.
    flat = state.reshape(before, groups, -1, n)  # [Bs, G, I/G, N]
    shared = c.unflatten(0, (before, -1)).transpose(1, 2).flatten(2, 3)  # [Bs, G, R*l, N]
    past = torch.matmul(shared, flat.transpose(-1, -2))  # [Bs, G, R*l, I/G]
    past = past.reshape(before, groups, -1, length, heads // groups, width).permute(0, 2, 1, 4, 3, 5)
    y = torch.addcmul(y, past.reshape(rows, heads, length, width), steps.exp()[..., None])
    y = y.transpose(1, 2)  # [B, l, H, P]
    if not return_state:
        return y, None

    # Behind the chunk: exp(s_last) S + sum_m exp(s_last - s_m) dt_m x_m B_m^T.
    last = steps[..., -1:]  # [B, H, 1]
    weighted = scaled * (last - steps).exp().transpose(1, 2)[..., None]  # [B, l, H, P]
    weighted = weighted.reshape(rows, length, groups, -1).permute(0, 2, 3, 1)  # [B, G, I/G, l]
    added = torch.matmul(weighted, b).reshape(rows, heads, width, n)
    if before not in (1, rows):
        state = state.repeat_interleave(rows // before, 0)
    return y, torch.addcmul(added, state, last.exp()[..., None])
