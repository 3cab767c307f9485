"""From a model to a checkpoint in the ecosystem's names: `model.safetensors` and `config.json`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file  # pyright: ignore[reportUnknownVariableType]

from model_core.checkpoints.errors import CheckpointError
from model_core.checkpoints.key_rules import origin
from model_core.checkpoints.load import Description
from model_core.heads import TransformerWithHeads


def save(model: TransformerWithHeads, description: Description, folder: Path) -> None:
    """Write `model` into an existing `folder`, so that the ecosystem's libraries load it.

    `description` has the fields of `config.json` that the model was built from. A model has one
    head at most there; raises `CheckpointError` for two, and for a parameter that no rule names.
    """
    family = description.family
    if len(model.heads) > 1:
        raise CheckpointError(f"a checkpoint has one head, this model has {sorted(model.heads)}")
    head = family.heads[next(iter(model.heads))] if model.heads else None
    alone = family.encoder_architecture if model.transformer.decoder is None else ""
    architecture = head.architecture if head else alone or family.architecture
    is_prefixed = head is not None and head.prefixed
    tensors = {
        name if is_prefixed else name.removeprefix(family.prefix): tensor
        for name, tensor in named_as_theirs(model, description).items()
    }
    weights = folder / "model.safetensors"
    save_file(tensors, weights, metadata={"format": "pt"})
    config = {**description.values, **family.writes, "architectures": [architecture]}
    write_json(folder / "config.json", config)
    # safetensors lets the owner alone read its file; who may read the one beside it may read both.
    weights.chmod((folder / "config.json").stat().st_mode)


def named_as_theirs(
    model: TransformerWithHeads, description: Description
) -> dict[str, torch.Tensor]:
    """The parameters under the checkpoint's names, tied ones once."""
    family = description.family
    rules = family.rules(model.transformer.config)
    ours = dict(model.named_parameters(remove_duplicate=False))
    tensors: dict[str, torch.Tensor] = {}
    written: set[int] = set()
    for name, parameter in ours.items():
        found = origin(rules, name)
        if id(parameter) in written:
            continue
        if found is None:
            raise CheckpointError(f"no key rule of {family.names[0]} leads to {name}")
        parts = [ours[part].detach() for part in found.ours]
        written.update(id(ours[part]) for part in found.ours)
        tensors[found.theirs] = found.rule.save(parts).contiguous().clone()
    return tensors


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """An object, indented."""
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
