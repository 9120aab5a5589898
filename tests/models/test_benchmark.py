"""The benchmark's own arithmetic, at sizes that say nothing about speed."""

from __future__ import annotations

import torch

from benchmarks import network
from refocus_select.models.config import VisionConfig


@torch.no_grad()
def test_the_ways_that_are_compared_give_the_same(monkeypatch) -> None:
    row = network.prefill(64, 300, 1)
    assert row["error_ours"] < 1e-5
    assert row["error_transformers"] < 1e-5
    row = network.decoding(64, 1, 12, 3, 4, 1)
    assert min(row["ours_s"], row["row_by_row_s"], row["state_copies_s"]) > 0

    ours = network.backbone(64, 2)
    u = torch.randn(1, 130, 64)
    theirs = network.transformers_mamba2(ours, 64, 64)(inputs_embeds=u, use_cache=False).last_hidden_state
    torch.testing.assert_close(ours(u)[0], theirs, atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_the_full_scale_mode_runs_at_a_small_scale() -> None:
    small = {
        **network._MIDDLE, "d_model": 64, "n_layer": 1, "mm_hidden_size": 16, "vision": VisionConfig(16, 32, 1, 2, 56),
    }  # fmt: skip
    half, full = network.full_scale("cpu", small, 20, 6)
    assert (half["dtype"], full["dtype"]) == ("bfloat16", "float32")
    assert 0 < half["mean_log_prob_difference"] < 0.2
    assert half["picks_shared_with_float32"] >= 1


@torch.no_grad()
def test_the_textbook_loop_agrees_with_ours_on_greedy_picks(monkeypatch) -> None:
    model = network.RefocusModel(
        network.RefocusConfig(
            d_model=64, n_layer=2, vocab_size=8, mm_hidden_size=64, frame_encoder="none", mm_spatial_pool_mode="none"
        )
    )
    keys, values = torch.randn(20, 64), torch.randn(20, 64)
    _, state = model.backbone(torch.randn(1, 30, 64))
    monkeypatch.setattr(torch, "multinomial", lambda p, n: p.argmax(-1, keepdim=True))
    plain = network.plain_decode(model, keys, values, state, 6)
    assert plain[0].tolist() == model.decode(keys, values, state, steps=6).picks[0, 0].tolist()
