"""The service under uvicorn alone: one process, no Ray; several groups under their prefixes."""

import math
import socket
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress

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


def build_app(settings: ServiceSettings) -> Starlette:
    """The application with its models, which load when the server starts."""
    return build_group(settings, Group.of(settings), Registry())


def build_group(settings: ServiceSettings, group: Group, registry: Registry) -> Starlette:
    """The application of one group, whose models are loaded when the server starts."""
    metrics = Metrics(shared_folder())
    log_to_stderr(settings.log_format, settings.log_level, metrics.line_lost)
    models = ModelGroup(settings, registry, metrics, group.models)
    return create_app(
        registry,
        settings,
        metrics,
        tracer=tracer_of(settings),
        lifespan=models.lifespan,
        control=models,
    )


def build_groups(settings: ServiceSettings, groups: Sequence[Group]) -> Starlette:
    """All groups in one process, each under its prefix."""
    registries = {group.prefix: Registry() for group in groups}

    def prefix_of(name: str) -> str | None:
        """Looked up when it is asked for: what another group serves may have changed."""
        for prefix, registry in registries.items():
            if any(card.name == name for card in registry.cards()):
                return prefix
        return None

    apps: dict[str, Starlette] = {}
    for group in groups:
        registry = registries[group.prefix]
        registry.elsewhere = prefix_of
        apps[group.prefix] = build_group(settings, group, registry)
    if list(apps) == ["/"]:
        return apps["/"]

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        async with AsyncExitStack() as stack:
            for app in apps.values():
                await stack.enter_async_context(app.router.lifespan_context(app))
            yield

    # The longest prefix that fits a path answers.
    by_length = sorted(apps, key=len, reverse=True)
    routes = [Mount(prefix, UnderPrefix(apps[prefix], prefix)) for prefix in by_length]
    return Starlette(routes=routes, lifespan=lifespan)


class Server(uvicorn.Server):
    """One that says when it takes requests: its models are loaded then."""

    def __init__(self, config: uvicorn.Config, tell_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._tell_ready = tell_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Load, and listen."""
        await super().startup(sockets)
        if self.started and not self.should_exit:
            self._tell_ready()


def run(settings: ServiceSettings, groups: Sequence[Group], tell_ready: Callable[[], None]) -> None:
    """Serve until Ctrl-C or SIGTERM; `tell_ready` is called once, when requests are taken."""
    config = uvicorn.Config(
        build_groups(settings, groups),
        host=settings.host,
        port=settings.port,
        # uvicorn's own configuration would close the handlers that there are: what it says is
        # written by ours.
        log_config=None,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=math.ceil(settings.drain_timeout_s),
        http=BoundedHttp,
    )
    # uvicorn raises Ctrl-C again once it has stopped because of it.
    with suppress(KeyboardInterrupt):
        Server(config, tell_ready).run()
