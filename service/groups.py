"""Model groups: which models live in one replica, how many replicas there are, under which prefix.

One file says it for the whole service. What a replica gets of it is a `ServiceSettings`, as
without a file, and a `Group`. Without a file everything is one group at `/`.
"""

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, cast

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from service.settings import ENVIRONMENT_PREFIX, ServiceSettings
from service.specs import ModelSpec, Part, require_known

GROUP_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?")
PREFIX = re.compile(r"/|(/[A-Za-z0-9._~-]+)+")
DEFAULT_NAME = "anatomy"


class SettingsFileError(Exception):
    """A settings file that can't be used; the message has the file, the key, what is accepted."""


class Autoscaling(Part):
    """How many replicas a group has, by what they have to do."""

    min: int = Field(default=1, ge=0, le=10000, description="Fewest replicas.")
    max: int = Field(ge=1, le=10000, description="Most replicas.")
    target_queue: float = Field(
        default=16.0,
        gt=0,
        le=1e6,
        description="What a replica should have at hand: texts that wait for a batch, and "
        "generations that run or wait. There are as many replicas as that takes.",
    )
    upscale_delay_s: float = Field(
        default=10.0,
        ge=0,
        le=86400,
        description="How long more are wanted before they start, in s.",
    )
    downscale_delay_s: float = Field(
        default=300.0,
        ge=0,
        le=86400,
        description="How long fewer are wanted before replicas end, in s; each ends once its "
        "requests have.",
    )
    # Serve warns below 10: that is how often replicas tell it of their requests.
    look_back_s: float = Field(
        default=20.0, gt=10, le=3600, description="Seconds over which the queue's mean is taken."
    )

    @model_validator(mode="after")
    def _require_an_order(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min is {self.min} and max is {self.max}; min is at most max")
        return self


class Resources(Part):
    """What Ray reserves for a replica. Accounting: how many cores a session takes is `threads`."""

    num_cpus: float = Field(default=0, ge=0, le=4096, description="CPUs, or a part of one.")
    num_gpus: float = Field(default=0, ge=0, le=64, description="GPUs, or a part of one.")


class Group(Part):
    """The models of one replica, and how it is run."""

    name: str = Field(default=DEFAULT_NAME, description="The name of the Serve application.")
    prefix: str = Field(default="/", description="The route prefix; / or such as /writers.")
    models: tuple[ModelSpec, ...] = Field(
        min_length=1, description="What is served: names, sources, or models with their limits."
    )
    replicas: int = Field(
        default=1, ge=1, le=10000, description="How many replicas, unless autoscaling says."
    )
    autoscaling: Autoscaling | None = Field(
        default=None, description="In the place of replicas: how many, by their queues."
    )
    resources: Resources = Field(
        default=Resources(), description="What Ray reserves for each replica."
    )

    @field_validator("models", mode="before", json_schema_input_type=tuple[ModelSpec | str, ...])
    @classmethod
    def _take_names(cls, given: object) -> object:
        return tuple(cast("list[object]", given)) if isinstance(given, list) else given

    @field_validator("models")
    @classmethod
    def _refuse_repeated(cls, value: tuple[ModelSpec, ...]) -> tuple[ModelSpec, ...]:
        labels = [spec.label for spec in value]
        repeated = sorted({label for label in labels if labels.count(label) > 1})
        if repeated:
            raise ValueError(f"each model has a name of its own; repeated: {', '.join(repeated)}")
        return value

    @field_validator("name")
    @classmethod
    def _require_a_name(cls, value: str) -> str:
        if not GROUP_NAME.fullmatch(value):
            raise ValueError("1 to 64 lower-case letters, digits and inner '-' are accepted")
        return value

    @field_validator("prefix")
    @classmethod
    def _require_a_path(cls, value: str) -> str:
        if not PREFIX.fullmatch(value):
            raise ValueError("/ is accepted, or a path such as /writers, without / at its end")
        return value

    @model_validator(mode="after")
    def _refuse_two_counts(self) -> Self:
        if self.autoscaling is not None and "replicas" in self.model_fields_set:
            raise ValueError("replicas and autoscaling exclude one another; leave one of them out")
        return self

    @classmethod
    def of(cls, settings: ServiceSettings) -> "Group":
        """The one group of a service without groups: everything, at `/`."""
        models = tuple(ModelSpec(source=model) for model in settings.models)
        return cls(models=models, replicas=settings.replicas)


class ServiceFile(ServiceSettings):
    """What a settings file may have: every setting of the service, and its groups."""

    groups: tuple[Group, ...] = Field(
        default=(), description="Model groups, in the place of `models`; none: one group at /."
    )

    @model_validator(mode="before")
    @classmethod
    def _name_what_is_accepted(cls, given: Any) -> Any:
        require_known(cast("dict[object, object]", given), tuple(cls.model_fields))
        return given

    @field_validator("groups", mode="before")
    @classmethod
    def _require_a_group(cls, given: object) -> object:
        if given == ():
            return given  # the default: a file has lists alone
        if not isinstance(given, list) or not given:
            raise ValueError(
                f"a list of groups is accepted, one at least (got {given!r}); without the key "
                "`models` are one group at /"
            )
        return tuple(cast("list[object]", given))

    @model_validator(mode="after")
    def _require_groups_apart(self) -> Self:
        for what in ("name", "prefix"):
            found = [str(getattr(group, what)) for group in self.groups]
            repeated = sorted({value for value in found if found.count(value) > 1})
            if repeated:
                raise ValueError(
                    f"groups: each has a {what} of its own; repeated: {', '.join(repeated)}"
                )
        for what in ("models", "replicas"):
            if self.groups and what in self.model_fields_set:
                raise ValueError(f"{what} and groups exclude one another: each group has its own")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Nothing but what it is given: `read` has asked the environment already."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)


def read(path: Path | None, options: Mapping[str, Any]) -> tuple[ServiceSettings, list[Group]]:
    """The service's settings and its groups; options come before the environment, and that before
    the file.

    Raises `SettingsFileError`, and pydantic's `ValidationError` for what isn't the file's.
    """
    settings = ServiceSettings(**options)
    if path is None:
        return settings, [Group.of(settings)]
    given = settings.model_dump(include=settings.model_fields_set)
    try:
        found = ServiceFile.model_validate({**read_yaml(path), **given})
    except ValidationError as error:
        raise SettingsFileError(f"{path}: {problems(error)}") from error
    settings = ServiceSettings(**found.model_dump(exclude={"groups"}))
    return settings, list(found.groups) or [Group.of(settings)]


def read_yaml(path: Path) -> dict[str, Any]:
    """The keys and values of a YAML file. Raises `SettingsFileError`."""
    try:
        found: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsFileError(f"the settings file {path} can't be read: {error}") from error
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise SettingsFileError(f"{path} has no keys; the names of settings are accepted")
    return {str(key): value for key, value in cast("dict[object, object]", found).items()}


def problems(error: ValidationError) -> str:
    """What is wrong, each with its place: `groups[0].models[1]: …`."""
    return "; ".join(map(problem, error.errors()))


def problem(item: ErrorDetails) -> str:
    """One of them. Of a file unknown keys are found before; what is left is the environment's."""
    if item["type"] == "extra_forbidden":
        name = str(item["loc"][-1])
        near = difflib.get_close_matches(name, ServiceSettings.model_fields, n=1)
        hint = f"; did you mean {ENVIRONMENT_PREFIX}{near[0].upper()}?" if near else ""
        return f"{ENVIRONMENT_PREFIX}{name.upper()} is no setting{hint}"
    told = f"{place(item['loc'])}{item['msg'].removeprefix('Value error, ')}"
    return told if item["type"] == "value_error" else f"{told} (got {item['input']!r})"


def place(location: tuple[int | str, ...]) -> str:
    """`groups[0].models[1]: `; nothing for the whole."""
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return f"{path}: " if path else ""
