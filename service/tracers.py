"""Whether requests are traced: OpenTelemetry is looked for only where somebody asks for it."""

from importlib.util import find_spec

from service.api.exchange import Tracer
from service.errors import InvalidRequest
from service.settings import ServiceSettings


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
