"""The whole Transformer: padding, causality, and agreement with torch.nn's own modules."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from model_core.attention import Explicit, Fused, MultiHeadAttention, Padded, attend_by
from model_core.blocks import Block
from model_core.config import (
    Activation,
    AttentionConfig,
    ConfigError,
    EmbeddingConfig,
    FeedForwardConfig,
    LanguageModelConfig,
    NormConfig,
    NormKind,
    NormPlacement,
    Parallel,
    PositionKind,
    RotaryConfig,
    StackConfig,
    TransformerConfig,
)
from model_core.heads import LanguageModelHead
from model_core.pooling import PoolingMode, normalize, pool
from model_core.transformer import Transformer

DIM, HEADS, INNER, LAYERS, VOCAB = 16, 4, 32, 2, 50
ATTENTION = AttentionConfig(HEADS, HEADS, DIM // HEADS, bias=True, output_bias=True)
ENCODER = StackConfig(
    embedding=EmbeddingConfig(VOCAB, PositionKind.SINUSOIDAL, max_positions=32, scale=DIM**0.5),
    attention=(ATTENTION,) * LAYERS,
    feed_forward=FeedForwardConfig(INNER, Activation.RELU, gated=False, bias=True),
    placement=NormPlacement.POST,
    final_norm=False,
)
DECODER = replace(
    ENCODER, attention=(replace(ATTENTION, causal=True),) * LAYERS, cross_attention=ATTENTION
)
ORIGINAL = TransformerConfig(
    dim=DIM, norm=NormConfig(NormKind.LAYER, 1e-5), encoder=ENCODER, decoder=DECODER
)
"""Vaswani et al. 2017: post-norm, ReLU, sinusoidal positions."""

GROUPED = AttentionConfig(
    HEADS, 2, 6, bias=False, output_bias=False, causal=True, rotary=RotaryConfig(100.0, 6)
)
LLAMA_LIKE = TransformerConfig(
    dim=DIM,
    norm=NormConfig(NormKind.RMS, 1e-6),
    decoder=StackConfig(
        embedding=EmbeddingConfig(VOCAB, PositionKind.NONE, max_positions=32),
        attention=(GROUPED,) * LAYERS,
        feed_forward=FeedForwardConfig(INNER, Activation.SILU, gated=True, bias=False),
        placement=NormPlacement.PRE,
        final_norm=True,
    ),
)
# Two layers of float32 products, summed in another order.
ROUNDING = 1e-5


def drawn(config: TransformerConfig, seed: int = 0) -> Transformer:
    """Weights wide enough for attention to be far from uniform."""
    model = Transformer(config, Explicit()).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
            if "norm.weight" in name:
                parameter += 1.0
    return model


def ids(*shape: int, seed: int = 1) -> Tensor:
    return torch.randint(VOCAB, shape, generator=torch.Generator().manual_seed(seed))


def prefix_mask(tokens: int, *lengths: int) -> Tensor:
    return torch.arange(tokens) < torch.tensor(lengths)[:, None]


def copy_linear(ours: nn.Module, theirs: nn.Linear) -> None:
    ours.load_state_dict(theirs.state_dict())


def copy_attention(ours: MultiHeadAttention, theirs: nn.MultiheadAttention) -> None:
    for name, weight, bias in zip(
        ("query", "key", "value"),
        theirs.in_proj_weight.chunk(3),
        theirs.in_proj_bias.chunk(3),
        strict=True,
    ):
        getattr(ours, name).load_state_dict({"weight": weight, "bias": bias})
    copy_linear(ours.output, theirs.out_proj)


def copy_block(
    ours: nn.Module, theirs: nn.TransformerEncoderLayer | nn.TransformerDecoderLayer
) -> None:
    assert isinstance(ours, Block)
    copy_attention(ours.attention, theirs.self_attn)
    ours.attention_norm.load_state_dict(theirs.norm1.state_dict())
    last_norm = theirs.norm2
    if isinstance(theirs, nn.TransformerDecoderLayer):
        assert ours.cross_attention is not None
        copy_attention(ours.cross_attention, theirs.multihead_attn)
        ours.cross_attention_norm.load_state_dict(theirs.norm2.state_dict())
        last_norm = theirs.norm3
    copy_linear(ours.feed_forward.up, theirs.linear1)
    copy_linear(ours.feed_forward.down, theirs.linear2)
    ours.feed_forward_norm.load_state_dict(last_norm.state_dict())


@torch.no_grad()
def test_the_original_transformer_is_torchs() -> None:
    # Layer by layer: nn.Transformer as a whole adds final norms that the paper doesn't have.
    model = drawn(ORIGINAL)
    generator = torch.Generator().manual_seed(2)
    shape = {"dropout": 0.0, "activation": "relu", "batch_first": True, "norm_first": False}
    encoder = [nn.TransformerEncoderLayer(DIM, HEADS, INNER, **shape) for _ in range(LAYERS)]
    decoder = [nn.TransformerDecoderLayer(DIM, HEADS, INNER, **shape) for _ in range(LAYERS)]
    for layer in (*encoder, *decoder):
        layer.eval()
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    assert model.encoder is not None
    assert model.decoder is not None
    for ours, theirs in zip(model.encoder.blocks, encoder, strict=True):
        copy_block(ours, theirs)
    for ours, theirs in zip(model.decoder.blocks, decoder, strict=True):
        copy_block(ours, theirs)

    source, target = ids(2, 7), ids(2, 5, seed=3)
    source_mask = prefix_mask(7, 7, 4)
    source_layout = Padded.of(source, source_mask)
    memory = model.encode(source, source_layout)
    hidden = model.decode(target, Padded.of(target, memory=source_layout), memory)

    x = model.encoder.embeddings(source, source_layout.positions, None)
    for layer in encoder:
        x = layer(x, src_key_padding_mask=~source_mask)
    y = model.decoder.embeddings(target, Padded.of(target).positions, None)
    causal = nn.Transformer.generate_square_subsequent_mask(5)
    for layer in decoder:
        y = layer(
            y, x, tgt_mask=causal, tgt_is_causal=True,
            memory_key_padding_mask=torch.zeros(2, 7).masked_fill(~source_mask, -torch.inf),
        )  # fmt: skip
    torch.testing.assert_close(memory[source_mask], x[source_mask], rtol=ROUNDING, atol=ROUNDING)
    torch.testing.assert_close(hidden, y, rtol=ROUNDING, atol=ROUNDING)


@torch.no_grad()
@pytest.mark.parametrize("attend", [Explicit(), Fused()])
def test_padding_does_not_change_hidden_states(attend: Explicit | Fused) -> None:
    model = drawn(ORIGINAL)
    attend_by(model, attend)
    padded = ids(2, 9)
    hidden = model.encode(padded, Padded.of(padded, prefix_mask(9, 4, 9)))
    alone = model.encode(padded[:1, :4], Padded.of(padded[:1, :4]))
    torch.testing.assert_close(hidden[:1, :4], alone, rtol=ROUNDING, atol=ROUNDING)


@torch.no_grad()
def test_what_padding_holds_does_not_matter() -> None:
    model = drawn(ORIGINAL)
    first = ids(1, 9)
    second = first.clone()
    second[0, 4:] = (first[0, 4:] + 1) % VOCAB
    mask = prefix_mask(9, 4)
    states = [model.encode(rows, Padded.of(rows, mask))[0, :4] for rows in (first, second)]
    assert torch.equal(*states)


@torch.no_grad()
def test_a_decoder_looks_at_no_later_token() -> None:
    model = drawn(LLAMA_LIKE)
    whole = ids(1, 8)
    # A shorter product may be summed in another order.
    start = model.decode(whole[:, :5], Padded.of(whole[:, :5]))
    hidden = model.decode(whole, Padded.of(whole))
    torch.testing.assert_close(hidden[:, :5], start, rtol=ROUNDING, atol=ROUNDING)


@torch.no_grad()
def test_the_original_agrees_explicit_and_fused_with_cross_attention() -> None:
    model = drawn(ORIGINAL)
    source, target = ids(2, 7), ids(2, 5, seed=3)
    layout = Padded.of(source, prefix_mask(7, 7, 4))
    hidden: list[Tensor] = []
    for attend in (Explicit(), Fused()):
        attend_by(model, attend)
        memory = model.encode(source, layout)
        hidden.append(model.decode(target, Padded.of(target, memory=layout), memory))
    torch.testing.assert_close(*hidden, rtol=ROUNDING, atol=ROUNDING)


@torch.no_grad()
def test_attention_is_far_from_uniform_in_these_tests() -> None:
    # Otherwise a wrong mask or position would hardly show.
    peaks: list[Tensor] = []
    model = drawn(LLAMA_LIKE)
    attend_by(model, Explicit(lambda site, seen: peaks.append(seen["weights"][0, :, -1].amax(-1))))
    whole = ids(1, 8)
    model.decode(whole, Padded.of(whole))
    assert torch.stack(peaks).mean() > 2 / 8


@pytest.mark.parametrize("tied", [True, False])
def test_a_tied_head_shares_one_parameter(tied: bool) -> None:
    model = drawn(LLAMA_LIKE)
    head = LanguageModelHead(DIM, LanguageModelConfig(tied=tied), model.token_embedding)
    assert (head.output.weight is model.token_embedding.weight) is tied
    assert head(torch.zeros(2, DIM)).shape == (2, VOCAB)


def test_a_missing_stack_is_a_type_error() -> None:
    whole = ids(1, 3)
    with pytest.raises(TypeError, match="no encoder"):
        drawn(LLAMA_LIKE).encode(whole, Padded.of(whole))


def test_configurations_that_make_no_transformer_are_refused() -> None:
    with pytest.raises(ConfigError, match="an encoder, a decoder, or both"):
        replace(ORIGINAL, encoder=None, decoder=None)
    with pytest.raises(ConfigError, match="cross-attention needs an encoder"):
        replace(ORIGINAL, encoder=None)
    with pytest.raises(ConfigError, match="a layer at least"):
        replace(ENCODER, attention=())
    with pytest.raises(ConfigError, match="cross-attention has no positions"):
        replace(DECODER, cross_attention=GROUPED)
    with pytest.raises(ConfigError, match="parallel blocks normalise before, not post"):
        replace(ENCODER, parallel=Parallel.TWO_NORMS)


@pytest.mark.parametrize("mode", PoolingMode)
def test_padding_takes_no_part_in_pooling(mode: PoolingMode) -> None:
    hidden = torch.randn(2, 6, DIM, generator=torch.Generator().manual_seed(0))
    alone = pool(hidden[:1, :3], torch.tensor([3]), mode)
    for filler in (0.0, 1e30, torch.nan, torch.inf):
        hidden[0, 3:] = filler
        pooled = pool(hidden, torch.tensor([3, 6]), mode)
        torch.testing.assert_close(pooled[:1], alone, rtol=1e-6, atol=1e-6)


def test_a_zero_vector_stays_zero_when_normalised() -> None:
    found = normalize(torch.tensor([[0.0, 0.0], [3.0, 4.0]]))
    torch.testing.assert_close(found, torch.tensor([[0.0, 0.0], [0.6, 0.8]]))
