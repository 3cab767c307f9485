"""Routes that say what they read and answer, beside their handlers: `/openapi.json` is made of it.

Every route of the service is made here: by `get` or `post`, or as a `DescribedRoute`.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Literal

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.api.exchange import Dialect
from service.errors import (
    AnatomyError,
    BodyTooLarge,
    DeadlineExceeded,
    EngineFailure,
    InvalidRequest,
    NotReady,
    Overloaded,
    TooManyTokens,
    UnknownModel,
)
from service.messages import Task

Handler = Callable[[Request], Awaitable[Response]]
Errors = tuple[type[AnatomyError], ...]

LOOKS_UP: Errors = (UnknownModel, NotReady)
"""What a route raises that finds a model."""
READS_TEXT: Errors = (*LOOKS_UP, DeadlineExceeded)
"""What a route raises that gives texts to a tokenizer."""
COMPUTES: Errors = (*READS_TEXT, TooManyTokens, Overloaded, EngineFailure)
"""What a route raises that runs a model."""
READS_BODY: Errors = (InvalidRequest, BodyTooLarge)
Method = Literal["GET", "POST", "PUT", "DELETE"]
JSON = "application/json"
PROJECT_VERSION = version("transformer-anatomy")


@dataclass(frozen=True, slots=True)
class Description:
    """What a route reads and what it answers: types that pydantic can describe.

    `body` is of JSON, or None. `answer` is the type of its answer of status 200, `events` that of
    each server-sent event where the body asks for a stream. `raises` are the errors that it may
    end with, told in `dialect`; `counts` is whether headers say how much was read. `example` is a
    body that is accepted, less the name of a model of `task`, where one is wanted.
    """

    group: str
    answer: Any
    body: Any = None
    raises: Errors = ()
    events: Any = None
    media_type: str = JSON
    dialect: Dialect = Dialect.OPENAI
    counts: bool = False
    task: Task | None = None
    example: Mapping[str, Any] = field(default_factory=dict[str, Any])


class DescribedRoute(Route):
    """A route of one method, with its description."""

    def __init__(
        self, method: Method, path: str, handler: Handler, description: Description
    ) -> None:
        super().__init__(path, handler, methods=[method])
        self.method = method
        self.description = description


def get(path: str, handler: Handler, *, group: str, answer: Any, **more: Any) -> DescribedRoute:
    """`GET path`; `more` are further fields of its `Description`."""
    return DescribedRoute("GET", path, handler, Description(group, answer, **more))


def post(
    path: str,
    handler: Handler,
    *,
    group: str,
    body: Any,
    answer: Any,
    raises: Errors,
    **more: Any,
) -> DescribedRoute:
    """`POST path`, whose body is JSON; `more` are further fields of its `Description`."""
    described = Description(group, answer, body, (*READS_BODY, *raises), **more)
    return DescribedRoute("POST", path, handler, described)
