"""One request and its answer, as the middleware and the dialects share it."""

import asyncio
import time
from collections.abc import Awaitable, Coroutine, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, TypeVar, cast

from starlette.requests import Request
from starlette.types import Receive, Scope

from service.errors import DeadlineExceeded, EngineFailure
from service.messages import Computed, Terms

SCOPE_KEY = "anatomy.exchange"
BEFORE_KEY = "anatomy.seconds_before"
"""Where a scope says how long a request took to come here from the proxy in front, if one is."""

Result = TypeVar("Result")


class Dialect(StrEnum):
    """Whose shapes a route speaks; errors are told in it too."""

    OPENAI = "openai"
    TEI = "text-embeddings-inference"


@dataclass(frozen=True, slots=True)
class Deadline:
    """A request has so many `seconds` from `began` (`time.perf_counter`) on."""

    seconds: float
    began: float

    def left_s(self) -> float:
        """Seconds until then, at least 0."""
        return max(0.0, self.began + self.seconds - time.perf_counter())

    def exceeded(self) -> DeadlineExceeded:
        """What is told when it has passed."""
        return DeadlineExceeded(f"the answer was not there within {self.seconds:g} s")


class ClientLeft(Exception):
    """The client closed the connection, or stopped reading; nobody waits for an answer."""


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of a request: what was done, when it began (`time.perf_counter`), its seconds."""

    what: str
    began: float
    seconds: float


@dataclass(slots=True)
class Exchange:
    """What is known of a request while it runs; filled in on the way, read at its end.

    `model` is the name of a served model once it is found, so that it may be a metric's label.
    `refusal` is the code of the error that ended the request. `phases` are what it went through;
    `compute` are counts of what was read. `holder` is the name of the API key that came with it.
    `texts` were run by an encoder. `completion_tokens` is None unless tokens were generated.
    `body` is kept, for the log, where `keeps_body` says so.
    """

    request_id: str
    model: str = ""
    refusal: str | None = None
    phases: list[Phase] = field(default_factory=list[Phase])
    compute: dict[str, int] = field(default_factory=dict[str, int])
    dialect: Dialect = Dialect.OPENAI
    holder: str = ""
    deadline: Deadline | None = None
    texts: int = 0
    prompt_tokens: int = 0
    completion_tokens: int | None = None
    keeps_body: bool = False
    body: bytes = b""

    @property
    def timings(self) -> dict[str, float]:
        """Seconds by what took them."""
        total: dict[str, float] = {}
        for phase in self.phases:
            total[phase.what] = total.get(phase.what, 0.0) + phase.seconds
        return total

    @contextmanager
    def timed(self, what: str) -> Generator[None]:
        """Times what is done within."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.phases.append(Phase(what, began, time.perf_counter() - began))

    def went_through(self, seconds: Mapping[str, float]) -> None:
        """Notes phases that followed one another, in seconds each; the last ended just now."""
        began = time.perf_counter() - sum(seconds.values())
        for what, took in seconds.items():
            self.phases.append(Phase(what, began, took))
            began += took

    def terms(self, priority: int | None = None) -> Terms:
        """How the request waits for a model: no longer than it has left."""
        return Terms(priority or 0, None if self.deadline is None else self.deadline.left_s())

    async def run(self, work: Awaitable[Computed[Result]], names: Sequence[str]) -> Result:
        """What a model gives for the items `names`, of which a failure names the one at fault."""
        try:
            return self.ran(await work)
        except EngineFailure as error:
            named = error.named(names)
            if named is error:
                raise
            raise named from error

    def ran(self, found: Computed[Result]) -> Result:
        """Notes how long a model took, and for how much; gives what it gave."""
        self.went_through({"queue": found.queue_s, "run": found.run_s})
        self.texts += found.texts
        self.prompt_tokens += found.tokens
        return found.values


@dataclass(frozen=True, slots=True)
class Ended:
    """A request that has ended: what metrics, the log and traces are told of it.

    `route` is a template. It began at `began` (`time.perf_counter`), which was `began_ns` of the
    time of day (nanoseconds since 1970), and took `seconds`; its answer began after
    `answered_after_s`, if it got one.
    """

    exchange: Exchange
    method: str
    route: str
    status: int
    began: float
    began_ns: int
    seconds: float
    answered_after_s: float | None
    headers: Sequence[tuple[bytes, bytes]]


class Tracer(Protocol):
    """Where ended requests become traces (`service.tracing`)."""

    def record(self, ended: Ended) -> str:
        """Keeps a trace of a request; gives its id, 32 hexadecimal digits."""
        ...

    def close(self) -> None:
        """Sends what is left. May take seconds."""
        ...


def exchange_of(scope: Scope) -> Exchange:
    """The exchange that the middleware put into `scope`."""
    return cast(Exchange, scope[SCOPE_KEY])


async def unless_disconnected(
    receive: Receive, work: Coroutine[Any, Any, Result], deadline: Deadline | None = None
) -> Result:
    """The result of `work`, which is cancelled when the client leaves or the deadline passes.

    Raises `ClientLeft`, `DeadlineExceeded`.

    The request's body must have been read. Behind Ray Serve's ingress the caller is cancelled
    when a client leaves; under plain uvicorn only `receive` tells. Both end `work`, and its
    cleaning up has finished when this returns.
    """
    working = asyncio.create_task(work)
    watching = asyncio.create_task(_disconnect(receive))
    try:
        await asyncio.wait(
            (working, watching),
            timeout=None if deadline is None else deadline.left_s(),
            return_when=asyncio.FIRST_COMPLETED,
        )
        if working.done():
            return working.result()
        if deadline is not None and not watching.done():
            raise deadline.exceeded()
        watching.result()
        raise ClientLeft("the client closed the connection")
    finally:
        working.cancel()
        watching.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def answered(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of what a request asks for, within its deadline and while its client is there."""
    return await unless_disconnected(request.receive, work, exchange_of(request.scope).deadline)


async def in_time(waited: Awaitable[Result], deadline: Deadline | None) -> Result:
    """What is waited for, until the deadline. Raises `DeadlineExceeded`."""
    if deadline is None:
        return await waited
    try:
        async with asyncio.timeout(deadline.left_s()):
            return await waited
    except TimeoutError as error:
        raise deadline.exceeded() from error


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
