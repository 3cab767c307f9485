"""The ASGI application: its routes, and what stands around them (`service.api.boundary`).

Runs behind Ray Serve, under plain uvicorn and in tests alike; knows none of them.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from service.api.admin import Admin
from service.api.bodies import BodyLimits
from service.api.boundary import RequestBoundary
from service.api.classify import Classify
from service.api.documentation import Documentation
from service.api.errors import on_domain_error, on_http_error
from service.api.exchange import Dialect, Tracer
from service.api.inspect import Inspect
from service.api.inspect_page import inspect_page_routes
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

SHARED = "/"
"""The path that two dialects have, each with a method of its own."""


def create_app(
    registry: Registry,
    settings: ServiceSettings,
    metrics: Metrics,
    *,
    tracer: Tracer | None = None,
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
        max_tokens=settings.max_queue_tokens,
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
            async with lifespan(), metrics.kept_fresh():
                yield
        finally:
            offload.close()
            desk.close()
            if tracer is not None:
                await asyncio.to_thread(tracer.close)

    theirs = TextEmbeddingsInference(registry, tokenizing, offload, limits).routes()
    routes = [
        *Operations(registry, settings, metrics).routes(),
        *OpenAI(registry, tokenizing, offload, limits, generation).routes(),
        *Classify(registry, tokenizing, offload, limits, now).routes(),
        *Ranking(registry, tokenizing, offload, limits, now).routes(),
        *Inspect(registry, desk, limits, looked_into).routes(),
        *inspect_page_routes(),
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
                tracer=tracer,
                logs_bodies=settings.log_prompts,
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
