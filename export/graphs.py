"""What is exported for each task: the inputs and outputs of its graph, by name.

The names here are the contract with the engines of `service/engines/`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from export.attention import Cached, Packed
from model_core.config import RotaryConfig, TransformerConfig
from model_core.heads import PoolingMode, normalize, pool
from model_core.position import rotary_tables
from model_core.transformer import Transformer

Dim = torch.export.Dim
SENTENCE_EMBEDDING = "sentence_embedding"


@dataclass(frozen=True, slots=True)
class GraphSpec:
    """A module to export with one example of its inputs and what is dynamic in them.

    `inputs` maps names to example tensors, in the order of `forward`; `axes` has the symbols of
    the dynamic dimensions of its arguments; `outputs` names what `forward` returns.
    """

    module: nn.Module
    inputs: Mapping[str, Tensor]
    axes: tuple[Any, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EncoderOutput:
    """One output of an encoder's graph: a pooled vector, or the scores of a head that reads it."""

    name: str
    pooling: PoolingMode
    normalized: bool
    head: nn.Module | None = None


class EncoderGraph(nn.Module):
    """Packed texts [T] to a vector [B, E] or scores [B, C] for each of `outputs`; one trunk."""

    def __init__(self, transformer: Transformer, outputs: Sequence[EncoderOutput]) -> None:
        super().__init__()
        self.transformer = transformer
        self.outputs = tuple(outputs)
        self.heads = nn.ModuleDict({o.name: o.head for o in outputs if o.head is not None})

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        padded_from_packed: Tensor,
        packed_from_padded: Tensor,
        lengths: Tensor,
        token_type_ids: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        layout = Packed(position_ids, padded_from_packed, packed_from_padded, lengths)
        hidden_TE = self.transformer.encode(input_ids, layout, token_type_ids)
        return read_outputs(layout.pad(hidden_TE), lengths, self.outputs)


def read_outputs(
    hidden_BSE: Tensor, lengths: Tensor, outputs: Sequence[EncoderOutput]
) -> tuple[Tensor, ...]:
    """What each output makes of the hidden states; also the reference of the parity check."""
    results: list[Tensor] = []
    for output in outputs:
        pooled = pool(hidden_BSE, lengths, output.pooling)
        if output.normalized:
            pooled = normalize(pooled)
        results.append(pooled if output.head is None else output.head(pooled))
    return tuple(results)


def encoder_spec(transformer: Transformer, outputs: Sequence[EncoderOutput]) -> GraphSpec:
    """The graph of an encoder: two texts of 3 and 2 tokens as the example."""
    tokens, texts, longest = Dim("tokens"), Dim("texts"), Dim("longest")
    inputs = {
        "input_ids": torch.tensor([1, 2, 3, 4, 5]),
        "position_ids": torch.tensor([0, 1, 2, 0, 1]),
        "padded_from_packed": torch.tensor([[0, 1, 2], [3, 4, 0]]),
        "packed_from_padded": torch.tensor([0, 1, 2, 3, 4]),
        "lengths": torch.tensor([3, 2]),
    }
    axes: dict[str, Mapping[int, Any]] = {
        "input_ids": {0: tokens},
        "position_ids": {0: tokens},
        "padded_from_packed": {0: texts, 1: longest},
        "packed_from_padded": {0: tokens},
        "lengths": {0: texts},
    }
    if transformer.config.embedding.token_types:
        inputs["token_type_ids"] = torch.tensor([0, 1, 0, 1, 1])
        axes["token_type_ids"] = {0: tokens}
    names = tuple(output.name for output in outputs)
    return GraphSpec(EncoderGraph(transformer, outputs), inputs, tuple(axes.values()), names)


class DecoderGraph(nn.Module):
    """New tokens [B, S] of rows with `lengths` [B] cached ones, to logits [N, V] where asked.

    `logit_index` [N] points into the flattened [B·S] positions. `cache` is a key and a value
    buffer [B, G, C, D] for each layer, written in place; they are returned after the logits.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, transformer: Transformer, head: nn.Module) -> None:
        super().__init__()
        self.transformer = transformer
        self.head = head
        cos, sin = rotary_tables(decoder_rotary(transformer.config), max_positions(transformer))
        dtype = transformer.embeddings.token.weight.dtype
        self.register_buffer("cos", cos.to(dtype))
        self.register_buffer("sin", sin.to(dtype))

    def forward(
        self, input_ids: Tensor, lengths: Tensor, logit_index: Tensor, *cache: Tensor
    ) -> tuple[Tensor, ...]:
        new = input_ids.shape[1]
        layout = Cached(
            positions=lengths[:, None] + torch.arange(new, device=lengths.device),
            lengths=lengths,
            last=(lengths + (new - 1)).to(torch.int32),
            total=(lengths.max() + new).to(torch.int32),
            keys=cache[0::2],
            values=cache[1::2],
            cos=self.cos,
            sin=self.sin,
        )
        hidden_BSE = self.transformer.decode(input_ids, layout)
        # Only the positions asked for pay for the head, the widest product of all.
        chosen_NE = hidden_BSE.flatten(0, 1).index_select(0, logit_index)
        return (self.head(chosen_NE), *layout.present)


def decoder_rotary(config: TransformerConfig) -> RotaryConfig:
    """The rotary positions of a decoder; `TypeError` where it has none."""
    if config.decoder is None or config.decoder.attention.rotary is None:
        raise TypeError("only decoders with rotary positions can be exported so far")
    return config.decoder.attention.rotary


def max_positions(transformer: Transformer) -> int:
    """How many positions the model was made for."""
    return transformer.config.embedding.max_positions


def decoder_spec(transformer: Transformer, head: nn.Module) -> GraphSpec:
    """The graph of a decoder: two rows with room for eight tokens as the example."""
    decoder = transformer.config.decoder
    if decoder is None:
        raise TypeError("a generating model needs a decoder")
    rows, new, asked, capacity = Dim("rows"), Dim("new"), Dim("asked"), Dim("capacity")
    dtype = transformer.embeddings.token.weight.dtype
    attention = decoder.attention
    buffer = torch.zeros(2, attention.kv_heads, 8, attention.head_dim, dtype=dtype)
    names = cache_names(decoder.layers)
    inputs = {
        "input_ids": torch.tensor([[1, 2, 3], [4, 5, 6]]),
        "lengths": torch.tensor([2, 4]),
        "logit_index": torch.tensor([2, 5]),
        **{name: buffer.clone() for name in names},
    }
    caches = tuple({0: rows, 2: capacity} for _ in names)
    axes = ({0: rows, 1: new}, {0: rows}, {0: asked}, caches)
    outputs = ("logits", *(f"present_{name}" for name in names))
    return GraphSpec(DecoderGraph(transformer, head), inputs, axes, outputs)


def cache_names(layers: int) -> tuple[str, ...]:
    """The names of the cache's inputs, in the graph's order; outputs put `present_` before."""
    return tuple(f"{part}_{layer}" for layer in range(layers) for part in ("key", "value"))
