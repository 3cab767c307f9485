"""Mistakes that public versions of this code make, each held off; `docs/tour.md` shows them."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import BertModel

from model_core.attention import (
    AttentionSite,
    Explicit,
    Fused,
    Padded,
    attend_by,
    attention_weights,
)
from model_core.checkpoints.errors import CheckpointError
from model_core.checkpoints.load import Description, build, fill, load
from model_core.checkpoints.readers import open_tensors
from model_core.checkpoints.sources import Located, locate
from model_core.config import (
    Activation,
    AttentionConfig,
    EmbeddingConfig,
    FeedForwardConfig,
    NormConfig,
    NormKind,
    NormPlacement,
    PositionKind,
    StackConfig,
    TransformerConfig,
)
from model_core.heads import Classifier
from model_core.pooling import PoolingMode
from model_core.transformer import Transformer
from tests.support.checkpoints import draw_widely, tiny_bert_config
from tests.support.families import CASES, Case
from tests.support.families.parity import load_ours, our_hidden

DIM, VOCAB, TOKENS = 32, 50, 7
ATTENTION = AttentionConfig(heads=4, kv_heads=4, head_dim=8, bias=True, output_bias=True)
# A few layers of float32 products, summed in another order.
ROUNDING = 1e-5

FIRST_OF_FAMILY: Mapping[str, Case] = {case.family: case for case in reversed(CASES)}


def shape(layers: int = 2, position: PositionKind = PositionKind.NONE) -> TransformerConfig:
    """A pre-norm encoder."""
    stack = StackConfig(
        embedding=EmbeddingConfig(VOCAB, position, max_positions=16),
        attention=(ATTENTION,) * layers,
        feed_forward=FeedForwardConfig(4 * DIM, Activation.GELU, gated=False, bias=True),
        placement=NormPlacement.PRE,
        final_norm=True,
    )
    return TransformerConfig(DIM, NormConfig(NormKind.LAYER, 1e-5), encoder=stack)


def drawn(config: TransformerConfig) -> Transformer:
    """Weights wide enough for attention to be far from uniform; norms as they are made."""
    model = Transformer(config, Explicit())
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    return model


def ids(*lengths: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(VOCAB, lengths, generator=generator)


# Dropout of a half by default, in training mode and sometimes not only there


@pytest.mark.parametrize("case", FIRST_OF_FAMILY.values(), ids=FIRST_OF_FAMILY)
def test_a_family_drops_nothing_unless_it_is_told_to(case: Case, tmp_path: Path) -> None:
    ours = load_ours(case.reference(), tmp_path, [])
    evaluated = our_hidden(ours, case.token_ids())
    ours.model.train()
    assert torch.equal(our_hidden(ours, case.token_ids()), evaluated)


def test_no_module_of_dropout_hides_in_a_model() -> None:
    modules = [type(module) for module in drawn(shape()).modules()]
    assert not any(issubclass(kind, nn.Dropout) for kind in modules)


# Pre-norm without a norm at the end


@pytest.mark.parametrize("case", FIRST_OF_FAMILY.values(), ids=FIRST_OF_FAMILY)
def test_a_stack_that_normalises_before_its_parts_has_a_norm_at_the_end(
    case: Case, tmp_path: Path
) -> None:
    config = load_ours(case.reference(), tmp_path, []).config
    for stack in config.stacks:
        assert stack.final_norm or stack.placement is NormPlacement.POST


@torch.no_grad()
def test_the_final_norm_keeps_the_depth_from_the_heads() -> None:
    lengths: dict[bool, list[float]] = {}
    for final_norm in (True, False):
        for layers in (2, 12):
            config = shape(layers)
            assert config.encoder is not None
            config = replace(config, encoder=replace(config.encoder, final_norm=final_norm))
            token_ids = ids(1, TOKENS)
            hidden = drawn(config).encode(token_ids, Padded.of(token_ids))
            lengths.setdefault(final_norm, []).append(float(hidden.norm(dim=-1).mean()))
    shallow, deep = lengths[True]
    # A vector of mean 0 and variance 1 is √DIM long.
    assert shallow == pytest.approx(DIM**0.5, rel=1e-3)
    assert deep == pytest.approx(DIM**0.5, rel=1e-3)
    shallow, deep = lengths[False]
    assert deep > 2 * shallow


# No padding mask, no token types, no pooler: code that can't load BERT


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Located:
    """A checkpoint of BERT with a pooler."""
    folder = tmp_path_factory.mktemp("bert")
    draw_widely(BertModel(tiny_bert_config())).save_pretrained(folder)
    return locate(str(folder), cache=folder)


def filled(located: Located, description: Description, config: TransformerConfig) -> None:
    """A model of the shape `config`, with the tensors that the checkpoint has for it."""
    model = build(config, description, Explicit(), [])
    rules, prefix = description.family.rules(config), description.family.prefix
    fill(model, open_tensors(located), rules, prefix, located.source)


def test_an_encoder_without_token_types_can_not_load_bert(bert: Located) -> None:
    ours = load(bert, Explicit())
    assert ours.config.encoder is not None
    embedding = replace(ours.config.encoder.embedding, token_types=0)
    config = replace(ours.config, encoder=replace(ours.config.encoder, embedding=embedding))
    with pytest.raises(CheckpointError, match=r"unexpected: embeddings\.token_type_embeddings"):
        filled(bert, ours.description, config)


def test_berts_shape_is_post_norm_without_a_final_norm(bert: Located) -> None:
    ours = load(bert, Explicit())
    assert ours.config.encoder is not None
    assert ours.config.encoder.placement is NormPlacement.POST
    stack = replace(ours.config.encoder, placement=NormPlacement.PRE, final_norm=True)
    with pytest.raises(CheckpointError, match=r"missing: transformer\.encoder\.final_norm"):
        filled(bert, ours.description, replace(ours.config, encoder=stack))


def test_the_pooler_is_the_hidden_layer_of_the_classifier(tmp_path: Path) -> None:
    reference = FIRST_OF_FAMILY["bert"].reference("sequence_classifier")
    head = load_ours(reference, tmp_path, ["sequence_classifier"]).model.heads[
        "sequence_classifier"
    ]
    assert isinstance(head, Classifier)
    assert head.hidden is not None
    assert head.pooling is PoolingMode.CLS
    assert torch.equal(head.hidden.weight, reference.get_parameter("bert.pooler.dense.weight"))


def test_a_pooler_that_no_head_asks_for_is_named(bert: Located) -> None:
    unused = load(bert, Explicit()).unused
    assert {"pooler.dense.weight", "pooler.dense.bias"} <= set(unused)


@torch.no_grad()
def test_without_a_mask_padding_changes_a_text(bert: Located) -> None:
    model = load(bert, Explicit()).model.transformer
    token_ids = ids(1, TOKENS)
    mask = torch.arange(TOKENS)[None] < 4
    alone = model.encode(token_ids[:, :4], Padded.of(token_ids[:, :4]))
    masked = model.encode(token_ids, Padded.of(token_ids, mask))[:, :4]
    unmasked = model.encode(token_ids, Padded.of(token_ids))[:, :4]
    torch.testing.assert_close(masked, alone, rtol=ROUNDING, atol=ROUNDING)
    assert (unmasked - alone).abs().max() > 0.1


# Softmax over the wrong axis


def test_weights_sum_to_one_over_the_keys_and_not_over_the_queries() -> None:
    scores = torch.randn(2, 4, 5, 5, generator=torch.Generator().manual_seed(0)) * 3
    weights = attention_weights(scores, None)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 5))
    assert (weights.sum(-2) - 1).abs().max() > 0.5


# -inf everywhere in a row: NaN


@pytest.mark.parametrize("attend", [Explicit(), Fused()])
def test_a_text_of_padding_alone_is_no_nan_forward_or_backward(attend: Explicit | Fused) -> None:
    model = drawn(shape(position=PositionKind.LEARNED))
    attend_by(model, attend)
    token_ids = ids(2, TOKENS)
    mask = torch.tensor([[True] * TOKENS, [False] * TOKENS])
    hidden = model.encode(token_ids, Padded.of(token_ids, mask))
    hidden.square().mean().backward()
    assert hidden.isfinite().all()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_a_query_that_sees_nothing_has_weights_of_zero() -> None:
    allowed = torch.tensor([[True, False], [False, False]])
    weights = attention_weights(torch.randn(1, 1, 2, 2), allowed)
    assert weights.tolist() == [[[[1.0, 0.0], [0.0, 0.0]]]]


@pytest.mark.parametrize("attend", [Explicit(), Fused()])
def test_cross_attention_to_an_empty_source_gives_zeros(attend: Explicit | Fused) -> None:
    q, k = torch.randn(1, 3, DIM), torch.randn(1, 5, DIM)
    nothing = Padded.of(torch.zeros(1, 5), torch.zeros(1, 5, dtype=torch.bool))
    layout = Padded.of(torch.zeros(1, 3), memory=nothing)
    site = AttentionSite("here", 0, ATTENTION, cross=True)
    assert torch.equal(attend(q, k, k, site, layout, None), torch.zeros(1, 3, DIM))


# "Position invariant", which is equivariant


@torch.no_grad()
def test_an_encoder_without_positions_is_equivariant_to_the_order_of_tokens() -> None:
    model, token_ids = drawn(shape()), ids(1, TOKENS)
    order = torch.tensor([3, 0, 6, 2, 5, 1, 4])
    hidden, reordered = (
        model.encode(rows, Padded.of(rows)) for rows in (token_ids, token_ids[:, order])
    )
    torch.testing.assert_close(reordered, hidden[:, order], rtol=ROUNDING, atol=ROUNDING)
    assert (reordered - hidden).abs().max() > 0.1
    torch.testing.assert_close(reordered.mean(1), hidden.mean(1), rtol=ROUNDING, atol=ROUNDING)


@torch.no_grad()
@pytest.mark.parametrize("position", [PositionKind.LEARNED, PositionKind.SINUSOIDAL])
def test_positions_end_the_equivariance(position: PositionKind) -> None:
    model, token_ids = drawn(shape(position=position)), ids(1, TOKENS)
    order = torch.tensor([3, 0, 6, 2, 5, 1, 4])
    hidden, reordered = (
        model.encode(rows, Padded.of(rows)) for rows in (token_ids, token_ids[:, order])
    )
    assert (reordered - hidden[:, order]).abs().max() > 0.1
