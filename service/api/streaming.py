"""Generations of one request, run together, and server-sent events made of them."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.api.errors import INTERNAL_ERROR, answer_to, error_body
from service.api.exchange import (
    ClientLeft,
    Exchange,
    exchange_of,
    in_time,
    unless_disconnected,
)
from service.errors import AnatomyError, EngineFailure
from service.messages import Generation, GenerationChunk, GenerationModel, Sampling, Terms, TokenIds

DONE = b"data: [DONE]\n\n"

logger = logging.getLogger(__name__)


def event(payload: object) -> bytes:
    """One server-sent event that carries `payload` as JSON."""
    return b"data: " + orjson.dumps(payload) + b"\n\n"


class Generations:
    """The generations of one request. Leaving its context cancels those that still run.

    `exchange` is told of their tokens, and of their times: to the first token of any, and what the
    one that ends last took from its own first.
    """

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._started: list[Generation] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def start(
        self, model: GenerationModel, prompt: TokenIds, sampling: Sampling, terms: Terms
    ) -> None:
        """Start one more; its index is the number of those before it. Raises `Overloaded`."""
        self._started.append(model.generate(prompt, sampling, terms=terms))

    async def chunks(self) -> AsyncGenerator[tuple[int, GenerationChunk], None]:
        """(index, chunk) of every generation, as they come, to the end of all.

        Holds one chunk of each generation at most: who reads slowly makes this wait.
        """
        left = len(self._started)
        async with aclosing(self._arriving()) as arriving:
            async for index, chunk in arriving:
                left -= chunk.finish_reason is not None
                self._note(chunk, self._started[index], is_last=not left)
                yield index, chunk

    def _note(self, chunk: GenerationChunk, generation: Generation, *, is_last: bool) -> None:
        exchange = self._exchange
        if exchange.completion_tokens is None:
            exchange.completion_tokens = 0
            exchange.went_through(generation.times.before_first_token())
        exchange.completion_tokens += len(chunk.token_ids)
        if is_last:
            exchange.went_through(generation.times.after_first_token())

    async def _arriving(self) -> AsyncGenerator[tuple[int, GenerationChunk], None]:
        if len(self._started) == 1:
            async for chunk in self._started[0]:
                yield 0, chunk
            return
        waiting = {_next(generation): i for i, generation in enumerate(self._started)}
        try:
            while waiting:
                done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in sorted(done, key=waiting.__getitem__):
                    index = waiting.pop(task)
                    try:
                        chunk = task.result()
                    except EngineFailure as error:
                        raise error.of(f"choices[{index}]") from error
                    if chunk is not None:
                        waiting[_next(self._started[index])] = index
                        yield index, chunk
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def aclose(self) -> None:
        """Cancel what still runs. Each generation is closed even when the caller is cancelled."""
        closing = asyncio.gather(*(generation.aclose() for generation in self._started))
        await asyncio.shield(closing)


def _next(generation: Generation) -> asyncio.Task[GenerationChunk | None]:
    async def pull() -> GenerationChunk | None:
        return await anext(generation, None)

    return asyncio.create_task(pull())


class EventStream(Response):
    """Server-sent events, sent as they come, over `generations` that end with the stream.

    The answer starts with the first event, so that an error before it has a status of its own;
    a later one is an event `{"error": …}` before the end. One event is held at a time: a reader
    who is slow makes the generation's reader wait, and one who takes nothing for
    `send_timeout_s` is cut off.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        generations: Generations,
        events: AsyncGenerator[bytes, None],
        *,
        send_timeout_s: float,
    ) -> None:
        # A proxy that collects an answer before it passes it on would undo the streaming.
        super().__init__(headers={"cache-control": "no-cache", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._generations = generations
        self._events = events
        self._send_timeout_s = send_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._generations, aclosing(self._events) as events:
            await unless_disconnected(receive, self._send_events(events, scope, send))
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_events(self, events: AsyncIterator[bytes], scope: Scope, send: Send) -> None:
        has_started = False
        try:
            # Only what comes before the answer has begun has a deadline.
            data = await in_time(anext(events, None), exchange_of(scope).deadline)
            while data is not None:
                if not has_started:
                    await send(
                        {
                            "type": "http.response.start",
                            "status": self.status_code,
                            "headers": self.raw_headers,
                        }
                    )
                    has_started = True
                await self._send(data, send)
                data = await anext(events, None)
            await self._send(DONE, send)
        except ClientLeft:
            raise
        except Exception as error:
            if not has_started:
                raise
            await self._send(_error_event(error, scope), send)
            await self._send(DONE, send)

    async def _send(self, data: bytes, send: Send) -> None:
        try:
            async with asyncio.timeout(self._send_timeout_s):
                await send({"type": "http.response.body", "body": data, "more_body": True})
        except TimeoutError as error:
            raise ClientLeft("the client stopped reading") from error


def _error_event(error: Exception, scope: Scope) -> bytes:
    exchange = exchange_of(scope)
    body: dict[str, Any]
    if isinstance(error, AnatomyError):
        answer = answer_to(error)
        body = error_body(error.message, answer, field=error.field)
    else:
        logger.error("request %s failed in its stream", exchange.request_id, exc_info=error)
        answer = INTERNAL_ERROR
        body = error_body(f"internal error in request {exchange.request_id}", answer)
    exchange.refusal = answer.code
    return event(body)
