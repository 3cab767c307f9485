"""OpenAPI 3.1 of the routes, made of their descriptions and of the one table of errors."""

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from service.api.answers.openai import OpenAIError
from service.api.answers.tei import TeiError
from service.api.described import JSON, PROJECT_VERSION, DescribedRoute, Description
from service.api.errors import HTTP_CODES, INTERNAL_ERROR, UNAUTHORIZED, Answer, answer_to
from service.api.exchange import Dialect
from service.api.keys import ADMIN_PATHS, OPEN_PATHS
from service.messages import ModelCard, Task

EVENT_STREAM = "text/event-stream"
DONE = "[DONE]"
SCHEME = "key"
BODY_STATUSES = (408, 415)
"""What reading a body may end with beside errors of the domain."""
CONVERTER = re.compile(r"{(\w+)(:\w+)?}")

Schema = dict[str, Any]
Mode = Literal["validation", "serialization"]

HEADERS: Mapping[str, Schema] = {
    "x-request-id": {
        "description": "The request's own x-request-id where that is one, or a new one.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,128}$"},
    },
    "server-timing": {
        "description": "Milliseconds in each phase until the answer began: `queue;dur=1.20, …`.",
        "schema": {"type": "string"},
    },
    "retry-after": {
        "description": "When room is expected, in seconds.",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    },
    "www-authenticate": {
        "description": "Keys are sent as bearer tokens.",
        "required": True,
        "schema": {"type": "string", "const": "Bearer"},
    },
    "x-compute-type": {
        "description": "The execution provider of the service's first model.",
        "required": True,
        "schema": {"type": "string"},
    },
    **{
        f"x-{what}": {
            "description": "In milliseconds.",
            "required": True,
            "schema": {"type": "integer", "minimum": 0},
        }
        for what in (
            "compute-time", "total-time", "tokenization-time", "queue-time", "inference-time"
        )
    },
    **{
        f"x-compute-{what}": {
            "description": f"How many {what} were read.",
            "required": True,
            "schema": {"type": "integer", "minimum": 0},
        }
        for what in ("characters", "tokens")
    },
}  # fmt: skip
COUNTS = ("x-compute-characters", "x-compute-tokens")
OF_TEI = tuple(name for name in HEADERS if name.startswith("x-") and name not in COUNTS)

PARAMETERS: Mapping[str, Schema] = {
    "x-request-id": {
        "in": "header",
        "name": "x-request-id",
        "description": "Comes back, in logs too: up to 128 letters, digits and ._:- are kept.",
        "schema": {"type": "string"},
    },
    "x-request-timeout": {
        "in": "header",
        "name": "x-request-timeout",
        "description": "Seconds until an answer is wanted; it is refused with 504 after that.",
        "schema": {"type": "string"},
        "example": "30",
    },
}


class BodySchema(GenerateJsonSchema):
    """Without a title for each field: it is the field's name once more."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Never."""
        del schema
        return False

    def tagged_union_schema(self, schema: core_schema.TaggedUnionSchema) -> JsonSchemaValue:
        """Forms that are told apart by a look at them may overlap: [] is a list of numbers, and of
        lists."""
        made = super().tagged_union_schema(schema)
        if "oneOf" in made and "discriminator" not in made:
            made["anyOf"] = made.pop("oneOf")
        return made


@dataclass(frozen=True)
class OpenApi:
    """The document of some routes. `with_keys` is whether requests need an API key."""

    routes: Sequence[DescribedRoute]
    with_keys: bool

    def document(self, cards: Sequence[ModelCard], *, server: str = "/") -> dict[str, Any]:
        """OpenAPI 3.1 as JSON's types; examples name the first of `cards` for their task."""
        found: dict[str, Any] = {
            "openapi": "3.1.0",
            "info": {
                "title": "Anatomy",
                "version": PROJECT_VERSION,
                "description": "Embeddings, classification and text generation, in the shapes of "
                "OpenAI's, vLLM's, Cohere's and text-embeddings-inference's clients.",
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            "servers": [{"url": server}],
            "paths": {},
            "components": {
                "schemas": self._schemas[1],
                "headers": dict(HEADERS),
                "parameters": dict(PARAMETERS),
            },
        }
        names = {card.task: card.name for card in reversed(cards)}
        for route in self.routes:
            of_path = found["paths"].setdefault(path_of(route), {})
            of_path[route.method.lower()] = self._operation(route, names)
        if any(map(self._wants_key, self.routes)):
            scheme = {"type": "http", "scheme": "bearer", "description": "`anatomy key` makes one."}
            found["components"]["securitySchemes"] = {SCHEME: scheme}
        return found

    @cached_property
    def _schemas(self) -> tuple[Mapping[tuple[str, Mode], Schema], Schema]:
        """What stands for each type where it is used, and the definitions that those refer to."""
        wanted: dict[tuple[str, Mode], TypeAdapter[Any]] = {}
        for route in self.routes:
            about = route.description
            for kind in (about.answer, about.events, OpenAIError, TeiError):
                wanted[repr(kind), "serialization"] = TypeAdapter(kind)
            wanted[repr(about.body), "validation"] = TypeAdapter(about.body)
        inputs: list[tuple[str, Mode, TypeAdapter[Any]]] = [
            (key, mode, adapter) for (key, mode), adapter in wanted.items()
        ]
        found, shared = TypeAdapter.json_schemas(
            inputs, ref_template="#/components/schemas/{model}", schema_generator=BodySchema
        )
        return found, shared["$defs"]

    def _schema(self, kind: Any, mode: Mode = "serialization") -> Schema:
        return self._schemas[0][repr(kind), mode]

    def _wants_key(self, route: DescribedRoute) -> bool:
        if route.path.startswith(ADMIN_PATHS):
            return True
        return self.with_keys and route.path not in OPEN_PATHS

    def _operation(self, route: DescribedRoute, names: Mapping[Task, str]) -> Schema:
        about = route.description
        found: Schema = {
            "operationId": operation_id(route),
            "tags": [about.group],
            "summary": summary_of(route),
            "parameters": [
                *({"$ref": f"#/components/parameters/{name}"} for name in PARAMETERS),
                *(
                    {"in": "path", "name": name, "required": True, "schema": {"type": "string"}}
                    for name in route.param_convertors
                ),
            ],
            "responses": {"200": self._success(about), **self._failures(route)},
        }
        if about.body is not None:
            content: Schema = {"schema": self._schema(about.body, "validation")}
            example = example_of(about, names)
            if example is not None:
                content["example"] = example
            found["requestBody"] = {"required": True, "content": {JSON: content}}
        if self._wants_key(route):
            found["security"] = [{SCHEME: []}]
        return found

    def _success(self, about: Description) -> Schema:
        schema = self._schema(about.answer)
        content: Schema = {about.media_type: {"schema": schema}}
        if about.events is not None:
            content[EVENT_STREAM] = {"schema": self._event(about)}
        names = ["x-request-id", "server-timing"]
        if about.dialect is Dialect.TEI:
            names += [*OF_TEI[1:], *(COUNTS if about.counts else ())]
        return {"description": "OK", "headers": headers_of(names), "content": content}

    def _event(self, about: Description) -> Schema:
        # OpenAPI before 3.2 has no schema of a stream: it describes an event of it.
        last = {"const": DONE, "description": "The end of the stream."}
        json = {
            "contentMediaType": JSON,
            "contentSchema": {
                "anyOf": [self._schema(about.events), self._schema(error_of(about))],
            },
        }
        return {
            "type": "object",
            "description": "A server-sent event. An error may come after others, and is the last.",
            "properties": {"data": {"type": "string", "anyOf": [last, json]}},
            "required": ["data"],
        }

    def _failures(self, route: DescribedRoute) -> Schema:
        about = route.description
        told: dict[int, list[str]] = {}
        for answer in answers_of(about):
            is_tei = about.dialect is Dialect.TEI
            status, said = (
                (answer.tei_status, answer.tei_type) if is_tei else (answer.status, answer.code)
            )
            told.setdefault(status, []).append(said)
        if about.body is not None:
            for status in BODY_STATUSES:
                told.setdefault(status, []).append(HTTP_CODES[status])
        if self._wants_key(route):
            told[401] = [UNAUTHORIZED.code]
        return {str(status): self._failure(about, status, told[status]) for status in sorted(told)}

    def _failure(self, about: Description, status: int, told: Sequence[str]) -> Schema:
        extra = {401: ["www-authenticate"], 429: ["retry-after"]}.get(status, [])
        return {
            "description": " · ".join(dict.fromkeys(told)),
            "headers": headers_of(["x-request-id", *extra]),
            "content": {JSON: {"schema": self._schema(error_of(about))}},
        }


def path_of(route: DescribedRoute) -> str:
    """Its path with OpenAPI's parameters, which have no type of their own."""
    return CONVERTER.sub(r"{\1}", route.path)


def operation_id(route: DescribedRoute) -> str:
    """A name that no other operation has: `post_v1_embeddings`."""
    words = re.findall(r"\w+", path_of(route)) or ["root"]
    return "_".join((route.method.lower(), *words))


def summary_of(route: DescribedRoute) -> str:
    """The first sentence of its handler's docstring, without the route that stands before it."""
    first, *_ = inspect.cleandoc(route.endpoint.__doc__ or "").split("\n\n")
    text = re.sub(r"^`[^`]*`: ", "", " ".join(first.split()))
    return text[:1].upper() + text[1:]


def error_of(about: Description) -> Any:
    """The type of an error in the route's dialect."""
    return TeiError if about.dialect is Dialect.TEI else OpenAIError


def answers_of(about: Description) -> list[Answer]:
    """The rows of the table that such a route may end with."""
    return [*(answer_to(kind("")) for kind in about.raises), INTERNAL_ERROR]


def example_of(about: Description, names: Mapping[Task, str]) -> Schema | None:
    """A body that is accepted; None where no model is served that could answer it."""
    if about.task is None:
        return dict(about.example) or None
    if about.task not in names:
        return None
    return {"model": names[about.task], **about.example}


def headers_of(names: Sequence[str]) -> Schema:
    """References to their descriptions."""
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}
