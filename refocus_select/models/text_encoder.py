"""MiniLM sentence encoder: question text in, one unit vector out.

The network is the six-layer BERT of `sentence-transformers/all-MiniLM-L6-v2` (Wang et al., "MiniLM", 2020; mean pooling
over tokens, Reimers & Gurevych, 2019). It is written out here because importing a BERT through transformers costs about
four seconds of start-up, and because the stored weights are int8 with one scale per row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH = 384
HEADS = 12
LAYERS = 6
VOCABULARY = 30522
MAX_TOKENS = 256  # what the encoder was trained with; longer text is cut


def quantize_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Symmetric int8 with one scale per row: `[R, C]` float -> int8 `[R, C]`, float32 `[R]`."""
    scale = weight.abs().amax(dim=1).clamp_min(1e-12) / 127
    return (weight / scale[:, None]).round().clamp(-127, 127).to(torch.int8), scale.float()


class EmbeddingTable(nn.Module):
    """Token vectors kept as int8; only the rows that a text uses are widened."""

    rows: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros(VOCABULARY, WIDTH, dtype=torch.int8))
        self.register_buffer("scale", torch.ones(VOCABULARY))

    def forward(self, ids: Tensor) -> Tensor:  # [N, L] -> [N, L, 384]
        return self.rows[ids].float() * self.scale[ids][..., None]


class Layer(nn.Module):
    """One post-norm transformer layer, as in BERT."""

    def __init__(self) -> None:
        super().__init__()
        self.query_key_value = nn.Linear(WIDTH, 3 * WIDTH)
        self.attended = nn.Linear(WIDTH, WIDTH)
        self.attended_norm = nn.LayerNorm(WIDTH, eps=1e-12)
        self.widen = nn.Linear(WIDTH, 4 * WIDTH)
        self.narrow = nn.Linear(4 * WIDTH, WIDTH)
        self.narrow_norm = nn.LayerNorm(WIDTH, eps=1e-12)

    def forward(self, x: Tensor, allowed: Tensor) -> Tensor:  # [N, L, 384], bool [N, 1, 1, L]
        n, length, _ = x.shape
        qkv = self.query_key_value(x).view(n, length, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2], attn_mask=allowed)  # [N, heads, L, 32]
        x = self.attended_norm(x + self.attended(y.transpose(1, 2).reshape(n, length, WIDTH)))
        return self.narrow_norm(x + self.narrow(F.gelu(self.widen(x))))


class TextEncoder(nn.Module):
    """Token ids to sentence vectors (`forward`), text to sentence vectors (`encode`)."""

    def __init__(self, vocabulary: Path) -> None:
        super().__init__()
        from tokenizers import BertWordPieceTokenizer

        self.tokenizer = BertWordPieceTokenizer(str(vocabulary), lowercase=True)
        self.tokenizer.enable_truncation(MAX_TOKENS)
        self.tokenizer.enable_padding()
        self.tokens = EmbeddingTable()
        self.positions = nn.Parameter(torch.zeros(MAX_TOKENS, WIDTH))  # holds the (constant) segment vector as well
        self.norm = nn.LayerNorm(WIDTH, eps=1e-12)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Unit sentence vectors `[N, 384]` of token `ids` `[N, L]`, where bool `mask` `[N, L]` is true."""
        x = self.norm(self.tokens(ids) + self.positions[: ids.shape[1]])
        for layer in self.layers:
            x = layer(x, mask[:, None, None, :])
        weight = mask[..., None].to(x.dtype)
        return F.normalize((x * weight).sum(1) / weight.sum(1).clamp_min(1), dim=-1)

    @torch.inference_mode()
    def encode(self, texts: Sequence[str], *, batch: int = 64) -> Tensor:
        """Unit sentence vectors `[len(texts), 384]`; text beyond 256 tokens is cut."""
        if not texts:
            return torch.zeros(0, WIDTH, device=self.positions.device)
        # Texts of similar length share a batch, so that little is spent on padding.
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        vectors: list[Tensor | None] = [None] * len(texts)
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            encoded = self.tokenizer.encode_batch([texts[i] for i in rows])
            ids = torch.tensor([e.ids for e in encoded], device=self.positions.device)
            mask = torch.tensor([e.attention_mask for e in encoded], device=self.positions.device).bool()
            for row, vector in zip(rows, self(ids, mask), strict=True):
                vectors[row] = vector
        return torch.stack([v for v in vectors if v is not None])

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text has, begin and end included, before anything is cut."""
        pieces = [[e, *e.overflowing] for e in self.tokenizer.encode_batch(list(texts))]
        return [2 + sum(sum(e.attention_mask) - 2 for e in parts) for parts in pieces]


def unpack_rows(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Widens every `name` (int8) that has a `name_scale` beside it; the token table stays int8."""
    unpacked: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.endswith(".weight_scale"):
            continue
        scale = tensors.get(f"{name}_scale")
        unpacked[name] = tensor.float() if scale is None else tensor.float() * scale[:, None]
        if name.startswith("tokens."):
            unpacked[name] = tensor
    return unpacked
