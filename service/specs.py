"""One model as it is asked for: where it comes from, its name, its own limits."""

import difflib
import re
from collections.abc import Mapping
from typing import Annotated, Any, cast

from pydantic import BaseModel, ConfigDict, Field, create_model, field_validator, model_validator

from export.catalogue import default_name, trunk_of
from service.settings import ServiceSettings

PER_MODEL = (
    "precision",
    "threads",
    "token_budget",
    "max_queue_tokens",
    "max_queue_wait_s",
    "slots",
    "max_queue_requests",
    "max_queue_prompt_tokens",
    "max_context",
    "prefill_chunk",
)
"""The settings that a model may have of its own."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}")


class Part(BaseModel):
    """A part of a file: immutable; an unknown key is refused with those that are accepted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _name_what_is_accepted(cls, given: Any) -> Any:
        if isinstance(given, Mapping):
            require_known(cast("Mapping[object, object]", given), tuple(cls.model_fields))
        return cast("Any", given)


def require_known(given: Mapping[object, object], accepted: tuple[str, ...]) -> None:
    """Raises `ValueError` for a key that isn't accepted; the message has the nearest that is."""
    for key in given:
        if key not in accepted:
            near = difflib.get_close_matches(str(key), accepted, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(f"unknown key {key!r}; {hint}accepted: {', '.join(accepted)}")


class NamedSource(Part):
    """Where a model comes from, and what it is called."""

    source: str = Field(
        min_length=1,
        max_length=4096,
        description="An embedded model's name, a source (folder, .gguf, hf:, pypi:), or an "
        "artifact's folder.",
    )
    name: str | None = Field(
        default=None,
        description="What it is called; none takes the artifact's name. Other models that the "
        "artifact brings along are then called NAME-THEIRS.",
    )
    digest: str | None = Field(
        default=None,
        pattern="^[0-9a-f]{64}$",
        description="SHA-256 of the artifact's manifest.json; another artifact is refused.",
    )

    @model_validator(mode="before")
    @classmethod
    def _take_a_source_alone(cls, given: object) -> object:
        return {"source": given} if isinstance(given, str) else given

    @field_validator("source")
    @classmethod
    def _bring_the_trunk(cls, value: str) -> str:
        return trunk_of(value)

    @field_validator("name")
    @classmethod
    def _require_a_name(cls, value: str | None) -> str | None:
        if value is not None and not NAME.fullmatch(value):
            raise ValueError(
                "1 to 128 letters, digits, '.', '_', ':', '/' and '-' are accepted, "
                "a letter or digit first"
            )
        return value

    @property
    def label(self) -> str:
        """What it is called before its artifact was read."""
        return self.name or default_name(self.source)


def with_limits(base: type[NamedSource]) -> type[NamedSource]:
    """`base` with every setting of `PER_MODEL`, with its range; None leaves it to the service."""
    fields: dict[str, Any] = {}
    for name in PER_MODEL:
        known = ServiceSettings.model_fields[name]
        kind: Any = known.annotation
        bounded: Any = Annotated[(kind, *known.metadata)] if known.metadata else kind
        fields[name] = (bounded | None, Field(default=None, description=known.description))
    return create_model("LimitedSource", __base__=base, **fields)


class ModelSpec(with_limits(NamedSource)):
    """A model that is served, or asked for, with the limits that it has of its own."""

    def settings(self, service: ServiceSettings) -> ServiceSettings:
        """The service's settings with this model's own in their place."""
        own = self.model_dump(include=set(PER_MODEL), exclude_none=True)
        return service.model_copy(update={**own, "models": (self.source,)})


Wanted = tuple[ModelSpec, ...]
"""The models of a group, in their order."""
