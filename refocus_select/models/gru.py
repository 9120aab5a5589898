"""A GRU layer behind the interface of the Mamba-2 layer, for small policies over vectors.

Source: Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder" (2014), as `torch.nn.GRU` computes it.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from .config import RefocusConfig


class GRUMixer(nn.Module):
    """One GRU layer of width d. Its state is one tensor, the hidden vectors [B, d]."""

    def __init__(self, config: RefocusConfig) -> None:
        super().__init__()
        self.gru = nn.GRU(config.d_model, config.d_model, batch_first=True)
        # Weights assigned on loading lie apart; cuDNN wants them in one piece.
        self.register_load_state_dict_post_hook(_flatten)

    def empty_state(self, rows: int) -> tuple[Tensor]:
        """The state before the first token."""
        return (next(self.gru.parameters()).new_zeros(rows, self.gru.hidden_size),)

    def forward(
        self, u: Tensor, state: tuple[Tensor, ...], *, return_state: bool = True
    ) -> tuple[Tensor, tuple[Tensor] | None]:
        """Read L tokens.

        Args:
            u: [B, L, d].
            state: of B rows, or of fewer that divide B: each then stands before B/rows consecutive rows.
            return_state: also give the state behind the last token.

        Returns:
            [B, L, d] and the new state of B rows (None unless asked for).
        """
        (hidden,) = state
        hidden = hidden.repeat_interleave(len(u) // len(hidden), 0)
        out, last = self.gru(u, hidden[None])
        return out, (last[0],) if return_state else None

    def start_decoding(self, state: tuple[Tensor, ...], rows: int, steps: int) -> list[Tensor]:
        """Prepare `rows` continuations of every row of `state`: their hidden vectors, for any number of steps."""
        return [state[0].repeat_interleave(rows, 0)]

    def step(self, u: Tensor, cache: list[Tensor]) -> Tensor:
        """Read one token per row, [B, d] to [B, d]; the cache is replaced in place."""
        out, (cache[0],) = self.gru(u[:, None], cache[0][None])
        return out[:, 0]


def _flatten(mixer: GRUMixer, _: Any) -> None:
    mixer.gru.flatten_parameters()
