"""The service under uvicorn alone: one process, no Ray."""

import uvicorn
from starlette.types import ASGIApp

from service.app import create_app
from service.connections import BoundedHttp
from service.loading import ModelGroup
from service.logs import log_to_stderr
from service.metrics import Metrics
from service.registry import Registry
from service.settings import ServiceSettings

GRACEFUL_STOP_S = 10
"""How long streams may go on after Ctrl-C; a reader that has stalled would hold the process."""


def build_app(settings: ServiceSettings) -> ASGIApp:
    """The application with its models, which load when the server starts."""
    log_to_stderr()
    registry, metrics = Registry(), Metrics()
    group = ModelGroup(settings, registry, metrics)
    return create_app(registry, settings, metrics, lifespan=group.lifespan)


def run(settings: ServiceSettings) -> None:
    """Serve until Ctrl-C or SIGTERM."""
    uvicorn.run(
        build_app(settings),
        host=settings.host,
        port=settings.port,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=GRACEFUL_STOP_S,
        http=BoundedHttp,
    )
