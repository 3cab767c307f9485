"""The inspection graphs: everything that `model_core/inspection.py` sees, as outputs by name."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from export.artifact import Site
from export.attention import Tables
from export.graphs import GraphSpec, TextOutput
from model_core.attention import AttentionSite, MultiHeadAttention, Padded
from model_core.blocks import Stack
from model_core.inspection import Attended, Inspector, Trace
from model_core.transformer import Transformer

Dim = torch.export.Dim


class InspectionGraph(nn.Module):
    """Rows [B, S] of which `lengths` [B] tokens are real to all that is seen, by `names`.

    `more` are the rows' token types, where the family has them, then the target's tokens [B, T],
    where there are two stacks.
    """

    def __init__(
        self, transformer: Transformer, outputs: Sequence[TextOutput], lens: str | None
    ) -> None:
        super().__init__()
        self.transformer = transformer
        self.outputs = nn.ModuleDict({output.name: output for output in outputs})
        self.tables = nn.ModuleList(Tables(stack) for stack in transformer.config.stacks)
        self.inspector = Inspector(transformer)
        self.lens = lens
        first = transformer.config.stacks[0]
        self.types = bool(first.embedding.token_types)

    def seen(
        self, input_ids: Tensor, lengths: Tensor, *more: Tensor
    ) -> Iterator[tuple[str, Tensor]]:
        """Each output under its name, in the order of the graph."""
        token_types = more[0] if self.types else None
        targets = more[int(self.types) :]
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        layout = self.layout(0, input_ids, mask=places < lengths[:, None])
        (name, stack), *others = named_stacks(self.transformer)
        found = self.inspector.trace(stack, input_ids, layout, token_types)
        yield from self.seen_of(name, found)
        for (name, stack), target_ids in zip(others, targets, strict=True):
            target = self.layout(1, target_ids, memory=layout)
            found = self.inspector.trace(stack, target_ids, target, memory=found.output)
            yield from self.seen_of(name, found)
        for output in self.outputs.values():
            hidden = found.output
            yield str(output.name), output(hidden.flatten(0, 1), hidden, lengths)

    def seen_of(self, name: str, found: Trace) -> Iterator[tuple[str, Tensor]]:
        """The outputs of one stack."""
        for attended in found.attended:
            for part, tensor in parts_of(attended).items():
                yield f"{attended.site.name}.{part}", tensor
        yield f"{name}.residual_norms", torch.stack(found.residual_norms)
        if name == self.lens:
            yield f"{name}.states", torch.stack(found.states)

    def layout(
        self, place: int, rows: Tensor, mask: Tensor | None = None, memory: Padded | None = None
    ) -> Padded:
        """Rows of one stack that begin at position 0."""
        tables = cast(Tables, self.tables[place])
        positions = torch.arange(rows.shape[1], device=rows.device).expand_as(rows)
        return Padded(positions, mask, memory, tables.of)

    def forward(self, *args: Tensor) -> tuple[Tensor, ...]:
        return tuple(tensor for _, tensor in self.seen(*args))


class LensGraph(nn.Module):
    """States [N, E], whatever block they stand after, to logits [N, V]."""

    def __init__(self, stack: Stack, head: nn.Module) -> None:
        super().__init__()
        self.final_norm = stack.final_norm
        self.head = head

    def forward(self, states: Tensor) -> Tensor:
        return self.head(self.final_norm(states))


def named_stacks(transformer: Transformer) -> list[tuple[str, Stack]]:
    """The stacks there are with their names, encoder first."""
    stacks = {"encoder": transformer.encoder, "decoder": transformer.decoder}
    return [(name, stack) for name, stack in stacks.items() if stack is not None]


def parts_of(attended: Attended) -> Mapping[str, Tensor]:
    """What is given of one attention."""
    parts = {
        "q": attended.q,
        "k": attended.k,
        "v": attended.v,
        "scores": attended.scores,
        "pattern": attended.pattern,
        "value_norms": attended.value_norms,
    }
    return parts if attended.bias is None else parts | {"bias": attended.bias}


def sites_of(transformer: Transformer) -> tuple[Site, ...]:
    """Every attention of the model, in the order in which they run."""
    return tuple(
        site_of(name, module.site, has_bias=stack.relative is not None and not module.site.cross)
        for name, stack in named_stacks(transformer)
        for module in stack.modules()
        if isinstance(module, MultiHeadAttention)
    )


def site_of(stack: str, site: AttentionSite, *, has_bias: bool) -> Site:
    """What the manifest says of one."""
    config = site.config
    return Site(
        name=site.name,
        stack=stack,
        layer=site.layer,
        cross=site.cross,
        heads=config.heads,
        kv_heads=config.kv_heads,
        head_dim=config.head_dim,
        scale=config.score_scale,
        cap=config.score_cap,
        causal=config.causal,
        window=config.window,
        bias=has_bias,
    )


def inspection_spec(graph: InspectionGraph) -> GraphSpec:
    """Two rows of three tokens as the example."""
    rows, longest = Dim("rows"), Dim("longest")
    inputs = {
        "input_ids": torch.tensor([[1, 2, 3], [3, 2, 1]]),
        "lengths": torch.tensor([3, 2]),
    }
    axes: list[dict[int, Any]] = [{0: rows, 1: longest}, {0: rows}]
    if graph.types:
        inputs["token_type_ids"] = torch.zeros(2, 3, dtype=torch.int64)
        axes.append({0: rows, 1: longest})
    if len(graph.transformer.config.stacks) > 1:
        inputs["target_ids"] = torch.tensor([[1, 2, 3, 4], [4, 3, 2, 1]])
        axes.append({0: rows, 1: Dim("target")})
    with torch.inference_mode():
        names = tuple(name for name, _ in graph.seen(*inputs.values()))
    # The arguments arrive as *args, so that their axes are those of one tuple.
    return GraphSpec(graph, inputs, (tuple(axes),), names)


def lens_spec(stack: Stack, head: nn.Module, dim: int) -> GraphSpec:
    """Two states of the model's width as the example."""
    states = torch.zeros(2, dim)
    axes: tuple[Any, ...] = ({0: Dim("asked")},)
    return GraphSpec(LensGraph(stack, head), {"states": states}, axes, ("logits",))
