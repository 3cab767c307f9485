"""What the client sends and how answers are read, whoever waits for them."""

import base64
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import httpx
import numpy as np
from numpy.typing import NDArray

Answer = TypeVar("Answer")
Progress = Callable[[int], None]
"""Told of each batch that is done: how many items it had."""

BATCH = 64
CONCURRENT = 4
DONE = "[DONE]"


class StreamCut(Exception):
    """A stream ended before its end: what came of it is not the whole text."""


class ServiceError(Exception):
    """The service refused, or failed: its HTTP status, code and message, and the field at fault.

    `retry_after_s` is when it wants to be asked again, if it said so.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str = "",
        field: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(f"{status} {code}: {message}" if code else f"{status}: {message}")
        self.status = status
        self.message = message
        self.code = code
        self.field = field
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a request that may succeed later is sent in all, and how long is waited between.

    Waits double from `first_wait_s` on, with chance mixed in so that many clients don't come back
    together (`chance` gives numbers from 0 to 1); where the service names a time that is waited
    instead. Never more than `longest_s`.
    """

    attempts: int = 4
    first_wait_s: float = 0.5
    longest_s: float = 30.0
    statuses: frozenset[int] = frozenset({408, 429, 502, 503, 504})
    chance: Callable[[], float] = random.random

    def wait_s(self, error: Exception, attempt: int) -> float | None:
        """Seconds until the next attempt after the `attempt`th (from 1); None to give up."""
        if attempt >= self.attempts:
            return None
        asked: float | None = None
        if isinstance(error, ServiceError):
            if error.status not in self.statuses:
                return None
            asked = error.retry_after_s
        doubled = self.first_wait_s * 2 ** (attempt - 1) * (0.5 + self.chance() / 2)
        return min(self.longest_s, doubled if asked is None else asked)


@dataclass(frozen=True, slots=True)
class Call(Generic[Answer]):
    """A request, and how its answer is read."""

    path: str
    body: Mapping[str, Any] | None
    read: Callable[[Any], Answer]


@dataclass(frozen=True, slots=True)
class Classified:
    """The likeliest label of a text, and the scores of all in the model's order.

    They are probabilities, unless `raw_scores` were asked for.
    """

    label: str
    scores: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Entity:
    """A part of a text under a label; its characters are `start` to `end`, which is not one."""

    label: str
    score: float
    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Called:
    """A function that the model calls; its `arguments` are a JSON object, as text."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Ranked:
    """A document's place in the request, and how relevant it is."""

    index: int
    score: float


@dataclass(frozen=True, slots=True)
class Text:
    """What was generated, why it ended, how many tokens it took, and what functions it calls."""

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    calls: tuple[Called, ...] = ()


def embedding_call(model: str, texts: Sequence[str], options: Mapping[str, Any]) -> Call[Any]:
    """Vectors of `texts`; they travel as bytes, a third of their size as text."""
    body = {**options, "model": model, "input": list(texts), "encoding_format": "base64"}

    def read(answer: Any) -> NDArray[np.float32]:
        rows = sorted(answer["data"], key=lambda row: row["index"])
        raw = [np.frombuffer(base64.b64decode(row["embedding"]), "<f4") for row in rows]
        return np.stack(raw)

    return Call("/v1/embeddings", body, read)


def classify_call(
    texts: Sequence[str], model: str | None, options: Mapping[str, Any]
) -> Call[list[Classified]]:
    """Labels of `texts`."""
    body = {"input": list(texts), **named(model), **options}

    def read(answer: Any) -> list[Classified]:
        scores = "scores" if options.get("raw_scores") else "probs"
        return [Classified(row["label"], tuple(row[scores])) for row in answer["data"]]

    return Call("/v1/classify", body, read)


def entities_call(
    texts: Sequence[str], model: str | None, options: Mapping[str, Any]
) -> Call[list[list[Entity]]]:
    """The entities of each of `texts`."""
    body = {"input": list(texts), **named(model), **options}

    def read(answer: Any) -> list[list[Entity]]:
        return [[Entity(**entity) for entity in row["entities"]] for row in answer["data"]]

    return Call("/v1/classify", body, read)


def rerank_call(
    query: str, documents: Sequence[str], model: str | None, options: Mapping[str, Any]
) -> Call[list[Ranked]]:
    """`documents` by relevance."""
    body = {"query": query, "documents": list(documents), **named(model), **options}

    def read(answer: Any) -> list[Ranked]:
        return [Ranked(row["index"], row["relevance_score"]) for row in answer["results"]]

    return Call("/v1/rerank", body, read)


def completion_call(model: str, prompt: str, options: Mapping[str, Any]) -> Call[Text]:
    """One continuation of `prompt`."""
    body = {"model": model, "prompt": prompt, **options}
    return Call("/v1/completions", body, lambda answer: text_of(answer, answer["choices"][0]))


def chat_call(
    model: str, messages: Sequence[Mapping[str, Any]], options: Mapping[str, Any]
) -> Call[Text]:
    """One answer to a conversation."""
    body = {"model": model, "messages": list(messages), **options}

    def read(answer: Any) -> Text:
        choice = answer["choices"][0]
        message = choice["message"]
        calls = tuple(
            Called(call["id"], call["function"]["name"], call["function"]["arguments"])
            for call in message.get("tool_calls") or ()
        )
        text = text_of(answer, choice | {"text": message["content"] or ""})
        return replace(text, calls=calls)

    return Call("/v1/chat/completions", body, read)


def models_call() -> Call[list[str]]:
    """The names of the served models."""
    return Call("/v1/models", None, lambda answer: [row["id"] for row in answer["data"]])


def named(model: str | None) -> dict[str, str]:
    """The field that names a model, unless the service's default is meant."""
    return {} if model is None else {"model": model}


def text_of(answer: Any, choice: Any) -> Text:
    """A choice of an answer in one piece."""
    usage = answer["usage"]
    return Text(
        choice["text"], choice["finish_reason"], usage["prompt_tokens"], usage["completion_tokens"]
    )


def delta_of(data: str) -> str:
    """The text that an event of a stream adds. Raises `ServiceError` for one that tells of one."""
    event = json.loads(data)
    if "error" in event:
        told = event["error"]
        raise ServiceError(200, told["message"], code=told.get("code") or "")
    for choice in event["choices"]:
        return choice.get("text") or choice.get("delta", {}).get("content") or ""
    return ""


def data_of(line: str) -> str | None:
    """What a line of a stream carries: an object's JSON, or `DONE`; None for any other line."""
    data = line.removeprefix("data: ")
    return None if data == line else data


def refusal_of(response: httpx.Response) -> ServiceError:
    """What a response says that is no success; its body was read."""
    try:
        told = response.json()["error"]
        message, code, at = told["message"], told["code"] or "", told["param"]
    except (ValueError, KeyError, TypeError):
        message, code, at = response.text[:200], "", None
    after = response.headers.get("retry-after", "")
    return ServiceError(
        response.status_code,
        message,
        code=code,
        field=at,
        retry_after_s=float(after) if after.isdecimal() else None,
    )


def batches(items: Sequence[str], size: int) -> list[Sequence[str]]:
    """`items` in runs of at most `size`. Raises `ValueError` for a size below 1."""
    if size < 1:
        raise ValueError(f"batch is {size}; at least 1 is accepted")
    return [items[start : start + size] for start in range(0, len(items), size)]


def headers_of(api_key: str | None) -> dict[str, str]:
    """What goes with every request."""
    return {} if api_key is None else {"authorization": f"Bearer {api_key}"}


def body_of(call: Call[Any], *, stream: bool) -> dict[str, Any] | None:
    """The JSON of a request; None for one that only asks."""
    if call.body is None:
        return None
    return {**call.body, "stream": True} if stream else dict(call.body)
