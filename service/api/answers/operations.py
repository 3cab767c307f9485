"""Answers of the routes that operators ask."""

from typing import Any, Literal, NotRequired, Required

from typing_extensions import TypedDict

from service.messages import Task


class Index(TypedDict):
    """What this is, and the task of each model by its name."""

    name: Literal["anatomy"]
    ready: bool
    models: dict[str, Task]


class Alive(TypedDict):
    """The process answers."""

    status: Literal["alive"]


class Ready(TypedDict):
    """Every model answers."""

    status: Literal["ready"]


class ModelInfo(TypedDict):
    """A served model, where it runs and why there; what it doesn't have is left out."""

    name: str
    task: Task
    max_tokens: int
    precision: str
    created: int
    source: str
    licence: str
    provider: str
    provider_reason: str
    embedding_dim: NotRequired[int]
    pooling: NotRequired[str]
    prompt: NotRequired[str]
    prompts: NotRequired[dict[str, str]]
    labels: NotRequired[list[str]]
    ranks: bool
    generation: NotRequired[dict[str, Any]]
    max_beams: int
    parity: NotRequired[dict[str, float]]


class Limits(TypedDict):
    """What a client needs to know before it is refused."""

    max_body_bytes: int
    max_inputs: int
    max_choices: int
    max_bytes_per_token: int


class Pooled(TypedDict):
    """How the vectors of tokens become one."""

    pooling: str


class Labelled(TypedDict):
    """The names of a classifier's scores."""

    id2label: dict[str, str]
    label2id: dict[str, int]


class TeiModelType(TypedDict):
    """One of the three."""

    embedding: NotRequired[Pooled]
    classifier: NotRequired[Labelled]
    reranker: NotRequired[Labelled]


class TeiInfo(TypedDict, total=False):
    """The model that answers text-embeddings-inference's routes, as its clients read it."""

    model_id: str
    model_sha: None
    model_dtype: str
    model_type: TeiModelType
    max_concurrent_requests: int
    max_input_length: int
    max_batch_tokens: int
    max_batch_requests: None
    max_client_batch_size: int
    auto_truncate: bool
    tokenization_workers: int
    version: str
    sha: None
    docker_label: None


class Info(TeiInfo):
    """What is served and how; text-embeddings-inference's fields are there once a model is."""

    ready: Required[bool]
    models: Required[list[ModelInfo]]
    limits: Required[Limits]
