"""Schemas over a vocabulary of bytes: whatever the model says, the text is what they accept."""

import json
from typing import Any, cast

import jsonschema
import numpy as np
import pytest
from numpy.typing import NDArray

from model_core.tokenization import Tokenizer
from service.api.errors import answer_to
from service.engines.constraint import Schema, Schemas, allowed
from service.engines.generation import GenerationEngine
from service.engines.sampling import Sampler
from service.engines.scheduler import Scheduler
from service.engines.search import Rules
from service.engines.slots import Slots
from service.errors import EngineFailure, InvalidRequest, SchemaTooComplex
from service.messages import FinishReason, Floats, Sampling
from tests.support.decoders import ToyDecoder, letter_tokenizer
from tests.support.engines import Ledger, tokens_of

BEGIN_ID, END_ID, VOCAB = 256, 257, 258


class ByteTokenizer:
    """A byte is a token; two more begin and end a text."""

    vocab_size = VOCAB
    bos_id = BEGIN_ID
    eos_ids = frozenset({END_ID})

    def encode(self, text: str | bytes, **_: bool) -> list[int]:
        return [*(text.encode() if isinstance(text, str) else text)]

    def token_bytes(self, token_id: int) -> bytes:
        return bytes([token_id]) if token_id < BEGIN_ID else b""

    def is_special(self, token_id: int) -> bool:
        return token_id >= BEGIN_ID


SCHEMAS: dict[str, dict[str, Any]] = {
    "any object": {"type": "object"},
    "enum": {"enum": ["red", "green", 7, None]},
    "bounds": {"type": "integer", "minimum": -3, "maximum": 12},
    "array": {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 3},
    "nested": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 5},
            "age": {"type": "integer", "minimum": 0, "maximum": 130},
            "home": {
                "type": "object",
                "properties": {"city": {"enum": ["Bern", "Rome"]}, "floor": {"type": "null"}},
                "required": ["city", "floor"],
                "additionalProperties": False,
            },
        },
        "required": ["name", "age", "home"],
        "additionalProperties": False,
    },
    "choice": {"anyOf": [{"type": "number"}, {"const": "none"}]},
    "reference": {
        "$defs": {"point": {"type": "array", "items": {"type": "integer"}, "maxItems": 2}},
        "type": "object",
        "properties": {"at": {"$ref": "#/$defs/point"}},
        "required": ["at"],
        "additionalProperties": False,
    },
}


@pytest.fixture(scope="module")
def schemas() -> Schemas:
    return Schemas(cast(Tokenizer, cast(Any, ByteTokenizer())))


def said(schema: Schema, seed: int, most: int = 400) -> tuple[str, FinishReason | None]:
    """What a model that knows nothing says: random scores at each step."""
    sampler = Sampler(Rules(Sampling(most, seed=seed), [END_ID]), seed, schema.start())
    draw, raw, reason = np.random.default_rng(seed), bytearray(), None
    while reason is None:
        scores: NDArray[np.float32] = draw.standard_normal((1, VOCAB)).astype(np.float32)
        step = sampler.advance(scores * 3)
        (token,), reason = step.tokens, step.reason
        if token < BEGIN_ID:
            raw.append(token)
    return raw.decode(errors="replace"), reason


@pytest.mark.parametrize("name", SCHEMAS)
def test_whatever_the_model_says_is_what_the_schema_accepts(schemas: Schemas, name: str) -> None:
    schema = schemas.compile(SCHEMAS[name], field="schema")
    ended = 0
    for seed in range(20):
        text, reason = said(schema, seed)
        if reason is FinishReason.STOP:
            ended += 1
            jsonschema.validate(json.loads(text), SCHEMAS[name])
    assert ended >= 15, "most end by themselves"


def test_generations_of_one_schema_dont_share_their_place(schemas: Schemas) -> None:
    schema = schemas.compile({"enum": ["ab", "cd"]}, field="schema")
    one, other = schema.start(), schema.start()
    zeros: Floats = np.zeros(VOCAB, np.float32)
    one.follow(ord('"'))
    assert np.flatnonzero(np.isfinite(one.allow(zeros))).tolist() == [ord("a"), ord("c")]
    assert np.flatnonzero(np.isfinite(other.allow(zeros))).tolist() == [ord('"')]


def test_scores_of_what_may_come_are_the_models_own(schemas: Schemas) -> None:
    place = schemas.compile({"enum": [True, False]}, field="schema").start()
    scores = np.arange(VOCAB, dtype=np.float32)
    found = place.allow(scores)
    assert found[ord("t")] == ord("t")
    assert scores.tolist() == list(range(VOCAB)), "the model's own are left as they were"


def test_a_token_that_may_not_come_ends_the_generation(schemas: Schemas) -> None:
    place = schemas.compile({"enum": ["a"]}, field="schema").start()
    with pytest.raises(SchemaTooComplex, match="schema can't be followed") as caught:
        place.follow(ord("x"))
    assert caught.value.field == "schema"
    assert answer_to(caught.value).status == 400


@pytest.mark.parametrize(
    "schema",
    [{"type": "nothing"}, {"type": "string", "pattern": "("}, {"$ref": "#/nowhere"}, {"enum": []}],
    ids=str,
)
def test_what_is_no_schema_is_refused_by_name(schemas: Schemas, schema: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match=r"^the_field") as caught:
        schemas.compile(schema, field="the_field")
    assert caught.value.field == "the_field"


def test_what_is_wrong_with_a_pattern_is_told_to_the_end(schemas: Schemas) -> None:
    with pytest.raises(InvalidRequest, match=r"unclosed group$"):
        schemas.compile({"type": "string", "pattern": "("}, field="schema")


def test_bits_beyond_a_mask_are_not_allowed() -> None:
    mask = np.array([0b101, -1], np.int32)
    assert np.flatnonzero(allowed(mask, 34)).tolist() == [0, 2, 32, 33]
    assert np.flatnonzero(allowed(mask, 70)).tolist() == [0, 2, *range(32, 64)]


class Broken:
    """A schema that gives up at once."""

    def start(self) -> "Broken":
        return self

    def allow(self, scores: Floats) -> Floats:
        raise EngineFailure("it gave up")

    def follow(self, token: int) -> None: ...


async def test_a_generation_whose_schema_gives_up_fails_alone() -> None:
    engine = GenerationEngine(
        Slots(ToyDecoder(3), 3), Scheduler(3, 4), letter_tokenizer(), Ledger(),
        max_waiting=4, name="toy",
    )  # fmt: skip
    try:
        company = engine.generate([1, 2], Sampling(10, temperature=0.0))
        with pytest.raises(EngineFailure, match="it gave up"):
            await tokens_of(engine.generate([3], Sampling(5, schema=Broken())))
        assert len(await tokens_of(company)) == 10
        assert engine.running == 0
    finally:
        engine.close()
