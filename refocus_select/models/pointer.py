"""The pointer over frames: keys, values, queries, their norms and the logit scale."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import RefocusConfig, head_norm

_EPS = 1e-6


class PointerHead(nn.Module):
    """Maps backbone outputs to keys, values and queries, and queries against keys to logits.

    Its parameters keep the authors' names; the selector holds them at top level (no prefix) in checkpoints.
    """

    def __init__(self, config: RefocusConfig) -> None:
        super().__init__()
        d = config.d_model
        self.score_norm = head_norm("score_head_norm", config.score_head_norm)
        self.value_norm = head_norm("value_head_norm", config.value_head_norm)
        self.exponential = config.logit_scale_fn == "exp"
        self.attention_scaling = config.attention_scaling
        self.key_head = nn.Linear(d, d, bias=False)
        self.query_head = nn.Linear(d, d, bias=False)
        self.value_head = nn.Linear(d, d)
        self.value_head_scale = nn.Parameter(torch.ones(d)) if config.has_value_scale else None
        # Effective scale 1 / sqrt(d) at the start, whatever the parametrisation.
        start = torch.tensor(1.0 if config.attention_scaling else d**-0.5)
        raw = start.log() if self.exponential else start.expm1().log()
        self.logit_scale = nn.Parameter(raw.expand(d).clone() if config.logit_scale_type == "vector" else raw)
        self.rank_head = nn.Linear(d, 1, bias=False) if config.use_rank_head else None
        self.similarity_scale = nn.Parameter(torch.ones(())) if config.similarity_residual else None

    def keys(self, hidden: Tensor) -> Tensor:
        """[..., d] to [..., d]."""
        return _normalise(self.key_head(hidden), self.score_norm)

    def values(self, hidden: Tensor) -> Tensor:
        """[..., d] to [..., d]; what is fed back when the frame is picked."""
        values = _normalise(self.value_head(hidden), self.value_norm)
        return values if self.value_head_scale is None else values * self.value_head_scale

    def queries(self, hidden: Tensor) -> Tensor:
        """[..., d] to [..., d]."""
        return _normalise(self.query_head(hidden), self.score_norm)

    def scale(self, temperature: float = 1.0) -> Tensor:
        """The effective logit scale, [] or [d]."""
        scale = self.logit_scale.exp() if self.exponential else F.softplus(self.logit_scale)
        if self.attention_scaling:
            scale = scale * self.key_head.in_features**-0.5
        return scale / temperature

    def logits(self, queries: Tensor, keys: Tensor, temperature: float, similarity: Tensor | None) -> Tensor:
        """Scores of all frames in float32.

        Args:
            queries: [rows, Q, d].
            keys: [F, d], or [n, F, d] with n dividing the rows: each for rows / n consecutive ones.
            temperature: above 0; larger is flatter.
            similarity: frame-question similarity, broadcastable to [rows, Q, F]; for `similarity_residual` models.

        Returns:
            [rows, Q, F].
        """
        queries = queries * self.scale(temperature)
        if keys.ndim == 2:
            logits = (queries @ keys.T).float()
        else:
            grouped = queries.reshape(len(keys), -1, queries.shape[-1])  # [n, rows / n * Q, d]
            logits = (grouped @ keys.transpose(1, 2)).float().view(*queries.shape[:2], -1)
        if self.similarity_scale is not None and similarity is not None:
            logits = logits + self.similarity_scale.float() * similarity / temperature
        return logits

    def rank(self, hidden: Tensor) -> Tensor | None:
        """Quality of a whole selection from the output behind its last pick: [..., d] to [...]."""
        return None if self.rank_head is None else self.rank_head(hidden)[..., 0].float()


def _normalise(y: Tensor, kind: str) -> Tensor:
    if kind == "l2":
        return y / y.norm(dim=-1, keepdim=True).clamp(min=_EPS)
    if kind == "rms":
        return y * torch.rsqrt(y.square().mean(-1, keepdim=True) + _EPS)
    return y
