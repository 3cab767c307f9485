"""From a checkpoint's files to a model with every tensor accounted for."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model_core.attention import Attend
from model_core.checkpoints.errors import CheckpointError
from model_core.checkpoints.fields import Fields
from model_core.checkpoints.gguf_metadata import read_gguf_metadata
from model_core.checkpoints.key_rules import Drop, KeyRule, match
from model_core.checkpoints.readers import TensorReader, open_tensors
from model_core.checkpoints.sources import Located
from model_core.config import TransformerConfig
from model_core.families import FAMILIES, Family, Format, find_family
from model_core.heads import TransformerWithHeads
from model_core.transformer import Transformer


@dataclass(frozen=True, slots=True)
class Description:
    """What a checkpoint says it is, before any tensor is read.

    `labels` are the class names of a classifier, in order; `multi_label` whether they exclude
    one another.
    """

    family: Family
    format: Format
    fields: Fields
    labels: tuple[str, ...]
    multi_label: bool


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in evaluation mode with float32 weights, and how its tensors were accounted for.

    `unused` names the tensors that belong to heads nobody asked for, or that a rule drops.
    """

    model: TransformerWithHeads
    config: TransformerConfig
    description: Description
    unused: tuple[str, ...]


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; `CheckpointError` names the file if it isn't one."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds {type(value).__name__}, expected an object")
    return value  # pyright: ignore[reportUnknownVariableType]


def class_names(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The labels of `id2label` in the order of their numbers; empty where there are none."""
    labels: Mapping[str, str] = config.get("id2label") or {}
    try:
        return tuple(str(labels[number]) for number in sorted(labels, key=int))
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"id2label is {labels!r}, expected numbers to names") from error


def describe(located: Located) -> Description:
    """Which family a checkpoint belongs to, and the fields that say its shape."""
    if located.gguf is not None:
        metadata = read_gguf_metadata(located.gguf)
        family = find_family(FAMILIES, str(metadata.get("general.architecture")))
        if family.gguf is None:
            raise CheckpointError(f"{located.gguf}: GGUF of {family.names[0]} is not supported")
        return Description(family, family.gguf, Fields(metadata, located.gguf.name), (), False)
    if "config.json" not in located.files:
        raise CheckpointError(f"{located.source} has no config.json")
    config = read_json(located.files["config.json"])
    family = find_family(FAMILIES, str(config.get("model_type")))
    multi_label = config.get("problem_type") == "multi_label_classification"
    fields = Fields(config, "config.json")
    return Description(family, family.hugging_face, fields, class_names(config), multi_label)


def load(located: Located, attend: Attend, heads: Sequence[str] = ()) -> Loaded:
    """The model in `located` with the `heads` named, attending by `attend`.

    Raises `ConfigError` for a shape that can't be expressed, `CheckpointError` naming all
    missing, unexpected and misshaped tensors at once.
    """
    description = describe(located)
    reader = open_tensors(located)
    config = description.format.config(description.fields, frozenset(reader.names()))
    model = build(config, description, attend, heads)
    unused = fill(model, reader, description.format.rules(config), description, located.source)
    return Loaded(model.eval(), config, description, unused)


def build(
    config: TransformerConfig, description: Description, attend: Attend, heads: Sequence[str]
) -> TransformerWithHeads:
    """The modules without values: on the meta device, so that nothing is initialised in vain."""
    with torch.device("meta"):
        transformer = Transformer(config, attend)
        available = description.family.heads
        unknown = set(heads) - set(available)
        if unknown:
            raise CheckpointError(
                f"{description.family.names[0]} has no head {sorted(unknown)}; "
                f"it has: {', '.join(available)}"
            )
        labels = len(description.labels)
        built = {name: available[name](transformer, labels) for name in heads}
        return TransformerWithHeads(transformer, built)


def fill(
    model: TransformerWithHeads,
    reader: TensorReader,
    rules: Sequence[KeyRule],
    description: Description,
    source: str,
) -> tuple[str, ...]:
    """Give `model` the tensors of `reader`; returns the names of those it has no use for."""
    expected = dict(model.named_parameters(remove_duplicate=False))
    values: dict[str, Tensor] = {}
    unused: list[str] = []
    unexpected: list[str] = []
    misshaped: list[str] = []
    prefix = description.format.optional_prefix
    # A name may stand for one head or another (BERT's "classifier"): for the one the model has.
    rules = sorted(
        rules, key=lambda rule: not isinstance(rule, Drop) and is_absent_head(model, rule.ours)
    )
    for name in reader.names():
        found = match(rules, name, prefix)
        if found is None:
            unexpected.append(name)
        elif (
            isinstance(found.rule, Drop) or found.ours is None or is_absent_head(model, found.ours)
        ):
            unused.append(name)
        elif found.ours not in expected:
            unexpected.append(f"{name} (as {found.ours})")
        elif reader.shape(name) != tuple(expected[found.ours].shape):
            wanted = tuple(expected[found.ours].shape)
            misshaped.append(f"{name} is {reader.shape(name)}, expected {wanted}")
        else:
            values[found.ours] = found.rule.transform(reader.read(name)).float()

    # Tied parameters are one object under several names: a value for one serves all.
    by_identity = {id(expected[name]): value for name, value in values.items()}
    missing = [name for name, parameter in expected.items() if id(parameter) not in by_identity]
    report(source, missing=missing, unexpected=unexpected, misshaped=misshaped)

    shared = {key: torch.nn.Parameter(value, False) for key, value in by_identity.items()}
    state = {name: shared[id(parameter)] for name, parameter in expected.items()}
    model.load_state_dict(state, assign=True)
    return tuple(unused)


def is_absent_head(model: TransformerWithHeads, name: str) -> bool:
    """Whether `name` belongs to a head that this model was built without."""
    room, _, rest = name.partition(".")
    return room == "heads" and rest.partition(".")[0] not in model.heads


def report(source: str, **problems: Sequence[str]) -> None:
    """Raise `CheckpointError` with everything that is wrong, unless nothing is."""
    lines = [f"{kind}: {', '.join(names)}" for kind, names in problems.items() if names]
    if lines:
        raise CheckpointError(f"the tensors of {source} don't fit the model; " + "; ".join(lines))
