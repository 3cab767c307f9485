"""Tokens to vectors: the first step of a stack."""

from torch import Tensor, nn

from model_core.config import EmbeddingConfig, NormConfig, PositionKind
from model_core.norm import build_norm
from model_core.position import sinusoidal_table


class Embeddings(nn.Module):
    """Token ids [...] to vectors [..., E]: token + position + token type, then a norm.

    Ids are below `vocab_size`, positions below `max_positions`.
    """

    sinusoids: Tensor | None

    def __init__(self, dim: int, config: EmbeddingConfig, norm: NormConfig) -> None:
        super().__init__()
        self.config = config
        width = config.token_dim or dim
        rows = config.rows
        is_learned = config.position is PositionKind.LEARNED
        is_fixed = not is_learned and config.position is not PositionKind.NONE
        table = sinusoidal_table(config.position, rows, width) if is_fixed else None
        self.token = nn.Embedding(config.vocab_size, width)
        self.position = nn.Embedding(rows, width) if is_learned else None
        self.register_buffer("sinusoids", table, persistent=False)
        self.token_type = nn.Embedding(config.token_types, width) if config.token_types else None
        norm_dim = dim if config.norm_last else width
        self.norm = build_norm(norm_dim, norm) if config.norm else nn.Identity()
        self.projection = (
            nn.Linear(width, dim, config.projection_bias) if config.token_dim else nn.Identity()
        )

    def forward(
        self, token_ids: Tensor, positions: Tensor, token_type_ids: Tensor | None
    ) -> Tensor:
        x = self.token(token_ids)
        if self.config.scale != 1.0:
            x = x * self.config.scale
        if self.token_type is not None:
            # A text without types is all of type 0; the row is broadcast rather than gathered.
            absent = token_type_ids is None
            x = x + (self.token_type.weight[0] if absent else self.token_type(token_type_ids))
        rows = positions + self.config.position_offset if self.config.position_offset else positions
        if self.position is not None:
            x = x + self.position(rows)
        if self.sinusoids is not None:
            x = x + self.sinusoids[rows]
        if self.config.norm_last:
            return self.norm(self.projection(x))
        return self.projection(self.norm(x))
