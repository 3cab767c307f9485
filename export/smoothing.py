"""Smoothing: move outlier columns of activations into the weights, where int8 has room for them.

A product's input x and weight W may be rescaled column by column, (x / s)(s W), without changing
the result; s is chosen so that both are equally hard to quantise (SmoothQuant, Xiao et al. 2023).
x / s costs nothing where x comes from a norm (its gain absorbs 1 / s) or from another product
(its rows do). What is balanced here, in each pre-norm block:
attention norm → query, key, value · values → attention output · norm → up, gate · up → down.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model_core.attention import Padded
from model_core.blocks import Block
from model_core.config import NormPlacement, Parallel
from model_core.feed_forward import FeedForward
from model_core.transformer import Transformer

BALANCE = 0.5
"""How much of the difficulty moves from activations to weights (the paper's α)."""
TINY = 1e-5


@dataclass(frozen=True, slots=True)
class Pair:
    """A producer of x (parameters whose first dimension is x's columns) and the consumers of x.

    `repeats`: how often each of the producer's columns appears in x in a row of `head_dim`
    (grouped queries read each value head several times); 1 when x is what the producer gives.
    """

    producers: Sequence[Tensor]
    consumers: Sequence[nn.Linear]
    repeats: int = 1
    head_dim: int = 1


def smooth(transformer: Transformer, texts: Sequence[Sequence[int]]) -> None:
    """Rescale the decoder's weights in place, calibrated on `texts` (token ids).

    The model computes what it did, but for rounding. Blocks that normalise after the skip stay as
    they are: their norm's output is also the residual stream, which must not change.
    """
    decoder = transformer.decoder
    if decoder is None:
        raise TypeError("smoothing is for decoders")
    blocks = [block for block in decoder.blocks if isinstance(block, Block)]
    largest = largest_inputs(transformer, texts)
    with torch.no_grad():
        for block in blocks:
            if block.placement is not NormPlacement.POST:
                for pair in pairs(block):
                    balance(pair, largest[pair.consumers[0]])


def largest_inputs(
    transformer: Transformer, texts: Sequence[Sequence[int]]
) -> dict[nn.Module, Tensor]:
    """For each linear layer, the largest magnitude of each column of its input over `texts`."""
    largest: dict[nn.Module, Tensor] = {}

    def watch(layer: nn.Module, inputs: tuple[Tensor]) -> None:
        columns = inputs[0].abs().flatten(0, -2).amax(0)
        seen = largest.get(layer)
        largest[layer] = columns if seen is None else torch.maximum(seen, columns)

    linears = [module for module in transformer.modules() if isinstance(module, nn.Linear)]
    hooks = [linear.register_forward_pre_hook(watch) for linear in linears]
    try:
        with torch.no_grad():
            for text in texts:
                token_ids = torch.tensor([list(text)])
                transformer.decode(token_ids, Padded.of(token_ids))
    finally:
        for hook in hooks:
            hook.remove()
    return largest


def pairs(block: Block) -> list[Pair]:
    """The producers and consumers of one block that can be balanced."""
    attention, config = block.attention, block.attention.site.config
    feed_forward = block.feed_forward
    read_by_attention = [attention.query, attention.key, attention.value]
    read_by_feed_forward = inner_linears(feed_forward)
    if block.parallel is Parallel.ONE_NORM:
        read_by_attention += read_by_feed_forward
    found = [
        Pair(list(block.attention_norm.parameters()), read_by_attention),
        Pair(list(block.feed_forward_norm.parameters()), read_by_feed_forward),
        Pair(
            list(attention.value.parameters()),
            [attention.output],
            repeats=config.heads // config.kv_heads,
            head_dim=config.head_dim,
        ),
    ]
    if feed_forward.gate is not None:
        # Only the ungated factor is linear in its weights: act(gate) takes no scale through.
        found.append(Pair(list(feed_forward.up.parameters()), [feed_forward.down]))
    # Where a norm is absent, nothing can take the scale.
    return [pair for pair in found if pair.producers]


def inner_linears(feed_forward: FeedForward) -> list[nn.Linear]:
    """The linear layers that read the block's second norm."""
    gate = feed_forward.gate
    return [feed_forward.up] if gate is None else [feed_forward.up, gate]


def balance(pair: Pair, largest_x: Tensor) -> None:
    """Divide the producer's columns by s and multiply the consumers' by it."""
    largest_w = torch.stack([layer.weight.abs().amax(0) for layer in pair.consumers]).amax(0)
    x, w = (grouped(columns, pair).amax(1) for columns in (largest_x, largest_w))
    s = x.clamp_min(TINY) ** BALANCE / w.clamp_min(TINY) ** (1 - BALANCE)
    s = s / s.log().mean().exp()
    for parameter in pair.producers:
        parameter /= s.flatten().view(-1, *[1] * (parameter.dim() - 1))
    spread = s[:, None].expand(-1, pair.repeats, -1).flatten()
    for layer in pair.consumers:
        layer.weight *= spread


def grouped(columns: Tensor, pair: Pair) -> Tensor:
    """Columns of x as [producer's heads, repeats, head_dim]."""
    return columns.view(-1, pair.repeats, pair.head_dim)
