"""The GRU backbone does all that the Mamba-2 one does for policies over vectors, and is refused elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from refocus_select.errors import SelectorLoadError
from refocus_select.hub import find_checkpoint
from refocus_select.models.checkpoint import fingerprint, load_model, save_model
from refocus_select.models.config import RefocusConfig
from refocus_select.models.refocus import RefocusModel
from refocus_select.models.vectors import read_vectors
from refocus_select.train_selector.initialise import reinitialise

from .tiny import feature_model

WIDTH = 20  # no multiple of a Mamba-2 head: its settings must not matter


def network(**fields: Any) -> RefocusModel:
    return feature_model(WIDTH, 3, backbone="gru", question_hidden_size=6, **fields)


def drawn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def read(model: RefocusModel, rows: int = 3, frames: int = 9) -> Any:
    return read_vectors(model, drawn(rows, frames, 6), drawn(rows, 1, 6, seed=2), drawn(rows, frames).exp().cumsum(1))


def formulas(model: RefocusModel, tokens: Tensor) -> Tensor:
    """Cho et al. (2014) in float64, one token after another: [L, d] to [L, d]."""
    w = {name: t.double() for name, t in model.backbone.state_dict().items()}
    stream = tokens.double()
    for layer in range(model.config.n_layer):
        p = f"layers.{layer}."
        u = F.rms_norm(stream, (WIDTH,), w[f"{p}norm.weight"], eps=1e-5)
        h, outputs = torch.zeros(WIDTH, dtype=torch.float64), []
        for x in u:
            r, z, n = (w[f"{p}mixer.gru.weight_ih_l0"] @ x + w[f"{p}mixer.gru.bias_ih_l0"]).chunk(3)
            hr, hz, hn = (w[f"{p}mixer.gru.weight_hh_l0"] @ h + w[f"{p}mixer.gru.bias_hh_l0"]).chunk(3)
            reset, keep = torch.sigmoid(r + hr), torch.sigmoid(z + hz)
            h = (1 - keep) * torch.tanh(n + reset * hn) + keep * h
            outputs.append(h)
        stream = stream + torch.stack(outputs)
    return F.rms_norm(stream, (WIDTH,), w["norm_f.weight"], eps=1e-5)


@torch.no_grad()
def test_segments_steps_and_the_formulas_agree() -> None:
    backbone = network().backbone
    tokens = drawn(2, 30, WIDTH)
    whole, end = backbone(tokens)
    torch.testing.assert_close(whole[1].double(), formulas(network(), tokens[1]), atol=1e-5, rtol=1e-5)
    pieces, state = [], None
    for piece in tokens.split([1, 12, 17], 1):
        out, state = backbone(piece, state)
        pieces.append(out)
    torch.testing.assert_close(torch.cat(pieces, 1), whole, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(state.stacked(), end.stacked(), atol=1e-5, rtol=1e-5)
    assert end.rows == 2
    assert [tuple(t.shape) for t in end.stacked()] == [(3, 2, WIDTH)]

    more = drawn(6, 5, WIDTH, seed=3)  # 3 rows behind each of the 2 states
    caches = backbone.start_decoding(end, 3, 5)
    stepped = torch.stack([backbone.step(more[:, t], caches) for t in range(5)], 1)
    one_pass, _ = backbone(more, end, return_state=False)
    torch.testing.assert_close(stepped, one_pass, atol=1e-5, rtol=1e-5)
    own, _ = backbone(more, end.select_rows(torch.tensor([0, 0, 0, 1, 1, 1])))
    torch.testing.assert_close(own, one_pass, atol=1e-5, rtol=1e-5)
    halves = type(end).concat([end.select_rows(torch.tensor([row])) for row in (0, 1)])
    torch.testing.assert_close(type(end).unstacked(*halves.stacked()).layers, end.layers)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_decoding_is_scoring_and_everything_learns(bidirectional: bool) -> None:
    model = network(bidirectional=bidirectional, frame_cues=True)
    reading = read(model)
    still = reading.detached()
    assert reading.finite
    assert not any(t.requires_grad for t in (still.keys, still.values, *still.state.stacked()))
    decoded = model.decode(
        still.keys, still.values, still.state, steps=6, num_samples=4, sample=True,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    scored = model.score(reading.keys, reading.values, reading.state, decoded.picks)
    torch.testing.assert_close(decoded.pick_log_probs, scored.pick_log_probs.detach(), atol=1e-5, rtol=0)
    torch.testing.assert_close(decoded.log_probs, scored.log_probs.detach(), atol=1e-5, rtol=0)

    (scored.pick_log_probs * drawn(3, 4, 6)).sum().backward()
    stacks = {"backbone": model.backbone, "reverse": model.reverse} if bidirectional else {"backbone": model.backbone}
    for stack in stacks.values():
        gru = {name: p for name, p in stack.named_parameters() if ".gru." in name}
        assert len(gru) == 3 * 4
        for name, parameter in gru.items():
            assert (parameter.grad != 0).any(1 if parameter.ndim > 1 else 0).all(), name


@torch.no_grad()
def test_only_both_ends_see_what_comes_later() -> None:
    for bidirectional in (False, True):
        model = network(bidirectional=bidirectional)
        features, changed = drawn(1, 9, 6), drawn(1, 9, 6)
        changed[0, -1] *= -1
        one, other = (read_vectors(model, f, drawn(1, 6), torch.arange(9.0)[None]).keys[0] for f in (features, changed))
        assert torch.equal(one[:-1], other[:-1]) != bidirectional
        assert not torch.equal(one[-1], other[-1])


@torch.no_grad()
def test_saving_loses_nothing(tmp_path: Path) -> None:
    model = network(bidirectional=True).eval()
    save_model(model, tmp_path)
    again = load_model(find_checkpoint(tmp_path), device="cpu")
    assert fingerprint(again) == fingerprint(model)
    assert again.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(t, again.state_dict()[name]) for name, t in model.state_dict().items())
    one, other = read(model), read(again)
    # The loaded weights are the ones that compute; torch takes another path for frozen ones, so not to the last bit.
    torch.testing.assert_close(one.keys, other.keys, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(one.state.stacked(), other.state.stacked(), atol=1e-5, rtol=1e-5)
    raw = json.loads((tmp_path / "config.json").read_text())
    assert raw["backbone"] == "gru"
    assert raw["ssm_cfg"] is None
    (tmp_path / "config.json").write_text(json.dumps({**raw, "backbone": "mamba2"}))
    with pytest.raises(SelectorLoadError, match="ssm_cfg"):
        load_model(find_checkpoint(tmp_path), device="cpu")


def test_initialised_again_as_in_the_paper() -> None:
    model = network()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    reinitialise(model, "paper")
    changed = {name for name, t in model.state_dict().items() if not torch.equal(t, before[name])}
    grus = {name for name in changed if ".gru." in name}
    assert grus == {name for name in before if name.startswith("backbone.layers.2.mixer.gru.")}


def test_only_for_networks_that_read_vectors() -> None:
    sizes: dict[str, Any] = {"d_model": 16, "n_layer": 1, "vocab_size": 3}
    pictures, texts = {"frame_encoder": "siglip"}, {"frame_encoder": "none", "mm_spatial_pool_mode": "none"}
    for fields in (pictures, {**pictures, "question_hidden_size": 6}, texts):
        with pytest.raises(SelectorLoadError, match=r"backbone 'gru'.* read vectors"):
            RefocusConfig(**sizes, **fields, backbone="gru")
    with pytest.raises(SelectorLoadError, match="backbone 'lstm' is not supported; supported are 'mamba2', 'gru'"):
        RefocusConfig(**sizes, **texts, question_hidden_size=6, backbone="lstm")
