"""One block: attention, perhaps cross-attention, feed-forward, each with its norm and skip."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from model_core.attention import Attend, AttentionSite, MultiHeadAttention
from model_core.config import NormConfig, NormPlacement, StackConfig
from model_core.feed_forward import FeedForward
from model_core.norm import build_norm


class Block(nn.Module):
    """x → attention → (cross-attention) → feed-forward, on the last dimension E."""

    def __init__(
        self, dim: int, config: StackConfig, norm: NormConfig, layer: int, name: str, attend: Attend
    ) -> None:
        super().__init__()
        site = AttentionSite(f"{name}.attention", layer, config.attention)
        self.attention = MultiHeadAttention(dim, site, attend)
        self.attention_norm = build_norm(dim, norm)
        self.cross_attention = None
        if config.cross_attention:
            cross = AttentionSite(f"{name}.cross_attention", layer, config.attention, cross=True)
            self.cross_attention = MultiHeadAttention(dim, cross, attend)
            self.cross_attention_norm = build_norm(dim, norm)
        self.feed_forward = FeedForward(dim, config.feed_forward)
        self.feed_forward_norm = build_norm(dim, norm)
        self.placement = config.placement

    def forward(self, x: Tensor, layout: Any, memory: Tensor | None = None) -> Tensor:
        x = self.skip(x, self.attention_norm, lambda y: self.attention(y, layout))
        if self.cross_attention is not None:
            cross = self.cross_attention
            x = self.skip(x, self.cross_attention_norm, lambda y: cross(y, layout, memory))
        return self.skip(x, self.feed_forward_norm, self.feed_forward)

    def skip(self, x: Tensor, norm: nn.Module, part: Callable[[Tensor], Tensor]) -> Tensor:
        """The residual connection around one part, with its norm before or after."""
        if self.placement is NormPlacement.PRE:
            return x + part(norm(x))
        return norm(x + part(x))


class Stack(nn.Module):
    """Blocks one after another, and a final norm where the blocks leave the stream unnormalised."""

    def __init__(
        self, dim: int, config: StackConfig, norm: NormConfig, name: str, attend: Attend
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(dim, config, norm, layer, f"{name}.blocks.{layer}", attend)
            for layer in range(config.layers)
        )
        self.final_norm = build_norm(dim, norm) if config.final_norm else nn.Identity()

    def forward(self, x: Tensor, layout: Any, memory: Tensor | None = None) -> Tensor:
        for block in self.blocks:
            x = block(x, layout, memory)
        return self.final_norm(x)
