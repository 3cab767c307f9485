"""Decoders: what their checkpoints have of old and odd, beyond the equality of the parity tests."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import gguf
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from model_core.attention import Explicit
from model_core.checkpoints.errors import CheckpointError
from model_core.checkpoints.fields import Fields
from model_core.checkpoints.load import Loaded, load, read_json
from model_core.checkpoints.readers import TensorReader
from model_core.checkpoints.sources import locate
from model_core.config import ConfigError, TransformerConfig
from model_core.families import FAMILIES, find_family
from tests.support.families import (
    gemma2,
    gemma3,
    gpt1,
    gpt2,
    gpt_neo,
    gpt_neox,
    gptj,
    llama,
    mistral,
    qwen2,
    qwen3,
    smollm3,
)
from tests.support.families.case import Case
from tests.support.families.parity import our_output, pad_id_of, reference_output, relative_error

NO_TENSORS = cast("TensorReader", None)  # these families read their shape from the fields alone
TOLERANCE = 1e-5  # as in the parity tests


def shape_of(values: Mapping[str, Any]) -> TransformerConfig:
    """What `config.json` with these fields says."""
    family = find_family(FAMILIES, str(values["model_type"]))
    return family.config(Fields(values, "config.json"), NO_TENSORS)


def load_folder(folder: Path, *heads: str) -> Loaded:
    return load(locate(str(folder), cache=folder), Explicit(), heads)


def error(case: Case, reference: PreTrainedModel, ours: Loaded, head: str | None) -> float:
    """How far ours is from the reference."""
    texts = case.token_ids(0)
    expected = reference_output(reference, texts, pad_id_of(reference))
    return relative_error(our_output(ours, head, texts), expected)


RELEASED: tuple[Mapping[str, Any], ...] = (
    {"model_type": "openai-gpt", "afn": "gelu", "attn_pdrop": 0.1, "embd_pdrop": 0.1,
     "layer_norm_epsilon": 1e-05, "n_ctx": 512, "n_embd": 768, "n_head": 12, "n_layer": 12,
     "n_positions": 512, "n_special": 0, "predict_special_tokens": True, "resid_pdrop": 0.1,
     "summary_type": "cls_index", "vocab_size": 40478},
    {"model_type": "gpt2", "activation_function": "gelu_new", "attn_pdrop": 0.1,
     "embd_pdrop": 0.1, "layer_norm_epsilon": 1e-05, "n_ctx": 1024, "n_embd": 768, "n_head": 12,
     "n_layer": 6, "n_positions": 1024, "_num_labels": 1, "resid_pdrop": 0.1,
     "summary_use_proj": True, "vocab_size": 50257},
    {"model_type": "gpt_neo", "activation_function": "gelu_new", "attention_dropout": 0,
     "attention_layers": ["global", "local"] * 6, "attention_types": [[["global", "local"], 6]],
     "embed_dropout": 0, "gradient_checkpointing": False, "hidden_size": 768,
     "intermediate_size": None, "layer_norm_epsilon": 1e-05, "max_position_embeddings": 2048,
     "num_heads": 12, "num_layers": 12, "resid_dropout": 0, "vocab_size": 50257,
     "window_size": 256},
    {"model_type": "gptj", "activation_function": "gelu_new", "attn_pdrop": 0.0,
     "embd_pdrop": 0.0, "gradient_checkpointing": False, "layer_norm_epsilon": 1e-05,
     "n_embd": 4096, "n_head": 16, "n_inner": None, "n_layer": 28, "n_positions": 2048,
     "resid_pdrop": 0.0, "rotary": True, "rotary_dim": 64, "scale_attn_weights": True,
     "tie_word_embeddings": False, "tokenizer_class": "GPT2Tokenizer", "vocab_size": 50400},
    {"model_type": "gpt_neox", "attention_probs_dropout_prob": 0, "hidden_act": "gelu_fast",
     "hidden_dropout_prob": 0, "hidden_size": 6144, "intermediate_size": 24576,
     "layer_norm_eps": 1e-05, "max_position_embeddings": 2048, "num_attention_heads": 64,
     "num_hidden_layers": 44, "rotary_emb_base": 10000, "rotary_pct": 0.25,
     "tie_word_embeddings": False, "use_parallel_residual": True, "vocab_size": 50432},
    {"model_type": "llama", "hidden_act": "silu", "hidden_size": 4096,
     "intermediate_size": 11008, "max_position_embeddings": 2048, "max_sequence_length": 2048,
     "num_attention_heads": 32, "num_hidden_layers": 32, "pad_token_id": 0,
     "rms_norm_eps": 1e-06, "tie_word_embeddings": False, "vocab_size": 32000},
    {"model_type": "mistral", "hidden_act": "silu", "hidden_size": 4096,
     "intermediate_size": 14336, "max_position_embeddings": 32768, "num_attention_heads": 32,
     "num_hidden_layers": 32, "num_key_value_heads": 8, "rms_norm_eps": 1e-05,
     "rope_theta": 10000.0, "sliding_window": 4096, "tie_word_embeddings": False,
     "vocab_size": 32000},
    {"model_type": "smollm3", "attention_bias": False, "hidden_act": "silu",
     "hidden_size": 2048, "intermediate_size": 11008, "layer_types": ["full_attention"] * 36,
     "max_position_embeddings": 65536, "max_window_layers": 28, "mlp_bias": False,
     "no_rope_layer_interval": 4, "no_rope_layers": [1, 1, 1, 0] * 9, "num_attention_heads": 16,
     "num_hidden_layers": 36, "num_key_value_heads": 4, "pretraining_tp": 2,
     "rms_norm_eps": 1e-06, "rope_scaling": None, "rope_theta": 5000000.0,
     "sliding_window": None, "use_sliding_window": False, "vocab_size": 128256},
    {"model_type": "qwen2", "hidden_act": "silu", "hidden_size": 896, "intermediate_size": 4864,
     "max_position_embeddings": 32768, "max_window_layers": 21, "num_attention_heads": 14,
     "num_hidden_layers": 24, "num_key_value_heads": 2, "rms_norm_eps": 1e-06,
     "rope_theta": 1000000.0, "sliding_window": 32768, "tie_word_embeddings": True,
     "use_mrope": False, "use_sliding_window": False, "vocab_size": 151936},
    {"model_type": "qwen3", "attention_bias": False, "head_dim": 128, "hidden_act": "silu",
     "hidden_size": 1024, "intermediate_size": 3072, "max_position_embeddings": 40960,
     "max_window_layers": 28, "num_attention_heads": 16, "num_hidden_layers": 28,
     "num_key_value_heads": 8, "rms_norm_eps": 1e-06, "rope_scaling": None,
     "rope_theta": 1000000, "sliding_window": None, "tie_word_embeddings": True,
     "use_sliding_window": False, "vocab_size": 151936},
    {"model_type": "gemma2", "attention_bias": False, "attn_logit_softcapping": 50.0,
     "cache_implementation": "hybrid", "final_logit_softcapping": 30.0, "head_dim": 256,
     "hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh",
     "hidden_size": 2304, "intermediate_size": 9216, "max_position_embeddings": 8192,
     "num_attention_heads": 8, "num_hidden_layers": 26, "num_key_value_heads": 4,
     "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06, "rope_theta": 10000.0,
     "sliding_window": 4096, "vocab_size": 256000},
    {"model_type": "gemma3_text", "attention_bias": False, "attn_logit_softcapping": None,
     "cache_implementation": "hybrid", "final_logit_softcapping": None, "head_dim": 256,
     "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 1152, "intermediate_size": 6912,
     "max_position_embeddings": 32768, "num_attention_heads": 4, "num_hidden_layers": 26,
     "num_key_value_heads": 1, "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06,
     "rope_local_base_freq": 10000, "rope_scaling": None, "rope_theta": 1000000,
     "sliding_window": 512, "sliding_window_pattern": 6, "vocab_size": 262144},
)  # fmt: skip


@pytest.mark.parametrize("values", RELEASED, ids=lambda values: values["model_type"])
def test_the_fields_of_released_checkpoints_are_understood(values: Mapping[str, Any]) -> None:
    layers = next(values[name] for name in values if name.removeprefix("num_hidden_") in
                  ("layers", "n_layer", "num_layers"))  # fmt: skip
    assert shape_of(values).output_stack.layers == layers


def test_every_sixth_layer_of_gemma_3_is_global() -> None:
    attention = shape_of(RELEASED[-1]).output_stack.attention
    thetas = [layer.rotary and layer.rotary.theta for layer in attention]
    assert thetas[:7] == [10_000.0] * 5 + [1_000_000.0, 10_000.0]
    assert [layer.window for layer in attention[:7]] == [512] * 5 + [None, 512]


def test_only_an_absent_window_is_mistrals_first_one() -> None:
    values = {**RELEASED[6]}
    assert shape_of({**values, "sliding_window": None}).output_stack.attention[0].window is None
    del values["sliding_window"]
    assert shape_of(values).output_stack.attention[0].window == 4096


REFUSED = [
    (gpt1.config(afn="tanh"), "afn"),
    (gpt2.config(add_cross_attention=True), "add_cross_attention"),
    (gpt2.config(n_ctx=32), "n_ctx"),
    (gpt_neo.config(attention_layers=["local"] * 4), "attention_layers"),
    (gptj.config(rotary=False), "rotary"),
    (gpt_neox.config(hidden_act="quick_gelu"), "hidden_act"),
    (llama.config(rope_interleaved=True), "rope_interleaved"),
    (mistral.config(attention_bias=True), "attention_bias"),
    (qwen2.config(use_mrope=True), "use_mrope"),
    (gemma2.config(use_bidirectional_attention=True), "use_bidirectional_attention"),
    (gemma3.config(attn_logit_softcapping=50.0), "attn_logit_softcapping"),
]


@pytest.mark.parametrize(("config", "named"), REFUSED, ids=[named for _, named in REFUSED])
def test_what_is_not_supported_is_refused_by_name(config: Any, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        shape_of(config.to_dict())


MALFORMED = [
    (gpt_neo, {"attention_types": [["global", 2]], "attention_layers": None}, "attention_types"),
    (gpt_neo, {"attention_types": [3], "attention_layers": None}, "attention_types"),
    (qwen2, {"layer_types": ["full_attention"]}, "layer_types"),
    (qwen2, {"layer_types": ["chunked_attention"] * 3}, "layer_types"),
    (qwen3, {"layer_types": ["sliding_attention"] * 3}, "sliding_window is null"),
    (smollm3, {"no_rope_layers": [1, 0]}, "no_rope_layers"),
    (smollm3, {"no_rope_layers": "1110"}, "no_rope_layers"),
]


@pytest.mark.parametrize(("family", "changes", "named"), MALFORMED)
def test_a_list_of_layers_that_makes_no_sense_is_refused_by_name(
    family: Any, changes: Mapping[str, Any], named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        shape_of({**family.config().to_dict(), **changes})


def with_buffers(*names: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    """Tensors that old versions saved in each layer."""
    return lambda tensors: (
        tensors | {name.format(layer): torch.ones(2) for name in names for layer in range(3)}
    )


def without_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    masks = {f"transformer.h.{layer}.attn.bias": torch.ones(1, 1, 64, 64) for layer in range(3)}
    return {name.removeprefix("transformer."): x for name, x in (tensors | masks).items()}


def head_of_today(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    assert "embed_out.weight" in tensors
    return {name.replace("embed_out", "lm_head"): x for name, x in tensors.items()}


GEMMA3_LOCAL = {"rope_type": "default", "rope_theta": 100.0}
GEMMA3_GLOBAL = {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e4}
NEOX_TURNS = {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.5}
LLAMA_TURNS = {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0}
# What the reference is made with; then the fields and the tensors of an older file of it.
OLD = [
    (gpt2, {}, {"n_ctx": 64, "output_past": True}, without_prefix),
    (gpt2, {}, {}, with_buffers("transformer.h.{}.attn.bias", "transformer.h.{}.attn.masked_bias")),
    (gptj, {}, {"rotary": True},
     with_buffers("transformer.h.{}.attn.bias", "transformer.h.{}.attn.masked_bias")),
    (gpt_neo, {}, {}, with_buffers("transformer.h.{}.attn.attention.bias",
                                   "transformer.h.{}.attn.attention.masked_bias")),
    (gpt_neox, {"rope_parameters": NEOX_TURNS},
     {"rope_parameters": None, "rotary_pct": 0.5, "rotary_emb_base": 500},
     with_buffers("gpt_neox.layers.{}.attention.bias", "gpt_neox.layers.{}.attention.masked_bias",
                  "gpt_neox.layers.{}.attention.rotary_emb.inv_freq")),
    (gpt_neox, {}, {}, head_of_today),
    (llama, {"rope_parameters": LLAMA_TURNS},
     {"rope_parameters": None, "rope_theta": 500.0,
      "rope_scaling": {"type": "linear", "factor": 4.0}},
     with_buffers("model.layers.{}.self_attn.rotary_emb.inv_freq")),
    (gemma3, {"rope_parameters": {"full_attention": GEMMA3_GLOBAL,
                                  "sliding_attention": GEMMA3_LOCAL}},
     {"rope_parameters": None, "layer_types": None, "rope_theta": 1e4,
      "rope_local_base_freq": 100.0, "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
     lambda tensors: tensors),
]  # fmt: skip


@pytest.mark.parametrize(("family", "made_with", "fields", "tensors"), OLD)
def test_an_older_checkpoint_loads(
    family: Any,
    made_with: Mapping[str, Any],
    fields: Mapping[str, Any],
    tensors: Callable[[dict[str, Tensor]], dict[str, Tensor]],
    tmp_path: Path,
) -> None:
    case = family.CASES[0]
    reference = Case(
        "", case.family, lambda: family.config(**made_with), case.base, case.heads, gain=case.gain
    ).reference("language_model")
    reference.save_pretrained(tmp_path)
    values = {**read_json(tmp_path / "config.json"), **fields}
    (tmp_path / "config.json").write_text(json.dumps(values))
    file = tmp_path / "model.safetensors"
    save_file({name: x.contiguous() for name, x in tensors(load_file(file)).items()}, file)
    loaded = load_folder(tmp_path, "language_model")
    assert error(case, reference, loaded, "language_model") <= TOLERANCE


@pytest.mark.parametrize(("family", "prefix"), [(llama, "model."), (gpt2, "transformer.")])
def test_a_model_without_a_head_loads_from_a_checkpoint_with_one(
    family: Any, prefix: str, tmp_path: Path
) -> None:
    case = family.CASES[0]
    reference = case.reference("language_model")
    reference.save_pretrained(tmp_path)
    assert all(name.startswith(prefix) for name in load_file(tmp_path / "model.safetensors"))
    trunk = reference.get_submodule(prefix.removesuffix("."))
    assert error(case, cast("PreTrainedModel", trunk), load_folder(tmp_path), None) <= TOLERANCE


def test_a_head_that_differs_from_the_embedding_it_is_tied_to_is_refused(tmp_path: Path) -> None:
    gpt2.CASES[0].reference("language_model").save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    save_file(tensors | {"lm_head.weight": tensors["transformer.wte.weight"] + 1}, file)
    with pytest.raises(CheckpointError, match=r"tied, but different: .*lm_head\.weight"):
        load_folder(tmp_path, "language_model")


def test_gains_stored_less_1_keep_what_bfloat16_says_of_them(tmp_path: Path) -> None:
    """The reference adds the 1 in float32: in bfloat16 0.0042 and 1 would be 1."""
    model = gemma2.CASES[0].reference().bfloat16()
    model.save_pretrained(tmp_path)
    loaded = load_folder(tmp_path).model.transformer
    found = loaded.get_submodule("decoder.blocks.1.attention_second_norm").weight
    stored = model.get_submodule("layers.1.post_attention_layernorm").weight
    assert torch.equal(cast("Tensor", found), 1.0 + cast("Tensor", stored).float())


def write_gguf(reference: PreTrainedModel, arch: gguf.MODEL_ARCH, file: Path) -> None:
    """The reference as llama.cpp's converter writes it, by its own table of names."""
    config = reference.config
    writer = gguf.GGUFWriter(file, gguf.MODEL_ARCH_NAMES[arch])
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    if head_dim := getattr(config, "head_dim", None):
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set[str]()
    for name, tensor in reference.state_dict().items():
        if name not in tied:
            written = names.get_name(name, try_suffixes=(".weight", ".bias"))
            writer.add_tensor(str(written), tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize(
    ("family", "arch", "is_tied"),
    [
        (qwen2, gguf.MODEL_ARCH.QWEN2, True),
        (qwen3, gguf.MODEL_ARCH.QWEN3, False),
    ],
    ids=["qwen2", "qwen3"],
)
def test_a_gguf_file_is_the_model_it_was_written_from(
    family: Any, arch: gguf.MODEL_ARCH, is_tied: bool, tmp_path: Path
) -> None:
    case = family.CASES[0]
    reference = Case(
        "", case.family, lambda: family.config(tie_word_embeddings=is_tied), case.base, case.heads
    ).reference("language_model")
    write_gguf(reference, arch, tmp_path / "model.gguf")
    loaded = load_folder(tmp_path, "language_model")
    assert error(case, reference, loaded, "language_model") <= TOLERANCE
