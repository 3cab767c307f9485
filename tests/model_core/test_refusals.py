"""Configurations and tensors that make no sense: one line that names the field and the value."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from model_core.attention import Explicit
from model_core.checkpoints.errors import CheckpointError
from model_core.checkpoints.load import load
from model_core.checkpoints.sources import locate
from model_core.config import ConfigError
from tests.support.families import CASES


def checkpoint(name: str, folder: Path, **changes: Any) -> Path:
    case = next(case for case in CASES if case.name == name)
    case.reference().save_pretrained(folder)
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder


def read(folder: Path) -> None:
    load(locate(str(folder), cache=folder), Explicit())


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("BERT", "num_attention_heads", 0),
        ("BERT", "hidden_size", -32),
        ("BERT", "num_hidden_layers", 0),
        ("BERT", "vocab_size", 10**12),
        ("BERT", "hidden_act", ["gelu"]),
        ("BERT", "layer_norm_eps", float("inf")),
        ("Llama", "max_position_embeddings", 10**12),
        ("T5", "relative_attention_num_buckets", 0),
        ("Marian", "max_position_embeddings", 10**10),
    ],
)
def test_a_value_that_makes_no_shape_is_refused_by_name(
    tmp_path: Path, name: str, field: str, value: Any
) -> None:
    with pytest.raises(ConfigError, match=field):
        read(checkpoint(name, tmp_path, **{field: value}))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"layer_norm_eps": -1.0}, "epsilon is -1.0"),
        ({"architectures": [5]}, "architectures"),
        ({"num_attention_heads": 5}, "don't fit"),
    ],
)
def test_so_is_what_only_shows_together(
    tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    with pytest.raises((ConfigError, CheckpointError), match=named):
        read(checkpoint("BERT", tmp_path, **changes))


@pytest.mark.parametrize(
    "damage",
    [
        lambda tensor: tensor.index_fill(0, torch.tensor([3]), torch.nan),
        lambda tensor: tensor.index_fill(0, torch.tensor([3]), -torch.inf),
        lambda tensor: tensor.to(torch.int32),
    ],
    ids=["nan", "infinity", "integers"],
)
def test_weights_that_are_no_numbers_are_named(tmp_path: Path, damage: Any) -> None:
    folder = checkpoint("BERT", tmp_path)
    file = folder / "model.safetensors"
    tensors: dict[str, Tensor] = load_file(file)
    name = "embeddings.word_embeddings.weight"
    tensors[name] = damage(tensors[name])
    save_file(tensors, file)
    with pytest.raises(CheckpointError, match=f"not finite floating-point numbers: {name}"):
        read(folder)
