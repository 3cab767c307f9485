"""The commands: what is wrong is said in a line, what came of it stands on standard output."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from model_core.commands import app
from model_core.training.progress import has_tensorboard
from model_core.training.run_files import read_run
from model_core.training.runs import CausalLM
from tests.support.training import (
    TINY_LLAMA,
    classify_settings,
    embed_settings,
    seq2seq_settings,
    write_labelled,
    write_matches,
    write_pairs,
    write_sentences,
)


def run(*arguments: str) -> tuple[int, str, str]:
    """Exit status, standard output, and standard error as one line however wide."""
    result = CliRunner().invoke(app, [*arguments])
    return result.exit_code, result.stdout, " ".join(result.stderr.split())


@pytest.fixture
def config(tmp_path: Path) -> Path:
    write_sentences(tmp_path / "texts.jsonl", 200)
    values = {
        "model": {"architecture": TINY_LLAMA},
        "data": {"train": str(tmp_path / "texts.jsonl"), "max_tokens": 16},
        "tokenizer": {"vocab_size": 300},
        "training": {"steps": 3, "batch_size": 4, "evaluate_every": 2},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(values))
    return tmp_path / "run.yaml"


def test_a_run_prints_its_best_checkpoint_and_flags_override_its_file(config: Path):
    output = config.parent / "run"
    code, said, told = run(
        "causal-lm", "--config", str(config), "--output", str(output), "--steps", "2",
        "--set", "training.batch_size=3",
    )  # fmt: skip
    assert code == 0, told
    assert said.strip() == str(output / "best")
    assert "200 rows" in told
    assert "bits per byte" in told
    saved = read_run(CausalLM, output / "run.yaml", {})
    assert (saved.training.steps, saved.training.batch_size) == (2, 3)
    assert {"report.md", "data.json", "run.yaml", "tokenizer"} <= {p.name for p in output.iterdir()}
    assert (output / "tensorboard").is_dir() == has_tensorboard()


def test_a_run_goes_on_by_its_own_file(config: Path):
    output = str(config.parent / "run")
    assert run("causal-lm", "--config", str(config), "--output", output)[0] == 0
    code, _, told = run("causal-lm", "--resume", "--output", output, "--steps", "5")
    assert code == 0, told
    assert (config.parent / "run" / "states" / "step-5").is_dir()
    code, _, told = run("causal-lm", "--resume", "--output", output, "--config", str(config))
    assert code == 1
    assert "leave out --config" in told


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--text-column", "body"), r"no column 'body'; it has 'text'.*--text-column"),
        (("--data", "none.csv"), r"none\.csv doesn't exist"),
        (("--set", "training.stpes=1"), "training.stpes is no key"),
        (("--model", "nowhere/at-all"), r"nowhere/at-all doesn't exist"),
        (("--set", "training.device=warp"), "training.device is 'warp'"),
        (("--set", "model.architecture.model_type=rnn"), "model type 'rnn' is not supported"),
        (("--set", "model.architecture.hiden=3"), r"not supported: \['hiden'\]"),
        (("--set", "model.architecture.vocab_size=9"), "vocab_size of 9, but the tokenizer has"),
    ],
)
def test_what_is_wrong_is_said_and_ends_with_status_1(
    config: Path, arguments: tuple[str, ...], said: str
):
    output = ("--output", str(config.parent / "run"))
    code, printed, told = run("causal-lm", "--config", str(config), *output, *arguments)
    assert (code, printed) == (1, "")
    assert re.search(said, told), told


def test_a_run_that_could_not_begin_leaves_nothing_that_the_next_would_take(config: Path):
    output = config.parent / "run"
    whole = ("causal-lm", "--config", str(config), "--output", str(output))
    code, _, told = run(*whole, "--set", "data.max_tokens=65")
    assert code == 1
    assert "has 64 positions" in told
    code, _, told = run(*whole, "--set", "tokenizer.vocab_size=280")
    assert code == 0, told
    assert "280 tokens" in (output / "report.md").read_text()


@pytest.mark.parametrize(
    ("command", "write", "settings", "arguments"),
    [
        (
            "classify", write_labelled, classify_settings,
            ("--text-column", "text", "--label-column", "label", "--epochs", "0.1"),
        ),
        (
            "seq2seq", write_pairs, seq2seq_settings,
            ("--source-column", "source", "--target-column", "target", "--steps", "1"),
        ),
        (
            "embed", write_matches, embed_settings,
            ("--anchor-column", "anchor", "--positive-column", "positive",
             "--negative-column", "negative", "--steps", "1"),
        ),
        ("masked-lm", write_sentences, embed_settings, ("--text-column", "text", "--steps", "1")),
    ],
)  # fmt: skip
def test_every_recipe_has_a_command_whose_flags_reach_its_run(
    tmp_path: Path,
    command: str,
    write: Callable[[Path], Path],
    settings: Callable[[Path], dict[str, Any]],
    arguments: tuple[str, ...],
):
    data = write(tmp_path / "data.jsonl")
    values = settings(data)
    values["training"].pop("steps")
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(values))
    code, said, told = run(
        command, "--config", str(tmp_path / "run.yaml"), "--output", str(tmp_path / "run"),
        "--data", str(data), "--batch-size", "9", "--learning-rate", "0.125", "--seed", "5",
        *arguments,
    )  # fmt: skip
    assert code == 0, told
    assert said.strip() == str(tmp_path / "run" / "best")
    saved = yaml.safe_load((tmp_path / "run" / "run.yaml").read_text())
    assert saved["recipe"] == command
    assert (saved["training"]["batch_size"], saved["training"]["seed"]) == (9, 5)
    assert saved["optimizer"]["learning_rate"] == 0.125
    flags = dict(zip(arguments[::2], arguments[1::2], strict=True))
    columns = {name for flag, name in flags.items() if flag.endswith("-column")}
    assert columns <= set(map(str, saved["data"].values()))


def test_a_result_is_measured_once_more_and_its_figures_are_json(config: Path):
    output = str(config.parent / "run")
    code, _, told = run("causal-lm", "--config", str(config), "--output", output)
    assert code == 0, told
    code, said, _ = run("measure", output)
    assert code == 0
    found = json.loads(said)
    assert found["model"].keys() == found["tokens drawn by their frequency"].keys()
    assert f"loss: {found['model']['loss']:.4g}" in told
    code, said, told = run("measure", str(config.parent))
    assert (code, said) == (1, "")
    assert "has no key 'recipe' that names one" in told
    code, _, told = run("measure", str(config.parent / "nowhere"))
    assert code == 1
    assert "holds no run" in told
