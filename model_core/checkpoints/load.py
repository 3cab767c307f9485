"""From a checkpoint's files to a model with every tensor accounted for."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model_core.attention import Attend
from model_core.checkpoints.errors import CheckpointError
from model_core.checkpoints.fields import Fields
from model_core.checkpoints.gguf_metadata import read_gguf_metadata
from model_core.checkpoints.key_rules import Drop, KeyRule, Rename, Split, match
from model_core.checkpoints.readers import TensorReader, open_tensors
from model_core.checkpoints.sources import Located
from model_core.config import TransformerConfig
from model_core.families import FAMILIES, Family, find_family
from model_core.heads import TransformerWithHeads
from model_core.transformer import Transformer


@dataclass(frozen=True, slots=True)
class Description:
    """What a checkpoint says it is, before any tensor is read.

    `values` are the fields of its `config.json` (of a GGUF file, what they would be); `labels`
    the class names of a classifier, in order; `multi_label` whether several may hold at once.
    """

    family: Family
    values: Mapping[str, Any]
    origin: str
    labels: tuple[str, ...] = ()
    multi_label: bool = False

    @property
    def architectures(self) -> tuple[str, ...]:
        """The classes that the checkpoint was saved from, as the ecosystem calls them."""
        return architectures_of(self.values)

    def config(self, reader: TensorReader) -> TransformerConfig:
        """The shape; raises `ConfigError` for a field that is wrong or not supported."""
        return self.family.config(Fields(self.values, self.origin), reader)


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
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds {type(value).__name__}, expected an object")
    return value  # pyright: ignore[reportUnknownVariableType]


def architectures_of(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The classes that a checkpoint was saved from; raises `ConfigError` if they are no names."""
    return Fields(config, "config.json").sequence("architectures", str) or ()


def class_names(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The labels of `id2label` in the order of their numbers; empty where there are none.

    A classifier that has two without a name of their own leaves `id2label` out.
    """
    labels: Mapping[str, str] = config.get("id2label") or {}
    if not labels and any("Classification" in kind for kind in architectures_of(config)):
        count = Fields(config, "config.json").take("num_labels", int, 2)
        labels = {str(number): f"LABEL_{number}" for number in range(count)}
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
        fields = Fields(metadata, located.gguf.name)
        values = family.gguf.fields(fields, open_tensors(located))
        return Description(family, values, located.gguf.name)
    if "config.json" not in located.files:
        raise CheckpointError(f"{located.source} has no config.json")
    return describe_config(read_json(located.files["config.json"]))


def describe_config(values: Mapping[str, Any]) -> Description:
    """The same of the fields of a `config.json`."""
    family = find_family(FAMILIES, str(values.get("model_type")))
    multi_label = values.get("problem_type") == "multi_label_classification"
    return Description(family, values, "config.json", class_names(values), multi_label)


def load(
    located: Located,
    attend: Attend,
    heads: Sequence[str] = (),
    change: Callable[[TransformerConfig], TransformerConfig] | None = None,
) -> Loaded:
    """The model in `located` with the `heads` named, attending by `attend`.

    `change` may make another shape of the one that the checkpoint states, which its tensors still
    have to fit. Raises `ConfigError` for a shape that can't be expressed, `CheckpointError` naming
    all missing, unexpected and misshaped tensors at once.
    """
    description = describe(located)
    family, reader = description.family, open_tensors(located)
    stated = description.config(reader)
    config = change(stated) if change else stated
    model = build(config, description, attend, heads)
    rules = family.gguf.rules if located.gguf and family.gguf else family.rules
    unused = fill(model, reader, rules(config), family.prefix, located.source)
    return Loaded(model.eval(), config, description, unused)


def build(
    config: TransformerConfig, description: Description, attend: Attend, heads: Sequence[str]
) -> TransformerWithHeads:
    """The modules without values: on the meta device, so that nothing is initialised in vain."""
    with torch.device("meta"):
        return assemble(config, description, attend, heads)


def assemble(
    config: TransformerConfig, description: Description, attend: Attend, heads: Sequence[str]
) -> TransformerWithHeads:
    """The modules with PyTorch's first values; raises `CheckpointError` for unknown heads."""
    available = description.family.heads
    unknown = set(heads) - set(available)
    if unknown:
        raise CheckpointError(
            f"{description.family.names[0]} has no head {sorted(unknown)}; "
            f"it has: {', '.join(available)}"
        )
    transformer = Transformer(config, attend)
    labels = len(description.labels)
    built = {name: available[name].build(transformer, labels) for name in heads}
    return TransformerWithHeads(transformer, built)


def fill(
    model: TransformerWithHeads,
    reader: TensorReader,
    rules: Sequence[KeyRule],
    prefix: str,
    source: str,
) -> tuple[str, ...]:
    """Give `model` the tensors of `reader`; returns the names of those it has no use for.

    Each is read, converted and kept or let go before the next: what is held at once is the model
    and one tensor.
    """
    account = Account(dict(model.named_parameters(remove_duplicate=False)))
    # A name may stand for one head or another (BERT's "classifier"): for the one the model has.
    rules = sorted(rules, key=lambda rule: any(is_absent(model, name) for name in rule.targets))
    for name in reader.names():
        found = match(rules, name, prefix)
        if found is None:
            account.unexpected.append(name)
        elif isinstance(found.rule, Drop) or any(is_absent(model, ours) for ours in found.ours):
            account.unused.append(name)
        else:
            account.take(name, reader, found.rule, found.ours)
    model.load_state_dict(account.state(source), assign=True)
    return tuple(account.unused)


def is_absent(model: TransformerWithHeads, name: str) -> bool:
    """Whether `name` belongs to a head that this model was built without."""
    room, _, rest = name.partition(".")
    return room == "heads" and rest.partition(".")[0] not in model.heads


def is_finite(tensor: Tensor) -> bool:
    """Whether a tensor holds floating-point numbers, none infinite and none NaN."""
    if not tensor.is_floating_point() or not tensor.numel():
        return tensor.is_floating_point()
    # NaN if any is. Not `isfinite`, which holds several masks as large as the tensor.
    smallest, largest = torch.aminmax(tensor)
    return bool(smallest.isfinite() and largest.isfinite())


class Account:
    """What became of each tensor of a checkpoint, and of each parameter of a model.

    Tied parameters are one object under several names (`expected`): a value for one serves all,
    and a second value has to be the same.
    """

    def __init__(self, expected: Mapping[str, torch.nn.Parameter]) -> None:
        self.expected = expected
        self.values: dict[int, Tensor] = {}
        self.origins: dict[int, str] = {}
        self.unused: list[str] = []
        self.unexpected: list[str] = []
        self.misshaped: list[str] = []
        self.no_numbers: list[str] = []
        self.differing: list[str] = []

    def take(
        self, name: str, reader: TensorReader, rule: Rename | Split, ours: Sequence[str]
    ) -> None:
        """The checkpoint's tensor `name` for our parameters `ours`."""
        strange = [target for target in ours if target not in self.expected]
        if strange:
            self.unexpected.append(f"{name} (as {', '.join(strange)})")
            return
        wanted = [self.expected[target].shape for target in ours]
        try:
            parts = rule.load(reader.read(name))
        except (RuntimeError, IndexError):  # of a shape that the rule's layout can't be cut from
            parts = ()
        if [part.shape for part in parts] != wanted:
            shapes = " and ".join(str(tuple(shape)) for shape in wanted)
            self.misshaped.append(f"{name} is {reader.shape(name)}, expected {shapes}")
            return
        for target, part in zip(ours, parts, strict=True):
            self.keep(id(self.expected[target]), name, part)

    def keep(self, key: int, name: str, part: Tensor) -> None:
        """A parameter's value, unless it has the same already."""
        if not is_finite(part):
            self.no_numbers.append(f"{name} ({part.dtype})")
        # A part of a tensor that was cut is copied: a view would keep the whole in memory.
        value = part.to(torch.float32).contiguous()
        if key not in self.values:
            self.values[key], self.origins[key] = value, name
        elif not torch.equal(self.values[key], value):
            self.differing.append(f"{self.origins[key]} and {name}")

    def state(self, source: str) -> dict[str, torch.nn.Parameter]:
        """The values by our names; raises `CheckpointError` with all that is wrong at once."""
        missing = [name for name, item in self.expected.items() if id(item) not in self.values]
        problems = {
            "missing": missing,
            "unexpected": self.unexpected,
            "misshaped": self.misshaped,
            "tied, but different": self.differing,
            "not finite floating-point numbers": self.no_numbers,
        }
        lines = [f"{kind}: {', '.join(names)}" for kind, names in problems.items() if names]
        if lines:
            raise CheckpointError(
                f"the tensors of {source} don't fit the model; " + "; ".join(lines)
            )
        shared = {key: torch.nn.Parameter(value, False) for key, value in self.values.items()}
        return {name: shared[id(item)] for name, item in self.expected.items()}
