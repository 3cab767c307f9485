"""A run as one YAML file: read, overridden by flags, checked, and saved with the result.

Unknown keys are refused by name, with those that there are.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar, cast, get_args

import yaml
from pydantic import ValidationError

from model_core.training.errors import TrainingError
from model_core.training.runs import Run, Section

AnyRun = TypeVar("AnyRun", bound=Run)


def read_run(kind: type[AnyRun], file: Path | None, overrides: Mapping[str, Any]) -> AnyRun:
    """The run that `file` describes, with `overrides` by dotted keys ("training.steps") over it.

    Raises `TrainingError` naming every key that is wrong, its value, and what is accepted.
    """
    values: dict[str, Any] = {} if file is None else read_yaml(file)
    require_recipe(kind, file, values.get("recipe"))
    model: Any = values.get("model")
    if isinstance(model, dict) and "model.source" in overrides:
        # A source on the command line takes the place of the file's architecture.
        cast("dict[str, Any]", model).pop("architecture", None)
    for key, value in overrides.items():
        put(values, key.split("."), value)
    values = over(defaults_of(kind), values)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        origin = "the run" if file is None else str(file)
        raise TrainingError(f"{origin}: {explain(kind, error)}") from error


def require_recipe(kind: type[Run], file: Path | None, named: Any) -> None:
    """Refuse a file that says it is another recipe's, before each of its keys is found strange."""
    own = kind.model_fields.get("recipe")
    if own is not None and isinstance(named, str) and named != own.default:
        raise TrainingError(
            f"{file}: recipe is {named!r}, not {own.default!r}; it goes with: anatomy train {named}"
        )


def defaults_of(kind: type[Run]) -> dict[str, Any]:
    """What a recipe sets otherwise than its sections do by themselves.

    A file that sets one key of a section leaves the recipe's other ones as they are.
    """
    defaults = {name: field.default for name, field in kind.model_fields.items()}
    return {
        name: default.model_dump(exclude_unset=True)
        for name, default in defaults.items()
        if isinstance(default, Section)
    }


def over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of both, those of `above` where both have one; sections key by key."""
    merged = dict(below)
    for key, value in above.items():
        under = below.get(key)
        both = isinstance(value, Mapping) and isinstance(under, Mapping)
        merged[key] = (
            over(cast("Mapping[str, Any]", under), cast("Mapping[str, Any]", value))
            if both
            else value
        )
    return merged


def read_yaml(file: Path) -> dict[str, Any]:
    """The keys of a YAML file."""
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise TrainingError(f"{file} can't be read: {error}") from error
    if not isinstance(values, dict):
        raise TrainingError(f"{file} holds {type(values).__name__}, expected keys and values")
    return cast("dict[str, Any]", values)


def put(values: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Set the value at `path`, making the sections on the way."""
    *sections, key = path
    for section in sections:
        if not isinstance(values.get(section), dict):
            values[section] = {}
        values = values[section]
    values[key] = value


def parse_setting(text: str) -> tuple[str, Any]:
    """`training.steps=100` as key and value; the value is YAML."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise TrainingError(f"{text!r} is no setting; expected KEY=VALUE, as training.steps=100")
    try:
        return key, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise TrainingError(f"{text!r}: the value is no YAML: {error}") from error


def write_run(run: Run, file: Path) -> None:
    """The whole run, defaults included."""
    values = run.model_dump(mode="json")
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    file.write_text(text, encoding="utf-8")


def explain(kind: type[Section], error: ValidationError) -> str:
    """What is wrong, key by key, in one line."""
    lines: list[str] = []
    for each in error.errors(include_url=False):
        path = [str(part) for part in each["loc"]]
        name = ".".join(path) or "it"
        if each["type"] == "extra_forbidden":
            known = ", ".join(section_at(kind, path[:-1]).model_fields)
            lines.append(f"{name} is no key; accepted: {known}")
        elif each["type"] == "missing":
            lines.append(f"{name} is missing")
        else:
            lines.append(f"{name} is {each['input']!r}: {each['msg']}")
    return "; ".join(lines)


def section_at(kind: type[Section], path: Sequence[str]) -> type[Section]:
    """The section that a path of keys leads to."""
    for key in path:
        annotation = kind.model_fields[key].annotation
        # A section that may be left out is one of `Section | None`.
        inner = next((each for each in get_args(annotation) if each is not NoneType), annotation)
        if not isinstance(inner, type) or not issubclass(inner, Section):
            break
        kind = inner
    return kind
