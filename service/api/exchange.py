"""One request and its answer, as the middleware and the dialects share it."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from starlette.types import Receive, Scope

SCOPE_KEY = "anatomy.exchange"

Result = TypeVar("Result")


class ClientLeft(Exception):
    """The client closed the connection, or stopped reading; nobody waits for an answer."""


@dataclass(slots=True)
class Exchange:
    """What is known of a request while it runs; filled in on the way, read at its end.

    `model` is the name of a served model once it is found, so that it may be a metric's label.
    `refusal` is the code of the error that ended the request.
    """

    request_id: str
    model: str = ""
    refusal: str | None = None


def exchange_of(scope: Scope) -> Exchange:
    """The exchange that the middleware put into `scope`."""
    return cast(Exchange, scope[SCOPE_KEY])


async def unless_disconnected(receive: Receive, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of `work`, which is cancelled when the client leaves. Raises `ClientLeft`.

    The request's body must have been read. Behind Ray Serve's ingress the caller is cancelled
    when a client leaves; under plain uvicorn only `receive` tells. Both end `work`, and its
    cleaning up has finished when this returns.
    """
    working = asyncio.create_task(work)
    watching = asyncio.create_task(_disconnect(receive))
    try:
        await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        watching.result()
        raise ClientLeft("the client closed the connection")
    finally:
        working.cancel()
        watching.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
