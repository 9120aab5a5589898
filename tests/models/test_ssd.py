"""The scan: one answer for every way of cutting the work, and the right gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from refocus_select.models import ssd
from refocus_select.models.ssd import ssd_scan

HEADS, WIDTH, N = 4, 3, 5


def inputs(rows: int, length: int, groups: int = 2, states: int | None = None, seed: int = 0) -> tuple[Tensor, ...]:
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g)

    return (
        normal(rows, length, HEADS, WIDTH),
        torch.nn.functional.softplus(normal(rows, length, HEADS)),
        -torch.exp(normal(HEADS)),
        normal(rows, length, groups, N),
        normal(rows, length, groups, N),
        normal(states or rows, HEADS, WIDTH, N),
    )


def naive(x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The recurrence as written, in float64."""
    x, dt, a, b, c, state = (t.double() for t in (x, dt, a, b, c, state))
    state = state.repeat_interleave(len(x) // len(state), 0)
    per_group = HEADS // b.shape[2]
    out = []
    for t in range(x.shape[1]):
        b_t, c_t = (v[:, t].repeat_interleave(per_group, 1) for v in (b, c))  # [B, H, N]
        keep = torch.exp(dt[:, t] * a)[..., None, None]
        state = keep * state + (dt[:, t, :, None] * x[:, t])[..., None] * b_t[:, :, None]
        out.append((state * c_t[:, :, None]).sum(-1))
    return torch.stack(out, 1), state


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize(("length", "chunk"), [(1, 64), (7, 3), (12, 4), (12, 64), (130, 64)])
def test_every_cut_gives_the_recurrence(length: int, chunk: int, groups: int, parallel: bool) -> None:
    values = inputs(2, length, groups)
    y, state = ssd_scan(*values, chunk=chunk, parallel=parallel)
    want_y, want_state = naive(*values)
    torch.testing.assert_close(y.double(), want_y, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(state.double(), want_state, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("length", [4, 11])
def test_rows_may_share_a_state(length: int, parallel: bool) -> None:
    values = inputs(6, length, states=2)
    want_y, want_state = naive(*values)
    y, state = ssd_scan(*values, chunk=4, parallel=parallel)
    torch.testing.assert_close(y.double(), want_y, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(state.double(), want_state, atol=2e-5, rtol=1e-4)
    y, state = ssd_scan(*values, chunk=4, parallel=parallel, return_state=False)
    torch.testing.assert_close(y.double(), want_y, atol=2e-5, rtol=1e-4)
    assert state is None


def test_long_decays_neither_overflow_nor_vanish_wrongly() -> None:
    x, dt, a, b, c, state = inputs(1, 64)
    values = (x, dt * 50, a * 20, b, c, state)  # exp(s_l - s_m) would overflow above the diagonal
    y, after = ssd_scan(*values, chunk=64)
    assert torch.isfinite(y).all()
    torch.testing.assert_close(y.double(), naive(*values)[0], atol=1e-4, rtol=1e-4)
    assert torch.isfinite(after).all()


@pytest.mark.parametrize("parallel", [False, True])
def test_gradients_equal_those_of_the_recurrence(parallel: bool) -> None:
    values = inputs(4, 10, states=2)
    ours = [v.clone().requires_grad_() for v in values]
    theirs = [v.clone().requires_grad_() for v in values]
    y, state = ssd_scan(*ours, chunk=4, parallel=parallel)
    (y.square().sum() + state.square().sum()).backward()
    want_y, want_state = naive(*theirs)
    (want_y.square().sum() + want_state.square().sum()).backward()
    for mine, its in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, its.grad, atol=1e-3, rtol=1e-3)


def test_the_fused_kernel_is_called_with_its_own_shapes() -> None:
    values = inputs(4, 10, states=2)

    def kernel(x, dt, a, b, c, chunk, *, initial_states, return_final_states):  # mamba_ssm's signature, as far as used
        assert return_final_states
        assert initial_states.shape == (4, HEADS, WIDTH, N)
        y, state = naive(x, dt, a, b, c, initial_states)
        return y.float(), state.float()

    y, state = ssd._kernel_scan(kernel, *values, return_state=True)
    want_y, want_state = ssd_scan(*values)
    torch.testing.assert_close(y, want_y, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(state, want_state, atol=2e-5, rtol=1e-4)


def test_the_kernel_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFOCUS_SELECT_KERNELS", "0")
    ssd.gpu_kernel.cache_clear()
    assert ssd.gpu_kernel() is None
    ssd.gpu_kernel.cache_clear()
