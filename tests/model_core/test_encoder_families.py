"""Encoders: what their checkpoints have of old and odd, beyond the equality of the parity tests."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BertForSequenceClassification,
    BertModel,
    DebertaV2ForMaskedLM,
    PreTrainedModel,
    RobertaForMaskedLM,
)

from model_core.attention import Explicit
from model_core.checkpoints.errors import CheckpointError
from model_core.checkpoints.fields import Fields
from model_core.checkpoints.load import Loaded, describe_config, load, read_json
from model_core.checkpoints.readers import TensorReader
from model_core.checkpoints.save import save
from model_core.checkpoints.sources import locate
from model_core.config import ConfigError, TransformerConfig
from model_core.families import FAMILIES, find_family
from tests.support.checkpoints import save_tiny_bert, tiny_bert_config
from tests.support.families import albert, bigbird, deberta, modernbert, mpnet, roberta
from tests.support.families.case import draw

NO_TENSORS = cast("TensorReader", None)  # these families read their shape from the fields alone


def shape_of(values: Mapping[str, Any]) -> TransformerConfig:
    """What `config.json` with these fields says."""
    family = find_family(FAMILIES, str(values["model_type"]))
    return family.config(Fields(values, "config.json"), NO_TENSORS)


def ours(model: PreTrainedModel, folder: Path, *heads: str) -> Loaded:
    model.save_pretrained(folder)
    return load(locate(str(folder), cache=folder), Explicit(), heads)


def rename_tensors(folder: Path, names: Mapping[str, str]) -> None:
    """Replace parts of the names in a saved checkpoint."""
    file = folder / "model.safetensors"
    renamed: dict[str, torch.Tensor] = {}
    for name, tensor in load_file(file).items():
        for today, old in names.items():
            name = name.replace(today, old)
        renamed[name] = tensor
    save_file(renamed, file)


BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
        "intermediate_size": 3072}  # fmt: skip
RELEASED: tuple[Mapping[str, Any], ...] = (
    {**BASE, "model_type": "xlm-roberta", "max_position_embeddings": 514, "vocab_size": 250002,
     "layer_norm_eps": 1e-05, "type_vocab_size": 1, "pad_token_id": 1, "output_past": True,
     "position_embedding_type": "absolute", "pruned_heads": {}},
    {"model_type": "distilbert", "activation": "gelu", "dim": 768, "dropout": 0.1,
     "finetuning_task": "sst-2", "hidden_dim": 3072, "max_position_embeddings": 512, "n_heads": 12,
     "n_layers": 6, "output_past": True, "pad_token_id": 0, "qa_dropout": 0.1,
     "seq_classif_dropout": 0.2, "sinusoidal_pos_embds": False, "tie_weights_": True,
     "vocab_size": 30522},
    {**BASE, "model_type": "albert", "embedding_size": 128, "hidden_act": "gelu",
     "classifier_dropout_prob": 0.1, "down_scale_factor": 1, "gap_size": 0, "inner_group_num": 1,
     "layers_to_keep": [], "max_position_embeddings": 512, "net_structure_type": 0,
     "num_hidden_groups": 1, "num_memory_blocks": 0, "type_vocab_size": 2, "vocab_size": 30000},
    {**BASE, "model_type": "electra", "embedding_size": 768, "hidden_act": "gelu",
     "layer_norm_eps": 1e-12, "max_position_embeddings": 512, "summary_activation": "gelu",
     "summary_last_dropout": 0.1, "summary_type": "first", "summary_use_proj": True,
     "type_vocab_size": 2, "vocab_size": 30522},
    {**BASE, "model_type": "mpnet", "layer_norm_eps": 1e-05, "max_position_embeddings": 514,
     "relative_attention_num_buckets": 32, "vocab_size": 30527},
    {**BASE, "model_type": "deberta-v2", "hidden_act": "gelu", "max_position_embeddings": 512,
     "relative_attention": True, "position_buckets": 256, "norm_rel_ebd": "layer_norm",
     "share_att_key": True, "pos_att_type": "p2c|c2p", "layer_norm_eps": 1e-7,
     "max_relative_positions": -1, "position_biased_input": False, "type_vocab_size": 0,
     "vocab_size": 128100, "pooler_dropout": 0, "pooler_hidden_act": "gelu",
     "pooler_hidden_size": 768},
    {**BASE, "model_type": "big_bird", "attention_type": "block_sparse", "block_size": 64,
     "hidden_act": "gelu_new", "max_position_embeddings": 4096, "num_random_blocks": 3,
     "rescale_embeddings": False, "type_vocab_size": 2, "use_bias": True, "vocab_size": 50358},
)  # fmt: skip

MODERNBERT_OF_TRANSFORMERS_4 = {
    "model_type": "modernbert", "hidden_size": 768, "intermediate_size": 1152,
    "num_attention_heads": 12, "num_hidden_layers": 22, "vocab_size": 50368,
    "max_position_embeddings": 8192, "attention_bias": False, "classifier_activation": "gelu",
    "classifier_bias": False, "classifier_dropout": 0.0, "classifier_pooling": "mean",
    "decoder_bias": True, "deterministic_flash_attn": False, "embedding_dropout": 0.0,
    "global_attn_every_n_layers": 3, "global_rope_theta": 160000.0, "hidden_activation": "gelu",
    "initializer_cutoff_factor": 2.0, "layer_norm_eps": 1e-05, "local_attention": 128,
    "local_rope_theta": 10000.0, "mlp_bias": False, "mlp_dropout": 0.0, "norm_bias": False,
    "norm_eps": 1e-05, "position_embedding_type": "absolute", "reference_compile": None,
    "repad_logits_with_grad": False, "sparse_pred_ignore_index": -100, "sparse_prediction": False,
    "tie_word_embeddings": True,
}  # fmt: skip


@pytest.mark.parametrize("values", RELEASED, ids=lambda values: values["model_type"])
def test_the_fields_of_released_checkpoints_are_understood(values: Mapping[str, Any]) -> None:
    assert shape_of(values).output_stack.layers == values.get("num_hidden_layers", 6)


def test_modernberts_old_fields_say_what_its_new_ones_do() -> None:
    turns = {
        "full_attention": {"rope_type": "default", "rope_theta": 160000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    }
    kinds = ["sliding_attention" if layer % 3 else "full_attention" for layer in range(22)]
    old = MODERNBERT_OF_TRANSFORMERS_4
    gone = ("global_attn_every_n_layers", "global_rope_theta", "local_rope_theta")
    new = {name: value for name, value in old.items() if name not in gone}
    new |= {"layer_types": kinds, "rope_parameters": turns}
    assert shape_of(old) == shape_of(new)


REFUSED = [
    (albert.config(num_hidden_groups=2), "num_hidden_groups"),
    (albert.config(inner_group_num=2), "inner_group_num"),
    (bigbird.config(attention_type="windowed"), "attention_type"),
    (deberta.config(conv_kernel_size=3), "conv_kernel_size"),
    (deberta.config(pos_att_type=["c2p"]), "pos_att_type"),
    (deberta.config(share_att_key=False), "share_att_key"),
    (deberta.config(relative_attention=False), "relative_attention"),
    (deberta.config(position_buckets=-1), "position_buckets"),
    (modernbert.config(classifier_activation="quick_gelu"), "classifier_activation"),
    (mpnet.config(relative_attention_num_buckets=64), "relative_attention_num_buckets"),
    (roberta.config(is_decoder=True), "is_decoder"),
]


@pytest.mark.parametrize(("config", "named"), REFUSED, ids=[named for _, named in REFUSED])
def test_what_is_not_supported_is_refused_by_name(config: Any, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        shape_of({**config.to_dict(), "model_type": config.model_type})


def test_bigbird_takes_texts_that_it_attends_to_in_full() -> None:
    sparse, full = (
        shape_of(bigbird.config(attention_type=kind).to_dict()).output_stack.embedding
        for kind in ("block_sparse", "original_full")
    )
    assert (sparse.max_positions, full.max_positions) == (28, 64)
    assert sparse.rows == full.rows == 64


def test_a_decoder_that_differs_from_the_embedding_it_is_tied_to_is_refused(
    tmp_path: Path,
) -> None:
    RobertaForMaskedLM(roberta.config()).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    tensors["lm_head.decoder.weight"] = tensors["roberta.embeddings.word_embeddings.weight"] + 1
    save_file(tensors, file)
    with pytest.raises(CheckpointError, match=r"tied, but different.*lm_head\.decoder\.weight"):
        load(locate(str(tmp_path), cache=tmp_path), Explicit(), ["masked_lm"])


def test_norms_with_a_gamma_and_a_beta_load(tmp_path: Path) -> None:
    model = draw(BertModel(tiny_bert_config()), seed=0, gain=1.0)
    model.save_pretrained(tmp_path)
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    rename_tensors(tmp_path, old)
    loaded = load(locate(str(tmp_path), cache=tmp_path), Explicit())
    norm = loaded.model.transformer.get_submodule("encoder.blocks.1.feed_forward_norm")
    assert torch.equal(norm.bias, model.get_submodule("encoder.layer.1.output.LayerNorm").bias)  # pyright: ignore[reportArgumentType]


@torch.inference_mode()
def test_debertas_own_names_of_a_masked_lm_are_saved_as_those_of_transformers(
    tmp_path: Path,
) -> None:
    reference = draw(DebertaV2ForMaskedLM(deberta.config(legacy=False)), seed=0, gain=2.0)
    loaded = ours(reference, tmp_path, "masked_lm")
    assert any("lm_predictions" in name for name in load_file(tmp_path / "model.safetensors"))
    again = tmp_path / "again"
    again.mkdir()
    save(loaded.model, loaded.description, again)
    assert read_json(again / "config.json")["legacy"] is True
    token_ids = torch.arange(3, 12)[None]
    found = DebertaV2ForMaskedLM.from_pretrained(again).eval()(token_ids).logits
    assert torch.allclose(found, reference(token_ids).logits, atol=1e-4)


def test_who_may_read_a_saved_configuration_may_read_the_weights(tmp_path: Path) -> None:
    loaded = load(locate(str(save_tiny_bert(tmp_path / "tiny")), cache=tmp_path), Explicit())
    save(loaded.model, loaded.description, tmp_path)
    modes = [(tmp_path / name).stat().st_mode for name in ("config.json", "model.safetensors")]
    assert modes[0] == modes[1]


def test_a_classifier_with_two_labels_and_no_names_has_two(tmp_path: Path) -> None:
    loaded = ours(
        BertForSequenceClassification(tiny_bert_config()), tmp_path, "sequence_classifier"
    )
    assert "id2label" not in read_json(tmp_path / "config.json")
    assert loaded.description.labels == ("LABEL_0", "LABEL_1")


def test_a_model_without_a_classifier_has_no_labels() -> None:
    assert describe_config(MODERNBERT_OF_TRANSFORMERS_4).labels == ()
