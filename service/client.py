"""A client of the service: sync and async, typed, with retries, streams and batches of any size.

What is sent and how an answer is read is said once, as a `Call`; `Client` and `AsyncClient` differ
in how they wait. Other clients (openai, cohere, …) work as well: this one needs httpx alone.
"""

import asyncio
import base64
import json
import random
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Generator,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, Self, TypeVar

import httpx
import numpy as np
from numpy.typing import NDArray

Answer = TypeVar("Answer")
Progress = Callable[[int], None]
"""Told of each batch that is done: how many items it had."""

BATCH = 64
CONCURRENT = 4
DONE = "[DONE]"


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
    together; where the service names a time that is waited instead. Never more than `longest_s`.
    """

    attempts: int = 4
    first_wait_s: float = 0.5
    longest_s: float = 30.0
    statuses: frozenset[int] = frozenset({408, 429, 502, 503, 504})

    def wait_s(self, error: Exception, attempt: int) -> float | None:
        """Seconds until the next attempt after the `attempt`th (from 1); None to give up."""
        if attempt >= self.attempts:
            return None
        asked: float | None = None
        if isinstance(error, ServiceError):
            if error.status not in self.statuses:
                return None
            asked = error.retry_after_s
        doubled = self.first_wait_s * 2 ** (attempt - 1) * random.uniform(0.5, 1.0)  # noqa: S311
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
class Ranked:
    """A document's place in the request, and how relevant it is."""

    index: int
    score: float


@dataclass(frozen=True, slots=True)
class Text:
    """What was generated, why it ended, and how many tokens it took."""

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int


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
    model: str, messages: Sequence[Mapping[str, str]], options: Mapping[str, Any]
) -> Call[Text]:
    """One answer to a conversation."""
    body = {"model": model, "messages": list(messages), **options}

    def read(answer: Any) -> Text:
        choice = answer["choices"][0]
        return text_of(answer, choice | {"text": choice["message"]["content"]})

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


def delta_of(event: Any) -> str:
    """The text that an event of a stream adds."""
    if "error" in event:
        told = event["error"]
        raise ServiceError(200, told["message"], code=told.get("code") or "")
    for choice in event["choices"]:
        return choice.get("text") or choice.get("delta", {}).get("content") or ""
    return ""


def event_of(line: str) -> Any | None:
    """The object in a line of a stream; None for any other line."""
    data = line.removeprefix("data: ")
    return None if data in (line, DONE) else json.loads(data)


def checked(response: httpx.Response) -> httpx.Response:
    """`response`, whose body was read; raises `ServiceError` unless it says success."""
    if response.is_success:
        return response
    try:
        told = response.json()["error"]
        message, code, at = told["message"], told["code"] or "", told["param"]
    except (ValueError, KeyError, TypeError):
        message, code, at = response.text[:200], "", None
    after = response.headers.get("retry-after", "")
    raise ServiceError(
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


@dataclass(slots=True)
class Client:
    """Waits for each answer. Use it as a context manager, or call `close`.

    `options` of every method are fields of the request's body. All raise `ServiceError`, and
    `httpx.TransportError` when the service can't be reached. Safe to use from several threads.
    """

    base_url: str = "http://127.0.0.1:8000"
    api_key: str | None = field(default=None, repr=False)
    timeout_s: float = 60.0
    retries: Retries = field(default_factory=Retries)
    transport: httpx.BaseTransport | None = None
    http: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.http = httpx.Client(
            base_url=self.base_url,
            headers=headers_of(self.api_key),
            timeout=self.timeout_s,
            transport=self.transport,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self.http.close()

    def models(self) -> list[str]:
        """The names of the served models."""
        return self.send(models_call())

    def embed(
        self,
        texts: Sequence[str],
        *,
        model: str,
        batch: int = BATCH,
        progress: Progress | None = None,
        **options: Any,
    ) -> NDArray[np.float32]:
        """Vectors [N, D] of `texts`, of any number: `batch` a request."""
        found: list[NDArray[np.float32]] = []
        for part in batches(texts, batch):
            found.append(self.send(embedding_call(model, part, options)))
            if progress is not None:
                progress(len(part))
        return np.concatenate(found) if found else np.empty((0, 0), np.float32)

    def classify(
        self, texts: Sequence[str], *, model: str | None = None, batch: int = BATCH, **options: Any
    ) -> list[Classified]:
        """The labels of `texts`, of any number."""
        calls = (classify_call(part, model, options) for part in batches(texts, batch))
        return [found for call in calls for found in self.send(call)]

    def rerank(
        self, query: str, documents: Sequence[str], *, model: str | None = None, **options: Any
    ) -> list[Ranked]:
        """`documents` by how relevant they are to `query`, the most relevant first."""
        return self.send(rerank_call(query, documents, model, options))

    def complete(self, prompt: str, *, model: str, **options: Any) -> Text:
        """What follows `prompt`."""
        return self.send(completion_call(model, prompt, options))

    def chat(self, messages: Sequence[Mapping[str, str]], *, model: str, **options: Any) -> Text:
        """The answer to a conversation."""
        return self.send(chat_call(model, messages, options))

    def stream_complete(self, prompt: str, *, model: str, **options: Any) -> Iterator[str]:
        """What follows `prompt`, as it is generated; leaving the iterator ends the generation."""
        return self.stream(completion_call(model, prompt, options))

    def stream_chat(
        self, messages: Sequence[Mapping[str, str]], *, model: str, **options: Any
    ) -> Iterator[str]:
        """The answer to a conversation, as it is generated."""
        return self.stream(chat_call(model, messages, options))

    def send(self, call: Call[Answer]) -> Answer:
        """The answer to one request, which is sent again where that may help."""
        attempt = 0
        while True:
            attempt += 1
            try:
                method = "GET" if call.body is None else "POST"
                response = checked(self.http.request(method, call.path, json=call.body))
            except (ServiceError, httpx.TransportError) as error:
                wait_s = self.retries.wait_s(error, attempt)
                if wait_s is None:
                    raise
                time.sleep(wait_s)
            else:
                return call.read(response.json())

    def stream(self, call: Call[Text]) -> Iterator[str]:
        """The pieces of text of one streamed answer. What has begun is not sent again."""
        with self._begun(call) as response:
            for line in response.iter_lines():
                event = event_of(line)
                if event is not None and (text := delta_of(event)):
                    yield text

    @contextmanager
    def _begun(self, call: Call[Text]) -> Generator[httpx.Response]:
        attempt = 0
        while True:
            attempt += 1
            body = {**(call.body or {}), "stream": True}
            request = self.http.build_request("POST", call.path, json=body)
            try:
                response = self.http.send(request, stream=True)
                if not response.is_success:
                    response.read()
                    checked(response)
            except (ServiceError, httpx.TransportError) as error:
                wait_s = self.retries.wait_s(error, attempt)
                if wait_s is None:
                    raise
                time.sleep(wait_s)
                continue
            try:
                yield response
            finally:
                response.close()
            return


@dataclass(slots=True)
class AsyncClient:
    """The same, on an event loop. Use it as an async context manager, or await `aclose`."""

    base_url: str = "http://127.0.0.1:8000"
    api_key: str | None = field(default=None, repr=False)
    timeout_s: float = 60.0
    retries: Retries = field(default_factory=Retries)
    transport: httpx.AsyncBaseTransport | None = None
    http: httpx.AsyncClient = field(init=False)

    def __post_init__(self) -> None:
        self.http = httpx.AsyncClient(
            base_url=self.base_url,
            headers=headers_of(self.api_key),
            timeout=self.timeout_s,
            transport=self.transport,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self.http.aclose()

    async def models(self) -> list[str]:
        """The names of the served models."""
        return await self.send(models_call())

    async def embed(
        self,
        texts: Sequence[str],
        *,
        model: str,
        batch: int = BATCH,
        concurrent: int = CONCURRENT,
        progress: Progress | None = None,
        **options: Any,
    ) -> NDArray[np.float32]:
        """Vectors [N, D] of `texts`, of any number: `batch` a request, some at the same time."""
        if concurrent < 1:
            raise ValueError(f"concurrent is {concurrent}; at least 1 is accepted")
        room = asyncio.Semaphore(concurrent)

        async def run(part: Sequence[str]) -> NDArray[np.float32]:
            async with room:
                found = await self.send(embedding_call(model, part, options))
            if progress is not None:
                progress(len(part))
            return found

        tasks = [asyncio.create_task(run(part)) for part in batches(texts, batch)]
        try:
            found = await asyncio.gather(*tasks)
        finally:
            # One that failed, or a caller that left, ends the others too.
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return np.concatenate(found) if found else np.empty((0, 0), np.float32)

    async def classify(
        self, texts: Sequence[str], *, model: str | None = None, batch: int = BATCH, **options: Any
    ) -> list[Classified]:
        """The labels of `texts`, of any number."""
        calls = (classify_call(part, model, options) for part in batches(texts, batch))
        return [found for call in calls for found in await self.send(call)]

    async def rerank(
        self, query: str, documents: Sequence[str], *, model: str | None = None, **options: Any
    ) -> list[Ranked]:
        """`documents` by how relevant they are to `query`, the most relevant first."""
        return await self.send(rerank_call(query, documents, model, options))

    async def complete(self, prompt: str, *, model: str, **options: Any) -> Text:
        """What follows `prompt`."""
        return await self.send(completion_call(model, prompt, options))

    async def chat(
        self, messages: Sequence[Mapping[str, str]], *, model: str, **options: Any
    ) -> Text:
        """The answer to a conversation."""
        return await self.send(chat_call(model, messages, options))

    def stream_complete(self, prompt: str, *, model: str, **options: Any) -> AsyncIterator[str]:
        """What follows `prompt`, as it is generated; closing the iterator ends the generation."""
        return self.stream(completion_call(model, prompt, options))

    def stream_chat(
        self, messages: Sequence[Mapping[str, str]], *, model: str, **options: Any
    ) -> AsyncIterator[str]:
        """The answer to a conversation, as it is generated."""
        return self.stream(chat_call(model, messages, options))

    async def send(self, call: Call[Answer]) -> Answer:
        """The answer to one request, which is sent again where that may help."""
        attempt = 0
        while True:
            attempt += 1
            try:
                method = "GET" if call.body is None else "POST"
                response = checked(await self.http.request(method, call.path, json=call.body))
            except (ServiceError, httpx.TransportError) as error:
                wait_s = self.retries.wait_s(error, attempt)
                if wait_s is None:
                    raise
                await asyncio.sleep(wait_s)
            else:
                return call.read(response.json())

    async def stream(self, call: Call[Text]) -> AsyncIterator[str]:
        """The pieces of text of one streamed answer. What has begun is not sent again."""
        async with self._begun(call) as response:
            async for line in response.aiter_lines():
                event = event_of(line)
                if event is not None and (text := delta_of(event)):
                    yield text

    @asynccontextmanager
    async def _begun(self, call: Call[Text]) -> AsyncGenerator[httpx.Response]:
        attempt = 0
        while True:
            attempt += 1
            body = {**(call.body or {}), "stream": True}
            request = self.http.build_request("POST", call.path, json=body)
            try:
                response = await self.http.send(request, stream=True)
                if not response.is_success:
                    await response.aread()
                    checked(response)
            except (ServiceError, httpx.TransportError) as error:
                wait_s = self.retries.wait_s(error, attempt)
                if wait_s is None:
                    raise
                await asyncio.sleep(wait_s)
                continue
            try:
                yield response
            finally:
                await response.aclose()
            return


def headers_of(api_key: str | None) -> dict[str, str]:
    """What goes with every request."""
    return {} if api_key is None else {"authorization": f"Bearer {api_key}"}
