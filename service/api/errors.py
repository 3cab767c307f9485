"""The one table: each error to its status and its body, in the dialect of the route."""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route

from service.api.exchange import Dialect, exchange_of
from service.errors import (
    AnatomyError,
    BodyTooLarge,
    Conflict,
    DeadlineExceeded,
    EngineFailure,
    InspectionOff,
    InvalidRequest,
    NotFinite,
    NotReady,
    Overloaded,
    SchemaTooComplex,
    TooManyTokens,
    UnknownModel,
    UnusableModel,
)


@dataclass(frozen=True, slots=True)
class Answer:
    """How an error is told: HTTP status, OpenAI's `type` and `code`.

    In text-embeddings-inference's dialect: its status and `error_type`.
    """

    status: int
    type: str
    code: str
    tei_status: int
    tei_type: str


INTERNAL_ERROR = Answer(500, "server_error", "internal_error", 500, "Backend")

UNAUTHORIZED = Answer(401, "invalid_request_error", "invalid_api_key", 401, "Unauthorized")

# The first row whose class fits: a subclass stands before its base.
ANSWERS: tuple[tuple[type[AnatomyError], Answer], ...] = (
    (
        TooManyTokens,
        Answer(400, "invalid_request_error", "context_length_exceeded", 413, "Validation"),
    ),
    (
        SchemaTooComplex,
        Answer(400, "invalid_request_error", "schema_too_complex", 422, "Validation"),
    ),
    (InvalidRequest, Answer(400, "invalid_request_error", "invalid_value", 422, "Validation")),
    (UnknownModel, Answer(404, "invalid_request_error", "model_not_found", 424, "Backend")),
    # The model is there: it is the state of the service that is in the way.
    (InspectionOff, Answer(409, "invalid_request_error", "inspection_off", 409, "Validation")),
    (UnusableModel, Answer(422, "invalid_request_error", "model_unusable", 422, "Validation")),
    (Conflict, Answer(409, "invalid_request_error", "conflict", 409, "Validation")),
    (BodyTooLarge, Answer(413, "invalid_request_error", "body_too_large", 413, "Validation")),
    (Overloaded, Answer(429, "rate_limit_exceeded", "rate_limit_exceeded", 429, "Overloaded")),
    (DeadlineExceeded, Answer(504, "server_error", "deadline_exceeded", 504, "Backend")),
    (NotReady, Answer(503, "service_unavailable", "not_ready", 503, "Unhealthy")),
    (NotFinite, Answer(500, "server_error", "output_not_finite", 424, "Backend")),
    (EngineFailure, Answer(500, "server_error", "engine_failure", 424, "Backend")),
)

# What the router and the reading of bodies raise: errors of HTTP itself, not of the domain.
HTTP_CODES: dict[int, str] = {
    404: "route_not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    415: "unsupported_media_type",
}


def answer_to(error: AnatomyError) -> Answer:
    """The row of the table for `error`."""
    for kind, answer in ANSWERS:
        if isinstance(error, kind):
            return answer
    return INTERNAL_ERROR


def error_body(message: str, answer: Answer, *, field: str | None = None) -> dict[str, Any]:
    """OpenAI's error object."""
    return {
        "error": {
            "message": message,
            "type": answer.type,
            "param": field,
            "code": answer.code,
        }
    }


def error_response(
    message: str,
    answer: Answer,
    *,
    field: str | None = None,
    headers: dict[str, str] | None = None,
    dialect: Dialect = Dialect.OPENAI,
) -> Response:
    """The whole answer to a request that failed."""
    if dialect is Dialect.TEI:
        status, body = answer.tei_status, {"error": message, "error_type": answer.tei_type}
    else:
        status, body = answer.status, error_body(message, answer, field=field)
    return Response(
        orjson.dumps(body), status_code=status, headers=headers, media_type="application/json"
    )


def on_domain_error(request: Request, error: Exception) -> Response:
    """Starlette's handler of `AnatomyError`."""
    if not isinstance(error, AnatomyError):
        raise error
    answer, exchange = answer_to(error), exchange_of(request.scope)
    exchange.refusal = answer.code
    headers = (
        {"retry-after": str(max(1, error.retry_after_s))} if isinstance(error, Overloaded) else None
    )
    return error_response(
        error.message, answer, field=error.field, headers=headers, dialect=exchange.dialect
    )


def on_http_error(request: Request, error: Exception) -> Response:
    """Starlette's handler of its own `HTTPException`: unknown routes, methods, media types."""
    if not isinstance(error, HTTPException):
        raise error
    code = HTTP_CODES.get(error.status_code, "http_error")
    exchange = exchange_of(request.scope)
    exchange.refusal = code
    message = error.detail
    if message == HTTPStatus(error.status_code).phrase:
        message = f"{message}: {request.method} {request.scope['path']}"[:200]
    status = error.status_code
    answer = Answer(status, "invalid_request_error", code, status, "Validation")
    headers = {name.lower(): value for name, value in (error.headers or {}).items()}
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["allow"] = ", ".join(methods_of(request))
    return error_response(message, answer, headers=headers, dialect=exchange.dialect)


def methods_of(request: Request) -> list[str]:
    """What the path of `request` accepts, of all its routes: starlette tells of the first alone."""
    scope = {**request.scope, "method": ""}
    routes: list[BaseRoute] = request.app.routes
    of_path = [route for route in routes if route.matches(scope)[0] is not Match.NONE]
    return sorted(
        {name for route in of_path if isinstance(route, Route) for name in route.methods or ()}
    )
