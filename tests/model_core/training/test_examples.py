"""The runs that the documentation shows are runs."""

import re
from pathlib import Path

import pytest
import yaml

from model_core.attention import Fused
from model_core.checkpoints.load import assemble, describe_config
from model_core.training.run_files import read_run
from model_core.training.runs import CausalLM, Run, Seq2Seq
from model_core.training.starting_point import NoTensors

DOCS = Path(__file__).parents[3] / "docs"


def parameters_of(run: Run) -> int:
    """How many parameters a run's model has, with as large a vocabulary as it may learn."""
    values = {**(run.model.architecture or {}), "vocab_size": run.tokenizer.vocab_size}
    description = describe_config(values)
    model = assemble(description.config(NoTensors()), description, Fused(), ())
    return sum(parameter.numel() for parameter in model.parameters())


def test_the_run_of_the_page_is_a_run_of_the_size_that_it_says(tmp_path: Path):
    page = (DOCS / "training.md").read_text()
    block = re.search(r"```yaml\n(# run.yaml.*?)```", page, re.DOTALL)
    assert block is not None
    (tmp_path / "run.yaml").write_text(block[1])
    assert parameters_of(read_run(CausalLM, tmp_path / "run.yaml", {})) == pytest.approx(
        5e6, rel=0.1
    )


def test_spelling_to_phonemes_is_a_run_and_cuts_words_and_phonemes():
    run = read_run(Seq2Seq, DOCS / "runs" / "g2p.yaml", {})
    assert parameters_of(run) < 2e6
    found = re.findall(run.tokenizer.pattern, "it's AE1 B S")
    assert found == ["i", "t", "'", "s", "AE1", "B", "S"]
    assert yaml.safe_load((DOCS / "runs" / "g2p.yaml").read_text())["recipe"] == run.recipe
