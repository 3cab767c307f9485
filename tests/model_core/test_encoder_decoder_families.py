"""What released checkpoints of encoder-decoders have that tiny new ones have not."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    M2M100Config,
    M2M100ForConditionalGeneration,
    MarianConfig,
    MarianMTModel,
    MBartConfig,
    MBartForConditionalGeneration,
    MT5Config,
    MT5ForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
)

from model_core.attention import Explicit
from model_core.checkpoints.load import Loaded, load, read_json
from model_core.checkpoints.save import write_json
from model_core.checkpoints.sources import locate
from model_core.config import ConfigError
from tests.support.families import bart, t5
from tests.support.families.case import draw
from tests.support.families.parity import our_output, reference_output, relative_error

TEXTS = [torch.tensor([5, 9, 11, 40]), torch.tensor([7, 8])]
HEAD = "lm_head.weight"


def saved(kind: Any, config: Any, folder: Path, fields: Any = None, tensors: Any = None) -> Any:
    """A reference and its checkpoint, to which `fields` and `tensors` are added; None removes."""
    reference = draw(kind(config), seed=0, gain=1.5)
    reference.save_pretrained(folder)
    for path, more in ((folder / "config.json", fields), (folder / "model.safetensors", tensors)):
        is_config = path.suffix == ".json"
        values = {**(read_json(path) if is_config else load_file(path)), **(more or {})}
        kept = {name: value for name, value in values.items() if value is not None}
        write_json(path, kept) if is_config else save_file(kept, path)
    return reference


def loaded(folder: Path) -> Loaded:
    return load(locate(str(folder), cache=folder), Explicit(), ["seq2seq"])


def error(ours: Loaded, reference: Any) -> float:
    expected = reference_output(reference, TEXTS, reference.config.pad_token_id)
    return relative_error(our_output(ours, "seq2seq", TEXTS), expected)


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (T5ForConditionalGeneration, lambda: t5.config(T5Config)),
        (T5ForConditionalGeneration, lambda: t5.config(T5Config, **t5.V1_1)),
        (MT5ForConditionalGeneration, lambda: t5.config(MT5Config)),
        (BartForConditionalGeneration, lambda: bart.config(BartConfig)),
    ],
    ids=["T5", "T5 v1.1", "mT5", "BART"],
)
def test_a_head_of_other_values_is_untied_whatever_the_flag_says(
    tmp_path: Path, kind: Any, config: Any
) -> None:
    head = torch.randn(60, 32, generator=torch.Generator().manual_seed(5))
    saved(kind, config(), tmp_path, {"tie_word_embeddings": True}, {HEAD: head})
    ours = loaded(tmp_path)
    assert not ours.config.language_model.tied
    assert error(ours, kind.from_pretrained(tmp_path).eval()) <= 1e-5


@pytest.mark.parametrize("family", ["T5", "BART"])
def test_copies_of_a_shared_matrix_are_one(tmp_path: Path, family: str) -> None:
    kind, config, prefix = {
        "T5": (T5ForConditionalGeneration, t5.config(T5Config), ""),
        "BART": (BartForConditionalGeneration, bart.config(BartConfig), "model."),
    }[family]
    shared = saved(kind, config, tmp_path).get_input_embeddings().weight.detach()
    names = (HEAD, f"{prefix}encoder.embed_tokens.weight", f"{prefix}decoder.embed_tokens.weight")
    reference = saved(kind, config, tmp_path, None, {name: shared.clone() for name in names})
    ours = loaded(tmp_path)
    assert ours.config.shared_embedding
    assert ours.config.language_model.tied
    assert error(ours, reference) <= 1e-5


@pytest.mark.parametrize(("flag", "scale"), [(True, 32**-0.5), (False, 1.0)])
def test_before_transformers_5_the_flag_of_the_tied_head_told_whether_t5_scales(
    tmp_path: Path, flag: bool, scale: float
) -> None:
    fields = {"tie_word_embeddings": flag, "scale_decoder_outputs": None}
    saved(T5ForConditionalGeneration, t5.config(T5Config), tmp_path, fields)
    ours = loaded(tmp_path)
    assert ours.config.language_model.scale == scale
    assert error(ours, T5ForConditionalGeneration.from_pretrained(tmp_path).eval()) <= 1e-5


# Fields and tensors that released checkpoints have, beside those of the tiny ones: t5-small,
# bart-large-cnn and distilbart-cnn, mbart-large-50, opus-mt-en-de, m2m100_418M.
FAIRSEQ = {
    "_num_labels": 3, "classif_dropout": 0.0, "gradient_checkpointing": False, "max_length": 142,
    "num_beams": 4, "num_hidden_layers": 3, "output_past": True, "add_bias_logits": False,
}  # fmt: skip
RELEASED = {
    "T5": (
        T5ForConditionalGeneration, lambda: t5.config(T5Config),
        {"n_positions": 512, "output_past": True, "relative_attention_max_distance": None,
         "num_decoder_layers": 2, "dense_act_fn": None, "is_gated_act": None,
         "task_specific_params": {"summarization": {"num_beams": 4}}},
        {"decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight":
         torch.ones(8, 4)},
    ),
    "BART": (
        BartForConditionalGeneration, lambda: bart.config(BartConfig),
        {**FAIRSEQ, "add_final_layer_norm": False, "normalize_before": False, "prefix": " ",
         "normalize_embedding": True, "static_position_embeddings": False, "save_step": 18,
         "force_bos_token_to_be_generated": True, "extra_pos_embeddings": 2, "min_length": 56,
         "no_repeat_ngram_size": 3, "length_penalty": 2.0, "early_stopping": True,
         "student_encoder_layers": None, "replacing_rate": 0},
        {"model.encoder.version": torch.ones(1), "model.decoder.version": torch.ones(1)},
    ),
    "mBART": (
        MBartForConditionalGeneration, lambda: bart.config(MBartConfig, scale_embedding=True),
        {**FAIRSEQ, "add_final_layer_norm": True, "normalize_before": True,
         "normalize_embedding": True, "static_position_embeddings": False,
         "tokenizer_class": "MBart50Tokenizer"},
        {},
    ),
    "Marian": (
        MarianMTModel, bart.marian,
        {**FAIRSEQ, "add_final_layer_norm": False, "normalize_before": False,
         "normalize_embedding": False, "static_position_embeddings": True,
         "extra_pos_embeddings": 58101, "bad_words_ids": [[59]], "decoder_vocab_size": None,
         "share_encoder_decoder_embeddings": None, "tie_word_embeddings": None},
        {f"model.{side}.embed_positions.weight": torch.ones(64, 32)
         for side in ("encoder", "decoder")},
    ),
    "M2M-100": (
        M2M100ForConditionalGeneration, lambda: bart.config(M2M100Config),
        {**FAIRSEQ, "early_stopping": True, "tokenizer_class": "NllbTokenizer"},
        {f"model.{side}.embed_positions.weights": torch.ones(66, 32)
         for side in ("encoder", "decoder")},
    ),
}  # fmt: skip


@pytest.mark.parametrize("family", RELEASED)
def test_what_released_checkpoints_have_loads(tmp_path: Path, family: str) -> None:
    kind, config, fields, tensors = RELEASED[family]
    made = config()
    if family == "T5":
        made.relative_attention_max_distance = 128
    reference = saved(kind, made, tmp_path, fields, tensors)
    ours = loaded(tmp_path)
    assert set(ours.unused) == set(tensors)
    assert error(ours, reference) <= 1e-5


def test_a_bart_without_a_bias_of_the_logits_has_none(tmp_path: Path) -> None:
    config = bart.config(BartConfig)
    saved(BartForConditionalGeneration, config, tmp_path, None, {"final_logits_bias": None})
    ours = loaded(tmp_path)
    assert not ours.config.language_model.bias
    reference = BartForConditionalGeneration.from_pretrained(tmp_path).eval()
    assert error(ours, reference) <= 1e-5


@pytest.mark.parametrize(
    ("kind", "config", "fields"),
    [
        (BartForConditionalGeneration, lambda: bart.config(BartConfig), {"normalize_before": True}),
        (BartForConditionalGeneration, lambda: bart.config(BartConfig), {"is_decoder": True}),
        (MarianMTModel, bart.marian, {"static_position_embeddings": False}),
        (MarianMTModel, bart.marian, {"decoder_vocab_size": 50}),
        (T5ForConditionalGeneration, lambda: t5.config(T5Config), {"dense_act_fn": "mish"}),
        (T5ForConditionalGeneration, lambda: t5.config(T5Config), {"is_gated_act": True}),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_another_computation_is_refused_by_the_name_of_its_field(
    tmp_path: Path, kind: Any, config: Any, fields: dict[str, Any]
) -> None:
    saved(kind, config(), tmp_path, fields)
    with pytest.raises(ConfigError, match=next(iter(fields))):
        loaded(tmp_path)


def test_two_vocabularies_keep_their_sizes(tmp_path: Path) -> None:
    config: MarianConfig = bart.two_vocabularies()
    saved(MarianMTModel, config, tmp_path)
    ours = loaded(tmp_path)
    sizes = [stack.embedding.vocab_size for stack in ours.config.stacks]
    assert sizes == [config.vocab_size, config.decoder_vocab_size]
    assert not ours.config.shared_embedding
