"""Every setting of the service, validated: from arguments, from the environment, or a default."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from export.catalogue import default_cache_folder
from service.logs import LogFormat, LogLevel

ENVIRONMENT_PREFIX = "ANATOMY_"

CLIENT_VARIABLES = frozenset({"admin_key"})
"""What those who ask the service have in their environment; a service passes it over."""


class StrictEnvironment(EnvSettingsSource):
    """The environment, with prefixed variables that name no setting kept, so that they are refused.

    pydantic-settings reads only the variables it knows: a misspelt one would be ignored.
    """

    def __call__(self) -> dict[str, Any]:
        values = super().__call__()
        prefix = self.env_prefix.lower()
        for variable, value in self.env_vars.items():
            name = variable.lower().removeprefix(prefix)
            is_ours = variable.lower().startswith(prefix) and name not in CLIENT_VARIABLES
            if is_ours and name not in self.settings_cls.model_fields:
                values[name] = value
        return values


class ServiceSettings(BaseSettings):
    """Settings of one service; environment variables are `ANATOMY_` and the name in capitals.

    Raises pydantic's `ValidationError`, which names every setting that is unknown or out of range.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX,
        extra="forbid",
        frozen=True,
        validate_default=True,
    )

    host: str = Field(default="127.0.0.1", min_length=1, description="Address to listen on.")
    port: int = Field(
        default=8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one."
    )
    models: Annotated[tuple[str, ...], NoDecode] = Field(
        default=("minilm", "smollm2"),
        min_length=1,
        description="Names or sources of the models to serve, separated by commas; "
        "`minilm` brings `supersense` along.",
    )
    precision: Literal["fp32", "int8", "fp16"] | None = Field(
        default=None, description="Precision of every model; none lets each task and device choose."
    )
    threads: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="Threads of a model's session; none takes every core.",
    )
    gpu_memory_gib: float | None = Field(
        default=None,
        gt=0,
        le=1024,
        description="Most of a GPU's memory that one graph's weights and intermediate results may "
        "take, in GiB; the cache of a generator comes on top. None: all there is.",
    )
    cache_folder: Path = Field(
        default_factory=default_cache_folder, description="Where exported artifacts are kept."
    )

    api_keys_file: Path | None = Field(
        default=None,
        description="File of API keys, a line `name sha256` each; `anatomy key NAME` makes them. "
        "None: everybody may ask.",
    )
    admin_keys_file: Path | None = Field(
        default=None,
        description="File of the keys of those who may load, unload and swap models while the "
        "service runs, written as api_keys_file is. None: there is no such route.",
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Origins of web pages that may ask, separated by commas; * is every page.",
    )

    max_body_bytes: int = Field(
        default=8 * 1024**2, ge=1024, le=1024**3, description="Largest request body, in bytes."
    )
    body_timeout_s: float = Field(
        default=30.0,
        gt=0,
        le=3600,
        description="Longest wait for a whole request body, in seconds.",
    )
    request_timeout_s: float | None = Field(
        default=None,
        gt=0,
        le=86400,
        description="Longest that a request may take until its answer begins, in seconds; the "
        "header x-request-timeout asks for less.",
    )
    send_timeout_s: float = Field(
        default=60.0,
        gt=0,
        le=3600,
        description="Longest wait for a reader to take one event of a stream, in seconds.",
    )
    drain_timeout_s: float = Field(
        default=30.0,
        gt=0,
        le=3600,
        description="Longest that requests which run go on, in seconds, once the service is asked "
        "to stop or their model is unloaded or swapped.",
    )
    max_inputs: int = Field(default=2048, ge=1, le=65536, description="Most inputs in one request.")
    max_choices: int = Field(
        default=128,
        ge=1,
        le=4096,
        description="Most generations that one request starts (prompts x n).",
    )
    max_bytes_per_token: int = Field(
        default=32,
        ge=4,
        le=1024,
        description="A text of more bytes than this times the model's tokens is refused unread.",
    )

    token_budget: int = Field(
        default=512, ge=1, le=1024**2, description="Most tokens that an encoder runs in one batch."
    )
    max_queue_tokens: int = Field(
        default=65536,
        ge=1,
        le=2**30,
        description="Most tokens that wait for an encoder; more are refused.",
    )
    slots: int = Field(
        default=32, ge=1, le=1024, description="Generations that run at the same time."
    )
    max_queue_requests: int = Field(
        default=256,
        ge=0,
        le=65536,
        description="Generations that wait for a slot; more are refused.",
    )
    max_queue_prompt_tokens: int = Field(
        default=131072,
        ge=1,
        le=2**30,
        description="Most prompt tokens that wait for a slot; more are refused.",
    )
    max_queue_wait_s: float = Field(
        default=60.0,
        gt=0,
        le=86400,
        description="Longest wait for a model that is expected of a request, in seconds; one that "
        "would wait longer is refused at once.",
    )
    max_context: int = Field(
        default=2048, ge=16, le=2**20, description="Tokens a slot holds: prompt and continuation."
    )
    prefill_chunk: int = Field(
        default=16,
        ge=1,
        le=65536,
        description="Prompt tokens that run between two decoding steps, more where nobody decodes; "
        "prompts that begin alike share whole chunks of so many.",
    )

    replicas: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Processes that serve behind Ray Serve, each with all models; --plain is one.",
    )

    log_format: LogFormat = Field(default="text", description="Lines of the log: text or json.")
    log_level: LogLevel = Field(
        default="info", description="What is logged at least: debug, info, warning or error."
    )
    log_prompts: bool = Field(
        default=False, description="Whether the log has the bodies of requests, and so prompts."
    )
    tracing: bool = Field(
        default=False,
        description="Whether traces of requests go to OTEL_EXPORTER_OTLP_ENDPOINT; needs the "
        "extra `tracing`.",
    )

    inspect: bool = Field(
        default=False, description="Whether served models may be looked into (`/v1/inspect`)."
    )
    inspect_max_tokens: int = Field(
        default=512, ge=1, le=8192, description="Most tokens of a text that is looked into."
    )
    inspect_concurrency: int = Field(
        default=2,
        ge=1,
        le=64,
        description="Inspections under way: one runs, on a core of its own, the others wait; more "
        "are refused.",
    )

    @field_validator("models", "cors_origins", mode="before")
    @classmethod
    def _split_at_commas(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(name.strip() for name in value.split(",") if name.strip())
        return value

    @field_validator("cache_folder")
    @classmethod
    def _expand_home(cls, value: Path) -> Path:
        return value.expanduser()

    @field_validator("api_keys_file", "admin_keys_file")
    @classmethod
    def _expand_home_of_keys(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser().absolute()

    @field_validator("models")
    @classmethod
    def _refuse_repeated_models(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        repeated = sorted({name for name in value if value.count(name) > 1})
        if repeated:
            raise ValueError(f"each model is named once; repeated: {', '.join(repeated)}")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments first, then the environment; no other source is read."""
        del env_settings, dotenv_settings, file_secret_settings
        return init_settings, StrictEnvironment(settings_cls)
