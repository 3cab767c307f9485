"""How a checkpoint's authors have it generate."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import GenerationConfig

from model_core.checkpoints.generation import GenerationDefaults, read_generation
from model_core.checkpoints.sources import Located
from model_core.config import ConfigError

# Of facebook/bart-large-cnn, written before there was a generation_config.json.
CNN = {
    "is_encoder_decoder": True, "bos_token_id": 0, "decoder_start_token_id": 2, "eos_token_id": 2,
    "pad_token_id": 1, "force_bos_token_to_be_generated": True, "forced_eos_token_id": 2,
    "early_stopping": True, "length_penalty": 2.0, "max_length": 142, "min_length": 56,
    "no_repeat_ngram_size": 3, "num_beams": 4,
}  # fmt: skip
# Of Helsinki-NLP/opus-mt-en-de.
OPUS_MT = {
    "bad_words_ids": [[58100]], "bos_token_id": 0, "decoder_start_token_id": 58100,
    "eos_token_id": 0, "forced_eos_token_id": 0, "max_length": 512, "num_beams": 6,
    "pad_token_id": 58100, "renormalize_logits": True, "transformers_version": "4.32.1",
}  # fmt: skip


def read(
    folder: Path, config: dict[str, Any], own: dict[str, Any] | None = None
) -> GenerationDefaults:
    files = {"config.json": config, "generation_config.json": own}
    paths: dict[str, Path] = {}
    for name, values in files.items():
        if values is not None:
            paths[name] = folder / name
            paths[name].write_text(json.dumps(values))
    return read_generation(Located(str(folder), paths, "unknown"))


def test_an_old_checkpoint_says_it_in_its_config(tmp_path: Path) -> None:
    assert read(tmp_path, CNN) == GenerationDefaults(
        decoder_start=(2,), forced_first=0, forced_last=2, eos_ids=(2,), pad_id=1, beams=4,
        length_penalty=2.0, early_stopping=True, max_length=142,
        not_applied=("min_length", "no_repeat_ngram_size"),
    )  # fmt: skip


def test_a_file_of_its_own_counts_instead(tmp_path: Path) -> None:
    found = read(
        tmp_path, {"is_encoder_decoder": True, "num_beams": 3, "length_penalty": 9}, OPUS_MT
    )
    assert found == GenerationDefaults(
        decoder_start=(58100,), forced_last=0, suppressed=(58100,), eos_ids=(0,), pad_id=58100,
        beams=6, max_length=512, renormalize=True,
    )  # fmt: skip


def test_special_tokens_are_inherited_and_the_start_may_be_that_of_a_text(tmp_path: Path) -> None:
    config = {"is_encoder_decoder": True, "bos_token_id": 5, "eos_token_id": [6, 7]}
    found = read(tmp_path, config, {"num_beams": 2, "eos_token_id": None})
    assert (found.decoder_start, found.eos_ids, found.beams) == ((5,), (6, 7), 2)


def test_a_decoder_alone_starts_with_the_prompt(tmp_path: Path) -> None:
    found = read(
        tmp_path, {"bos_token_id": 5, "eos_token_id": 6}, {"do_sample": True, "top_p": 0.9}
    )
    assert found == GenerationDefaults(eos_ids=(6,))


@pytest.mark.parametrize("use_diff", [False, True])
def test_the_defaults_of_the_ecosystem_change_nothing(tmp_path: Path, use_diff: bool) -> None:
    """Neither the nulls of today nor the values that they stand for."""
    empty = GenerationConfig()
    today = json.loads(empty.to_json_string(use_diff=use_diff))
    spelled = {**today, **GenerationConfig._get_default_generation_params(), "max_length": None}
    assert read(tmp_path, {}, today) == read(tmp_path, {}, spelled) == GenerationDefaults()


def test_what_is_not_done_is_named(tmp_path: Path) -> None:
    own = {
        "repetition_penalty": 1.3, "encoder_no_repeat_ngram_size": 2, "num_beam_groups": 2,
        "num_beams": 4, "bad_words_ids": [[3], [4, 5]], "early_stopping": "never",
        "exponential_decay_length_penalty": [3, 1.2], "forced_eos_token_id": [1, 2],
    }  # fmt: skip
    found = read(tmp_path, {}, own)
    assert found.not_applied == (
        "bad_words_ids", "early_stopping", "encoder_no_repeat_ngram_size",
        "exponential_decay_length_penalty", "forced_eos_token_id", "num_beam_groups",
        "repetition_penalty",
    )  # fmt: skip
    assert (found.suppressed, found.early_stopping, found.forced_last) == ((3,), False, None)


def test_an_end_is_not_suppressed(tmp_path: Path) -> None:
    """The reference drops such a bad word as well."""
    assert read(tmp_path, {"eos_token_id": 2, "bad_words_ids": [[2], [4]]}).suppressed == (4,)


def test_ids_that_are_none_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"generation_config.json: 'eos_token_id' is 'x'"):
        read(tmp_path, {}, {"eos_token_id": "x"})
