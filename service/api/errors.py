"""The one table: each error to its status and the body that OpenAI's clients read."""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from service.api.exchange import exchange_of
from service.errors import (
    AnatomyError,
    BodyTooLarge,
    EngineFailure,
    InvalidRequest,
    NotReady,
    Overloaded,
    TooManyTokens,
    UnknownModel,
)


@dataclass(frozen=True, slots=True)
class Answer:
    """How an error is told: HTTP status, OpenAI's `type` and `code`."""

    status: int
    type: str
    code: str


INTERNAL_ERROR = Answer(500, "server_error", "internal_error")

# The first row whose class fits: a subclass stands before its base.
ANSWERS: tuple[tuple[type[AnatomyError], Answer], ...] = (
    (TooManyTokens, Answer(400, "invalid_request_error", "context_length_exceeded")),
    (InvalidRequest, Answer(400, "invalid_request_error", "invalid_value")),
    (UnknownModel, Answer(404, "invalid_request_error", "model_not_found")),
    (BodyTooLarge, Answer(413, "invalid_request_error", "body_too_large")),
    (Overloaded, Answer(429, "rate_limit_exceeded", "rate_limit_exceeded")),
    (NotReady, Answer(503, "service_unavailable", "not_ready")),
    (EngineFailure, Answer(500, "server_error", "engine_failure")),
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
) -> Response:
    """The whole answer to a request that failed."""
    return Response(
        orjson.dumps(error_body(message, answer, field=field)),
        status_code=answer.status,
        headers=headers,
        media_type="application/json",
    )


def on_domain_error(request: Request, error: Exception) -> Response:
    """Starlette's handler of `AnatomyError`."""
    if not isinstance(error, AnatomyError):
        raise error
    answer = answer_to(error)
    exchange_of(request.scope).refusal = answer.code
    headers = (
        {"retry-after": str(max(1, error.retry_after_s))} if isinstance(error, Overloaded) else None
    )
    return error_response(error.message, answer, field=error.field, headers=headers)


def on_http_error(request: Request, error: Exception) -> Response:
    """Starlette's handler of its own `HTTPException`: unknown routes, methods, media types."""
    if not isinstance(error, HTTPException):
        raise error
    code = HTTP_CODES.get(error.status_code, "http_error")
    exchange_of(request.scope).refusal = code
    message = error.detail
    if message == HTTPStatus(error.status_code).phrase:
        message = f"{message}: {request.method} {request.scope['path']}"[:200]
    answer = Answer(error.status_code, "invalid_request_error", code)
    return error_response(message, answer, headers=dict(error.headers or {}))
