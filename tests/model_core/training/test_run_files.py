"""A file is the whole run: nothing in it goes unnoticed, and what is saved says all."""

from pathlib import Path

import pytest

from model_core.training.errors import TrainingError
from model_core.training.run_files import parse_setting, read_run, write_run
from model_core.training.runs import CausalLM, Classify, Embed, MaskedLM, Run, Seq2Seq

KINDS = (CausalLM, MaskedLM, Seq2Seq, Classify, Embed)
LEAST = {"model.source": "folder", "data.train": "texts.jsonl"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_is_saved_with_all_its_defaults_and_read_back(kind: type[Run], tmp_path: Path):
    run = read_run(kind, None, LEAST)
    write_run(run, tmp_path / "run.yaml")
    assert read_run(kind, tmp_path / "run.yaml", {}) == run
    assert "weight_decay:" in (tmp_path / "run.yaml").read_text()


def test_flags_override_the_file_and_leave_the_rest(tmp_path: Path):
    file = tmp_path / "run.yaml"
    file.write_text("model: {architecture: {model_type: llama}}\ndata: {train: a.txt}\n"
                    "training: {steps: 5, batch_size: 7}\n")  # fmt: skip
    run = read_run(CausalLM, file, {"training.steps": 9, "model.source": "hf:org/name"})
    assert (run.training.steps, run.training.batch_size) == (9, 7)
    assert (run.model.source, run.model.architecture) == ("hf:org/name", None)


def test_setting_one_key_keeps_what_the_recipe_sets_in_its_section():
    run = read_run(Seq2Seq, None, {**LEAST, "training.steps": 5, "optimizer.learning_rate": 0.5})
    assert (run.training.dropout, run.training.keep_last) == (0.1, 5)
    assert run.optimizer.betas == (0.9, 0.98)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("training.stps", 5, r"training\.stps is no key; accepted: steps, epochs"),
        ("colour", "red", "colour is no key; accepted: model, data"),
        ("training.steps", -1, r"training\.steps is -1: .*greater than or equal to 1"),
        ("training.epochs", 2.0, "name steps or epochs, not both"),
        ("model.architecture", {"model_type": "bert"}, "name a source .* or an architecture"),
        ("schedule.kind", "wavy", r"schedule\.kind is 'wavy'"),
        ("optimizer.learning_rate", "fast", r"optimizer\.learning_rate is 'fast'"),
        ("recipe", "seq2seq", "recipe is 'seq2seq'"),
    ],
)
def test_what_is_wrong_with_a_run_is_said_by_key(key: str, value: object, said: str):
    with pytest.raises(TrainingError, match=said):
        read_run(CausalLM, None, {**LEAST, "training.steps": 3, key: value})


def test_files_that_are_no_runs_are_refused(tmp_path: Path):
    for content, said in (("- a\n- b\n", "holds list"), ("a: [", "can't be read")):
        (tmp_path / "run.yaml").write_text(content)
        with pytest.raises(TrainingError, match=said):
            read_run(CausalLM, tmp_path / "run.yaml", {})


def test_settings_are_yaml():
    assert parse_setting("training.steps=100") == ("training.steps", 100)
    assert parse_setting("matryoshka=[64, 32]") == ("matryoshka", [64, 32])
    with pytest.raises(TrainingError, match="KEY=VALUE"):
        parse_setting("training.steps")


def test_a_file_of_another_recipe_is_said_to_be_one(tmp_path: Path):
    file = tmp_path / "run.yaml"
    file.write_text("recipe: classify\ndata: {text_column: body}\n")
    with pytest.raises(TrainingError, match="it goes with: anatomy train classify"):
        read_run(CausalLM, file, LEAST)
