"""How llama.cpp's converter writes Llama and its kin."""

from collections.abc import Callable, Sequence
from typing import Any

from model_core.checkpoints.fields import Fields
from model_core.checkpoints.key_rules import AsIs, KeyRule, Layout, Pairs, Rename
from model_core.checkpoints.readers import TensorReader
from model_core.config import TransformerConfig

AS_IS = AsIs()
FIELDS = {
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "intermediate_size": "feed_forward_length",
    "max_position_embeddings": "context_length",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "rope_theta": "rope.freq_base",
}


def gguf_fields(name: str) -> Callable[[Fields, TensorReader], dict[str, Any]]:
    """For the metadata of an architecture, whose shape fields stand under its `name`."""

    def fields(metadata: Fields, tensors: TensorReader) -> dict[str, Any]:
        """`config.json`'s fields of GGUF metadata."""
        metadata.require(f"{name}.rope.scaling.type", "none")
        metadata.ignore(*(f"{name}.{theirs}" for theirs in FIELDS.values()))
        values: dict[str, Any] = {
            "model_type": name,
            "vocab_size": tensors.shape("token_embd.weight")[0],
            "tie_word_embeddings": "output.weight" not in tensors.names(),
        }
        for ours, theirs in FIELDS.items():
            values[ours] = metadata.values.get(f"{name}.{theirs}")
        head_dim = values["head_dim"] or values["hidden_size"] // values["num_attention_heads"]
        metadata.require(f"{name}.vocab_size", values["vocab_size"])
        metadata.require(f"{name}.attention.value_length", head_dim)
        metadata.require(f"{name}.rope.dimension_count", head_dim)
        metadata.finish(prefix=f"{name}.")
        return {field: value for field, value in values.items() if value is not None}

    return fields


def llama_rules(shape: TransformerConfig) -> Sequence[KeyRule]:
    """Llama's names; its queries and keys turn in pairs there."""
    attention = shape.output_stack.attention[0]
    return rules(query=Pairs(attention.heads), key=Pairs(attention.kv_heads))


def kin_rules(_shape: TransformerConfig) -> Sequence[KeyRule]:
    """The same of its kin, which turn in halves as everywhere."""
    return rules()


def rules(query: Layout = AS_IS, key: Layout = AS_IS) -> Sequence[KeyRule]:
    """The names, with the layouts of the query and key projections."""
    stack, block = "transformer.decoder", "transformer.decoder.blocks.{layer}"
    return (
        Rename("token_embd", f"{stack}.embeddings.token"),
        Rename("blk.{layer}.attn_norm", f"{block}.attention_norm"),
        Rename("blk.{layer}.attn_q", f"{block}.attention.query", query),
        Rename("blk.{layer}.attn_k", f"{block}.attention.key", key),
        Rename("blk.{layer}.attn_v", f"{block}.attention.value"),
        Rename("blk.{layer}.attn_output", f"{block}.attention.output"),
        Rename("blk.{layer}.attn_q_norm", f"{block}.attention.query_norm"),
        Rename("blk.{layer}.attn_k_norm", f"{block}.attention.key_norm"),
        Rename("blk.{layer}.ffn_norm", f"{block}.feed_forward_norm"),
        Rename("blk.{layer}.ffn_gate", f"{block}.feed_forward.gate"),
        Rename("blk.{layer}.ffn_up", f"{block}.feed_forward.up"),
        Rename("blk.{layer}.ffn_down", f"{block}.feed_forward.down"),
        Rename("output_norm", f"{stack}.final_norm"),
        Rename("output", "heads.language_model.output"),
    )
