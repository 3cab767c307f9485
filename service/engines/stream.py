"""A running generation as its reader sees it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from service.errors import AnatomyError
from service.messages import GenerationChunk, Times, join


@dataclass(eq=False)
class Stream:
    """An async iterator of chunks.

    What comes while the reader is away is joined into one chunk, so that a slow reader holds no
    more than its own text. Belongs to the event loop but for `cancelled`, which the engine reads.
    """

    loop: asyncio.AbstractEventLoop
    wake_engine: Callable[[], None]
    times: Times
    pending: list[GenerationChunk] = field(default_factory=list[GenerationChunk])
    error: AnatomyError | None = None
    ended: bool = False
    cancelled: bool = False
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def __aiter__(self) -> "Stream":
        return self

    async def __anext__(self) -> GenerationChunk:
        """The next chunk; raises what went wrong after the text that came before it."""
        while not self.pending:
            if self.error is not None:
                raise self.error
            if self.ended or self.cancelled:
                raise StopAsyncIteration
            self.arrived.clear()
            await self.arrived.wait()
        chunks, self.pending = self.pending, []
        return chunks[0] if len(chunks) == 1 else join(chunks)

    async def aclose(self) -> None:
        """Cancel: the engine frees the slot before its next step. Safe to call twice."""
        self.cancelled = True
        self.arrived.set()
        self.wake_engine()

    def deliver(self, chunk: GenerationChunk) -> None:
        """Called on the event loop."""
        self.pending.append(chunk)
        self.ended = chunk.finish_reason is not None
        self.arrived.set()

    def fail(self, error: AnatomyError) -> None:
        """Called on the event loop."""
        self.error = error
        self.arrived.set()


def deliver_all(deliveries: list[tuple[Stream, GenerationChunk]]) -> None:
    """Give each stream its chunk."""
    for stream, chunk in deliveries:
        stream.deliver(chunk)
