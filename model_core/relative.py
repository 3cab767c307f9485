"""Relative positions in the scores: what a query adds for a key at a certain distance.

A scheme is a module of the stack, whose table all its layers share; each attention asks it, with
its own projections, for a function (`ScoreBias`) of q, k and their distances. Letters of shapes
as in `attention.py`; R is the rows of a table.
"""

from collections.abc import Callable
from math import log
from typing import TypeAlias

import torch
from torch import Tensor, nn

from model_core.config import BucketedBias, Disentangled, NormConfig, Relative
from model_core.norm import build_norm

ScoreBias: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(q [B, H, Q, D], k [B, H, K, D], distance [B or 1, Q, K]) → an addend of the scores
[B or 1, H, Q, K]. The distance is the key's position minus the query's."""

Projection: TypeAlias = Callable[[Tensor], Tensor]


class Buckets(nn.Module):
    """Which row of a table a distance reads: looked up, not computed, so that no rounding of a
    logarithm in another runtime can move it. Distances beyond the farthest read its row."""

    rows: Tensor

    def __init__(self, rows: Callable[[Tensor], Tensor], farthest: int) -> None:
        super().__init__()
        # On the CPU by name: a model under construction on the meta device still gets real values.
        distances = torch.arange(-farthest, farthest + 1, device="cpu")
        self.register_buffer("rows", rows(distances), persistent=False)
        self.farthest = farthest

    def forward(self, distance: Tensor) -> Tensor:
        index = distance.clamp(-self.farthest, self.farthest) + self.farthest
        return self.rows.index_select(0, index.flatten()).view(index.shape)


class BucketedBiasTable(nn.Module):
    """b[bucket(distance), head], blind to what q and k hold (Raffel et al. 2020, section 2.1)."""

    def __init__(self, config: BucketedBias, heads: int, *, causal: bool) -> None:
        super().__init__()
        self.table = nn.Embedding(config.buckets, heads)
        rows = past_buckets if causal else two_sided_buckets
        self.buckets = Buckets(lambda distance: rows(distance, config), config.max_distance)

    def forward(self, query: Projection, key: Projection) -> ScoreBias:
        del query, key
        return self.score_bias

    def score_bias(self, q_BHQD: Tensor, k_BHKD: Tensor, distance_BQK: Tensor) -> Tensor:
        """The bias [B or 1, H, Q, K] of the distances."""
        del q_BHQD, k_BHKD
        return self.table(self.buckets(distance_BQK)).permute(0, 3, 1, 2)


def past_buckets(distance: Tensor, config: BucketedBias) -> Tensor:
    """For a causal stack, which looks back alone."""
    return one_sided(-distance.clamp_max(0), config.buckets, config.max_distance)


def two_sided_buckets(distance: Tensor, config: BucketedBias) -> Tensor:
    """Half of the buckets for keys before the query, half for those after."""
    half = config.buckets // 2
    return (distance > 0) * half + one_sided(distance.abs(), half, config.max_distance)


def one_sided(away: Tensor, buckets: int, farthest: int) -> Tensor:
    """Half of the buckets for one distance each, half for distances that grow by a factor."""
    exact = buckets // 2
    growth = (away.clamp_min(1).float() / exact).log() / log(farthest / exact)
    far = exact + (growth * (buckets - exact)).long()
    return torch.where(away < exact, away, far.clamp_max(buckets - 1))


class DisentangledTable(nn.Module):
    """Scores of content against position and of position against content (He et al. 2021, eq. 4).

    Positions are projected by the layer's own query and key, as its contents are.
    """

    def __init__(self, config: Disentangled, dim: int, norm: NormConfig) -> None:
        super().__init__()
        self.table = nn.Embedding(2 * config.span, dim)
        self.norm = build_norm(dim, norm) if config.norm else nn.Identity()
        self.buckets = Buckets(lambda distance: log_rows(-distance, config), config.max_distance)

    def forward(self, query: Projection, key: Projection) -> ScoreBias:
        positions_RE = self.norm(self.table.weight)
        query_RE, key_RE = query(positions_RE), key(positions_RE)

        def score_bias(q_BHQD: Tensor, k_BHKD: Tensor, distance_BQK: Tensor) -> Tensor:
            batch, heads, _, head_dim = q_BHQD.shape
            query_HDR, key_HDR = (
                x.view(-1, heads, head_dim).permute(1, 2, 0) for x in (query_RE, key_RE)
            )
            row_BQK = self.buckets(distance_BQK)[:, None].expand(batch, heads, -1, -1)
            to_position_BHQK = (q_BHQD @ key_HDR).gather(-1, row_BQK)
            to_content_BHKQ = (k_BHKD @ query_HDR).gather(-1, row_BQK.transpose(-2, -1))
            both = to_position_BHQK + to_content_BHKQ.transpose(-2, -1)
            return both * (3 * head_dim) ** -0.5

        return score_bias


def log_rows(distance: Tensor, config: Disentangled) -> Tensor:
    """The row for a distance of the query from the key: exact when near, in log steps when far."""
    span, middle = config.span, config.span // 2
    away = distance.abs()
    # Both logarithms in float32: of the farthest distance the ratio must be one exactly.
    farthest = torch.tensor((config.max_distance - 1) / middle, device=distance.device).log()
    growth = (away.clamp_min(1).float() / middle).log() / farthest
    far = (growth * (middle - 1)).ceil().long() + middle
    bucketed = torch.where(away <= middle, distance, far * distance.sign())
    return (bucketed + span).clamp(0, 2 * span - 1)


def build_relative(
    config: Relative, dim: int, heads: int, norm: NormConfig, *, causal: bool
) -> nn.Module:
    """The scheme that `config` describes."""
    if isinstance(config, Disentangled):
        return DisentangledTable(config, dim, norm)
    return BucketedBiasTable(config, heads, causal=causal)
