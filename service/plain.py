"""The service under uvicorn alone: one process, no Ray."""

from importlib.util import find_spec

import uvicorn
from starlette.types import ASGIApp

from service.api.exchange import Tracer
from service.app import create_app
from service.errors import InvalidRequest
from service.loading import ModelGroup
from service.logs import log_to_stderr
from service.metrics import Metrics
from service.registry import Registry
from service.settings import ServiceSettings
from service.shared_metrics import shared_folder

GRACEFUL_STOP_S = 10
"""How long streams may go on after Ctrl-C; a reader that has stalled would hold the process."""


def build_app(settings: ServiceSettings) -> ASGIApp:
    """The application with its models, which load when the server starts."""
    registry, metrics = Registry(), Metrics(shared_folder())
    log_to_stderr(settings.log_format, settings.log_level, metrics.line_lost)
    group = ModelGroup(settings, registry, metrics)
    tracer = tracer_of(settings)
    return create_app(registry, settings, metrics, tracer=tracer, lifespan=group.lifespan)


def tracer_of(settings: ServiceSettings) -> Tracer | None:
    """What makes traces, where they are switched on. Raises `InvalidRequest` without the extra."""
    if not settings.tracing:
        return None
    require_tracing()
    from service.tracing import Tracing

    return Tracing.exporting()


def require_tracing() -> None:
    """Raises `InvalidRequest` unless what makes traces is installed; imports nothing of it."""
    try:
        is_there = find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    except ModuleNotFoundError:  # not even the packages that would hold it
        is_there = False
    if not is_there:
        raise InvalidRequest(
            "tracing is on, and OpenTelemetry's exporter is not installed: "
            "pip install 'transformer-anatomy[tracing]'",
            field="tracing",
        )


def run(settings: ServiceSettings) -> None:
    """Serve until Ctrl-C or SIGTERM."""
    uvicorn.run(
        build_app(settings),
        host=settings.host,
        port=settings.port,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=GRACEFUL_STOP_S,
    )
