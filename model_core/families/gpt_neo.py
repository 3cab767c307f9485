"""GPT-Neo (Black et al. 2021): GPT-2 with local layers in turn, and scores left unscaled."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

from model_core.checkpoints.fields import Fields
from model_core.checkpoints.key_rules import Drop, KeyRule, Rename
from model_core.checkpoints.readers import TensorReader
from model_core.config import (
    AttentionConfig,
    ConfigError,
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
from model_core.families.decoder_heads import decoder_heads
from model_core.families.family import Family
from model_core.families.gpt2 import BLOCK, LAYER, OUTSIDE


def config(fields: Fields, _tensors: TensorReader) -> TransformerConfig:
    """From `config.json`."""
    fields.ignore("embed_dropout", "resid_dropout")
    dim = fields.take("hidden_size", int)
    built = TransformerConfig(
        dim=dim,
        norm=NormConfig(NormKind.LAYER, fields.take("layer_norm_epsilon", float, 1e-5)),
        decoder=StackConfig(
            embedding=EmbeddingConfig(
                vocab_size=fields.take("vocab_size", int),
                position=PositionKind.LEARNED,
                max_positions=fields.take("max_position_embeddings", int),
            ),
            attention=attention_of_layers(fields),
            feed_forward=FeedForwardConfig(
                inner_dim=fields.take("intermediate_size", int, 4 * dim),
                activation=fields.choose("activation_function", ACTIVATIONS, "gelu_new"),
                gated=False,
                bias=True,
            ),
            placement=NormPlacement.PRE,
            final_norm=True,
        ),
        language_model=LanguageModelConfig(tied=fields.take("tie_word_embeddings", bool, True)),
    )
    fields.finish()
    return built


def attention_of_layers(fields: Fields) -> tuple[AttentionConfig, ...]:
    """Global, or through a window: `attention_types` says it, once more `attention_layers`."""
    dim, heads = fields.take("hidden_size", int), fields.take("num_heads", int)
    everywhere = AttentionConfig(
        heads, heads, dim // heads, bias=False, output_bias=True, causal=True, scale=1.0
    )
    near = replace(everywhere, window=fields.take("window_size", int, 256))
    kinds = {"global": everywhere, "local": near}
    names = layer_kinds(fields)
    layers = fields.take("num_layers", int)
    if len(names) != layers or not kinds.keys() >= set(names):
        raise ConfigError(
            f"{fields.origin}: 'attention_types' gives {list(names)}, expected global or local "
            f"for each of {layers} layers"
        )
    return tuple(kinds[name] for name in names)


def layer_kinds(fields: Fields) -> tuple[str, ...]:
    """`[[["global", "local"], 2]]` is global, local, global, local."""
    groups = cast("tuple[list[Any], ...] | None", fields.sequence("attention_types", list))
    listed = fields.sequence("attention_layers", str)
    if groups is None:
        return listed or ("global", "local") * 12
    try:
        pairs = [(tuple(names), times) for names, times in groups]
        spread = tuple(str(name) for names, times in pairs for name in names * times)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{fields.origin}: 'attention_types' is {list(groups)}, "
            "expected pairs of a list of kinds and how often it comes"
        ) from error
    if listed not in (None, spread):
        raise ConfigError(
            f"{fields.origin}: 'attention_layers' is {list(listed or ())}, "
            f"but 'attention_types' gives {list(spread)}"
        )
    return spread


RULES: Sequence[KeyRule] = (
    *OUTSIDE,
    Rename(f"{LAYER}.ln_1", f"{BLOCK}.attention_norm"),
    Rename(f"{LAYER}.attn.attention.q_proj", f"{BLOCK}.attention.query"),
    Rename(f"{LAYER}.attn.attention.k_proj", f"{BLOCK}.attention.key"),
    Rename(f"{LAYER}.attn.attention.v_proj", f"{BLOCK}.attention.value"),
    Rename(f"{LAYER}.attn.attention.out_proj", f"{BLOCK}.attention.output"),
    Rename(f"{LAYER}.ln_2", f"{BLOCK}.feed_forward_norm"),
    Rename(f"{LAYER}.mlp.c_fc", f"{BLOCK}.feed_forward.up"),
    Rename(f"{LAYER}.mlp.c_proj", f"{BLOCK}.feed_forward.down"),
    Drop(f"{LAYER}.attn.attention", "the mask, as a bias of attention"),
    Drop(f"{LAYER}.attn.attention.masked_bias", "what masked scores become"),
)

GPT_NEO = Family(
    names=("gpt_neo",),
    title="GPT-Neo",
    config=config,
    rules=lambda _: RULES,
    architecture="GPTNeoModel",
    prefix="transformer.",
    heads=decoder_heads("GPTNeo"),
)
