"""An independent, naive ReFoCUS in float64 numpy: one token at a time, straight from the formulas, on raw checkpoints.

It shares no code with the package and reads the authors' key names, so that agreement means something.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Weights = dict[str, np.ndarray]
_TOWER = "mm_model.vision_tower.vision_tower.vision_model."


def random_checkpoint(
    seed: int = 0,
    *,
    d: int = 24,
    layers: int = 2,
    grid: int = 3,
    dv: int = 8,
    vision_layers: int = 1,
    ssm: dict[str, Any] | None = None,
    **fields: Any,
) -> tuple[dict[str, Any], dict[str, Any], Weights]:
    """A tiny checkpoint in the authors' format: config.json, vision_config.json (counts the dropped block), weights."""
    rng = np.random.default_rng(seed)
    ssm_cfg = {"layer": "Mamba2", "d_state": 4, "headdim": 8, "chunk_size": 16, **(ssm or {})}
    config = {
        "architectures": ["RefocusForFrameSelection"], "model_type": "refocus", "d_model": d, "d_intermediate": 0,
        "n_layer": layers, "vocab_size": 45, "pad_vocab_size_multiple": 8, "rms_norm": True, "residual_in_fp32": True,
        "fused_add_norm": True, "tie_embeddings": True, "attn_layer_idx": [], "attn_cfg": {}, "ssm_cfg": ssm_cfg,
        "query_frames": 4, "frame_generation_method": "autoregressive", "start_of_frame_token_id": 46,
        "mm_vision_tower": "tiny-siglip", "mm_hidden_size": dv, "mm_projector_type": "mlp2x_gelu",
        "mm_spatial_pool_mode": "bilinear", **fields,
    }  # fmt: skip
    vision = {"model_type": "siglip_vision_model", "hidden_size": dv, "intermediate_size": 12, "num_attention_heads": 2,
              "num_hidden_layers": vision_layers + 1, "image_size": 4 * grid + 1, "patch_size": 4}  # fmt: skip

    def normal(*shape: int, scale: float = 0.3) -> np.ndarray:
        return (rng.standard_normal(shape) * scale).astype(np.float32)

    def near_one(*shape: int) -> np.ndarray:
        return (1 + 0.2 * rng.standard_normal(shape)).astype(np.float32)

    w: Weights = {}

    def linear(name: str, rows: int, columns: int, bias: bool = True) -> None:
        w[f"{name}.weight"] = normal(rows, columns, scale=1.2 / math.sqrt(columns))
        if bias:
            w[f"{name}.bias"] = normal(rows, scale=0.1)

    w[f"{_TOWER}embeddings.patch_embedding.weight"] = normal(dv, 3, 4, 4)
    w[f"{_TOWER}embeddings.patch_embedding.bias"] = normal(dv)
    w[f"{_TOWER}embeddings.position_embedding.weight"] = normal(grid * grid, dv)
    for i in range(vision_layers):
        block = f"{_TOWER}encoder.layers.{i}."
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            linear(f"{block}self_attn.{name}", dv, dv)
        linear(f"{block}mlp.fc1", 12, dv)
        linear(f"{block}mlp.fc2", dv, 12)
        for name in ("layer_norm1", "layer_norm2"):
            w[f"{block}{name}.weight"], w[f"{block}{name}.bias"] = near_one(dv), normal(dv)
    w[f"{_TOWER}post_layernorm.weight"], w[f"{_TOWER}post_layernorm.bias"] = near_one(dv), normal(dv)
    kind = config["mm_projector_type"]
    if kind == "linear":
        linear("mm_model.mm_projector", d, dv)
    elif kind.startswith("mlp"):
        for i in range(int(kind[3 : kind.index("x")])):
            linear(f"mm_model.mm_projector.{2 * i}", d, d if i else dv)

    inner = ssm_cfg.get("expand", 2) * d
    heads, groups, n = inner // ssm_cfg["headdim"], ssm_cfg.get("ngroups", 1), ssm_cfg["d_state"]
    channels = inner + 2 * groups * n
    rows = -(-config["vocab_size"] // config["pad_vocab_size_multiple"]) * config["pad_vocab_size_multiple"]
    w["backbone.embedding.weight"] = normal(rows, d, scale=1.0)
    for i in range(layers):
        block = f"backbone.layers.{i}."
        w[f"{block}norm.weight"] = near_one(d)
        linear(f"{block}mixer.in_proj", 2 * inner + 2 * groups * n + heads, d, bias=ssm_cfg.get("bias", False))
        w[f"{block}mixer.conv1d.weight"] = normal(channels, 1, ssm_cfg.get("d_conv", 4), scale=0.5)
        if ssm_cfg.get("conv_bias", True):
            w[f"{block}mixer.conv1d.bias"] = normal(channels)
        w[f"{block}mixer.dt_bias"] = normal(heads, scale=1.0)
        w[f"{block}mixer.A_log"] = normal(heads, scale=1.0)
        w[f"{block}mixer.D"] = near_one(heads)
        if ssm_cfg.get("rmsnorm", True):
            w[f"{block}mixer.norm.weight"] = near_one(inner)
        linear(f"{block}mixer.out_proj", d, inner, bias=ssm_cfg.get("bias", False))
        if not config["rms_norm"]:
            w[f"{block}norm.bias"] = normal(d)
    w["backbone.norm_f.weight"] = near_one(d)
    if not config["rms_norm"]:
        w["backbone.norm_f.bias"] = normal(d)
    linear("key_head", d, d, bias=False)
    linear("query_head", d, d, bias=False)
    linear("value_head", d, d)
    if config.get("value_head_norm"):
        w["value_head_scale"] = near_one(d)
    w["logit_scale"] = normal(d) if config.get("logit_scale_type") == "vector" else np.float32(rng.normal() * 0.3)
    w["logit_scale"] = np.asarray(w["logit_scale"], np.float32)
    if config.get("use_rank_head"):
        w["rank_head.weight"] = normal(1, d)
    return config, vision, w


class Reference:
    """Runs a raw checkpoint. All arrays are float64; the tower takes pixel values, not pictures."""

    def __init__(self, config: dict[str, Any], vision: dict[str, Any], weights: Weights) -> None:
        self.c, self.v = config, vision
        self.w = {name: np.asarray(value, np.float64) for name, value in weights.items()}
        self.ssm = config["ssm_cfg"]
        self.conv_state: list[list[np.ndarray]] = []
        self.ssm_state: list[np.ndarray] = []
        self.reset()

    # -- pictures -----------------------------------------------------------------------------------

    def frame_tokens(self, pixels: np.ndarray) -> np.ndarray:
        """[3, S, S] to [T, d]."""
        v, w = self.v, self.w
        p, side = v["patch_size"], v["image_size"] // v["patch_size"]
        kernel = w[f"{_TOWER}embeddings.patch_embedding.weight"]
        bias = w[f"{_TOWER}embeddings.patch_embedding.bias"]
        hidden = np.stack(
            [
                np.tensordot(kernel, pixels[:, r * p : r * p + p, q * p : q * p + p], 3) + bias
                for r in range(side)
                for q in range(side)
            ]
        )
        hidden = hidden + w[f"{_TOWER}embeddings.position_embedding.weight"]
        for i in range(v["num_hidden_layers"] - 1):
            hidden = self._vit_block(hidden, f"{_TOWER}encoder.layers.{i}.")
        pooled = self._pool(hidden.reshape(side, side, -1))
        return self._project(pooled)

    def _vit_block(self, h: np.ndarray, block: str) -> np.ndarray:
        heads = self.v["num_attention_heads"]
        u = self._layer_norm(h, block + "layer_norm1", 1e-6)
        q, k, val = (self._linear(u, f"{block}self_attn.{n}_proj") for n in "qkv")
        size, parts = h.shape[1] // heads, []
        for a in range(heads):
            s = slice(a * size, (a + 1) * size)
            parts.append(_softmax(q[:, s] @ k[:, s].T / math.sqrt(size)) @ val[:, s])
        h = h + self._linear(np.concatenate(parts, 1), block + "self_attn.out_proj")
        x = self._linear(self._layer_norm(h, block + "layer_norm2", 1e-6), block + "mlp.fc1")
        x = 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
        return h + self._linear(x, block + "mlp.fc2")

    def _pool(self, grid: np.ndarray) -> np.ndarray:
        side, mode = grid.shape[0], self.c["mm_spatial_pool_mode"]
        if mode in ("average", "max"):
            f = np.mean if mode == "average" else np.max
            half = side // 2
            cells = [f(grid[2 * r : 2 * r + 2, 2 * q : 2 * q + 2], (0, 1)) for r in range(half) for q in range(half)]
            return np.stack(cells)
        half = math.ceil(side / 2)

        def weights(j: int) -> np.ndarray:
            place = min(max((j + 0.5) * side / half - 0.5, 0.0), side - 1.0)
            low = int(place)
            row = np.zeros(side)
            row[low] += 1 - (place - low)
            row[min(low + 1, side - 1)] += place - low
            return row

        m = np.stack([weights(j) for j in range(half)])
        return np.einsum("ra,qb,abc->rqc", m, m, grid).reshape(half * half, -1)

    def _project(self, x: np.ndarray) -> np.ndarray:
        kind = self.c["mm_projector_type"]
        if kind == "identity":
            return x
        if kind == "linear":
            return self._linear(x, "mm_model.mm_projector")
        for i in range(int(kind[3 : kind.index("x")])):
            if i:
                x = 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
            x = self._linear(x, f"mm_model.mm_projector.{2 * i}")
        return x

    # -- recurrence ---------------------------------------------------------------------------------

    def reset(self) -> None:
        inner = self.ssm.get("expand", 2) * self.c["d_model"]
        shape = (inner // self.ssm["headdim"], self.ssm["headdim"], self.ssm["d_state"])
        channels = inner + 2 * self.ssm.get("ngroups", 1) * self.ssm["d_state"]
        past = self.ssm.get("d_conv", 4) - 1
        self.conv_state = [[np.zeros(channels)] * past for _ in range(self.c["n_layer"])]
        self.ssm_state = [np.zeros(shape) for _ in range(self.c["n_layer"])]

    def get_state(self) -> tuple[list[list[np.ndarray]], list[np.ndarray]]:
        return [list(s) for s in self.conv_state], [s.copy() for s in self.ssm_state]

    def set_state(self, state: tuple[list[list[np.ndarray]], list[np.ndarray]]) -> None:
        self.conv_state, self.ssm_state = [list(s) for s in state[0]], [s.copy() for s in state[1]]

    def feed(self, token: np.ndarray) -> np.ndarray:
        """One input vector [d] through all layers; the output behind the final norm."""
        r = token
        for i in range(self.c["n_layer"]):
            r = r + self._mixer(self._block_norm(r, f"backbone.layers.{i}.norm"), i)
        return self._block_norm(r, "backbone.norm_f")

    def _mixer(self, u: np.ndarray, i: int) -> np.ndarray:
        name, s = f"backbone.layers.{i}.mixer.", self.ssm
        w, groups, n, width = self.w, s.get("ngroups", 1), s["d_state"], s["headdim"]
        inner = s.get("expand", 2) * self.c["d_model"]
        heads = inner // width
        row = self._linear(u, name + "in_proj")
        z, xbc, dt = row[:inner], row[inner:-heads], row[-heads:]
        window = [*self.conv_state[i], xbc]
        self.conv_state[i] = window[1:]
        kernel = w[name + "conv1d.weight"][:, 0]
        mixed = sum(kernel[:, j] * window[j] for j in range(len(window)))
        if name + "conv1d.bias" in w:
            mixed = mixed + w[name + "conv1d.bias"]
        mixed = _silu(mixed)
        x = mixed[:inner].reshape(heads, width)
        b = mixed[inner : inner + groups * n].reshape(groups, n)
        c = mixed[inner + groups * n :].reshape(groups, n)
        y = np.zeros((heads, width))
        for h in range(heads):
            delta = math.log1p(math.exp(dt[h] + w[name + "dt_bias"][h]))
            g = h // (heads // groups)
            keep = math.exp(-delta * math.exp(w[name + "A_log"][h]))
            self.ssm_state[i][h] = keep * self.ssm_state[i][h] + delta * np.outer(x[h], b[g])
            y[h] = self.ssm_state[i][h] @ c[g] + w[name + "D"][h] * x[h]
        out = y.reshape(inner)
        if not s.get("rmsnorm", True):
            return self._linear(out * _silu(z), name + "out_proj")
        if not s.get("norm_before_gate", False):
            out = out * _silu(z)
        parts = out.reshape(groups, -1)
        out = (parts / np.sqrt((parts**2).mean(1, keepdims=True) + 1e-5)).reshape(inner) * w[name + "norm.weight"]
        if s.get("norm_before_gate", False):
            out = out * _silu(z)
        return self._linear(out, name + "out_proj")

    # -- selection ----------------------------------------------------------------------------------

    def run(
        self, pixels: np.ndarray, prefix: list[int], suffix: list[int], picks: list[int], *, temperature: float,
        replace: bool,
    ) -> dict[str, np.ndarray]:  # fmt: skip
        """Read the prompt, then follow `picks`; a pick of -1 takes the best frame."""
        self.reset()
        embedding = self.w["backbone.embedding.weight"]
        for token in prefix:
            self.feed(embedding[token])
        hidden = [[self.feed(token) for token in self.frame_tokens(frame)][-1] for frame in pixels]
        for token in suffix:
            self.feed(embedding[token])
        keys = [self._head(h, "key_head", self.c.get("score_head_norm", False)) for h in hidden]
        values = [self._value(h) for h in hidden]
        raw = self.w["logit_scale"]
        scale = np.exp(raw) if self.c.get("logit_scale_fn", "softplus") == "exp" else np.log1p(np.exp(raw))
        scale = scale / temperature
        if self.c.get("attention_scaling", False):
            scale = scale / math.sqrt(self.c["d_model"])
        x, rows, followed = embedding[self.c["start_of_frame_token_id"]], [], []
        for pick in picks:
            q = self._head(self.feed(x), "query_head", self.c.get("score_head_norm", False))
            logits = np.array([np.sum(scale * q * k) for k in keys])
            if not replace:
                logits[followed] = -np.inf
            rows.append(logits - np.logaddexp.reduce(logits))
            followed.append(int(np.argmax(rows[-1])) if pick < 0 else pick)
            x = values[followed[-1]]
        rank = self.w["rank_head.weight"][0] @ self.feed(x) if "rank_head.weight" in self.w else None
        return {"keys": np.stack(keys), "values": np.stack(values), "log_probs": np.stack(rows),
                "picks": np.array(followed), "rank": rank}  # type: ignore[dict-item]  # fmt: skip

    def _head(self, h: np.ndarray, name: str, norm: Any) -> np.ndarray:
        y = self._linear(h, name)
        if norm in (True, "True", "norm"):
            return y / max(math.sqrt(np.sum(y * y)), 1e-6)
        if norm == "rmsnorm":
            return y / math.sqrt(np.mean(y * y) + 1e-6)
        return y

    def _value(self, h: np.ndarray) -> np.ndarray:
        return self._head(h, "value_head", self.c.get("value_head_norm", False)) * self.w.get("value_head_scale", 1.0)

    def _linear(self, x: np.ndarray, name: str) -> np.ndarray:
        return x @ self.w[name + ".weight"].T + self.w.get(name + ".bias", 0.0)

    def _layer_norm(self, x: np.ndarray, name: str, eps: float) -> np.ndarray:
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x * x).mean(-1, keepdims=True) + eps)
        return x * self.w[name + ".weight"] + self.w[name + ".bias"]

    def _block_norm(self, x: np.ndarray, name: str) -> np.ndarray:
        if not self.c["rms_norm"]:
            return self._layer_norm(x, name, 1e-5)
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * self.w[name + ".weight"]


def _silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def _softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)
