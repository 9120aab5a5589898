"""From pixels to frame tokens: SigLIP tower, 2-D pooling, projector."""

from __future__ import annotations

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .config import VisionConfig, projector_depth


class SiglipTower(nn.Module):
    """The SigLIP image encoder without its last block and without the final LayerNorm.

    Module names are those of the SigLIP checkpoints, so that weights load by name.
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.embeddings = PatchEmbeddings(config)
        self.encoder = SiglipBlocks(config)

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode pictures.

        Args:
            pixels: normalised pictures, [n, 3, S, S].

        Returns:
            Patch features in row-major order, [n, grid * grid, hidden_size].
        """
        return self.encoder(self.embeddings(pixels))


class PatchEmbeddings(nn.Module):
    """Non-overlapping patches plus learned positions; pixels beyond the last whole patch are dropped."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.patch_embedding = nn.Conv2d(3, config.hidden_size, config.patch_size, config.patch_size)
        self.position_embedding = nn.Embedding(config.grid**2, config.hidden_size)

    def forward(self, pixels: Tensor) -> Tensor:
        patches = self.patch_embedding(pixels.to(self.patch_embedding.weight.dtype))  # [n, dv, grid, grid]
        return rearrange(patches, "n c h w -> n (h w) c") + self.position_embedding.weight


class SiglipBlocks(nn.Module):
    """The transformer blocks one after another."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(SiglipBlock(config) for _ in range(config.num_hidden_layers))

    def forward(self, hidden: Tensor) -> Tensor:
        for block in self.layers:
            hidden = block(hidden)
        return hidden


class SiglipBlock(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        width, eps = config.hidden_size, config.layer_norm_eps
        self.layer_norm1 = nn.LayerNorm(width, eps=eps)
        self.self_attn = SiglipAttention(width, config.num_attention_heads)
        self.layer_norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = nn.ModuleDict(
            {"fc1": nn.Linear(width, config.intermediate_size), "fc2": nn.Linear(config.intermediate_size, width)}
        )

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = hidden + self.self_attn(self.layer_norm1(hidden))
        inner = F.gelu(self.mlp["fc1"](self.layer_norm2(hidden)), approximate="tanh")
        return hidden + self.mlp["fc2"](inner)


class SiglipAttention(nn.Module):
    """Full attention among the patches of one picture."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, hidden: Tensor) -> Tensor:
        q, k, v = (
            rearrange(project(hidden), "n t (h c) -> n h t c", h=self.heads)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.out_proj(rearrange(mixed, "n h t c -> n t (h c)"))


def pool_patches(features: Tensor, mode: str) -> Tensor:
    """Halve the patch grid of each picture.

    Args:
        features: [n, g * g, c] in row-major order.
        mode: "bilinear" gives ceil(g/2) per side, "average" and "max" give floor(g/2) (a last odd row and column is
            dropped), "mean" gives one token per picture, "none" changes nothing.

    Returns:
        [n, T, c] in row-major order.
    """
    if mode == "none":
        return features
    if mode == "mean":
        return features.mean(1, keepdim=True)
    side = round(features.shape[1] ** 0.5)
    grid = rearrange(features, "n (h w) c -> n c h w", h=side)
    if mode == "bilinear":
        half = (side + 1) // 2
        grid = F.interpolate(grid, size=(half, half), mode="bilinear", align_corners=False)
    elif mode == "average":
        grid = F.avg_pool2d(grid, 2)
    else:
        grid = F.max_pool2d(grid, 2)
    return rearrange(grid, "n c h w -> n (h w) c")


def make_projector(kind: str, width_in: int, width_out: int) -> nn.Module:
    """Linear layers with exact GELU between them; parameter names as in the authors' checkpoint."""
    if kind == "identity":
        return nn.Identity()
    if kind == "linear":
        return nn.Linear(width_in, width_out)
    layers: list[nn.Module] = [nn.Linear(width_in, width_out)]
    for _ in range(projector_depth(kind) - 1):
        layers += [nn.GELU(), nn.Linear(width_out, width_out)]
    return nn.Sequential(*layers)
