"""SmolLM2 held to JSON schemas: what it says is valid, or cut by its length and told so."""

import asyncio
import json
from typing import Any

import jsonschema

from export.artifact import Artifact
from export.session import CachedSession, Provider, Session, usable_cores
from model_core.tokenization import Tokenizer
from service.engines.constraint import Schema, Schemas
from service.engines.generation import GenerationEngine
from service.engines.scheduler import Scheduler
from service.engines.slots import Slots
from service.messages import FinishReason, Sampling, join
from tests.support.engines import Ledger

SLOTS, SEEDS, MAX_TOKENS = 32, 10, 80


def closed(**properties: Any) -> dict[str, Any]:
    """An object of exactly these properties."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def integer(lowest: int, highest: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": lowest, "maximum": highest}


def array(items: dict[str, Any], fewest: int, most: int) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": fewest, "maxItems": most}


NAME: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": 12}
COLOUR = {"enum": ["red", "green", "blue"]}
SCHEMAS: tuple[dict[str, Any], ...] = (
    closed(name=NAME),
    closed(colour=COLOUR),
    closed(age=integer(0, 130)),
    closed(temperature=integer(-40, 60), unit={"enum": ["C", "F"]}),
    closed(done={"type": "boolean"}, left=integer(0, 9)),
    closed(point=closed(x=integer(-9, 9), y=integer(-9, 9))),
    closed(tags=array(NAME, 1, 3)),
    closed(colours=array(COLOUR, 2, 2)),
    closed(row=array(integer(0, 1), 4, 4)),
    closed(grid=array(array(integer(0, 3), 2, 2), 2, 2)),
    closed(person=closed(name=NAME, home=closed(city=NAME, floor=integer(0, 99)))),
    closed(kind={"const": "note"}, text={"type": "string", "maxLength": 30}),
    closed(value={"anyOf": [integer(1, 5), {"type": "null"}]}),
    closed(value={"anyOf": [COLOUR, {"type": "boolean"}]}),
    array(closed(name=NAME, score=integer(0, 10)), 1, 2),
    array(COLOUR, 0, 4),
    integer(1, 1000),
    COLOUR,
    {"enum": [1, "two", None, [3], {"four": 4}]},
    closed(month=integer(1, 12), day=integer(1, 31), leap={"type": "boolean"}),
)


async def test_twenty_schemas_are_kept_to_under_ten_seeds(smollm2_artifact: Artifact) -> None:
    tokenizer = Tokenizer.load(smollm2_artifact.folder)
    layout = smollm2_artifact.manifest.cache
    assert layout is not None
    session = Session(smollm2_artifact.graph, Provider.CPU, usable_cores())
    slots = Slots(CachedSession(session, layout, SLOTS, 256), SLOTS)
    engine = GenerationEngine(
        slots, Scheduler(SLOTS, 64), tokenizer, Ledger(), max_waiting=500, name="schemas"
    )
    schemas = Schemas(tokenizer)
    prompt = tokenizer.encode("Here is an example of a record, written as JSON:\n")

    async def say(schema: Schema, seed: int) -> tuple[str, FinishReason | None]:
        stream = engine.generate(prompt, Sampling(MAX_TOKENS, seed=seed, schema=schema))
        whole = join([chunk async for chunk in stream])
        return whole.text, whole.finish_reason

    try:
        assert len(SCHEMAS) == 20
        compiled = [schemas.compile(each, field="schema") for each in SCHEMAS]
        found = await asyncio.gather(
            *(say(schema, seed) for schema in compiled for seed in range(SEEDS))
        )
    finally:
        engine.close()
    ended = 0
    for number, (text, reason) in enumerate(found):
        assert reason in (FinishReason.STOP, FinishReason.LENGTH)
        if reason is FinishReason.STOP:
            ended += 1
            jsonschema.validate(json.loads(text), SCHEMAS[number // SEEDS])
    print(f"{ended} of {len(found)} ended by themselves, and all of these are valid")
    assert ended >= 0.9 * len(found)
