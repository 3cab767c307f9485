"""The Transformer: encoder, decoder or both, from one config (Vaswani et al. 2017, figure 1)."""

from typing import Any

from torch import Tensor, nn

from model_core.attention import Attend, Memory, MultiHeadAttention, Projected
from model_core.blocks import Stack
from model_core.config import TransformerConfig


class Transformer(nn.Module):
    """Token ids to hidden states. `attend` is how every attention in it attends.

    Works on the last dimension alone outside attention, so ids may be padded [B, S] or packed
    [T]; `layout` must then be what `attend` expects, and carry `positions` shaped like the ids.
    """

    def __init__(self, config: TransformerConfig, attend: Attend) -> None:
        super().__init__()
        self.config = config
        dim, norm = config.dim, config.norm
        encoder, decoder = config.encoder, config.decoder
        self.encoder = Stack(dim, encoder, norm, "encoder", attend) if encoder else None
        self.decoder = Stack(dim, decoder, norm, "decoder", attend) if decoder else None
        if self.encoder and self.decoder and config.shared_embedding:
            self.decoder.embeddings.token.weight = self.encoder.embeddings.token.weight

    @property
    def token_embedding(self) -> nn.Embedding:
        """The one that a tied head shares: of the decoder if there is one, else of the encoder."""
        stack = self.decoder or self.encoder
        if stack is None:
            raise TypeError("a Transformer has a stack at least")
        return stack.embeddings.token

    def encode(
        self, token_ids: Tensor, layout: Any, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Hidden states [..., E] of the encoder; ids below `vocab_size`."""
        if self.encoder is None:
            raise TypeError("this Transformer has no encoder")
        return self.encoder(token_ids, layout, token_type_ids)

    def decode(self, token_ids: Tensor, layout: Any, memory: Memory | None = None) -> Tensor:
        """Hidden states [..., E] of the decoder; `memory` is what `encode` gave, if anything."""
        if self.decoder is None:
            raise TypeError("this Transformer has no decoder")
        return self.decoder(token_ids, layout, memory=memory)

    def project_memory(self, memory: Tensor) -> Projected:
        """The keys and values [..., G·D] that each decoder layer's cross-attention reads."""
        if self.decoder is None:
            raise TypeError("this Transformer has no decoder")
        crosses = [block.get_submodule("cross_attention") for block in self.decoder.blocks]
        pairs = [
            cross.keys_and_values(memory)
            for cross in crosses
            if isinstance(cross, MultiHeadAttention)
        ]
        return Projected(tuple(k for k, _ in pairs), tuple(v for _, v in pairs))
