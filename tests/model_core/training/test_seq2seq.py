"""Targets of sources: a model from scratch learns a rule, answers by it, and is averaged."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from model_core.training.averaging import average_checkpoints, read_checkpoint
from model_core.training.errors import TrainingError
from model_core.training.recipes.seq2seq import (
    Pair,
    Seq2SeqTask,
    summed_loss,
)
from model_core.training.run_folder import BEST, RunFolder
from model_core.training.translation_metrics import edit_distance, error_rates
from tests.support.training import go, seq2seq_settings, with_settings, write_pairs

UNITS = st.lists(st.sampled_from("abc"), max_size=6)


def test_a_model_from_scratch_learns_a_rule_that_copying_does_not_know(tmp_path: Path):
    pairs = write_pairs(tmp_path / "pairs.jsonl")
    outcome = go("seq2seq", seq2seq_settings(pairs), tmp_path / "run")
    figures, baseline = outcome.figures, outcome.prepared.baseline
    assert outcome.prepared.facts["sources answered"] == "32, with 4 beams"
    assert baseline["unit_error_rate"] == baseline["answer_error_rate"] == 1.0
    assert figures["unit_error_rate"] < 0.1
    assert figures["answer_error_rate"] < 0.3
    assert figures["accuracy"] > 0.9
    best = tmp_path / "run" / "best"
    generation = json.loads((best / "generation_config.json").read_text())
    assert generation["num_beams"] == 4
    assert generation["decoder_start_token_id"] != generation["eos_token_id"]


def short_task(tmp_path: Path) -> Seq2SeqTask:
    pairs = write_pairs(tmp_path / "pairs.jsonl", 60)
    task = go("seq2seq", seq2seq_settings(pairs, steps=2), tmp_path / "run").prepared.task
    assert isinstance(task, Seq2SeqTask)
    task.model.eval()
    return task


def test_the_loss_of_a_batch_is_that_of_its_pairs_alone(tmp_path: Path):
    task = short_task(tmp_path)
    pairs = sorted(task.validation, key=lambda pair: pair.length)
    with torch.no_grad():
        together = task.loss(task.translation(pairs)).item()
        alone = sum(task.loss(task.translation([pair])).item() for pair in pairs)
    # Sums of float32 in another order.
    assert together == pytest.approx(alone, rel=1e-5)


def test_the_decoder_reads_the_start_and_says_the_target_with_its_end(tmp_path: Path):
    task = short_task(tmp_path)
    pair = Pair([5, 6, task.ends.end], [7, 8, task.ends.end])
    batch = task.translation([pair])
    assert batch.read.token_ids.tolist() == [[*task.ends.start, 7, 8]]
    assert batch.said.tolist() == pair.target


def test_label_smoothing_is_the_papers(tmp_path: Path):
    logits, said = torch.randn(6, 9), torch.randint(9, (6,))
    spread = torch.full((6, 9), 0.1 / 9)
    spread[torch.arange(6), said] += 0.9
    expected = -(spread * F.log_softmax(logits, dim=-1)).sum()
    torch.testing.assert_close(summed_loss(logits, said, 0.1), expected)


def test_an_average_is_the_mean_of_the_weights(tmp_path: Path):
    pairs = write_pairs(tmp_path / "pairs.jsonl", 60)
    go("seq2seq", seq2seq_settings(pairs, steps=4, evaluate_every=2), tmp_path / "run")
    folders = RunFolder(tmp_path / "run").last_checkpoints(5)
    assert [folder.name for folder in folders] == ["step-2", "step-4"]
    alone = [read_checkpoint(folder, "seq2seq") for folder in folders]
    for name, value in average_checkpoints(folders, "seq2seq").items():
        torch.testing.assert_close(value, (alone[0][name] + alone[1][name]) / 2)


def test_an_average_that_is_better_becomes_the_result(tmp_path: Path):
    pairs = write_pairs(tmp_path / "pairs.jsonl")
    # So fast that weights swing around where they should be.
    settings = with_settings(
        seq2seq_settings(pairs, steps=90, evaluate_every=15), optimizer={"learning_rate": 2e-2},
    )  # fmt: skip
    outcome = go("seq2seq", settings, tmp_path / "run")
    best = RunFolder(tmp_path / "run").path(BEST)
    assert best is not None
    losses = [each.figures["loss"] for each in outcome.story.measurements]
    is_averaged = best.name.startswith("average-of-")
    assert is_averaged == (outcome.figures["loss"] < min(losses) - 1e-9)
    assert outcome.figures["loss"] <= min(losses) + 1e-6


def test_pairs_that_are_too_long_are_left_out_and_counted(tmp_path: Path):
    pairs = write_pairs(tmp_path / "pairs.jsonl", 200)
    settings = with_settings(seq2seq_settings(pairs, steps=1), data={"max_tokens": 4})
    facts = go("seq2seq", settings, tmp_path / "run").prepared.facts
    assert facts["pairs left out"].endswith("of more than 4 tokens a side")
    assert not facts["pairs left out"].startswith("0")
    with pytest.raises(TrainingError, match=r"none of the .* pairs to train on has at most 2"):
        go("seq2seq", with_settings(settings, data={"max_tokens": 2}), tmp_path / "other")


@given(UNITS, UNITS, UNITS)
def test_an_edit_distance_is_a_distance(a: list[str], b: list[str], c: list[str]):
    assert (edit_distance(a, b) == 0) == (a == b)
    assert edit_distance(a, b) == edit_distance(b, a)
    assert edit_distance(a, c) <= edit_distance(a, b) + edit_distance(b, c)
    assert abs(len(a) - len(b)) <= edit_distance(a, b) <= max(len(a), len(b))


def test_error_rates_count_edits_by_unit_and_answers_by_whole():
    rates = error_rates(["K AE1 T", "D AO1"], [["K AE1 T"], ["D AO1 G"]])
    assert rates == {"unit_error_rate": 1 / 6, "answer_error_rate": 1 / 2}


def test_the_nearest_target_counts_and_its_length():
    accepted = [["R IY1 D", "R EH1 D"], ["B AH0 N AE1 N AH0", "B"]]
    assert error_rates(["R EH1 D", "B N"], accepted) == {
        "unit_error_rate": 1 / 4, "answer_error_rate": 1 / 2,
    }  # fmt: skip
