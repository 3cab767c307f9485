"""What tests of the generation engine watch and wait with."""

import asyncio
from collections.abc import Callable

import pytest

from service.engines.stream import Stream

DEADLINE_S = 20.0


class Ledger:
    """Keeps what the engine tells of its generations."""

    def __init__(self) -> None:
        self.ended: list[tuple[str, int, int]] = []
        self.hits: list[int] = []

    def first_token(self, seconds: float) -> None: ...
    def inter_token(self, seconds: float) -> None: ...

    def prefix_hit(self, tokens: int) -> None:
        self.hits.append(tokens)

    def finished(self, reason: str, prompt_tokens: int, generated_tokens: int) -> None:
        self.ended.append((reason, prompt_tokens, generated_tokens))


async def tokens_of(stream: Stream) -> list[int]:
    return [token async for chunk in stream for token in chunk.token_ids]


async def until(holds: Callable[[], bool], what: str) -> None:
    """Wait for another thread; fails rather than hangs."""
    for _ in range(int(DEADLINE_S / 0.005)):
        if holds():
            return
        await asyncio.sleep(0.005)
    pytest.fail(f"not within {DEADLINE_S} s: {what}")
