"""The outermost layer of the application: what every request gets, whatever becomes of it.

Its id and deadline on the way in; on the way out an answer to what nobody expected, and one place
where metrics, the log and traces are told.
"""

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Mapping
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.errors import INTERNAL_ERROR, error_response, on_domain_error
from service.api.exchange import (
    BEFORE_KEY,
    SCOPE_KEY,
    ClientLeft,
    Deadline,
    Dialect,
    Ended,
    Exchange,
    Phase,
    Tracer,
)
from service.errors import InvalidRequest
from service.logs import FIELDS
from service.metrics import Metrics

CLIENT_LEFT = 499
UNMATCHED = "unmatched"
# What is safe in a header, a log line and an answer's id.
REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")

TIMEOUT_HEADER = b"x-request-timeout"
SECONDS = re.compile(rb"\d{1,9}(\.\d{1,9})?")

# W3C Trace Context: version, trace, parent, flags.
TRACEPARENT = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")

PROBES = frozenset({"/health", "/ready", "/metrics"})
"""What is asked every few seconds: its successes are logged at DEBUG alone."""
LOGGED_CHARACTERS = 4096

logger = logging.getLogger(__name__)
requests = logging.getLogger("service.requests")


class RequestBoundary:
    """Pure ASGI, so that it holds nothing of a stream. `logs_bodies` puts prompts into the log."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: Metrics,
        timeout_s: float | None,
        dialects: Mapping[str, Dialect],
        tracer: Tracer | None = None,
        logs_bodies: bool = False,
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._timeout_s = timeout_s
        self._dialects = dialects
        self._tracer = tracer
        self._logs_bodies = logs_bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = Exchange(_request_id(scope), keeps_body=self._logs_bodies)
        scope[SCOPE_KEY] = exchange
        began, began_ns = time.perf_counter(), time.time_ns()
        if BEFORE_KEY in scope:
            before: float = scope[BEFORE_KEY]
            exchange.phases.append(Phase("proxy", began - before, before))
        path, shared = scope["path"], f"{scope['method']} {scope['path']}"
        exchange.dialect = self._dialects.get(path, self._dialects.get(shared, Dialect.OPENAI))
        status: int | None = None
        answered_after_s: float | None = None

        async def send_with_headers(message: Message) -> None:
            nonlocal status, answered_after_s
            if message["type"] == "http.response.start":
                status, answered_after_s = message["status"], time.perf_counter() - began
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = exchange.request_id
                headers["server-timing"] = server_timing(exchange.timings, answered_after_s)
            await send(message)

        try:
            exchange.deadline = deadline_of(scope, began, self._timeout_s)
            await self._app(scope, receive, send_with_headers)
        except InvalidRequest as error:
            # The header's alone: what routes refuse is answered within.
            await on_domain_error(Request(scope), error)(scope, receive, send_with_headers)
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
            await answer(scope, receive, send_with_headers)
        finally:
            route = scope.get("route")
            self._tell(
                Ended(
                    exchange,
                    method=scope["method"],
                    route=route.path if isinstance(route, Route) else UNMATCHED,
                    status=status or CLIENT_LEFT,
                    began=began,
                    began_ns=began_ns,
                    seconds=time.perf_counter() - began,
                    answered_after_s=answered_after_s,
                    headers=scope["headers"],
                )
            )

    def _tell(self, ended: Ended) -> None:
        count(ended, self._metrics)
        trace = traced_by(ended) if self._tracer is None else self._tracer.record(ended)
        level = level_of(ended)
        if requests.isEnabledFor(level):
            requests.log(level, "request", extra={FIELDS: line_of(ended, trace)})


def count(ended: Ended, metrics: Metrics) -> None:
    """Tells the metrics of a request."""
    exchange, timings = ended.exchange, ended.exchange.timings
    metrics.request(ended.route, exchange.model, ended.status, ended.seconds)
    if exchange.model:
        metrics.phases(exchange.model, timings)
    if exchange.refusal is not None:
        metrics.refused(exchange.refusal, exchange.model)
    if exchange.holder:
        metrics.asked_by(exchange.holder)
    if exchange.texts:
        metrics.encoded(exchange.texts, ended.seconds, timings)
    if "decode" in timings:
        metrics.generated(exchange.model, ended.seconds, timings)


def level_of(ended: Ended) -> int:
    """How loud a request's line is."""
    if ended.status >= 500:
        return logging.ERROR
    return logging.DEBUG if ended.route in PROBES and ended.status < 400 else logging.INFO


def line_of(ended: Ended, trace: str | None) -> dict[str, Any]:
    """What the log says of a request: nothing of its text, unless its body was kept."""
    exchange = ended.exchange
    said = {
        "request_id": exchange.request_id,
        "trace_id": trace,
        "method": ended.method,
        "route": ended.route,
        "status": ended.status,
        "error": exchange.refusal,
        "model": exchange.model,
        "key": exchange.holder,
        "seconds": round(ended.seconds, 6),
        "answered_after_s": ended.answered_after_s and round(ended.answered_after_s, 6),
        **{f"{what}_s": round(took, 6) for what, took in exchange.timings.items()},
        "texts": exchange.texts,
        "prompt_tokens": exchange.prompt_tokens,
        "completion_tokens": exchange.completion_tokens,
        "body": exchange.body[: 4 * LOGGED_CHARACTERS].decode(errors="replace")[:LOGGED_CHARACTERS],
    }
    return {name: value for name, value in said.items() if value not in (None, "", 0)}


def traced_by(ended: Ended) -> str | None:
    """The id of the trace that a request says it is part of."""
    for name, value in ended.headers:
        if name == b"traceparent" and (found := TRACEPARENT.fullmatch(value)):
            return found[1].decode()
    return None


def deadline_of(scope: Scope, began: float, longest_s: float | None) -> Deadline | None:
    """The sooner of what the service allows and what the request asks for, in seconds.

    Raises `InvalidRequest` for a header that is no positive number.
    """
    limits = [] if longest_s is None else [longest_s]
    for name, value in scope["headers"]:
        if name != TIMEOUT_HEADER:
            continue
        if not SECONDS.fullmatch(value) or float(value) == 0:
            header = TIMEOUT_HEADER.decode()
            raise InvalidRequest(
                f"header {header}: {value[:60].decode('latin-1')!r} is not accepted; it is a "
                "number of seconds more than 0, such as 30 or 2.5",
                field=header,
            )
        limits.append(float(value))
    return Deadline(min(limits), began) if limits else None


def server_timing(timings: Mapping[str, float], total: float) -> str:
    """How long each part of a request took until its answer began, and all of it, in milliseconds
    (W3C Server Timing)."""
    parts = {**timings, "total": total}
    return ", ".join(f"{what};dur={seconds * 1000:.2f}" for what, seconds in parts.items())


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            given = value.decode("latin-1")
            if REQUEST_ID.fullmatch(given):
                return given
    return uuid.uuid4().hex
