"""Invariants of attention; the ways of attending agree with one another."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from model_core.attention import AttentionSite, Explicit, Fused, MultiHeadAttention, Padded
from model_core.config import (
    AttentionConfig,
    BucketedBias,
    ConfigError,
    Disentangled,
    NormConfig,
    NormKind,
    Relative,
    RotaryConfig,
)
from model_core.relative import ScoreBias, build_relative

DIM, HEADS, KV_HEADS, HEAD_DIM = 24, 6, 2, 8
GROUPED = AttentionConfig(HEADS, KV_HEADS, HEAD_DIM, bias=True, output_bias=True)
CAUSAL = replace(GROUPED, causal=True)
ROTARY = replace(CAUSAL, rotary=RotaryConfig(theta=100.0, dims=HEAD_DIM))
LOCAL = replace(GROUPED, window=2)
CAPPED = replace(ROTARY, score_cap=2.0, scale=0.7, window=3)

# Sums of a few dozen products in float32, taken in another order by another kernel.
ROUNDING = 1e-5


class Seen(dict[str, Tensor]):
    """A tap that keeps what it is handed."""

    def __call__(self, site: AttentionSite, tensors: dict[str, Tensor]) -> None:
        self.update(tensors)


def site(config: AttentionConfig, *, cross: bool = False) -> AttentionSite:
    return AttentionSite("here", 0, config, cross)


def projections(
    config: AttentionConfig, queries: int = 5, keys: int = 5
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    widths = (config.heads, config.kv_heads, config.kv_heads)
    lengths = (queries, keys, keys)
    q, k, v = (
        torch.randn(2, length, width * config.head_dim, generator=generator)
        for length, width in zip(lengths, widths, strict=True)
    )
    return q, k, v


def layout(tokens: int = 5, *lengths: int) -> Padded:
    mask = None
    if lengths:
        mask = torch.arange(tokens) < torch.tensor(lengths)[:, None]
    return Padded.of(torch.zeros(2, tokens, dtype=torch.int64), mask)


@pytest.mark.parametrize("config", [GROUPED, CAUSAL, ROTARY])
def test_each_querys_weights_sum_to_one_over_the_keys(config: AttentionConfig) -> None:
    seen = Seen()
    Explicit(seen)(*projections(config), site(config), layout(5, 5, 3))
    sums = seen["weights"].sum(-1)
    torch.testing.assert_close(sums, torch.ones_like(sums))


def test_the_tap_sees_every_step_of_the_computation() -> None:
    seen = Seen()
    _, _, v = inputs = projections(GROUPED)
    context = Explicit(seen)(*inputs, site(GROUPED), layout())
    k_BHKD = seen["k"].repeat_interleave(HEADS // KV_HEADS, 1)
    scores = seen["q"] @ k_BHKD.transpose(-2, -1) * HEAD_DIM**-0.5
    torch.testing.assert_close(seen["scores"], scores, rtol=0, atol=0)
    torch.testing.assert_close(seen["weights"], seen["scores"].softmax(-1), rtol=0, atol=0)
    v_BHKD = v.unflatten(-1, (KV_HEADS, HEAD_DIM)).transpose(1, 2)
    v_BHKD = v_BHKD.repeat_interleave(HEADS // KV_HEADS, 1)
    expected = (seen["weights"] @ v_BHKD).transpose(1, 2).flatten(-2)
    torch.testing.assert_close(context, expected, rtol=0, atol=0)


def test_a_row_that_may_look_at_nothing_gives_zeros() -> None:
    context = Explicit()(*projections(GROUPED), site(GROUPED), layout(5, 0, 5))
    assert torch.equal(context[0], torch.zeros_like(context[0]))
    assert context[1].abs().min() > 0


@pytest.mark.parametrize("attend", [Explicit(), Fused()])
def test_causal_attention_looks_at_no_later_token(attend: Explicit | Fused) -> None:
    q, k, v = projections(CAUSAL)
    before = attend(q, k, v, site(CAUSAL), layout())
    changed_k, changed_v = k.clone(), v.clone()
    changed_k[:, 3:] = 100.0
    changed_v[:, 3:] = 100.0
    after = attend(q, changed_k, changed_v, site(CAUSAL), layout())
    assert torch.equal(before[:, :3], after[:, :3])
    assert not torch.equal(before[:, 3:], after[:, 3:])


@pytest.mark.parametrize("attend", [Explicit(), Fused()])
def test_padding_keys_are_not_looked_at(attend: Explicit | Fused) -> None:
    q, k, v = projections(GROUPED)
    before = attend(q, k, v, site(GROUPED), layout(5, 3, 5))
    k[0, 3:], v[0, 3:] = 50.0, -50.0
    assert torch.equal(before, attend(q, k, v, site(GROUPED), layout(5, 3, 5)))


WAYS = {"full": GROUPED, "causal": CAUSAL, "rotary": ROTARY, "local": LOCAL, "capped": CAPPED}


@pytest.mark.parametrize("config", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("lengths", [(), (5, 3)], ids=["whole", "padded"])
@pytest.mark.parametrize("relative", [None, BucketedBias(4, 3), Disentangled(2, 4, norm=True)])
def test_explicit_and_fused_agree(
    config: AttentionConfig, lengths: tuple[int, ...], relative: Relative | None
) -> None:
    inputs = projections(config)
    bias = None if relative is None else drawn_bias(relative, config)
    explicit = Explicit()(*inputs, site(config), layout(5, *lengths), bias)
    fused = Fused()(*inputs, site(config), layout(5, *lengths), bias)
    torch.testing.assert_close(explicit, fused, rtol=ROUNDING, atol=ROUNDING)


def drawn_bias(relative: Relative, config: AttentionConfig) -> ScoreBias:
    """What a scheme with random weights adds to the scores."""
    generator = torch.Generator().manual_seed(3)
    norm = NormConfig(NormKind.LAYER, 1e-5)
    scheme = build_relative(relative, DIM, config.heads, norm, causal=config.causal)
    width = config.heads * config.head_dim
    weights = [torch.randn(DIM, width, generator=generator) for _ in range(2)]
    with torch.no_grad():
        for parameter in scheme.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        return scheme(*(lambda x, w=weight: x @ w for weight in weights))


@pytest.mark.parametrize("attend", [Explicit(), Fused()])
def test_a_local_query_sees_keys_nearer_than_the_window(attend: Explicit | Fused) -> None:
    config = replace(GROUPED, window=2)
    q, k, v = projections(config)
    before = attend(q, k, v, site(config), layout())
    k[:, 4], v[:, 4] = 50.0, -50.0
    after = attend(q, k, v, site(config), layout())
    assert torch.equal(before[:, :3], after[:, :3])
    assert not torch.equal(before[:, 3], after[:, 3])


@pytest.mark.parametrize("attend", [Explicit(), Fused()])
def test_grouped_queries_equal_repeated_heads(attend: Explicit | Fused) -> None:
    q, k, v = projections(CAUSAL)
    grouped = attend(q, k, v, site(CAUSAL), layout())
    repeated_k, repeated_v = (
        x.unflatten(-1, (KV_HEADS, HEAD_DIM)).repeat_interleave(HEADS // KV_HEADS, -2).flatten(-2)
        for x in (k, v)
    )
    repeated = attend(q, repeated_k, repeated_v, site(replace(CAUSAL, kv_heads=HEADS)), layout())
    torch.testing.assert_close(grouped, repeated, rtol=ROUNDING, atol=ROUNDING)


def test_cross_attention_follows_the_memorys_mask() -> None:
    q, k, v = projections(GROUPED, queries=3, keys=7)
    lookup = Padded.of(torch.zeros(2, 3, dtype=torch.int64), memory=layout(7, 4, 7))
    seen = Seen()
    Explicit(seen)(q, k, v, site(GROUPED, cross=True), lookup)
    assert seen["weights"].shape == (2, HEADS, 3, 7)
    assert (seen["weights"][0, ..., :4] > 0).all()
    assert (seen["weights"][0, ..., 4:] == 0).all()
    assert (seen["weights"][1] > 0).all()


def test_head_dim_need_not_be_the_width_over_the_heads() -> None:
    config = replace(GROUPED, head_dim=5)
    attention = MultiHeadAttention(DIM, site(config), Explicit())
    x = torch.randn(2, 5, DIM)
    assert attention.query.weight.shape == (HEADS * 5, DIM)
    assert attention.key.weight.shape == (KV_HEADS * 5, DIM)
    assert attention(x, layout()).shape == x.shape


def test_heads_that_kv_heads_do_not_divide_are_refused() -> None:
    with pytest.raises(ConfigError, match="kv_heads is 4, but must divide heads, which is 6"):
        replace(GROUPED, kv_heads=4)
