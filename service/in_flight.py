"""Which requests still run of those that began before a moment.

A request may hold a model from its look-up until its answer has been sent. What is replaced or
unloaded is closed only when all requests that could have found it have ended.
"""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager

from starlette.types import ASGIApp, Receive, Scope, Send


class Epoch:
    """The requests that began between two changes."""

    def __init__(self) -> None:
        self.running = 0
        self.is_over = False
        self.ended = asyncio.Event()

    def settle(self) -> None:
        """Note that nothing runs, if no request can be added."""
        if self.is_over and not self.running:
            self.ended.set()


class InFlight:
    """Counts requests by epoch. Used on one event loop."""

    def __init__(self) -> None:
        self._now = Epoch()
        self._before: list[Epoch] = []

    @property
    def count(self) -> int:
        """Requests that run."""
        return self._now.running + sum(epoch.running for epoch in self._before)

    @contextmanager
    def request(self) -> Generator[None]:
        """A request runs within."""
        epoch = self._now
        epoch.running += 1
        try:
            yield
        finally:
            epoch.running -= 1
            epoch.settle()

    async def drained(self, timeout_s: float) -> bool:
        """Wait until every request that runs now has ended; False if one still runs after
        `timeout_s`. Requests that begin meanwhile are not waited for."""
        ended, self._now = self._now, Epoch()
        ended.is_over = True
        ended.settle()
        self._before.append(ended)
        waited = list(self._before)
        try:
            async with asyncio.timeout(timeout_s):
                for epoch in waited:
                    await epoch.ended.wait()
        except TimeoutError:
            return False
        finally:
            self._before = [epoch for epoch in self._before if not epoch.ended.is_set()]
        return True


class CountInFlight:
    """Counts each HTTP request until its answer was sent. Pure ASGI."""

    def __init__(self, app: ASGIApp, *, in_flight: InFlight) -> None:
        self._app = app
        self._in_flight = in_flight

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with self._in_flight.request():
            await self._app(scope, receive, send)
