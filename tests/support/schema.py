"""The service's own schema as tests read it: strict on answers, with names that are served."""

import copy
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema
import schemathesis
from schemathesis.checks import CHECKS, load_all_checks
from starlette.types import ASGIApp, Receive, Scope, Send

Document = dict[str, Any]
Json = Any
DRAFT = jsonschema.Draft202012Validator

load_all_checks()
# A body may fit the schema and still be refused: token ids of another vocabulary, a threshold with
# raw scores. What has to be accepted is in the examples.
UNWANTED = [CHECKS.get_one("positive_data_acceptance")]
DEADLINE = "#/components/parameters/x-request-timeout"


def examples_of(document: Document) -> Iterator[tuple[str, str, Any]]:
    """(path, method, body) of every route, each with its example."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            content = operation.get("requestBody", {}).get("content", {})
            yield path, method, content.get("application/json", {}).get("example")


def told_of(document: Document, path: str, method: str, answer: httpx.Response) -> Document:
    """What the document says of such an answer; fails unless its status and headers are told."""
    responses = document["paths"][path][method]["responses"]
    assert str(answer.status_code) in responses, f"{method} {path}: {answer.text}"
    told = responses[str(answer.status_code)]
    headers = document["components"]["headers"]
    for name in told["headers"]:
        assert name in answer.headers or not headers[name].get("required"), (path, name)
    return told["content"][answer.headers["content-type"].partition(";")[0]]["schema"]


def require_told(document: Document, path: str, method: str, answer: httpx.Response) -> None:
    """Fails unless `answer` is as the document says, without a field that it doesn't name."""
    schema = told_of(document, path, method, answer)
    whole = {"components": document["components"], **schema}
    if answer.headers["content-type"].startswith("application/json"):
        DRAFT(whole).validate(answer.json())
    else:
        assert schema["type"] == "string"


def strict(document: Document) -> Document:
    """`document` whose answers have no field beside those it names.

    The service's own leaves room for fields to come; a test wants to hear of one that isn't told.
    """
    found = copy.deepcopy(document)
    for schema in found["components"]["schemas"].values():
        if "properties" in schema:
            schema.setdefault("additionalProperties", False)
    return found


def of_a_client_that_knows(document: Document) -> Document:
    """`document` with the name of its example as the only model of each route.

    Names made up by chance would all be answered with 404. Nor is there a header that sets a
    deadline: 504 would be the right answer to most of them.
    """
    found = copy.deepcopy(document)
    for operation in operations_of(found):
        operation["parameters"] = [p for p in operation["parameters"] if p.get("$ref") != DEADLINE]
        for content in operation.get("requestBody", {}).get("content", {}).values():
            name = content.get("example", {}).get("model")
            if name is not None:
                reference = content["schema"]["$ref"]
                body = copy.deepcopy(resolved(found, reference))
                names = [name] if "model" in body["required"] else [name, None]
                body["properties"]["model"] = {"enum": names}
                content["schema"] = body
    return found


def operations_of(document: Document) -> Iterator[Document]:
    """Every operation of every path."""
    for path in document["paths"].values():
        yield from path.values()


def resolved(document: Document, reference: str) -> Json:
    """What a local reference stands for."""
    found: Json = document
    for name in reference.removeprefix("#/").split("/"):
        found = found[name]
    return found


def schema_over(app: ASGIApp, document: Document) -> Any:
    """Schemathesis' schema of `document`, whose cases call `app` in place."""
    found = schemathesis.openapi.from_dict(of_a_client_that_knows(strict(document)))
    found.app = without_lifespan(app)
    return found


def without_lifespan(app: ASGIApp) -> ASGIApp:
    """`app`, which nobody starts or stops: schemathesis does both more than once."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError("whoever made the application starts and stops it")
        await app(scope, receive, send)

    return call
