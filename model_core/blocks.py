"""One block: attention, perhaps cross-attention, feed-forward, each with its norm and skip.

A stack: token ids to hidden states, through embeddings, blocks and a final norm.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn

from model_core.attention import Attend, AttentionSite, Memory, MultiHeadAttention
from model_core.config import NormConfig, NormPlacement, Parallel, StackConfig
from model_core.embeddings import Embeddings
from model_core.feed_forward import FeedForward
from model_core.norm import build_norm
from model_core.relative import build_relative


class Block(nn.Module):
    """x → attention → (cross-attention) → feed-forward, on the last dimension E.

    Each part has a norm, before or after it; a *second norm* is there where both are.
    """

    def __init__(
        self, dim: int, config: StackConfig, norm: NormConfig, layer: int, name: str, attend: Attend
    ) -> None:
        super().__init__()

        def norm_if(wanted: bool) -> nn.Module:
            return build_norm(dim, norm) if wanted else nn.Identity()

        is_both = config.placement is NormPlacement.BOTH
        site = AttentionSite(f"{name}.attention", layer, config.attention[layer])
        self.attention = MultiHeadAttention(dim, site, attend)
        self.attention_norm = norm_if(layer > 0 or config.first_norm)
        self.attention_second_norm = norm_if(is_both)
        self.cross_attention = None
        if config.cross_attention is not None:
            cross = AttentionSite(
                f"{name}.cross_attention", layer, config.cross_attention, cross=True
            )
            self.cross_attention = MultiHeadAttention(dim, cross, attend)
            self.cross_attention_norm = build_norm(dim, norm)
            self.cross_attention_second_norm = norm_if(is_both)
        self.feed_forward = FeedForward(dim, config.feed_forward)
        self.feed_forward_norm = norm_if(config.parallel is not Parallel.ONE_NORM)
        self.feed_forward_second_norm = norm_if(is_both)
        self.placement = config.placement
        self.parallel = config.parallel

    def forward(
        self,
        x: Tensor,
        layout: Any,
        memory: Memory | None = None,
        relative: nn.Module | None = None,
    ) -> Tensor:
        def attention(y: Tensor) -> Tensor:
            return self.attention(y, layout, relative=relative)

        if self.parallel is not Parallel.NO:
            return self.side_by_side(x, attention)
        x = self.skip(x, attention, self.attention_norm, self.attention_second_norm)
        if self.cross_attention is not None:
            cross = self.cross_attention
            x = self.skip(
                x,
                lambda y: cross(y, layout, memory),
                self.cross_attention_norm,
                self.cross_attention_second_norm,
            )
        return self.skip(
            x, self.feed_forward, self.feed_forward_norm, self.feed_forward_second_norm
        )

    def skip(
        self, x: Tensor, part: Callable[[Tensor], Tensor], norm: nn.Module, second_norm: nn.Module
    ) -> Tensor:
        """The residual connection around one part, with its norm after the sum or before it."""
        if self.placement is NormPlacement.POST:
            return norm(x + part(x))
        return x + second_norm(part(norm(x)))

    def side_by_side(self, x: Tensor, attention: Callable[[Tensor], Tensor]) -> Tensor:
        """x + attention(norm(x)) + feed_forward(norm(x)), of one norm or of one each."""
        normed = self.attention_norm(x)
        other = normed if self.parallel is Parallel.ONE_NORM else self.feed_forward_norm(x)
        return x + attention(normed) + self.feed_forward(other)


class Stack(nn.Module):
    """Token ids [...] to hidden states [..., E]: an encoder, or a decoder.

    The final norm is there where the blocks leave the stream unnormalised.
    """

    def __init__(
        self, dim: int, config: StackConfig, norm: NormConfig, name: str, attend: Attend
    ) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(dim, config.embedding, norm)
        self.blocks = nn.ModuleList(
            Block(dim, config, norm, layer, f"{name}.blocks.{layer}", attend)
            for layer in range(config.layers)
        )
        if config.shared_weights:
            for block in self.blocks[1:]:
                share_parameters(self.blocks[0], block)
        first = config.attention[0]
        self.relative = (
            build_relative(config.relative, dim, first.heads, norm, causal=first.causal)
            if config.relative
            else None
        )
        self.final_norm = build_norm(dim, norm) if config.final_norm else nn.Identity()

    def forward(
        self,
        token_ids: Tensor,
        layout: Any,
        token_type_ids: Tensor | None = None,
        memory: Memory | None = None,
    ) -> Tensor:
        # One state at a time: those before it may go.
        (last,) = deque(self.states(token_ids, layout, token_type_ids, memory), maxlen=1)
        return self.final_norm(last)

    def states(
        self,
        token_ids: Tensor,
        layout: Any,
        token_type_ids: Tensor | None = None,
        memory: Memory | None = None,
    ) -> Iterator[Tensor]:
        """The residual stream [..., E]: the embeddings, then what each block makes of it."""
        x = self.embeddings(token_ids, layout.positions, token_type_ids)
        yield x
        for block in self.blocks:
            x = block(x, layout, memory, self.relative)
            yield x


def share_parameters(source: nn.Module, target: nn.Module) -> None:
    """Let `target`, built alike, have the very parameters of `source`."""
    for name, parameter in source.named_parameters():
        owner, _, leaf = name.rpartition(".")
        setattr(target.get_submodule(owner), leaf, parameter)
