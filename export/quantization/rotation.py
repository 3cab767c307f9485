"""Rotation: turn the residual stream so that no column of it is an outlier (QuaRot, Ashkboos 2024).

RMSNorm without a gain commutes with any rotation Q: norm(x Q) = norm(x) Q. So gains go into the
weights behind them, what writes to the stream is multiplied by Q and what reads it by its
transpose. The model computes what it did, but each column of the stream is now a mixture of all: no
larger than chance makes it, and alike from token to token, which is what int8 wants.
"""

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

from model_core.blocks import Block, Stack
from model_core.config import NormKind, NormPlacement, Parallel, PositionKind
from model_core.heads import LanguageModelHead
from model_core.norm import RMSNorm
from model_core.transformer import Transformer

SEED = 0


def can_rotate(transformer: Transformer) -> bool:
    """Whether all that happens on the stream of this model commutes with a rotation."""
    config = transformer.config
    stack = config.decoder
    if stack is None or config.encoder is not None or config.norm.kind is not NormKind.RMS:
        return False
    embedding = stack.embedding
    is_plain = (
        embedding.position is PositionKind.NONE
        and not embedding.norm
        and embedding.token_dim is None
        and not embedding.token_types
    )
    normed = stack.placement is NormPlacement.PRE and stack.first_norm and stack.final_norm
    return is_plain and normed and not stack.shared_weights


@torch.no_grad()
def rotate(transformer: Transformer, head: LanguageModelHead) -> None:
    """Turn the stream of a decoder in place; a tied head gets weights of its own.

    Raises `TypeError` for one that `can_rotate` denies.
    """
    stack = transformer.decoder
    if stack is None or not can_rotate(transformer):
        raise TypeError("only a decoder with RMSNorm before each part can be rotated")
    turn = random_rotation(transformer.config.dim)
    for norm, readers in norms(stack, head):
        for reader in readers:
            reader.weight = nn.Parameter(reader.weight * norm.weight, requires_grad=False)
        norm.weight.fill_(1.0)
        for reader in readers:
            reader.weight.copy_(product(reader.weight, turn))
    token = stack.embeddings.token
    token.weight = nn.Parameter(product(token.weight, turn), requires_grad=False)
    for writer in writers(stack):
        writer.weight.copy_(product(turn.T, writer.weight))
        for bias in (b for name, b in writer.named_parameters() if name == "bias"):
            bias.copy_(product(turn.T, bias))


def random_rotation(dim: int) -> Tensor:
    """An orthogonal matrix [dim, dim], float64, the same each time."""
    drawn = torch.randn(
        dim, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(SEED)
    )
    orthogonal: Tensor = cast("Any", torch.linalg).qr(drawn)[0]
    return orthogonal


def product(a: Tensor, b: Tensor) -> Tensor:
    """a b, in float64: this is done once."""
    return (a.double() @ b.double()).float()


def norms(stack: Stack, head: LanguageModelHead) -> Iterator[tuple[RMSNorm, list[nn.Linear]]]:
    """Each norm of the stream with the linear layers that read it."""
    for block in blocks(stack):
        attention, feed_forward = block.attention, block.feed_forward
        by_attention = [attention.query, attention.key, attention.value]
        inner = (
            [feed_forward.up] if feed_forward.gate is None else [feed_forward.gate, feed_forward.up]
        )
        if block.parallel is Parallel.ONE_NORM:
            by_attention += inner
        else:
            yield rms(block.feed_forward_norm), inner
        yield rms(block.attention_norm), by_attention
    yield rms(stack.final_norm), [head.output]


def writers(stack: Stack) -> Iterator[nn.Linear]:
    """The linear layers that add to the stream."""
    for block in blocks(stack):
        yield block.attention.output
        yield block.feed_forward.down


def blocks(stack: Stack) -> list[Block]:
    """The stack's blocks."""
    return [block for block in stack.blocks if isinstance(block, Block)]


def rms(norm: nn.Module) -> RMSNorm:
    """`norm`, which `can_rotate` promised to be RMSNorm."""
    if not isinstance(norm, RMSNorm):
        raise TypeError(f"RMSNorm expected, found {type(norm).__name__}")
    return norm
