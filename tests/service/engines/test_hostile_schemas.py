"""Schemas that are there to cost: refused, followed within bounds, or given up; never fetched."""

import socket
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from export.artifact import Artifact
from model_core.tokenization import Tokenizer
from service.engines.constraint import Schemas
from service.errors import EngineFailure, InvalidRequest

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


@pytest.fixture(scope="module")
def schemas(smollm2_artifact: Artifact) -> Schemas:
    return Schemas(Tokenizer.load(smollm2_artifact.folder))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_schema_is_refused_or_followed_and_nothing_else(
    schemas: Schemas, smollm2_artifact: Artifact, name: str
) -> None:
    scores = np.zeros(smollm2_artifact.manifest.vocab_size, np.float32)
    # Both say what is wrong to who asked; anything else would be a 500 that tells nothing.
    with suppress(InvalidRequest, EngineFailure):
        following = schemas.compile(HOSTILE[name], field="schema").start()
        for _ in range(STEPS):
            following.follow(int(following.allow(scores).argmax()))


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
