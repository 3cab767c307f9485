"""The client on an event loop."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Self

import httpx
import numpy as np
from numpy.typing import NDArray

from service.client.calls import (
    BATCH,
    CONCURRENT,
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

        def call(part: Sequence[str]) -> Call[NDArray[np.float32]]:
            return embedding_call(model, part, options)

        found = await self._send_batches(texts, batch, concurrent, call, progress)
        return np.concatenate(found) if found else np.empty((0, 0), np.float32)

    async def classify(
        self,
        texts: Sequence[str],
        *,
        model: str | None = None,
        batch: int = BATCH,
        concurrent: int = CONCURRENT,
        progress: Progress | None = None,
        **options: Any,
    ) -> list[Classified]:
        """The labels of `texts`, of any number: `batch` a request, some at the same time."""

        def call(part: Sequence[str]) -> Call[list[Classified]]:
            return classify_call(part, model, options)

        return list(chain(*await self._send_batches(texts, batch, concurrent, call, progress)))

    async def entities(
        self, texts: Sequence[str], *, model: str | None = None, batch: int = BATCH, **options: Any
    ) -> list[list[Entity]]:
        """The entities of each of `texts`, of any number, by a model that labels tokens."""
        calls = (entities_call(part, model, options) for part in batches(texts, batch))
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
        self, messages: Sequence[Mapping[str, Any]], *, model: str, **options: Any
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
        response = await self._begun(call, stream=False)
        return call.read(response.json())

    async def stream(self, call: Call[Text]) -> AsyncIterator[str]:
        """The pieces of text of one streamed answer. What has begun is not sent again.

        Raises `StreamCut` where the connection ends before the text does.
        """
        response = await self._begun(call, stream=True)
        try:
            async for line in response.aiter_lines():
                data = data_of(line)
                if data == DONE:
                    return
                if data is not None and (text := delta_of(data)):
                    yield text
            raise StreamCut("the stream ended before its end was told")
        finally:
            await response.aclose()

    async def _send_batches(
        self,
        texts: Sequence[str],
        batch: int,
        concurrent: int,
        call: Callable[[Sequence[str]], Call[Answer]],
        progress: Progress | None,
    ) -> list[Answer]:
        """The answers to `call` of each batch, in their order, `concurrent` at the same time."""
        if concurrent < 1:
            raise ValueError(f"concurrent is {concurrent}; at least 1 is accepted")
        room = asyncio.Semaphore(concurrent)

        async def run(part: Sequence[str]) -> Answer:
            async with room:
                found = await self.send(call(part))
            if progress is not None:
                progress(len(part))
            return found

        tasks = [asyncio.create_task(run(part)) for part in batches(texts, batch)]
        try:
            return await asyncio.gather(*tasks)
        finally:
            # One that failed, or a caller that left, ends the others too.
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _begun(self, call: Call[Any], *, stream: bool) -> httpx.Response:
        """The first answer that says success; whole, unless it is to be streamed."""
        attempt = 0
        while True:
            attempt += 1
            method = "GET" if call.body is None else "POST"
            request = self.http.build_request(method, call.path, json=body_of(call, stream=stream))
            try:
                response = await self.http.send(request, stream=stream)
                if response.is_success:
                    return response
                await response.aread()
                raise refusal_of(response)
            except (ServiceError, httpx.TransportError) as error:
                wait_s = self.retries.wait_s(error, attempt)
                if wait_s is None:
                    raise
            await asyncio.sleep(wait_s)
