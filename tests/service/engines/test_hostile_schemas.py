"""Schemas that are there to cost: refused, followed within bounds, or given up; never fetched."""

import socket
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from export.artifact import Artifact
from model_core.tokenization import Tokenizer
from service.engines.constraint import Schemas
from service.errors import InvalidRequest

STEPS = 10


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    return schema


HOSTILE: dict[str, dict[str, Any]] = {
    "repeats of repeats": {"type": "string", "pattern": "^(a{1,1000}){1,1000}$"},
    "many ways to the same": {"type": "string", "pattern": f"({'|'.join(['a'] * 500)})*"},
    "a long look back": {"allOf": [{"type": "string", "pattern": f".*{c}.{{300}}"} for c in "ab"]},
    "names by pattern": {"type": "object", "patternProperties": {"(.*a){40}": {"type": "string"}}},
    "as deep as a body may be": nested(95),
    "wide": {"type": "object", "properties": {f"k{n}": {"type": "string"} for n in range(20_000)}},
    "many values": {"enum": [f"v{n}" for n in range(20_000)]},
    "itself": {"$ref": "#"},
    "a million items": {"type": "array", "minItems": 10**6, "items": {"type": "integer"}},
    "a huge text": {"type": "string", "minLength": 10**9},
    "a tiny step": {"type": "number", "multipleOf": 1e-300},
}


def requires(name: str) -> dict[str, Any]:
    reference = {"$ref": f"#/$defs/{name}"}
    return {"type": "object", "properties": {name: reference}, "required": [name]}


ENDLESS: dict[str, dict[str, Any]] = {
    "requires itself": {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
    "require each other": {"$defs": {"x": requires("y"), "y": requires("x")}, **requires("x")},
    "20,000 items": {
        "type": "array", "items": {"const": "aaaa"}, "minItems": 20_000, "maxItems": 20_000,
    },
    "a long constant": {"const": "ab" * 32_000},
}  # fmt: skip
"""What never ends, or not soon. llguidance gives up on the first three where it forces text."""


@pytest.fixture(scope="module")
def schemas(smollm2_artifact: Artifact) -> Schemas:
    return Schemas(Tokenizer.load(smollm2_artifact.folder))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_schema_is_refused_or_followed_and_nothing_else(
    schemas: Schemas, smollm2_artifact: Artifact, name: str
) -> None:
    scores = np.zeros(smollm2_artifact.manifest.vocab_size, np.float32)
    # It says to who asked what is wrong; anything else would be a 500, as if the service failed.
    with suppress(InvalidRequest):
        following = schemas.compile(HOSTILE[name], field="schema").start()
        for _ in range(STEPS):
            following.follow(int(following.allow(scores).argmax()))


@pytest.mark.parametrize("name", ENDLESS)
def test_what_has_no_end_is_followed_for_as_long_as_a_request_goes(
    schemas: Schemas, smollm2_artifact: Artifact, name: str
) -> None:
    scores = np.zeros(smollm2_artifact.manifest.vocab_size, np.float32)
    following = schemas.compile(ENDLESS[name], field="schema").start()
    for _ in range(100):
        following.follow(int(following.allow(scores).argmax()))


@pytest.mark.parametrize("length", [65_536, 400_000, 1_000_000])
def test_a_schema_over_the_bound_is_refused_with_it(schemas: Schemas, length: int) -> None:
    with pytest.raises(InvalidRequest, match=r"^schema has \d+ bytes; at most 65536") as caught:
        schemas.compile({"const": "a" * length}, field="schema")
    assert caught.value.field == "schema"


@pytest.mark.parametrize("count", [800, 2000])
def test_what_is_too_much_for_one_step_is_refused_before_the_text_begins(
    schemas: Schemas, count: int
) -> None:
    wide = {"type": "object", "properties": {f"k{n}": {"type": "string"} for n in range(count)}}
    with pytest.raises(InvalidRequest, match=r"^schema can't be followed .* simpler") as caught:
        schemas.compile(wide, field="schema")
    assert caught.value.field == "schema"


def test_a_schema_of_400_optional_properties_is_accepted(schemas: Schemas) -> None:
    wide = {"type": "object", "properties": {f"k{n}": {"type": "string"} for n in range(400)}}
    schemas.compile(wide, field="schema")


def test_an_address_in_a_schema_is_not_asked(schemas: Schemas) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        listening.setblocking(False)
        address = f"http://127.0.0.1:{listening.getsockname()[1]}/schema.json"
        with pytest.raises(InvalidRequest, match="schema is not accepted"):
            schemas.compile({"$ref": address}, field="schema")
        with pytest.raises(BlockingIOError):
            listening.accept()
