"""A model that continues texts learns what they are like, from scratch or from a checkpoint."""

import random
from math import exp, log
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_core.training.baselines import unigram_entropy
from model_core.training.errors import TrainingError
from model_core.training.parts import cut_blocks, end_of_training
from model_core.training.vocabulary import (
    TRANSLATING,
    VocabularyKind,
    VocabularyRecipe,
    learn_vocabulary,
)
from tests.support.training import TINY_LLAMA, go, with_settings, write_sentences


def settings_of(texts: Path, **training: Any) -> dict[str, Any]:
    return {
        "model": {"architecture": TINY_LLAMA},
        "data": {"train": str(texts), "max_tokens": 32},
        "tokenizer": {"vocab_size": 320},
        "optimizer": {"learning_rate": 1e-2},
        "schedule": {"warmup_steps": 5},
        "training": {"steps": 60, "batch_size": 8, "evaluate_every": 30, **training},
    }


def test_a_model_from_scratch_says_more_than_the_frequency_of_tokens(tmp_path: Path):
    texts = write_sentences(tmp_path / "texts.jsonl")
    outcome = go("causal_lm", settings_of(texts), tmp_path / "run")
    figures, baseline = outcome.figures, outcome.prepared.baseline
    # What is left to guess are the nouns: log 4 twice in seven or eight tokens.
    assert figures["loss"] < 0.6 < 1.5 < baseline["loss"]
    assert figures["perplexity"] == pytest.approx(exp(figures["loss"]))
    assert figures["bits_per_byte"] < 0.3 * baseline["bits_per_byte"]


def test_training_goes_on_from_a_checkpoint(tmp_path: Path):
    texts = write_sentences(tmp_path / "texts.jsonl")
    first = go("causal_lm", settings_of(texts, steps=30), tmp_path / "first")
    further = settings_of(texts, steps=1)
    further["model"] = {"source": str(tmp_path / "first" / "best")}
    second = go("causal_lm", with_settings(further, optimizer={"learning_rate": 1e-9}),
                tmp_path / "second")  # fmt: skip
    assert second.figures["loss"] == pytest.approx(first.figures["loss"], abs=1e-5)


@pytest.mark.parametrize("kind", VocabularyKind)
def test_every_kind_of_vocabulary_can_be_learned_and_is_saved_with_the_model(
    tmp_path: Path, kind: VocabularyKind
):
    texts = write_sentences(tmp_path / "texts.jsonl", 200)
    settings = with_settings(settings_of(texts, steps=1), tokenizer={"kind": kind})
    tokenizer = go("causal_lm", settings, tmp_path / "run").prepared.start.tokenizer
    ids = tokenizer.encode("the cat purrs in the fish house")
    assert tokenizer.decode(ids).strip() == "the cat purrs in the fish house"
    assert {path.name for path in (tmp_path / "run" / "best").iterdir()} == {
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip


@pytest.mark.parametrize("kind", [VocabularyKind.BPE, VocabularyKind.WORDS])
def test_these_vocabularies_are_the_same_each_time(kind: VocabularyKind):
    draw = random.Random(0)
    texts = ["".join(draw.choices("abcdé ", k=40)) for _ in range(200)]
    learned = {
        learn_vocabulary(VocabularyRecipe(kind, 400), texts, TRANSLATING).to_str() for _ in range(5)
    }
    assert len(learned) == 1


def test_too_little_text_is_refused_with_the_count(tmp_path: Path):
    texts = write_sentences(tmp_path / "texts.jsonl", 3)
    with pytest.raises(TrainingError, match=r"tokens in all, too few for one block of 32"):
        go("causal_lm", settings_of(texts), tmp_path / "run")


def test_more_tokens_than_positions_are_refused(tmp_path: Path):
    texts = write_sentences(tmp_path / "texts.jsonl")
    settings = with_settings(settings_of(texts), data={"max_tokens": 65})
    with pytest.raises(TrainingError, match=r"max_tokens is 65, but the model has 64 positions"):
        go("causal_lm", settings, tmp_path / "run")


def test_blocks_hold_every_token_and_overlap_by_one():
    blocks = cut_blocks(np.arange(23, dtype=np.int32), 6, 1, "test")
    assert blocks.tolist() == [list(range(start, start + 6)) for start in (0, 5, 10, 15)]


def test_a_single_text_is_held_out_from_its_last_lines_on():
    text = "".join(f"line {number}\n" for number in range(100))
    cut = end_of_training(text, 0.1)
    assert text[cut:].startswith("line 9")
    assert 0.08 < len(text[cut:]) / len(text) < 0.12
    assert end_of_training("no line end at all", 0.5) == 9


def test_the_baseline_is_the_entropy_of_single_tokens():
    tokens = np.array([[0, 1] * 5000], np.int32)
    assert unigram_entropy(tokens, tokens, 2) == pytest.approx(log(2), abs=1e-6)
