"""The ways of attending that become ONNX operators: readable PyTorch bodies, ONNX translations.

*Ragged* is for encoders: a packed batch in which padding exists around attention only. *Cached*
is for decoders: keys and values of earlier tokens stay in buffers that are written in place.
Shapes as in `model_core/attention.py`; C is the cache's capacity in tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import sqrt
from typing import Any, TypeAlias, cast

import torch
from onnxscript.onnx_opset import opset24
from torch import Tensor

from model_core.attention import AttentionSite, attention_weights, cut_heads
from model_core.position import rotate


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

    def pad(self, x_TE: Tensor) -> Tensor:
        """Rows [B, S, E] of packed tokens [T, E]."""
        # As an embedding, since indexing by a tensor would become GatherND.
        return torch.nn.functional.embedding(self.padded_from_packed, x_TE)

    def pack(self, x_BSE: Tensor) -> Tensor:
        """Packed tokens [T, E] of rows [B, S, E]."""
        return torch.nn.functional.embedding(self.packed_from_padded, x_BSE.flatten(0, 1))


def grouped_context(
    q_BQHD: Tensor, k_BGKD: Tensor, v_BGKD: Tensor, allowed: Tensor, head_dim: int
) -> Tensor:
    """softmax(QKᵀ/√D) V with grouped queries [B, Q, H·D]; `allowed` broadcasts to [B, H, Q, K]."""
    group = q_BQHD.shape[2] // k_BGKD.shape[1]
    k_BHKD, v_BHKD = (x.repeat_interleave(group, dim=1) for x in (k_BGKD, v_BGKD))
    scores_BHQK = q_BQHD.transpose(1, 2) @ k_BHKD.transpose(-2, -1) / sqrt(head_dim)
    context_BHQD = attention_weights(scores_BHQK, allowed) @ v_BHKD
    return context_BHQD.transpose(1, 2).flatten(-2)


@torch.library.custom_op("anatomy::attend_ragged", mutates_args=())
def attend_ragged(
    q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, heads: int, kv_heads: int
) -> Tensor:
    """Bidirectional attention of rows [B, S, H·D] of which the first `lengths` [B] are real."""
    head_dim = q.shape[-1] // heads
    q_BQHD = q.view(*q.shape[:2], heads, head_dim)
    k_BKGD, v_BKGD = (x.view(*x.shape[:2], kv_heads, head_dim) for x in (k, v))
    real_BK = torch.arange(k.shape[1], device=k.device) < lengths[:, None]
    allowed = real_BK[:, None, None, :]
    return grouped_context(
        q_BQHD, k_BKGD.transpose(1, 2), v_BKGD.transpose(1, 2), allowed, head_dim
    )


def fake_ragged(q: Tensor, *_: Any) -> Tensor:
    """The shape of the result, for tracing."""
    return torch.empty_like(q)


cast("Any", attend_ragged).register_fake(fake_ragged)


def translate_ragged(q: Any, k: Any, v: Any, lengths: Any, heads: int, kv_heads: int) -> Any:
    """ONNX's own `Attention` (opset 24), whose `nonpad_kv_seqlen` takes the lengths."""
    attention: Any = opset24.Attention
    outputs = attention(
        q, k, v, None, None, None, lengths, q_num_heads=heads, kv_num_heads=kv_heads
    )
    return outputs[0]


class Ragged:
    """Attend within each text of a packed batch; only here is the batch padded."""

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, site: AttentionSite, layout: Packed
    ) -> Tensor:
        rows = attend_ragged(
            layout.pad(q),
            layout.pad(k),
            layout.pad(v),
            layout.lengths,
            site.config.heads,
            site.config.kv_heads,
        )
        return layout.pack(rows)


@dataclass(slots=True)
class Cached:
    """New tokens of rows whose earlier ones are in a cache.

    `lengths` [B], tokens already cached; `last` [B] int32, the index of each row's last token
    after this step; `total` int32 scalar, the longest row after it; `keys` and `values`, a tensor
    [B, G, C, D] a layer; `cos` and `sin` [positions, dims / 2]. `present` collects each layer's
    keys and values after the step.
    """

    positions: Tensor
    lengths: Tensor
    last: Tensor
    total: Tensor
    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    cos: Tensor
    sin: Tensor
    present: list[Tensor] = field(default_factory=list[Tensor])


class CachedAttention:
    """Write the new keys and values behind the cached ones, then attend causally to all."""

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, site: AttentionSite, layout: Cached
    ) -> Tensor:
        attend = grouped_query_attention if torch.onnx.is_in_onnx_export() else attend_cached
        context, keys, values = attend(q, k, v, site, layout)
        layout.present += [keys, values]
        return context


CachedResult: TypeAlias = tuple[Tensor, Tensor, Tensor]


def attend_cached(
    q: Tensor, k: Tensor, v: Tensor, site: AttentionSite, layout: Cached
) -> CachedResult:
    """What `GroupQueryAttention` computes, step by step; returns the context and new caches."""
    head_dim = site.config.head_dim
    q_BQHD, k_BQGD, v_BQGD = (cut_heads(x, head_dim) for x in (q, k, v))
    cos, sin = layout.cos[layout.positions], layout.sin[layout.positions]
    q_BQHD, k_BQGD = rotate(q_BQHD, cos, sin), rotate(k_BQGD, cos, sin)
    keys_BGCD, values_BGCD = layout.keys[site.layer].clone(), layout.values[site.layer].clone()
    row = torch.arange(len(q), device=q.device)[:, None]
    keys_BGCD.transpose(1, 2)[row, layout.positions] = k_BQGD
    values_BGCD.transpose(1, 2)[row, layout.positions] = v_BQGD
    slot = torch.arange(keys_BGCD.shape[2], device=q.device)
    allowed = (slot <= layout.positions[..., None])[:, None]
    return (
        grouped_context(q_BQHD, keys_BGCD, values_BGCD, allowed, head_dim),
        keys_BGCD,
        values_BGCD,
    )


def grouped_query_attention(
    q: Tensor, k: Tensor, v: Tensor, site: AttentionSite, layout: Cached
) -> CachedResult:
    """The contributed operator that rotates, writes the cache in place and attends."""
    keys, values = layout.keys[site.layer], layout.values[site.layer]
    context, present_keys, present_values = torch.onnx.ops.symbolic_multi_out(
        "com.microsoft::GroupQueryAttention",
        (q, k, v, keys, values, layout.last, layout.total, layout.cos, layout.sin),
        {
            "num_heads": site.config.heads,
            "kv_num_heads": site.config.kv_heads,
            "do_rotary": int(site.config.rotary is not None),
        },
        dtypes=(q.dtype, keys.dtype, values.dtype),
        shapes=(q.shape, keys.shape, values.shape),
        version=1,
    )
    return context, present_keys, present_values


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.anatomy.attend_ragged.default: translate_ragged
}
"""What `torch.onnx.export` is told of the operators above."""
