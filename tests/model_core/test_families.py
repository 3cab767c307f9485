"""Families: tiny random checkpoints of transformers, loaded by ours, give the same numbers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from model_core.attention import Explicit, Padded
from model_core.checkpoints.errors import CheckpointError
from model_core.checkpoints.load import Loaded, load, read_json
from model_core.checkpoints.sources import locate
from model_core.config import ConfigError
from tests.support.checkpoints import draw_widely, tiny_bert_config, tiny_llama_config

# Float32 products of a few layers, in another order; relative to the largest magnitude.
RELATIVE = 1e-5


def ours(model: PreTrainedModel, folder: Path, *heads: str) -> Loaded:
    model.save_pretrained(folder)
    return load(locate(str(folder), cache=folder), Explicit(), heads)


def assert_equal(found: Tensor, expected: Tensor) -> None:
    assert (found - expected).abs().max() <= RELATIVE * expected.abs().max()


def ids(vocab: int = 60) -> tuple[Tensor, Tensor]:
    """Rows of 9 and 5 tokens, and the mask."""
    drawn = torch.randint(vocab, (2, 9), generator=torch.Generator().manual_seed(1))
    return drawn, torch.arange(9) < torch.tensor([9, 5])[:, None]


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu"])
@torch.no_grad()
def test_bert(tmp_path: Path, activation: str) -> None:
    model = draw_widely(BertModel(tiny_bert_config(hidden_act=activation)))
    token_ids, mask = ids()
    types = torch.arange(9).expand_as(token_ids) % 2
    loaded = ours(model, tmp_path)
    assert {name.split(".")[0] for name in loaded.unused} == {"pooler"}
    found = loaded.model.transformer.encode(token_ids, Padded.of(token_ids, mask), types)
    expected = model(token_ids, attention_mask=mask.long(), token_type_ids=types)
    assert_equal(found[mask], expected.last_hidden_state[mask])


HEADS = [
    (BertForMaskedLM, "masked_lm"),
    (BertForSequenceClassification, "sequence_classifier"),
    (BertForTokenClassification, "token_classifier"),
]


@pytest.mark.parametrize(("kind", "head"), HEADS)
@torch.no_grad()
def test_berts_heads(tmp_path: Path, kind: Any, head: str, request: Any) -> None:
    model = draw_widely(kind(tiny_bert_config(num_labels=3)))
    token_ids, mask = ids()
    loaded = ours(model, tmp_path, head)
    hidden = loaded.model.transformer.encode(token_ids, Padded.of(token_ids, mask))
    is_sequence = head == "sequence_classifier"
    found = loaded.model.heads[head](hidden[:, 0] if is_sequence else hidden)
    expected = model(token_ids, attention_mask=mask.long()).logits
    assert_equal(*((found, expected) if is_sequence else (found[mask], expected[mask])))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_key_value_heads": 4},
        {"head_dim": 6},
        {"tie_word_embeddings": True},
        {"attention_bias": True, "mlp_bias": True},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 123.0}},
    ],
    ids=["grouped", "ungrouped", "head_dim", "tied", "biased", "theta"],
)
@torch.no_grad()
def test_llama(tmp_path: Path, changes: dict[str, Any]) -> None:
    model = draw_widely(LlamaForCausalLM(tiny_llama_config(**changes)))
    token_ids, _ = ids()
    loaded = ours(model, tmp_path, "language_model")
    assert loaded.unused == ()
    hidden = loaded.model.transformer.decode(token_ids, Padded.of(token_ids))
    found = loaded.model.heads["language_model"](hidden)
    assert_equal(found, model(token_ids).logits)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        (tiny_llama_config(rope_parameters={
            "rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4,
            "long_factor": [2.0] * 4, "original_max_position_embeddings": 32,
        }), "rope_type"),
        (tiny_llama_config(hidden_act="quick_gelu"), "hidden_act"),
        (tiny_bert_config(is_decoder=True), "is_decoder"),
    ],
)  # fmt: skip
def test_a_field_that_is_not_supported_is_refused_by_name(
    tmp_path: Path, config: BertConfig | LlamaConfig, named: str
) -> None:
    kind: Any = BertModel if isinstance(config, BertConfig) else LlamaForCausalLM
    with pytest.raises(ConfigError, match=named):
        ours(kind(config), tmp_path)


def test_a_field_that_nobody_knows_is_refused_by_name(tmp_path: Path) -> None:
    model = LlamaForCausalLM(tiny_llama_config(sliding_frobnication=7))
    with pytest.raises(ConfigError, match="sliding_frobnication"):
        ours(model, tmp_path)


def test_an_unknown_model_type_is_refused_with_those_there_are(tmp_path: Path) -> None:
    LlamaForCausalLM(tiny_llama_config()).save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    assert read_json(config)["model_type"] == "llama"
    config.write_text(config.read_text().replace('"llama"', '"alpaca"'))
    with pytest.raises(ConfigError, match=r"'alpaca' is not supported; supported: .*bert.*llama"):
        load(locate(str(tmp_path), cache=tmp_path), Explicit())


def test_all_that_is_wrong_with_the_tensors_is_named_at_once(tmp_path: Path) -> None:
    LlamaForCausalLM(tiny_llama_config()).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    del tensors["model.norm.weight"], tensors["model.layers.1.mlp.up_proj.weight"]
    tensors["model.layers.0.self_attn.q_norm.weight"] = torch.zeros(4)
    tensors["model.layers.7.input_layernorm.weight"] = torch.zeros(4)
    tensors["lm_head.weight"] = torch.zeros(3, 5)
    save_file(tensors, file)
    with pytest.raises(CheckpointError) as caught:
        load(locate(str(tmp_path), cache=tmp_path), Explicit(), ["language_model"])
    message = str(caught.value)
    missing, unexpected, misshaped = (
        message.index(word) for word in ("missing:", "unexpected:", "misshaped:")
    )
    assert "decoder.final_norm.weight" in message[missing:unexpected]
    assert "decoder.blocks.1.feed_forward.up.weight" in message[missing:unexpected]
    assert "model.layers.0.self_attn.q_norm.weight" in message[unexpected:misshaped]
    assert "model.layers.7.input_layernorm.weight" in message[unexpected:misshaped]
    assert "lm_head.weight is (3, 5), expected" in message[misshaped:]


def test_a_head_that_the_family_lacks_is_refused_with_those_it_has(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"bert has no head .*language_model.*masked_lm"):
        ours(BertModel(tiny_bert_config()), tmp_path, "language_model")
