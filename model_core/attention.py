"""Attention, step by step as the chapter does it, and the seam where other ways plug in.

Shape legend, used as suffixes: B batch, Q query positions, K key positions, H query heads,
G key-value heads, D head dimension, E model width, T tokens of a packed batch.

How queries, keys and values become a context is an argument (`Attend`). Here are the *explicit*
way (the reference), the *fused* one (PyTorch's kernel, for training) and the *tapped* one (the
explicit, handing out what it sees); `export/attention.py` has those that become ONNX operators.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_core.config import AttentionConfig, RotaryConfig
from model_core.norm import build_norm
from model_core.position import rotary_tables, rotate
from model_core.relative import ScoreBias


@dataclass(frozen=True, slots=True)
class AttentionSite:
    """What is fixed about one attention of a model: where it stands and how its heads are cut."""

    name: str
    layer: int
    config: AttentionConfig
    cross: bool = False


RotaryTables: TypeAlias = Callable[[RotaryConfig], tuple[Tensor, Tensor]]
"""Cosine and sine [positions, dims / 2] of a rotary scheme."""


@dataclass(frozen=True, slots=True)
class Padded:
    """A padded batch: which positions its tokens have and which of them are real.

    `positions` [B, S]; `mask` [B, S], true for real tokens, or None when all are. `memory` is
    the layout of the encoder's output that cross-attention looks at. `tables` are those by which
    heads turn; None computes them for the longest text of the batch.
    """

    positions: Tensor
    mask: Tensor | None = None
    memory: "Padded | None" = None
    tables: RotaryTables | None = None

    @classmethod
    def of(cls, token_ids: Tensor, mask: Tensor | None = None, memory: "Padded | None" = None):
        """Right-padded rows that start at position 0."""
        positions = torch.arange(token_ids.shape[-1], device=token_ids.device)
        return cls(positions.expand_as(token_ids), mask, memory)


class Attend(Protocol):
    """q [..., H·D], k and v [..., G·D] → context [..., H·D].

    `layout` tells of the batch what this way of attending needs (`Padded` here); the modules
    around it pass it through unread, but for its `positions`. `bias` is what relative positions
    add to the scores, if anything.
    """

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        site: AttentionSite,
        layout: Any,
        bias: ScoreBias | None,
    ) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class Projected:
    """The encoder's output as keys and values of each decoder layer, in the form that the way of
    attending takes them: what cross-attention reads at every step and need not project again."""

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]

    def of_rows(self, place_R: Tensor) -> "Projected":
        """Those of some rows of a padded batch, in this order; a row may come more than once."""
        keys, values = (
            tuple(x_BSE[place_R] for x_BSE in each) for each in (self.keys, self.values)
        )
        return Projected(keys, values)


Memory: TypeAlias = Tensor | Projected
"""What cross-attention looks at: the encoder's hidden states [..., E], or what became of them."""


def distances(queries: int, keys: int, device: torch.device) -> Tensor:
    """Key position minus query position [1, Q, K] of rows that start at the same position."""
    place_Q, place_K = (torch.arange(count, device=device) for count in (queries, keys))
    return (place_K - place_Q[:, None])[None]


def within_reach(config: AttentionConfig, distance: Tensor) -> Tensor | None:
    """Which keys a query may look at by their distance; None means all. Shape of `distance`."""
    reach = None
    if config.causal:
        reach = distance <= 0
    if config.window is not None:
        near = distance.abs() < config.window
        reach = near if reach is None else reach & near
    return reach


def allowed_keys(site: AttentionSite, layout: Padded, distance_BQK: Tensor) -> Tensor | None:
    """Which keys a query may look at: boolean, broadcastable to [B, H, Q, K]; None means all."""
    key_layout = layout.memory if site.cross else layout
    mask = None if key_layout is None or key_layout.mask is None else key_layout.mask
    reach = within_reach(site.config, distance_BQK)
    if mask is None:
        return None if reach is None else reach[:, None]
    real = mask[:, None, None, :]
    return real if reach is None else real & reach[:, None]


def is_only_causal(site: AttentionSite, layout: Padded) -> bool:
    """Whether a query may look at itself and all before it, and that is all there is to say."""
    config = site.config
    return config.causal and config.window is None and not site.cross and layout.mask is None


def cut_heads(x: Tensor, head_dim: int) -> Tensor:
    """[..., H·D] as [..., H, D]."""
    return x.view(*x.shape[:-1], -1, head_dim)


def split_heads(
    q: Tensor, k: Tensor, v: Tensor, site: AttentionSite, layout: Padded
) -> tuple[Tensor, Tensor, Tensor]:
    """Cut the heads and turn q and k: q [B, H, Q, D], k and v [B, G, K, D]."""
    head_dim, rotary = site.config.head_dim, site.config.rotary
    q_BQHD, k_BKGD, v_BKGD = (cut_heads(x, head_dim) for x in (q, k, v))
    if rotary is not None:
        if layout.tables is None:
            tables = rotary_tables(rotary, int(layout.positions.max()) + 1)
        else:
            tables = layout.tables(rotary)
        cos, sin = (F.embedding(layout.positions, table.to(q)) for table in tables)
        q_BQHD, k_BKGD = rotate(q_BQHD, cos, sin), rotate(k_BKGD, cos, sin)
    return q_BQHD.transpose(1, 2), k_BKGD.transpose(1, 2), v_BKGD.transpose(1, 2)


def repeat_heads(k_BGKD: Tensor, config: AttentionConfig) -> Tensor:
    """[B, H, K, D]: each group of queries has its own key-value head."""
    if config.heads == config.kv_heads:
        return k_BGKD
    return k_BGKD.repeat_interleave(config.heads // config.kv_heads, dim=1)


def attention_scores(
    q_BHQD: Tensor, k_BHKD: Tensor, config: AttentionConfig, addend: Tensor | None
) -> Tensor:
    """QKᵀ · scale [B, H, Q, K], capped where the model caps, plus what relative positions add."""
    scores_BHQK = q_BHQD @ k_BHKD.transpose(-2, -1) * config.score_scale
    if config.score_cap is not None:
        scores_BHQK = config.score_cap * torch.tanh(scores_BHQK / config.score_cap)
    return scores_BHQK if addend is None else scores_BHQK + addend


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

    `tap`, when given, is handed each attention's site and its q [B, H, Q, D], k and v
    [B, G, K, D], as they enter the products; scores, weights and, where positions are relative,
    the bias that is part of the scores, [B, H, Q, K] (the bias may be [1, H, Q, K]).
    """

    def __init__(self, tap: Tap | None = None) -> None:
        self.tap = tap

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        site: AttentionSite,
        layout: Padded,
        bias: ScoreBias | None = None,
    ) -> Tensor:
        q_BHQD, k_BGKD, v_BGKD = split_heads(q, k, v, site, layout)
        k_BHKD, v_BHKD = (repeat_heads(x, site.config) for x in (k_BGKD, v_BGKD))

        distance_BQK = distances(q_BHQD.shape[2], k_BHKD.shape[2], q.device)
        addend = None if bias is None else bias(q_BHQD, k_BHKD, distance_BQK)
        scores_BHQK = attention_scores(q_BHQD, k_BHKD, site.config, addend)
        allowed = allowed_keys(site, layout, distance_BQK)
        weights_BHQK = attention_weights(scores_BHQK, allowed)
        context_BHQD = weights_BHQK @ v_BHKD

        if self.tap is not None:
            seen = {"q": q_BHQD, "k": k_BGKD, "v": v_BGKD}
            seen |= {"scores": scores_BHQK, "weights": weights_BHQK}
            self.tap(site, seen if addend is None else seen | {"bias": addend})
        return context_BHQD.transpose(1, 2).flatten(-2)


class Fused:
    """The same through PyTorch's `scaled_dot_product_attention`, which never holds the scores.

    The kernel can't cap scores: such an attention is computed explicitly.
    """

    def __init__(self) -> None:
        self.explicit = Explicit()

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        site: AttentionSite,
        layout: Padded,
        bias: ScoreBias | None = None,
    ) -> Tensor:
        if site.config.score_cap is not None:
            return self.explicit(q, k, v, site, layout, bias)
        q_BHQD, k_BGKD, v_BGKD = split_heads(q, k, v, site, layout)
        # The kernel then leaves out the half that is not looked at, which a mask doesn't let it.
        only_causal = bias is None and is_only_causal(site, layout)
        mask = None
        if not only_causal:
            distance_BQK = distances(q_BHQD.shape[2], k_BGKD.shape[2], q.device)
            mask = allowed_keys(site, layout, distance_BQK)
            if bias is not None:
                addend = bias(q_BHQD, repeat_heads(k_BGKD, site.config), distance_BQK)
                mask = addend if mask is None else addend.masked_fill(~mask, -torch.inf)
        context_BHQD = F.scaled_dot_product_attention(
            q_BHQD, k_BGKD, v_BGKD, mask, is_causal=only_causal,
            scale=site.config.score_scale, enable_gqa=True,
        )  # fmt: skip
        return context_BHQD.transpose(1, 2).flatten(-2)


class MultiHeadAttention(nn.Module):
    """Project to queries, keys and values, attend in every head at once, project back.

    Self-attention when `memory` is None; else queries come from `x`, keys and values from
    `memory`. `relative` is the stack's scheme of relative positions, if it has one.
    """

    def __init__(self, dim: int, site: AttentionSite, attend: Attend) -> None:
        super().__init__()
        config = site.config
        query_dim = config.heads * config.head_dim
        kv_dim = config.kv_heads * config.head_dim
        self.query = nn.Linear(dim, query_dim, config.bias)
        self.key = nn.Linear(dim, kv_dim, config.bias)
        self.value = nn.Linear(dim, kv_dim, config.bias)
        self.output = nn.Linear(query_dim, dim, config.output_bias)
        self.query_norm, self.key_norm = (
            None if config.head_norm is None else build_norm(config.head_dim, config.head_norm)
            for _ in range(2)
        )
        self.site = site
        self.attend = attend

    def forward(
        self,
        x: Tensor,
        layout: Any,
        memory: Memory | None = None,
        relative: nn.Module | None = None,
    ) -> Tensor:
        q = self.within_heads(self.query_norm, self.query(x))
        k, v = self.keys_and_values(x if memory is None else memory)
        bias = None if relative is None else relative(self.query, self.key)
        return self.output(self.attend(q, k, v, self.site, layout, bias))

    def keys_and_values(self, memory: Memory) -> tuple[Tensor, Tensor]:
        """Keys and values [..., G·D] of hidden states, or those projected before."""
        if isinstance(memory, Projected):
            return memory.keys[self.site.layer], memory.values[self.site.layer]
        return self.within_heads(self.key_norm, self.key(memory)), self.value(memory)

    def within_heads(self, norm: nn.Module | None, x: Tensor) -> Tensor:
        """`x` [..., H·D] with each head normalised, where heads are."""
        return x if norm is None else norm(cut_heads(x, self.site.config.head_dim)).flatten(-2)


def attend_by(model: nn.Module, attend: Attend) -> None:
    """Let every attention of `model` attend by `attend` from now on."""
    for module in model.modules():
        if isinstance(module, MultiHeadAttention):
            module.attend = attend
