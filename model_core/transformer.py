"""The Transformer: encoder, decoder or both, from one config (Vaswani et al. 2017, figure 1)."""

from typing import Any

from torch import Tensor, nn

from model_core.attention import Attend
from model_core.blocks import Stack
from model_core.config import PositionKind, TransformerConfig
from model_core.norm import build_norm
from model_core.position import sinusoidal_table


class Embeddings(nn.Module):
    """Token ids [...] to vectors [..., E]: token + position + token type, then a norm."""

    sinusoids: Tensor | None

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        embedding, dim = config.embedding, config.dim
        self.token = nn.Embedding(embedding.vocab_size, dim)
        self.position = None
        if embedding.position is PositionKind.LEARNED:
            self.position = nn.Embedding(embedding.max_positions, dim)
        sinusoidal = embedding.position is PositionKind.SINUSOIDAL
        table = sinusoidal_table(embedding.max_positions, dim) if sinusoidal else None
        self.register_buffer("sinusoids", table, persistent=False)
        self.token_type = (
            nn.Embedding(embedding.token_types, dim) if embedding.token_types else None
        )
        self.norm = build_norm(dim, config.norm) if embedding.norm else nn.Identity()
        self.scale = embedding.scale

    def forward(
        self, token_ids: Tensor, positions: Tensor, token_type_ids: Tensor | None
    ) -> Tensor:
        x = self.token(token_ids)
        if self.scale != 1.0:
            x = x * self.scale
        if self.token_type is not None:
            # A text without types is all of type 0; the row is broadcast rather than gathered.
            absent = token_type_ids is None
            x = x + (self.token_type.weight[0] if absent else self.token_type(token_type_ids))
        if self.position is not None:
            x = x + self.position(positions)
        if self.sinusoids is not None:
            x = x + self.sinusoids[positions]
        return self.norm(x)


class Transformer(nn.Module):
    """Token ids to hidden states. `attend` is how every attention in it attends.

    Works on the last dimension alone outside attention, so ids may be padded [B, S] or packed
    [T]; `layout` must then be what `attend` expects, and carry `positions` shaped like the ids.
    """

    def __init__(self, config: TransformerConfig, attend: Attend) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        dim, norm = config.dim, config.norm
        encoder, decoder = config.encoder, config.decoder
        self.encoder = Stack(dim, encoder, norm, "encoder", attend) if encoder else None
        self.decoder = Stack(dim, decoder, norm, "decoder", attend) if decoder else None

    def encode(
        self, token_ids: Tensor, layout: Any, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Hidden states [..., E] of the encoder; ids below `vocab_size`."""
        if self.encoder is None:
            raise TypeError("this Transformer has no encoder")
        return self.encoder(self.embeddings(token_ids, layout.positions, token_type_ids), layout)

    def decode(self, token_ids: Tensor, layout: Any, memory: Tensor | None = None) -> Tensor:
        """Hidden states [..., E] of the decoder; `memory` is what `encode` gave, if anything."""
        if self.decoder is None:
            raise TypeError("this Transformer has no decoder")
        return self.decoder(self.embeddings(token_ids, layout.positions, None), layout, memory)
