"""The ways of attending that become ONNX operators: readable PyTorch bodies, ONNX translations.

*Ragged* is for encoders: a packed batch in which padding exists around attention only. *Cached*
is for decoders: keys and values of earlier tokens stay in buffers that are written in place, and
those of the encoder's output are given.
Shapes as in `model_core/attention.py`; C is the cache's capacity in tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

import torch
from onnxscript.onnx_opset import opset24
from torch import Tensor, nn

from model_core.attention import (
    AttentionSite,
    attention_scores,
    attention_weights,
    cut_heads,
    distances,
    repeat_heads,
    within_reach,
)
from model_core.config import AttentionConfig, RotaryConfig, StackConfig
from model_core.position import rotary_tables, rotate
from model_core.relative import ScoreBias

Result: TypeAlias = tuple[Tensor, Tensor, Tensor]
"""A context, and the cache's keys and values after it."""


class Tables(nn.Module):
    """Cosine and sine [positions, dims / 2] of each rotary scheme of a stack, as constants."""

    def __init__(self, stack: StackConfig) -> None:
        super().__init__()
        configs = [config.rotary for config in stack.attention if config.rotary is not None]
        self.schemes = tuple(dict.fromkeys(configs))
        for number, rotary in enumerate(self.schemes):
            cos, sin = rotary_tables(rotary, stack.embedding.max_positions)
            self.register_buffer(f"cos_{number}", cos)
            self.register_buffer(f"sin_{number}", sin)

    def of(self, rotary: RotaryConfig) -> tuple[Tensor, Tensor]:
        """The tables of one scheme."""
        number = self.schemes.index(rotary)
        return self.get_buffer(f"cos_{number}"), self.get_buffer(f"sin_{number}")

    def turn(self, x: Tensor, config: AttentionConfig, positions: Tensor) -> Tensor:
        """Each head of `x` [..., H·D] turned to its token's position [...]; or as it is."""
        if config.rotary is None:
            return x
        cos, sin = (
            torch.nn.functional.embedding(positions, table) for table in self.of(config.rotary)
        )
        return rotate(cut_heads(x, config.head_dim), cos, sin).flatten(-2)


def score_mask(
    q: Tensor, k: Tensor, config: AttentionConfig, distance_BQK: Tensor, bias: ScoreBias | None
) -> Tensor | None:
    """What is added to the scores of q [B, H, Q, D] and k [B, G, K, D], besides the lengths.

    A float addend where positions are relative, with -inf beyond reach; else a boolean, true
    within reach; None where every key may be looked at.
    """
    reach = within_reach(config, distance_BQK)
    if bias is None:
        return None if reach is None else reach[:, None]
    addend = bias(q, repeat_heads(k, config), distance_BQK)
    return addend if reach is None else addend.masked_fill(~reach[:, None], -torch.inf)


def attend_rows(
    q_BHQD: Tensor,
    k_BGKD: Tensor,
    v_BGKD: Tensor,
    config: AttentionConfig,
    allowed: Tensor,
    mask: Tensor | None,
) -> Tensor:
    """The context [B, Q, H·D], step by step; `mask` as `score_mask` gives it."""
    k_BHKD, v_BHKD = (repeat_heads(x, config) for x in (k_BGKD, v_BGKD))
    addend = None
    if mask is not None and mask.dtype == torch.bool:
        allowed = allowed & mask
    elif mask is not None:
        addend = mask
        allowed = allowed & (mask > -torch.inf)
    scores_BHQK = attention_scores(q_BHQD, k_BHKD, config, addend)
    context_BHQD = attention_weights(scores_BHQK, allowed) @ v_BHKD
    return context_BHQD.transpose(1, 2).flatten(-2)


def rows_of_heads(x: Tensor, head_dim: int) -> Tensor:
    """[B, S, H·D] as [B, H, S, D]."""
    return cut_heads(x, head_dim).transpose(1, 2)


# --- ragged: encoders, and decoders that read a text without writing one -------------------------


@dataclass(frozen=True, slots=True)
class Packed:
    """A batch of texts, one after another without padding, and the way to rows and back.

    `positions` [T]; `padded_from_packed` [B, S], for each place of the padded batch the packed
    token that stands there (any for padding); `packed_from_padded` [T], for each packed token its
    place in the flattened padded batch; `lengths` [B], tokens of each text, at least 1.
    """

    positions: Tensor
    padded_from_packed: Tensor
    packed_from_padded: Tensor
    lengths: Tensor
    tables: Tables

    def pad(self, x_TE: Tensor) -> Tensor:
        """Rows [B, S, E] of packed tokens [T, E]."""
        # As an embedding, since indexing by a tensor would become GatherND.
        return torch.nn.functional.embedding(self.padded_from_packed, x_TE)

    def pack(self, x_BSE: Tensor) -> Tensor:
        """Packed tokens [T, E] of rows [B, S, E]."""
        return torch.nn.functional.embedding(self.packed_from_padded, x_BSE.flatten(0, 1))


@torch.library.custom_op("anatomy::attend_ragged", mutates_args=())
def attend_ragged(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: Tensor,
    mask: Tensor | None,
    heads: int,
    kv_heads: int,
    scale: float,
    cap: float,
) -> Tensor:
    """Attention of rows [B, S, H·D] of which the first `lengths` [B] are real.

    `mask` as `score_mask` gives it; `cap` 0 for none.
    """
    head_dim = q.shape[-1] // heads
    config = AttentionConfig(
        heads, kv_heads, head_dim, False, False, scale=scale, score_cap=cap or None
    )
    real_BK = torch.arange(k.shape[1], device=k.device) < lengths[:, None]
    q_BHQD, k_BGKD, v_BGKD = (rows_of_heads(x, head_dim) for x in (q, k, v))
    return attend_rows(q_BHQD, k_BGKD, v_BGKD, config, real_BK[:, None, None, :], mask)


def like_queries(q: Tensor, *_: Any) -> Tensor:
    """The shape of the result, for tracing."""
    return torch.empty_like(q)


cast("Any", attend_ragged).register_fake(like_queries)


def translate_ragged(
    q: Any,
    k: Any,
    v: Any,
    lengths: Any,
    mask: Any,
    heads: int,
    kv_heads: int,
    scale: float,
    cap: float,
) -> Any:
    """ONNX's own `Attention` (opset 24), whose `nonpad_kv_seqlen` takes the lengths."""
    attention: Any = opset24.Attention
    outputs = attention(
        q, k, v, mask, None, None, lengths,
        q_num_heads=heads, kv_num_heads=kv_heads, scale=scale, softcap=cap,
    )  # fmt: skip
    return outputs[0]


class Ragged:
    """Attend within each text of a packed batch; only here is the batch padded."""

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        site: AttentionSite,
        layout: Packed,
        bias: ScoreBias | None = None,
    ) -> Tensor:
        config = site.config
        q, k = (layout.tables.turn(x, config, layout.positions) for x in (q, k))
        q, k, v = (layout.pad(x) for x in (q, k, v))
        distance = distances(q.shape[1], k.shape[1], q.device)
        q_BHSD, k_BGSD = (rows_of_heads(x, config.head_dim) for x in (q, k))
        rows = cast("Any", attend_ragged)(
            q,
            k,
            v,
            layout.lengths,
            score_mask(q_BHSD, k_BGSD, config, distance, bias),
            config.heads,
            config.kv_heads,
            config.score_scale,
            config.score_cap or 0.0,
        )
        return layout.pack(rows)


# --- cached: decoders that write -----------------------------------------------------------------


@dataclass(slots=True)
class Cached:
    """New tokens of rows whose earlier ones are in a cache.

    `lengths` [B], tokens already cached; `last` [B] int32, the index of each row's last token
    after this step; `total` int32 scalar, the longest row after it; `keys` and `values`, a tensor
    [B, G, C, D] a layer; `source_lengths` [B], where there is an encoder's output to look at.
    `present` collects each layer's keys and values after the step.
    """

    positions: Tensor
    lengths: Tensor
    last: Tensor
    total: Tensor
    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    tables: Tables
    source_lengths: Tensor | None = None
    present: list[Tensor] = field(default_factory=list[Tensor])


class CachedAttention:
    """Write the new keys and values behind the cached ones, then attend to all within reach.

    Cross-attention is given its keys and values [B, G, C, D] and writes nothing.
    """

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        site: AttentionSite,
        layout: Cached,
        bias: ScoreBias | None = None,
    ) -> Tensor:
        if layout.source_lengths is not None and site.cross:
            config = site.config
            q_BHQD = rows_of_heads(q, config.head_dim)
            context = cast("Any", attend_source)(
                q_BHQD, k, v, layout.source_lengths, config.score_scale
            )
            return context.transpose(1, 2).flatten(-2)
        attend = grouped_query_attention if torch.onnx.is_in_onnx_export() else attend_cached
        context, keys, values = attend(q, k, v, site, layout, bias)
        layout.present += [keys, values]
        return context


def attend_cached(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    site: AttentionSite,
    layout: Cached,
    bias: ScoreBias | None,
) -> Result:
    """What `GroupQueryAttention` computes, step by step; returns the context and new caches."""
    config = site.config
    q, k = (layout.tables.turn(x, config, layout.positions) for x in (q, k))
    k_BQGD, v_BQGD = (cut_heads(x, config.head_dim) for x in (k, v))
    keys_BGCD, values_BGCD = layout.keys[site.layer].clone(), layout.values[site.layer].clone()
    row = torch.arange(len(q), device=q.device)[:, None]
    keys_BGCD.transpose(1, 2)[row, layout.positions] = k_BQGD
    values_BGCD.transpose(1, 2)[row, layout.positions] = v_BQGD
    slot = torch.arange(keys_BGCD.shape[2], device=q.device)
    distance_BQC = slot - layout.positions[..., None]
    q_BHQD = rows_of_heads(q, config.head_dim)
    mask = score_mask(q_BHQD, keys_BGCD, config, distance_BQC, bias)
    everything = torch.ones((), dtype=torch.bool, device=q.device)
    context = attend_rows(q_BHQD, keys_BGCD, values_BGCD, config, everything, mask)
    return context, keys_BGCD, values_BGCD


def grouped_query_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    site: AttentionSite,
    layout: Cached,
    bias: ScoreBias | None,
) -> Result:
    """The contributed operator that rotates, writes the cache in place and attends."""
    config = site.config
    keys, values = layout.keys[site.layer], layout.values[site.layer]
    inputs: list[Tensor | None] = [q, k, v, keys, values, layout.last, layout.total, None, None]
    if config.rotary is not None and operator_turns(config):
        inputs[7:] = layout.tables.of(config.rotary)
    elif config.rotary is not None:
        inputs[:2] = (layout.tables.turn(x, config, layout.positions) for x in (q, k))
    if bias is not None:
        inputs += [None, relative_addend(q, k, config, layout, bias)]
    context, present_keys, present_values = torch.onnx.ops.symbolic_multi_out(
        "com.microsoft::GroupQueryAttention",
        inputs,
        {
            "num_heads": config.heads,
            "kv_num_heads": config.kv_heads,
            "do_rotary": int(inputs[7] is not None),
            "scale": config.score_scale,
            "softcap": config.score_cap or 0.0,
            "local_window_size": config.window or -1,
        },
        dtypes=(q.dtype, keys.dtype, values.dtype),
        shapes=(q.shape, keys.shape, values.shape),
        version=1,
    )
    return context, present_keys, present_values


def operator_turns(config: AttentionConfig) -> bool:
    """Whether the operator can rotate heads of this shape itself (ONNX Runtime's limits)."""
    return config.rotary is not None and config.head_dim % 16 == 0 and config.rotary.dims % 16 == 0


def relative_addend(
    q: Tensor, k: Tensor, config: AttentionConfig, layout: Cached, bias: ScoreBias
) -> Tensor:
    """What relative positions add to the scores of all keys so far [B, H, Q, total]."""
    slot = torch.arange(layout.keys[0].shape[2], device=q.device)
    distance_BQC = slot - layout.positions[..., None]
    # The operator takes as many columns as there are keys, which only the runtime knows.
    distance_BQK = cast("Any", up_to)(distance_BQC, layout.total)
    q_BHQD, k_BGQD = (rows_of_heads(x, config.head_dim) for x in (q, k))
    return bias(q_BHQD, k_BGQD, distance_BQK)


@torch.library.custom_op("anatomy::attend_source", mutates_args=())
def attend_source(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, scale: float) -> Tensor:
    """Cross-attention [B, H, Q, D] to sources [B, G, C, D] of which `lengths` [B] are real."""
    heads, kv_heads, head_dim = q.shape[1], k.shape[1], q.shape[-1]
    config = AttentionConfig(heads, kv_heads, head_dim, False, False, scale=scale)
    real_BK = torch.arange(k.shape[2], device=k.device) < lengths[:, None]
    context = attend_rows(q, k, v, config, real_BK[:, None, None, :], None)
    return rows_of_heads(context, head_dim)


cast("Any", attend_source).register_fake(like_queries)


def translate_source(q: Any, k: Any, v: Any, lengths: Any, scale: float) -> Any:
    """`Attention` once more; the session keeps its buffers as narrow as the sources allow."""
    attention: Any = opset24.Attention
    return attention(q, k, v, None, None, None, lengths, scale=scale)[0]


@torch.library.custom_op("anatomy::up_to", mutates_args=())
def up_to(x_BQC: Tensor, count: Tensor) -> Tensor:
    """The first `count` (a scalar) columns."""
    return x_BQC[..., : int(count)].clone()


def some_columns(x: Tensor, count: Tensor) -> Tensor:
    """For tracing: a size that only the runtime knows."""
    del count
    columns = cast("Any", torch.library).get_ctx().new_dynamic_size()
    return x.new_empty((*x.shape[:-1], columns))


cast("Any", up_to).register_fake(some_columns)


def translate_up_to(x: Any, count: Any) -> Any:
    """`Slice`."""
    op: Any = opset24
    start, axis = op.Constant(value_ints=[0]), op.Constant(value_ints=[2])
    end = op.Reshape(op.Cast(count, to=7), op.Constant(value_ints=[1]))
    return op.Slice(x, start, end, axis)


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.anatomy.attend_ragged.default: translate_ragged,
    torch.ops.anatomy.attend_source.default: translate_source,
    torch.ops.anatomy.up_to.default: translate_up_to,
}
"""What `torch.onnx.export` is told of the operators above."""
