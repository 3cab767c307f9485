"""What is exported for each task: the inputs and outputs of its graph, by name.

The names here are the contract with the engines of `service/engines/`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from export.attention import Cached, Packed, Tables
from model_core.attention import Projected, cut_heads
from model_core.config import AttentionConfig, StackConfig
from model_core.transformer import Transformer

Dim = torch.export.Dim


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


# --- texts that are read: embeddings, classes, the source of a translation -----------------------


class Reader(nn.Module):
    """Packed texts [T] to the hidden states of every token: an encoder, or a decoder that reads.

    The arguments of `forward` are the inputs that all graphs of packed texts have.
    """

    def __init__(self, transformer: Transformer) -> None:
        super().__init__()
        self.transformer = transformer
        self.stack = reading_stack(transformer)
        self.tables = Tables(self.stack).to(transformer.token_embedding.weight.dtype)

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        padded_from_packed: Tensor,
        packed_from_padded: Tensor,
        lengths: Tensor,
        token_type_ids: Tensor | None = None,
    ) -> tuple[Tensor, Packed]:
        layout = Packed(position_ids, padded_from_packed, packed_from_padded, lengths, self.tables)
        if self.transformer.encoder is not None:
            return self.transformer.encode(input_ids, layout, token_type_ids), layout
        return self.transformer.decode(input_ids, layout), layout


def reading_stack(transformer: Transformer) -> StackConfig:
    """The stack that reads a text: the encoder if there is one."""
    return transformer.config.stacks[0]


def packed_inputs(stack: StackConfig) -> tuple[dict[str, Tensor], dict[str, Mapping[int, Any]]]:
    """Two texts of 3 and 2 tokens as the example, and what is dynamic."""
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
    if stack.embedding.token_types:
        inputs["token_type_ids"] = torch.tensor([0, 1, 0, 1, 1])[: len(inputs["input_ids"])]
        inputs["token_type_ids"].clamp_(max=stack.embedding.token_types - 1)
        axes["token_type_ids"] = {0: tokens}
    return inputs, axes


class TextOutput(nn.Module):
    """What a graph of packed texts makes of the hidden states: of a text, or of every token.

    `text` reads rows [B, S, E] and lengths [B]; `head` what that gave, or every token [T, E].
    """

    def __init__(self, name: str, text: nn.Module | None, head: nn.Module | None) -> None:
        super().__init__()
        self.name = name
        self.text = text
        self.head = head

    @property
    def per_token(self) -> bool:
        """Whether every token has a result of its own."""
        return self.text is None

    def forward(self, hidden_TE: Tensor, hidden_BSE: Tensor, lengths: Tensor) -> Tensor:
        found = hidden_TE if self.text is None else self.text(hidden_BSE, lengths)
        return found if self.head is None else self.head(found)


class EncoderGraph(nn.Module):
    """Packed texts [T] to a result [B, …] or [T, …] for each of `outputs`; one trunk."""

    def __init__(self, transformer: Transformer, outputs: Sequence[TextOutput]) -> None:
        super().__init__()
        self.reader = Reader(transformer)
        self.outputs = nn.ModuleDict({output.name: output for output in outputs})

    def forward(self, *args: Tensor, **inputs: Tensor) -> tuple[Tensor, ...]:
        hidden_TE, layout = self.reader(*args, **inputs)
        hidden_BSE = layout.pad(hidden_TE)
        return tuple(
            output(hidden_TE, hidden_BSE, layout.lengths) for output in self.outputs.values()
        )


def encoder_spec(transformer: Transformer, outputs: Sequence[TextOutput]) -> GraphSpec:
    """The graph of texts that are read."""
    inputs, axes = packed_inputs(reading_stack(transformer))
    names = tuple(output.name for output in outputs)
    # The arguments arrive as *args, so that their axes are those of one tuple.
    return GraphSpec(EncoderGraph(transformer, outputs), inputs, (tuple(axes.values()),), names)


class SourceGraph(nn.Module):
    """Packed sources [T] to the keys and values [B, G, S, D] that each decoder layer reads."""

    def __init__(self, transformer: Transformer, cross: AttentionConfig) -> None:
        super().__init__()
        self.reader = Reader(transformer)
        self.head_dim = cross.head_dim

    def forward(self, *args: Tensor, **inputs: Tensor) -> tuple[Tensor, ...]:
        hidden_TE, layout = self.reader(*args, **inputs)
        memory = self.reader.transformer.project_memory(hidden_TE)
        pairs = zip(memory.keys, memory.values, strict=True)
        return tuple(
            cut_heads(layout.pad(x_TE), self.head_dim).transpose(1, 2)
            for pair in pairs
            for x_TE in pair
        )


def source_spec(transformer: Transformer) -> GraphSpec:
    """The graph of an encoder-decoder's encoder."""
    decoder = writing_stack(transformer)
    inputs, axes = packed_inputs(reading_stack(transformer))
    module = SourceGraph(transformer, cross_attention(decoder))
    return GraphSpec(module, inputs, (tuple(axes.values()),), cross_names(decoder.layers))


# --- texts that are written ----------------------------------------------------------------------


class DecoderGraph(nn.Module):
    """New tokens [B, S] of rows with `lengths` [B] cached ones, to logits [N, V] where asked.

    `logit_index` [N] points into the flattened [B·S] positions. `cache` is a key and a value
    buffer [B, G, C, D] for each layer, written in place; they are returned after the logits. With
    an encoder `source_lengths` [B] comes before them, and after them as many buffers that hold
    what `SourceGraph` gave.
    """

    def __init__(self, transformer: Transformer, head: nn.Module) -> None:
        super().__init__()
        self.transformer = transformer
        self.head = head
        self.stack = writing_stack(transformer)
        self.tables = Tables(self.stack).to(transformer.token_embedding.weight.dtype)

    def forward(
        self, input_ids: Tensor, lengths: Tensor, logit_index: Tensor, *more: Tensor
    ) -> tuple[Tensor, ...]:
        source_lengths, memory, buffers = None, None, more
        if self.stack.cross_attention is not None:
            source_lengths, buffers = more[0], more[1:]
            cross = buffers[2 * self.stack.layers :]
            memory = Projected(cross[0::2], cross[1::2])
            buffers = buffers[: 2 * self.stack.layers]
        new = input_ids.shape[1]
        layout = Cached(
            positions=lengths[:, None] + torch.arange(new, device=lengths.device),
            lengths=lengths,
            last=(lengths + (new - 1)).to(torch.int32),
            total=(lengths.max() + new).to(torch.int32),
            keys=buffers[0::2],
            values=buffers[1::2],
            tables=self.tables,
            source_lengths=source_lengths,
        )
        hidden_BSE = self.transformer.decode(input_ids, layout, memory)
        # Only the positions asked for pay for the head, the widest product of all.
        chosen_NE = hidden_BSE.flatten(0, 1).index_select(0, logit_index)
        return (self.head(chosen_NE), *layout.present)


def writing_stack(transformer: Transformer) -> StackConfig:
    """The stack that writes."""
    if transformer.config.decoder is None:
        raise TypeError("a generating model needs a decoder")
    return transformer.config.decoder


def cross_attention(decoder: StackConfig) -> AttentionConfig:
    """The cross-attention of a decoder that has one."""
    if decoder.cross_attention is None:
        raise TypeError("this decoder looks at no encoder")
    return decoder.cross_attention


def decoder_spec(transformer: Transformer, head: nn.Module) -> GraphSpec:
    """The graph of a decoder: two rows with room for eight tokens as the example."""
    decoder = writing_stack(transformer)
    rows, new, asked = Dim("rows"), Dim("new"), Dim("asked")
    dtype = transformer.token_embedding.weight.dtype
    inputs = {
        "input_ids": torch.tensor([[1, 2, 3], [4, 5, 6]]),
        "lengths": torch.tensor([2, 4]),
        "logit_index": torch.tensor([2, 5]),
    }
    buffers, capacity = cache_names(decoder.layers), Dim("capacity")
    more: list[dict[int, Any]] = []
    if decoder.cross_attention is not None:
        inputs["source_lengths"] = torch.tensor([5, 8])
        more.append({0: rows})
    inputs |= example_buffers(buffers, decoder.attention[0], dtype)
    more += [{0: rows, 2: capacity} for _ in buffers]
    if decoder.cross_attention is not None:
        names, room = cross_names(decoder.layers), Dim("source_capacity")
        inputs |= example_buffers(names, decoder.cross_attention, dtype)
        more += [{0: rows, 2: room} for _ in names]
    axes = ({0: rows, 1: new}, {0: rows}, {0: asked}, tuple(more))
    outputs = ("logits", *(f"present_{name}" for name in buffers))
    return GraphSpec(DecoderGraph(transformer, head), inputs, axes, outputs)


def example_buffers(
    names: Sequence[str], attention: AttentionConfig, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Two empty rows for eight tokens."""
    shape = (2, attention.kv_heads, 8, attention.head_dim)
    return {name: torch.zeros(shape, dtype=dtype) for name in names}


def cache_names(layers: int) -> tuple[str, ...]:
    """The names of the cache's inputs, in the graph's order; outputs put `present_` before."""
    return tuple(f"{part}_{layer}" for layer in range(layers) for part in ("key", "value"))


def cross_names(layers: int) -> tuple[str, ...]:
    """The names of what the decoder reads of the encoder, in the order of both graphs."""
    return tuple(f"cross_{name}" for name in cache_names(layers))
