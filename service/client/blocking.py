"""The client that waits for each answer."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Self

import httpx
import numpy as np
from numpy.typing import NDArray

from service.client.calls import (
    BATCH,
    DONE,
    Answer,
    Call,
    Classified,
    Entity,
    Progress,
    Ranked,
    Retries,
    ServiceError,
    StreamCut,
    Text,
    batches,
    body_of,
    chat_call,
    classify_call,
    completion_call,
    data_of,
    delta_of,
    embedding_call,
    entities_call,
    headers_of,
    models_call,
    refusal_of,
    rerank_call,
)


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

        def call(part: Sequence[str]) -> Call[NDArray[np.float32]]:
            return embedding_call(model, part, options)

        found = self._send_batches(texts, batch, call, progress)
        return np.concatenate(found) if found else np.empty((0, 0), np.float32)

    def classify(
        self,
        texts: Sequence[str],
        *,
        model: str | None = None,
        batch: int = BATCH,
        progress: Progress | None = None,
        **options: Any,
    ) -> list[Classified]:
        """The labels of `texts`, of any number: `batch` a request."""

        def call(part: Sequence[str]) -> Call[list[Classified]]:
            return classify_call(part, model, options)

        return list(chain(*self._send_batches(texts, batch, call, progress)))

    def entities(
        self, texts: Sequence[str], *, model: str | None = None, batch: int = BATCH, **options: Any
    ) -> list[list[Entity]]:
        """The entities of each of `texts`, of any number, by a model that labels tokens."""
        calls = (entities_call(part, model, options) for part in batches(texts, batch))
        return [found for call in calls for found in self.send(call)]

    def rerank(
        self, query: str, documents: Sequence[str], *, model: str | None = None, **options: Any
    ) -> list[Ranked]:
        """`documents` by how relevant they are to `query`, the most relevant first."""
        return self.send(rerank_call(query, documents, model, options))

    def complete(self, prompt: str, *, model: str, **options: Any) -> Text:
        """What follows `prompt`."""
        return self.send(completion_call(model, prompt, options))

    def chat(self, messages: Sequence[Mapping[str, Any]], *, model: str, **options: Any) -> Text:
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
        response = self._begun(call, stream=False)
        return call.read(response.json())

    def stream(self, call: Call[Text]) -> Iterator[str]:
        """The pieces of text of one streamed answer. What has begun is not sent again.

        Raises `StreamCut` where the connection ends before the text does.
        """
        response = self._begun(call, stream=True)
        try:
            for line in response.iter_lines():
                data = data_of(line)
                if data == DONE:
                    return
                if data is not None and (text := delta_of(data)):
                    yield text
            raise StreamCut("the stream ended before its end was told")
        finally:
            response.close()

    def _send_batches(
        self,
        texts: Sequence[str],
        batch: int,
        call: Callable[[Sequence[str]], Call[Answer]],
        progress: Progress | None,
    ) -> list[Answer]:
        """The answers to `call` of each batch."""
        found: list[Answer] = []
        for part in batches(texts, batch):
            found.append(self.send(call(part)))
            if progress is not None:
                progress(len(part))
        return found

    def _begun(self, call: Call[Any], *, stream: bool) -> httpx.Response:
        """The first answer that says success; whole, unless it is to be streamed."""
        attempt = 0
        while True:
            attempt += 1
            method = "GET" if call.body is None else "POST"
            request = self.http.build_request(method, call.path, json=body_of(call, stream=stream))
            try:
                response = self.http.send(request, stream=stream)
                if response.is_success:
                    return response
                response.read()
                raise refusal_of(response)
            except (ServiceError, httpx.TransportError) as error:
                wait_s = self.retries.wait_s(error, attempt)
                if wait_s is None:
                    raise
            time.sleep(wait_s)
