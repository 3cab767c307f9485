"""The ASGI application: routes, and around them request ids, metrics and the last error handler.

Runs behind Ray Serve, under plain uvicorn and in tests alike; knows none of them.
"""

import asyncio
import logging
import re
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.admin import Admin
from service.api.bodies import BodyLimits
from service.api.classify import Classify
from service.api.documentation import Documentation
from service.api.errors import INTERNAL_ERROR, error_response, on_domain_error, on_http_error
from service.api.exchange import SCOPE_KEY, ClientLeft, Deadline, Dialect, Exchange
from service.api.inspect import Inspect
from service.api.keys import ApiKeys, RequireKey
from service.api.openai import OpenAI
from service.api.openai_generation import OpenAIGeneration
from service.api.operations import Operations
from service.api.ranking import Ranking
from service.api.tei import TextEmbeddingsInference
from service.errors import AnatomyError
from service.in_flight import CountInFlight
from service.inspection.desk import InspectionDesk
from service.inspection.sequences import TextLimits
from service.living import Control
from service.metrics import Metrics
from service.offload import Offload
from service.registry import Registry
from service.settings import ServiceSettings
from service.tokenizing import Tokenizing

CLIENT_LEFT = 499
UNMATCHED = "unmatched"
SHARED = "/"
"""The path that two dialects have, each with a method of its own."""
# What is safe in a header, a log line and an answer's id.
REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")

TIMEOUT_HEADER = b"x-request-timeout"
SECONDS = re.compile(rb"\d{1,9}(\.\d{1,9})?")

logger = logging.getLogger(__name__)


def create_app(
    registry: Registry,
    settings: ServiceSettings,
    metrics: Metrics,
    *,
    lifespan: Callable[[], AbstractAsyncContextManager[None]] = nullcontext,
    now: Callable[[], float] = time.time,
    control: Control | None = None,
) -> Starlette:
    """The application over the models of `registry`, which may be filled later, until `ready`.

    `lifespan` is entered on the server's event loop before the first request and left after the
    last: engines start and stop there. `now` gives the time of day, in seconds. With `control` and
    a file of admin keys, models can be changed while they are served.
    """
    offload = Offload()
    tokenizing = Tokenizing(
        offload,
        max_bytes_per_token=settings.max_bytes_per_token,
        max_inputs=settings.max_inputs,
    )
    limits = BodyLimits(max_bytes=settings.max_body_bytes, timeout_s=settings.body_timeout_s)
    generation = OpenAIGeneration(
        registry,
        tokenizing,
        offload,
        limits,
        max_choices=settings.max_choices,
        send_timeout_s=settings.send_timeout_s,
        now=now,
    )

    desk = InspectionDesk(settings.inspect_concurrency)
    looked_into = TextLimits(settings.inspect_max_tokens, settings.max_bytes_per_token)

    @asynccontextmanager
    async def lifetime(_: Starlette) -> AsyncGenerator[None, None]:
        try:
            async with lifespan():
                yield
        finally:
            offload.close()
            desk.close()

    theirs = TextEmbeddingsInference(registry, tokenizing, offload, limits).routes()
    routes = [
        *Operations(registry, settings, metrics).routes(),
        *OpenAI(registry, tokenizing, offload, limits, generation).routes(),
        *Classify(registry, tokenizing, offload, limits, now).routes(),
        *Ranking(registry, tokenizing, offload, limits, now).routes(),
        *Inspect(registry, desk, limits, looked_into).routes(),
        *theirs,
    ]
    if control is not None and settings.admin_keys_file is not None:
        routes += Admin(control, limits).routes()
    documentation = Documentation(
        registry, offload, routes, with_keys=settings.api_keys_file is not None
    )
    app = Starlette(
        routes=[*routes, *documentation.routes()],
        middleware=[
            Middleware(
                RequestBoundary,
                metrics=metrics,
                timeout_s=settings.request_timeout_s,
                dialects={
                    f"POST {SHARED}" if route.path == SHARED else route.path: Dialect.TEI
                    for route in theirs
                },
            ),
            *guards(settings),
            Middleware(CountInFlight, in_flight=registry.in_flight),
        ],
        exception_handlers={AnatomyError: on_domain_error, HTTPException: on_http_error},
        lifespan=lifetime,
    )
    # A redirect would be an answer outside of every dialect.
    app.router.redirect_slashes = False
    return app


def guards(settings: ServiceSettings) -> list[Middleware]:
    """What stands before every route: which pages may ask, and who. Raises `KeyFileError`."""
    found: list[Middleware] = []
    if settings.cors_origins:
        # Before the keys: a browser asks whether it may send one without sending one.
        found.append(
            Middleware(
                CORSMiddleware,
                allow_origins=settings.cors_origins,
                allow_methods=["GET", "POST"],
                allow_headers=["*"],
                expose_headers=["x-request-id", "server-timing", "retry-after"],
            )
        )
    keys, admins = (
        None if path is None else ApiKeys.read(path)
        for path in (settings.api_keys_file, settings.admin_keys_file)
    )
    if keys is not None or admins is not None:
        found.append(Middleware(RequireKey, keys=keys, admins=admins))
    return found


class RequestBoundary:
    """The outermost layer: gives each request its id and deadline, counts and times it, and answers
    what nobody expected. Pure ASGI, so that it holds nothing of a stream.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: Metrics,
        timeout_s: float | None,
        dialects: Mapping[str, Dialect],
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._timeout_s = timeout_s
        self._dialects = dialects

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = Exchange(_request_id(scope))
        scope[SCOPE_KEY] = exchange
        began = time.perf_counter()
        exchange.deadline = deadline_of(scope, began, self._timeout_s)
        path, shared = scope["path"], f"{scope['method']} {scope['path']}"
        exchange.dialect = self._dialects.get(path, self._dialects.get(shared, Dialect.OPENAI))
        status: int | None = None

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = exchange.request_id
                if exchange.timings:
                    headers["server-timing"] = server_timing(exchange)
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except (ClientLeft, ClientDisconnect):
            status = CLIENT_LEFT
        except asyncio.CancelledError:
            status = CLIENT_LEFT
            raise
        except Exception:
            logger.exception("request %s failed", exchange.request_id)
            exchange.refusal = INTERNAL_ERROR.code
            if status is not None:
                # The server cuts the connection, which is all that the client can be told now.
                raise
            message = f"internal error in request {exchange.request_id}"
            answer = error_response(message, INTERNAL_ERROR, dialect=exchange.dialect)
            await answer(scope, receive, send_with_id)
        finally:
            seconds = time.perf_counter() - began
            self._count(scope, exchange, status or CLIENT_LEFT, seconds)

    def _count(self, scope: Scope, exchange: Exchange, status: int, seconds: float) -> None:
        route = scope.get("route")
        template = route.path if isinstance(route, Route) else UNMATCHED
        self._metrics.request(template, exchange.model, status, seconds)
        if exchange.refusal is not None:
            self._metrics.refused(exchange.refusal)
        if exchange.holder:
            self._metrics.asked_by(exchange.holder)


def deadline_of(scope: Scope, began: float, longest_s: float | None) -> Deadline | None:
    """The sooner of what the service allows and what the request asks for, in seconds.

    What is no positive number in the header is nothing that could be kept to, and is passed over.
    """
    limits = [] if longest_s is None else [longest_s]
    for name, value in scope["headers"]:
        if name == TIMEOUT_HEADER and SECONDS.fullmatch(value) and float(value) > 0:
            limits.append(float(value))
    return Deadline(min(limits), began) if limits else None


def server_timing(exchange: Exchange) -> str:
    """How long each part of a request took, in milliseconds (W3C Server Timing)."""
    parts = exchange.timings.items()
    return ", ".join(f"{what};dur={seconds * 1000:.2f}" for what, seconds in parts)


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            given = value.decode("latin-1")
            if REQUEST_ID.fullmatch(given):
                return given
    return uuid.uuid4().hex
