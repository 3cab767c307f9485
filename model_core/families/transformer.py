"""The original Transformer (Vaswani et al. 2017): post-norm, ReLU, sines and cosines.

It has no checkpoint format of its own. Here it is PyTorch's: the fields of `config.json` are the
arguments of `torch.nn.Transformer`, the tensors' names those of its `state_dict`, beside the
embeddings and the output layer that it leaves to its user.
"""

from collections.abc import Sequence
from dataclasses import replace

from model_core.checkpoints.fields import Fields
from model_core.checkpoints.key_rules import KeyRule, Rename, Split
from model_core.checkpoints.readers import TensorReader
from model_core.config import (
    AttentionConfig,
    EmbeddingConfig,
    FeedForwardConfig,
    LanguageModelConfig,
    NormConfig,
    NormKind,
    NormPlacement,
    PositionKind,
    StackConfig,
    TransformerConfig,
)
from model_core.families.activations import ACTIVATIONS
from model_core.families.encoder_decoder import seq2seq
from model_core.families.family import Family, Head


def config(fields: Fields, _tensors: TensorReader) -> TransformerConfig:
    """From `config.json`.

    What the paper leaves no choice in is optional: post-norm, no final norm, embeddings × √d, one
    vocabulary, and one matrix for both embeddings and the output layer (section 3.4).
    """
    dim, heads = fields.take("d_model", int), fields.take("nhead", int)
    vocab = fields.take("vocab_size", int)
    is_shared = fields.take("share_embeddings", bool, True)
    attention = AttentionConfig(heads, heads, dim // heads, bias=True, output_bias=True)
    embedding = EmbeddingConfig(
        vocab_size=vocab,
        position=PositionKind.SINUSOIDAL,
        max_positions=fields.take("max_position_embeddings", int),
        scale=dim**0.5 if fields.take("scale_embedding", bool, True) else 1.0,
    )
    encoder = StackConfig(
        embedding=embedding,
        attention=(attention,) * fields.take("num_encoder_layers", int),
        feed_forward=FeedForwardConfig(
            inner_dim=fields.take("dim_feedforward", int),
            activation=fields.choose("activation", ACTIVATIONS, "relu"),
            gated=False,
            bias=True,
        ),
        placement=fields.choose(
            "norm_first", {False: NormPlacement.POST, True: NormPlacement.PRE}, False
        ),
        final_norm=fields.take("final_norm", bool, False),
    )
    if is_shared:
        fields.require("target_vocab_size", vocab)
    target_vocab = fields.take("target_vocab_size", int, vocab)
    decoder = replace(
        encoder,
        embedding=replace(embedding, vocab_size=target_vocab),
        attention=(replace(attention, causal=True),) * fields.take("num_decoder_layers", int),
        cross_attention=attention,
    )
    fields.ignore("dropout")
    built = TransformerConfig(
        dim=dim,
        norm=NormConfig(NormKind.LAYER, fields.take("layer_norm_eps", float, 1e-5)),
        encoder=encoder,
        decoder=decoder,
        shared_embedding=is_shared,
        language_model=LanguageModelConfig(tied=fields.take("tie_word_embeddings", bool, True)),
    )
    fields.finish()
    return built


def rules(shape: TransformerConfig) -> Sequence[KeyRule]:
    """PyTorch's names."""
    encoder, decoder = "transformer.encoder", "transformer.decoder"
    theirs, block = "decoder.layers.{layer}", f"{decoder}.blocks.{{layer}}"
    source = "embedding" if shape.shared_embedding else "source_embedding"
    return (
        Rename(source, f"{encoder}.embeddings.token"),
        Rename("target_embedding", f"{decoder}.embeddings.token"),
        *stack_rules("encoder", feed_forward_norm=2),
        *stack_rules("decoder", feed_forward_norm=3),
        *attention_rules(f"{theirs}.multihead_attn", f"{block}.cross_attention"),
        Rename(f"{theirs}.norm2", f"{block}.cross_attention_norm"),
        Rename("output", "heads.seq2seq.output"),
    )


def stack_rules(side: str, feed_forward_norm: int) -> Sequence[KeyRule]:
    """The same of one stack; the last of a layer's norms has this number."""
    layer, block = f"{side}.layers.{{layer}}", f"transformer.{side}.blocks.{{layer}}"
    return (
        *attention_rules(f"{layer}.self_attn", f"{block}.attention"),
        Rename(f"{layer}.norm1", f"{block}.attention_norm"),
        Rename(f"{layer}.linear1", f"{block}.feed_forward.up"),
        Rename(f"{layer}.linear2", f"{block}.feed_forward.down"),
        Rename(f"{layer}.norm{feed_forward_norm}", f"{block}.feed_forward_norm"),
        Rename(f"{side}.norm", f"transformer.{side}.final_norm"),
    )


def attention_rules(theirs: str, ours: str) -> Sequence[KeyRule]:
    """The same of one attention, whose three projections are one tensor each."""
    projections = (f"{ours}.query", f"{ours}.key", f"{ours}.value")
    return (
        *(
            Split(f"{theirs}.in_proj_{kind}", tuple(f"{part}.{kind}" for part in projections))
            for kind in ("weight", "bias")
        ),
        Rename(f"{theirs}.out_proj", f"{ours}.output"),
    )


TRANSFORMER = Family(
    names=("transformer",),
    title="Transformer",
    config=config,
    rules=rules,
    architecture="Transformer",
    heads={"seq2seq": Head("TransformerForConditionalGeneration", seq2seq)},
)
