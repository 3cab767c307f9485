"""Answers of the routes that change which models are served."""

from typing import Any, NotRequired

from typing_extensions import TypedDict


class AskedModel(TypedDict):
    """A model as it was asked for, with the limits it has of its own, and its names."""

    source: str
    name: str
    digest: NotRequired[str]
    precision: NotRequired[str]
    threads: NotRequired[int]
    token_budget: NotRequired[int]
    max_queue_tokens: NotRequired[int]
    max_queue_wait_s: NotRequired[float]
    slots: NotRequired[int]
    max_queue_requests: NotRequired[int]
    max_queue_prompt_tokens: NotRequired[int]
    max_context: NotRequired[int]
    prefill_chunk: NotRequired[int]
    serves: list[str]


class ReplicaModel(TypedDict):
    """A model in one replica: what was asked for, and what it has at hand."""

    asked: dict[str, Any]
    name: str
    serves: list[str]
    at_hand: float


class ReplicaState(TypedDict):
    """What one replica says; `failure` is of a configuration that it couldn't put into effect."""

    models: list[ReplicaModel]
    loading: list[str]
    draining: list[str]
    failure: NotRequired[str]


class State(TypedDict):
    """What is served, and what each replica says of it."""

    models: list[AskedModel]
    replicas: list[ReplicaState]
