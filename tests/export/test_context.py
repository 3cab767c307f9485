"""Contexts of another length than the checkpoint states."""

from pathlib import Path

import numpy as np
import pytest
import torch

from export.artifact import Artifact, Precision
from export.catalogue import recipe
from export.pipeline import export
from model_core.attention import Explicit, Padded
from model_core.checkpoints.load import load
from model_core.checkpoints.sources import locate
from model_core.config import ConfigError
from tests.support.families import CASES
from tests.support.families.exported import Rows, save_checkpoint
from tests.support.reports import silent


def checkpoint(name: str, folder: Path) -> Path:
    return save_checkpoint(next(case for case in CASES if case.name == name), folder)


def exported(source: Path, folder: Path, context: int) -> Artifact:
    wanted = recipe(str(source), Precision.FP32, context=context)
    return Artifact.open(export(wanted, folder / "cache", silent, folder / "artifact"))


def test_dynamic_scaling_turns_all_keys_by_the_base_of_the_longest_text(tmp_path: Path) -> None:
    source = checkpoint("Llama, dynamic scaling", tmp_path / "checkpoint")
    artifact = exported(source, tmp_path, context=40)
    assert artifact.manifest.max_tokens == 40
    text = [int(token) for token in np.arange(40) % 50 + 3]
    found = Rows(artifact).prefill(0, text)
    # PyTorch chooses the base by the text it is given, which is as long as can be.
    ours = load(locate(str(source), cache=tmp_path), Explicit(), ["language_model"])
    rows = torch.tensor([text])
    with torch.inference_mode():
        hidden = ours.model.transformer.decode(rows, Padded.of(rows))[0]
        expected = ours.model.heads["language_model"](hidden).numpy()
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


def test_a_shorter_context_has_shorter_tables(tmp_path: Path) -> None:
    artifact = exported(checkpoint("GPT-2", tmp_path / "checkpoint"), tmp_path, context=16)
    assert artifact.manifest.max_tokens == 16


def test_a_table_of_positions_ends_where_it_ends(tmp_path: Path) -> None:
    source = checkpoint("GPT-2", tmp_path / "checkpoint")
    with pytest.raises(ConfigError, match=r"context is 65, .* a table of 64"):
        exported(source, tmp_path, context=65)
