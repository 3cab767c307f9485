"""The service under uvicorn alone: one process, no Ray; several groups under their prefixes."""

import asyncio
import logging
import math
import signal
import socket
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from service.app import create_app
from service.connections import BoundedHttp
from service.groups import Group
from service.living import ModelGroup
from service.logs import log_to_stderr
from service.metrics import Metrics
from service.registry import Registry
from service.settings import ServiceSettings
from service.shared_metrics import shared_folder
from service.tracers import tracer_of

ANSWERING_S = 5.0
"""How long requests whose models have been closed may take to say so, before they are cut off."""

logger = logging.getLogger(__name__)


class UnderPrefix:
    """An application that is reached under a prefix and, being asked, knows nothing of it."""

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app = app
        self._prefix = prefix.rstrip("/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if self._prefix and (path + "/").startswith(self._prefix + "/"):
            scope = {
                **scope,
                "root_path": "",
                "app_root_path": self._prefix,  # for those who tell the address
                "path": path.removeprefix(self._prefix) or "/",
            }
        await self._app(scope, receive, send)


@dataclass(frozen=True, slots=True)
class Served:
    """An application, and its models, which load when the server starts."""

    app: Starlette
    models: list[ModelGroup]


def build_app(settings: ServiceSettings) -> Starlette:
    """The application with its models, which load when the server starts."""
    return build_group(settings, Group.of(settings), Registry()).app


def build_group(settings: ServiceSettings, group: Group, registry: Registry) -> Served:
    """One group."""
    metrics = Metrics(shared_folder())
    log_to_stderr(settings.log_format, settings.log_level, metrics.line_lost)
    models = ModelGroup(settings, registry, metrics, group.models)
    app = create_app(
        registry,
        settings,
        metrics,
        tracer=tracer_of(settings),
        lifespan=models.lifespan,
        control=models,
    )
    return Served(app, [models])


def build_groups(settings: ServiceSettings, groups: Sequence[Group]) -> Served:
    """All groups in one process, each under its prefix."""
    registries = {group.prefix: Registry() for group in groups}

    def prefix_of(name: str) -> str | None:
        """Looked up when it is asked for: what another group serves may have changed."""
        for prefix, registry in registries.items():
            if any(card.name == name for card in registry.cards()):
                return prefix
        return None

    made: dict[str, Served] = {}
    for group in groups:
        registry = registries[group.prefix]
        registry.elsewhere = prefix_of
        made[group.prefix] = build_group(settings, group, registry)
    if list(made) == ["/"]:
        return made["/"]

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        async with AsyncExitStack() as stack:
            for each in made.values():
                await stack.enter_async_context(each.app.router.lifespan_context(each.app))
            yield

    # The longest prefix that fits a path answers.
    by_length = sorted(made, key=len, reverse=True)
    routes = [Mount(prefix, UnderPrefix(made[prefix].app, prefix)) for prefix in by_length]
    models = [model for each in made.values() for model in each.models]
    return Served(Starlette(routes=routes, lifespan=lifespan), models)


class Server(uvicorn.Server):
    """One that says when it takes requests, and ends what takes too long when it stops."""

    def __init__(
        self,
        config: uvicorn.Config,
        models: Sequence[ModelGroup],
        drain_s: float,
        tell_ready: Callable[[], None],
    ) -> None:
        super().__init__(config)
        self._models = models
        self._drain_s = drain_s
        self._tell_ready = tell_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Load, and listen."""
        await super().startup(sockets)
        if self.started and not self.should_exit:
            self._tell_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let what runs end, for `drain_s`; then it is answered that the service stops."""
        ending = asyncio.create_task(self._end_after_drain())
        try:
            await super().shutdown(sockets)
        finally:
            ending.cancel()

    async def _end_after_drain(self) -> None:
        await asyncio.sleep(self._drain_s)
        logger.warning(
            "%d requests still run after %g s; they end now",
            sum(models.registry.in_flight.count for models in self._models),
            self._drain_s,
        )
        for models in self._models:
            await asyncio.to_thread(models.close)


def run(settings: ServiceSettings, groups: Sequence[Group], tell_ready: Callable[[], None]) -> None:
    """Serve until Ctrl-C or SIGTERM; `tell_ready` is called once, when requests are taken."""
    service = build_groups(settings, groups)
    config = uvicorn.Config(
        service.app,
        host=settings.host,
        port=settings.port,
        # uvicorn's own configuration would close the handlers that there are: what it says is
        # written by ours.
        log_config=None,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=math.ceil(settings.drain_timeout_s + ANSWERING_S),
        http=BoundedHttp,
    )

    def keep_on(*_: object) -> None:
        # uvicorn raises a signal again once it has stopped because of it: SIGTERM would end the
        # process before the last lines of its log are written.
        pass

    signal.signal(signal.SIGTERM, keep_on)
    with suppress(KeyboardInterrupt):
        Server(config, service.models, settings.drain_timeout_s, tell_ready).run()
