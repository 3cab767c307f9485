"""GPT-J (Wang & Komatsuzaki 2021): attention and feed-forward side by side, rotary positions."""

from collections.abc import Sequence
from dataclasses import replace

from model_core.checkpoints.fields import Fields
from model_core.checkpoints.key_rules import Drop, KeyRule, Pairs, Rename
from model_core.checkpoints.readers import TensorReader
from model_core.config import (
    LanguageModelConfig,
    Parallel,
    PositionKind,
    RotaryConfig,
    TransformerConfig,
)
from model_core.families.activations import ACTIVATIONS
from model_core.families.decoder_heads import language_model, sequence_classifier
from model_core.families.family import Family, Head
from model_core.families.gpt2 import BLOCK, LAYER, MASKS, OUTSIDE, decoder_config, read_attention


def config(fields: Fields, _tensors: TensorReader) -> TransformerConfig:
    """From `config.json`."""
    fields.require("rotary", True)
    fields.require("scale_attn_weights", True)
    attention = replace(
        read_attention(fields),
        bias=False,
        output_bias=False,
        rotary=RotaryConfig(theta=10_000.0, dims=fields.take("rotary_dim", int, 64)),
    )
    built = decoder_config(
        fields,
        attention=(attention,) * fields.take("n_layer", int),
        activation=fields.choose("activation_function", ACTIVATIONS, "gelu_new"),
        position=PositionKind.NONE,
        parallel=Parallel.ONE_NORM,
        head=LanguageModelConfig(tied=False, bias=True),
    )
    fields.finish()
    return built


def rules(shape: TransformerConfig) -> Sequence[KeyRule]:
    """The dims that turn stand in pairs."""
    attention = shape.output_stack.attention[0]
    dims = attention.rotary.dims if attention.rotary else 0
    pairs = Pairs(attention.heads, dims)
    return (
        *OUTSIDE,
        Rename(f"{LAYER}.ln_1", f"{BLOCK}.attention_norm"),
        Rename(f"{LAYER}.attn.q_proj", f"{BLOCK}.attention.query", pairs),
        Rename(f"{LAYER}.attn.k_proj", f"{BLOCK}.attention.key", pairs),
        Rename(f"{LAYER}.attn.v_proj", f"{BLOCK}.attention.value"),
        Rename(f"{LAYER}.attn.out_proj", f"{BLOCK}.attention.output"),
        Rename(f"{LAYER}.mlp.fc_in", f"{BLOCK}.feed_forward.up"),
        Rename(f"{LAYER}.mlp.fc_out", f"{BLOCK}.feed_forward.down"),
        *MASKS,
        Drop(f"{LAYER}.attn.embed_positions", "sines and cosines"),
    )


GPTJ = Family(
    names=("gptj",),
    title="GPT-J",
    config=config,
    rules=rules,
    architecture="GPTJModel",
    prefix="transformer.",
    heads={
        "language_model": Head("GPTJForCausalLM", language_model),
        "sequence_classifier": Head("GPTJForSequenceClassification", sequence_classifier),
    },
)
