"""Attention, step by step as the chapter does it, and the seam where other ways plug in.

Shape legend, used as suffixes: B batch, Q query positions, K key positions, H query heads,
G key-value heads, D head dimension, E model width, T tokens of a packed batch.

How queries, keys and values become a context is an argument (`Attend`). Here are the *explicit*
way (the reference), the *fused* one (PyTorch's kernel, for training) and the *tapped* one (the
explicit, handing out what it sees); `export/attention.py` has those that become ONNX operators.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_core.config import AttentionConfig
from model_core.position import rotary_tables, rotate


@dataclass(frozen=True, slots=True)
class AttentionSite:
    """What is fixed about one attention of a model: where it stands and how its heads are cut."""

    name: str
    layer: int
    config: AttentionConfig
    cross: bool = False


@dataclass(frozen=True, slots=True)
class Padded:
    """A padded batch: which positions its tokens have and which of them are real.

    `positions` [B, S]; `mask` [B, S], true for real tokens, or None when all are. `memory` is
    the layout of the encoder's output that cross-attention looks at.
    """

    positions: Tensor
    mask: Tensor | None = None
    memory: "Padded | None" = None

    @classmethod
    def of(cls, token_ids: Tensor, mask: Tensor | None = None, memory: "Padded | None" = None):
        """Right-padded rows that start at position 0."""
        positions = torch.arange(token_ids.shape[-1], device=token_ids.device)
        return cls(positions.expand_as(token_ids), mask, memory)


class Attend(Protocol):
    """q [..., H·D], k and v [..., G·D] → context [..., H·D].

    `layout` tells of the batch what this way of attending needs (`Padded` here); the modules
    around it pass it through unread, but for its `positions`.
    """

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, site: AttentionSite, layout: Any
    ) -> Tensor: ...


def allowed_keys(site: AttentionSite, layout: Padded, queries: int, keys: int) -> Tensor | None:
    """Which keys a query may look at: boolean, broadcastable to [B, H, Q, K]; None means all."""
    key_layout = layout.memory if site.cross else layout
    mask = None if key_layout is None or key_layout.mask is None else key_layout.mask
    allowed = None if mask is None else mask[:, None, None, :]
    if site.config.causal and not site.cross:
        device = layout.positions.device
        causal = torch.ones(queries, keys, dtype=torch.bool, device=device).tril()
        allowed = causal if allowed is None else allowed & causal
    return allowed


def cut_heads(x: Tensor, head_dim: int) -> Tensor:
    """[..., H·D] as [..., H, D]."""
    return x.view(*x.shape[:-1], -1, head_dim)


def split_heads(
    q: Tensor, k: Tensor, v: Tensor, site: AttentionSite, layout: Padded
) -> tuple[Tensor, Tensor, Tensor]:
    """Cut the heads and turn q and k: q [B, H, Q, D], k and v [B, G, K, D]."""
    head_dim, rotary = site.config.head_dim, site.config.rotary
    q_BQHD, k_BKGD, v_BKGD = (cut_heads(x, head_dim) for x in (q, k, v))
    if rotary is not None and not site.cross:
        tables = rotary_tables(rotary, int(layout.positions.max()) + 1)
        cos, sin = (table.to(q)[layout.positions] for table in tables)
        q_BQHD, k_BKGD = rotate(q_BQHD, cos, sin), rotate(k_BKGD, cos, sin)
    return q_BQHD.transpose(1, 2), k_BKGD.transpose(1, 2), v_BKGD.transpose(1, 2)


def attention_weights(scores_BHQK: Tensor, allowed: Tensor | None) -> Tensor:
    """Softmax over the keys: each query's weights sum to 1.

    A row that may look at nothing (padding) gets zeros rather than NaN.
    """
    if allowed is None:
        return scores_BHQK.softmax(dim=-1)
    weights = scores_BHQK.masked_fill(~allowed, -torch.inf).softmax(dim=-1)
    return weights.masked_fill(~allowed, 0.0)


Tap = Callable[[AttentionSite, dict[str, Tensor]], None]


class Explicit:
    """softmax(QKᵀ / √d) V, written out (Vaswani et al. 2017, section 3.2).

    `tap`, when given, is handed each attention's site and its q, k, v, scores, weights.
    """

    def __init__(self, tap: Tap | None = None) -> None:
        self.tap = tap

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, site: AttentionSite, layout: Padded
    ) -> Tensor:
        q_BHQD, k_BGKD, v_BGKD = split_heads(q, k, v, site, layout)
        group = site.config.heads // site.config.kv_heads
        k_BHKD = k_BGKD.repeat_interleave(group, dim=1)
        v_BHKD = v_BGKD.repeat_interleave(group, dim=1)

        scores_BHQK = q_BHQD @ k_BHKD.transpose(-2, -1) / sqrt(site.config.head_dim)
        allowed = allowed_keys(site, layout, scores_BHQK.shape[-2], scores_BHQK.shape[-1])
        weights_BHQK = attention_weights(scores_BHQK, allowed)
        context_BHQD = weights_BHQK @ v_BHKD

        if self.tap is not None:
            seen = {"q": q_BHQD, "k": k_BHKD, "v": v_BHKD}
            self.tap(site, seen | {"scores": scores_BHQK, "weights": weights_BHQK})
        return context_BHQD.transpose(1, 2).flatten(-2)


class Fused:
    """The same through PyTorch's `scaled_dot_product_attention`, which never holds the scores."""

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, site: AttentionSite, layout: Padded
    ) -> Tensor:
        q_BHQD, k_BGKD, v_BGKD = split_heads(q, k, v, site, layout)
        allowed = allowed_keys(site, layout, q_BHQD.shape[-2], k_BGKD.shape[-2])
        context_BHQD = F.scaled_dot_product_attention(
            q_BHQD, k_BGKD, v_BGKD, attn_mask=allowed, enable_gqa=True
        )
        return context_BHQD.transpose(1, 2).flatten(-2)


class MultiHeadAttention(nn.Module):
    """Project to queries, keys and values, attend in every head at once, project back.

    Self-attention when `memory` is None; else queries come from `x` and keys and values from
    `memory` [..., E], the encoder's output.
    """

    def __init__(self, dim: int, site: AttentionSite, attend: Attend) -> None:
        super().__init__()
        config = site.config
        query_dim = config.heads * config.head_dim
        kv_dim = config.kv_heads * config.head_dim
        self.query = nn.Linear(dim, query_dim, config.bias)
        self.key = nn.Linear(dim, kv_dim, config.bias)
        self.value = nn.Linear(dim, kv_dim, config.bias)
        self.output = nn.Linear(query_dim, dim, config.bias)
        self.site = site
        self.attend = attend

    def forward(self, x: Tensor, layout: Any, memory: Tensor | None = None) -> Tensor:
        source = x if memory is None else memory
        q, k, v = self.query(x), self.key(source), self.value(source)
        return self.output(self.attend(q, k, v, self.site, layout))


def attend_by(model: nn.Module, attend: Attend) -> None:
    """Let every attention of `model` attend by `attend` from now on."""
    for module in model.modules():
        if isinstance(module, MultiHeadAttention):
            module.attend = attend
