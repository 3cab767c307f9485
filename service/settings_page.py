"""`docs/settings.md`: `python -m service.settings_page > docs/settings.md` makes it."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from export.catalogue import default_cache_folder
from service.groups import Autoscaling, Group, Resources
from service.settings import ENVIRONMENT_PREFIX, ServiceSettings
from service.specs import PER_MODEL, ModelSpec

BEGIN = """\
# Settings

Every knob of the service. This page is made of `service/settings.py`, `service/groups.py` and \
`service/specs.py` by `python -m service.settings_page > docs/settings.md`; a test holds them \
together.

Options of `anatomy serve` come before variables of the environment, and those before a file \
(`anatomy serve --config FILE`, YAML), where the names stand in small letters and without \
`ANATOMY_`. A name that isn't here is refused.

## Of the service

| variable | default | accepted | what it is |
| --- | --- | --- | --- |"""

HEAD = """
| key | default | accepted | what it is |
| --- | --- | --- | --- |"""

GROUPS = """
## Of a group

Under `groups` in the file, a list of:"""

PARTS: tuple[tuple[str, type[BaseModel]], ...] = (
    ("`autoscaling`", Autoscaling),
    ("`resources`", Resources),
)

MODELS = """
### A model

A name or source alone, or:"""

BOUNDS = {"ge": "≥ {}", "gt": "> {}", "le": "≤ {}", "min_length": "at least {} long"}


def page() -> str:
    """The whole page."""
    return "\n".join(lines()) + "\n"


def lines() -> Iterator[str]:
    """Its lines, without their ends."""
    yield BEGIN
    for name, field in ServiceSettings.model_fields.items():
        yield row(f"{ENVIRONMENT_PREFIX}{name.upper()}", field)
    yield GROUPS
    yield HEAD
    yield from rows(Group)
    for title, part in PARTS:
        yield f"\n### {title}"
        yield HEAD
        yield from rows(part)
    yield MODELS
    yield HEAD
    for name, field in ModelSpec.model_fields.items():
        if name not in PER_MODEL:
            yield row(name, field)
    own = ", ".join(f"`{name}`" for name in PER_MODEL)
    yield f"\nAnd, in the place of the service's: {own}."


def rows(model: type[BaseModel]) -> Iterator[str]:
    """A row for each field."""
    for name, field in model.model_fields.items():
        yield row(name, field)


def row(name: str, field: FieldInfo) -> str:
    """A field as a row of the table."""
    accepted = ", ".join(bounds(field)) or "–"
    told = (field.description or "").replace("|", "\\|")
    return f"| `{name}` | {default_of(field)} | {accepted} | {told} |"


def bounds(field: FieldInfo) -> Iterator[str]:
    """What is accepted, as far as it is a range."""
    for bound in field.metadata:
        for name, form in BOUNDS.items():
            value = getattr(bound, name, None)
            if value is not None:
                yield form.format(f"{value:,}")


def default_of(field: FieldInfo) -> str:
    """The default as the page has it, the same on every machine."""
    if field.is_required():
        return "needed"
    value: Any = field.get_default(call_default_factory=True, validated_data={})
    if value == default_cache_folder():
        return "`$XDG_CACHE_HOME/anatomy`, or `~/.cache/anatomy`"
    if value is None or value == ():
        return "none"
    if isinstance(value, BaseModel):
        return "as below"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, (tuple, list)):
        return f"`{','.join(map(str, value))}`"  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    return (
        f"`{value}`"
        if isinstance(value, (str, Path))
        else f"{value:,g}"
        if isinstance(value, float)
        else f"{value:,}"
    )


if __name__ == "__main__":
    sys.stdout.write(page())
