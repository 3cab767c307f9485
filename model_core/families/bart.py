"""BART (Lewis et al. 2019): a post-norm encoder-decoder with a norm on the embeddings.

mBART, Marian and M2M-100 were trained by the same code and are its kin.
"""

from collections.abc import Sequence
from dataclasses import replace

from model_core.checkpoints.fields import Fields
from model_core.checkpoints.key_rules import Drop, KeyRule, Rename, Row
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
from model_core.families.encoder_decoder import (
    embedding_rules,
    read_sharing,
    seq2seq,
    sequence_classifier,
)
from model_core.families.family import Family, Head

LAYER_NORM = NormConfig(NormKind.LAYER, eps=1e-5)
OFFSET = 2  # the table of learned positions begins with two rows that nothing reads


def config(fields: Fields, tensors: TensorReader) -> TransformerConfig:
    """From `config.json`."""
    built = encoder_decoder_config(
        fields, tensors, placement=NormPlacement.POST, position_offset=OFFSET, embedding_norm=True
    )
    fields.finish()
    return built


def encoder_decoder_config(
    fields: Fields,
    tensors: TensorReader,
    *,
    placement: NormPlacement,
    position: PositionKind = PositionKind.LEARNED,
    position_offset: int = 0,
    embedding_norm: bool = False,
    activation: str = "gelu",
    scaled: bool = False,
    target_vocab: int | None = None,
) -> TransformerConfig:
    """The shape that BART's kin have in common.

    `activation` and `scaled` (embeddings × √d) are the defaults of fields; `target_vocab` is the
    size of the decoder's vocabulary, where that is another than the encoder's.
    """
    is_pre = placement is NormPlacement.PRE
    dim = fields.take("d_model", int)
    fields.require("is_decoder", False)
    fields.require("normalize_before", is_pre)
    fields.require("add_final_layer_norm", is_pre)
    fields.require("normalize_embedding", embedding_norm)
    fields.require("static_position_embeddings", position is not PositionKind.LEARNED)
    fields.ignore(
        "activation_dropout", "dropout", "classif_dropout", "encoder_layerdrop",
        "decoder_layerdrop", "init_std", "num_hidden_layers", "add_bias_logits",
        "extra_pos_embeddings", "force_bos_token_to_be_generated", "save_step", "replacing_rate",
        "student_encoder_layers", "student_decoder_layers",
    )  # fmt: skip
    embedding = EmbeddingConfig(
        vocab_size=fields.take("vocab_size", int),
        position=position,
        max_positions=fields.take("max_position_embeddings", int),
        position_offset=position_offset,
        norm=embedding_norm,
        scale=dim**0.5 if fields.take("scale_embedding", bool, scaled) else 1.0,
    )
    kind = fields.choose("activation_function", ACTIVATIONS, activation)

    def stack(side: str, embedding: EmbeddingConfig, *, is_decoder: bool) -> StackConfig:
        heads = fields.take(f"{side}_attention_heads", int)
        attention = AttentionConfig(heads, heads, dim // heads, bias=True, output_bias=True)
        self_attention = replace(attention, causal=is_decoder)
        return StackConfig(
            embedding=embedding,
            attention=(self_attention,) * fields.take(f"{side}_layers", int),
            feed_forward=FeedForwardConfig(
                fields.take(f"{side}_ffn_dim", int), kind, gated=False, bias=True
            ),
            placement=placement,
            final_norm=is_pre,
            cross_attention=attention if is_decoder else None,
        )

    tied = fields.take("tie_word_embeddings", bool, True)
    sharing = read_sharing(tensors, "model.", tied=tied)
    target = replace(embedding, vocab_size=target_vocab or embedding.vocab_size)
    return TransformerConfig(
        dim=dim,
        norm=LAYER_NORM,
        encoder=stack("encoder", embedding, is_decoder=False),
        decoder=stack("decoder", target, is_decoder=True),
        shared_embedding=sharing.embedding,
        language_model=LanguageModelConfig(
            tied=tied and sharing.head, bias="final_logits_bias" in tensors.names()
        ),
    )


def rules(shape: TransformerConfig) -> Sequence[KeyRule]:
    """The names that BART's kin have in common."""
    return (
        *embedding_rules(shape, "model."),
        *stack_rules("encoder", shape.output_stack.embedding.position),
        *stack_rules("decoder", shape.output_stack.embedding.position),
        Rename("final_logits_bias", "heads.seq2seq.output.bias", Row()),
        Rename("lm_head", "heads.seq2seq.output"),
        Rename("classification_head.dense", "heads.sequence_classifier.hidden"),
        Rename("classification_head.out_proj", "heads.sequence_classifier.output"),
    )


def stack_rules(side: str, position: PositionKind) -> Sequence[KeyRule]:
    """The same of one stack."""
    theirs, ours = f"model.{side}", f"transformer.{side}"
    layer, block = f"{theirs}.layers.{{layer}}", f"{ours}.blocks.{{layer}}"
    positions = f"{theirs}.embed_positions"
    return (
        Rename(positions, f"{ours}.embeddings.position")
        if position is PositionKind.LEARNED
        else Drop(positions, "sines and cosines, saved by old versions"),
        Drop(f"{positions}.weights", "the same under another name"),
        Drop(f"{theirs}.version", "a number that fairseq left"),
        Rename(f"{theirs}.layernorm_embedding", f"{ours}.embeddings.norm"),
        *attention_rules(f"{layer}.self_attn", f"{block}.attention"),
        *attention_rules(f"{layer}.encoder_attn", f"{block}.cross_attention"),
        Rename(f"{layer}.fc1", f"{block}.feed_forward.up"),
        Rename(f"{layer}.fc2", f"{block}.feed_forward.down"),
        Rename(f"{layer}.final_layer_norm", f"{block}.feed_forward_norm"),
        Rename(f"{theirs}.layer_norm", f"{ours}.final_norm"),
    )


def attention_rules(theirs: str, ours: str) -> Sequence[KeyRule]:
    """The same of one attention and its norm."""
    return (
        Rename(f"{theirs}.q_proj", f"{ours}.query"),
        Rename(f"{theirs}.k_proj", f"{ours}.key"),
        Rename(f"{theirs}.v_proj", f"{ours}.value"),
        Rename(f"{theirs}.out_proj", f"{ours}.output"),
        Rename(f"{theirs}_layer_norm", f"{ours}_norm"),
    )


BART = Family(
    names=("bart",),
    title="BART",
    config=config,
    rules=rules,
    architecture="BartModel",
    prefix="model.",
    heads={
        "seq2seq": Head("BartForConditionalGeneration", seq2seq),
        "sequence_classifier": Head("BartForSequenceClassification", sequence_classifier),
    },
)
