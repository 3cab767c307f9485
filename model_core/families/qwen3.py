"""Qwen3 (Yang et al. 2025): Llama whose queries and keys are normalised within each head."""

from collections.abc import Sequence
from dataclasses import replace

from model_core.checkpoints.fields import Fields
from model_core.checkpoints.key_rules import KeyRule, Rename
from model_core.checkpoints.readers import TensorReader
from model_core.config import NormConfig, NormKind, TransformerConfig
from model_core.families.decoder_heads import decoder_heads
from model_core.families.family import Family, Gguf
from model_core.families.llama import BLOCK, decoder_config, read_attention
from model_core.families.llama import RULES as LLAMA_RULES
from model_core.families.llama_gguf import gguf_fields, kin_rules
from model_core.families.qwen2 import attention_of_layers


def config(fields: Fields, _tensors: TensorReader) -> TransformerConfig:
    """From `config.json`."""
    bias = fields.take("attention_bias", bool, False)
    attention = replace(
        read_attention(fields, bias=bias, output_bias=bias, head_dim=128),
        head_norm=NormConfig(NormKind.RMS, fields.take("rms_norm_eps", float, 1e-6)),
    )
    built = decoder_config(fields, attention=attention_of_layers(fields, attention))
    fields.finish()
    return built


RULES: Sequence[KeyRule] = (
    *LLAMA_RULES,
    Rename("model.layers.{layer}.self_attn.q_norm", f"{BLOCK}.attention.query_norm"),
    Rename("model.layers.{layer}.self_attn.k_norm", f"{BLOCK}.attention.key_norm"),
)

QWEN3 = Family(
    names=("qwen3",),
    title="Qwen3",
    config=config,
    rules=lambda _: RULES,
    architecture="Qwen3Model",
    prefix="model.",
    gguf=Gguf(gguf_fields("qwen3"), kin_rules),
    heads=decoder_heads("Qwen3"),
)
