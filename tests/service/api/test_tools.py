"""Tools in the chat: what the model is told, what is told of its calls, and what is refused."""

import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import jsonschema
import openai
import pytest
from openai import AsyncOpenAI
from transformers import LlamaForCausalLM

from export.artifact import Precision
from export.catalogue import recipe
from export.pipeline import export
from service.app import create_app
from service.living import ModelGroup
from service.messages import FinishReason
from service.metrics import Metrics
from service.models import SlottedGeneration
from service.registry import Registry
from service.settings import ServiceSettings
from tests.support.callers import (
    HERMES_TEMPLATE,
    MISTRAL_TEMPLATE,
    PLAIN_TEMPLATE,
    VOCAB_SIZE,
    read_tokenizer,
    write_vocabulary,
)
from tests.support.checkpoints import draw_widely, tiny_llama_config
from tests.support.fakes import FakeGenerationModel
from tests.support.reports import silent
from tests.support.service import openai_of, served

WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"enum": ["Bern", "Rome"]},
                "days": {"type": "integer", "minimum": 1, "maximum": 9},
            },
            "required": ["city", "days"],
            "additionalProperties": False,
        },
    },
}
TIME: dict[str, Any] = {"type": "function", "function": {"name": "time"}}
HI: Any = [{"role": "user", "content": "Hi"}]
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Bern", "days": 2}}\n</tool_call>'
ARGUMENTS = {"city": "Bern", "days": 2}

Caller = Callable[..., FakeGenerationModel]


@pytest.fixture(scope="module")
def caller(tmp_path_factory: pytest.TempPathFactory) -> Caller:
    """Makes a model that says what it is told to, with a real vocabulary and template."""

    def make(*script: str, template: str = HERMES_TEMPLATE, **options: Any) -> FakeGenerationModel:
        folder = tmp_path_factory.mktemp("vocabulary")
        write_vocabulary(folder, template)
        model = FakeGenerationModel(script=script or ("Hello",), max_tokens=2048, **options)
        model.tokenizer = read_tokenizer(folder)
        return model

    return make


async def asked(model: FakeGenerationModel, **fields: Any) -> Any:
    async with openai_of(served(generator=model)) as client:
        body = {"model": "generator", "messages": HI, "tools": [WEATHER, TIME]} | fields
        return await client.chat.completions.create(**body)


def prompt_of(model: FakeGenerationModel) -> str:
    return model.tokenizer.decode(model.started[-1].prompt, skip_special_tokens=False)


async def test_the_template_is_given_the_tools_and_the_answer_has_the_calls(caller: Caller) -> None:
    model = caller("Let me see.\n", CALL, "\n", CALL.replace("Bern", "Rome"))
    answer = await asked(model)
    assert json.dumps(WEATHER) in prompt_of(model)
    (choice,) = answer.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "Let me see."
    one, other = choice.message.tool_calls
    assert (one.type, one.function.name) == ("function", "weather")
    assert json.loads(one.function.arguments) == ARGUMENTS
    assert json.loads(other.function.arguments)["city"] == "Rome"
    assert one.id != other.id


async def test_a_stream_has_each_call_by_its_id_and_name_first(caller: Caller) -> None:
    model = caller(*"Now. ", *CALL, *CALL)
    async with openai_of(served(generator=model)) as client:
        chunks = [
            chunk
            async for chunk in await client.chat.completions.create(
                model="generator", messages=HI, tools=cast(Any, [WEATHER]), stream=True
            )
        ]
        deltas = [chunk.choices[0].delta for chunk in chunks]
        parts = [part for delta in deltas for part in delta.tool_calls or ()]
        assert deltas[0].role == "assistant"
        assert "".join(delta.content or "" for delta in deltas) == "Now."
        assert [part.index for part in parts] == [0, 0, 1, 1]
        first, rest = parts[0], parts[1]
        assert first.id
        assert first.function is not None
        assert (first.type, first.function.name, first.function.arguments) == (
            "function", "weather", "",
        )  # fmt: skip
        assert rest.id is None
        assert rest.function is not None
        assert json.loads(rest.function.arguments or "") == ARGUMENTS
        assert [chunk.choices[0].finish_reason for chunk in chunks][-1] == "tool_calls"
        # And as the client itself puts it together.
        async with client.chat.completions.stream(
            model="generator", messages=HI, tools=cast(Any, [WEATHER])
        ) as stream:
            whole = await stream.get_final_completion()
    calls = whole.choices[0].message.tool_calls
    assert calls is not None
    assert [json.loads(call.function.arguments) for call in calls] == [ARGUMENTS] * 2


@pytest.mark.parametrize("text", [
    CALL.replace("weather", "rm"), CALL[:40], CALL.replace("2}}", "2}"), "<tool_call>", "Hello",
])  # fmt: skip
@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_no_call_is_the_answers_text(caller: Caller, text: str, stream: bool) -> None:
    model = caller(text[:9], text[9:])
    answer = await asked(model, stream=stream)
    if stream:
        deltas = [chunk.choices[0] async for chunk in answer]
        assert "".join(choice.delta.content or "" for choice in deltas) == text
        assert deltas[-1].finish_reason == "stop"
        assert not any(choice.delta.tool_calls for choice in deltas)
    else:
        assert answer.choices[0].message.content == text
        assert answer.choices[0].message.tool_calls is None
        assert answer.choices[0].finish_reason == "stop"


async def test_log_probabilities_are_those_of_every_token(caller: Caller) -> None:
    whole = await asked(caller("So ", CALL), logprobs=True)
    assert len(whole.choices[0].logprobs.content) == len(f"So {CALL}")
    stream = await asked(caller("So ", CALL), logprobs=True, stream=True)
    blocks = [chunk.choices[0].logprobs async for chunk in stream]
    assert sum(len(block.content) for block in blocks if block) == len(f"So {CALL}")


HISTORY: list[dict[str, Any]] = [
    {"role": "user", "content": "Weather in Bern?"},
    {"role": "assistant", "content": None, "tool_calls": [
        {"id": "abcdefghi", "type": "function",
         "function": {"name": "weather", "arguments": '{"city": "Bern", "days": 2}'}}]},
    {"role": "tool", "tool_call_id": "abcdefghi", "content": [{"type": "text", "text": "Rain."}]},
]  # fmt: skip


async def test_calls_and_their_results_of_before_are_shown_to_the_model(caller: Caller) -> None:
    model = caller()
    await asked(model, messages=HISTORY)
    assert prompt_of(model).endswith(
        f"<|user|>Weather in Bern?<|end|><|assistant|>{CALL}<|end|>"
        "<|tool|>Rain.<|end|><|assistant|>"
    )
    # Without the tools of before, too; and the call of an answer can be sent as it came.
    answer = await asked(caller(CALL))
    call = answer.choices[0].message.model_dump(exclude_none=True)
    result = {"role": "tool", "tool_call_id": call["tool_calls"][0]["id"], "content": "Rain."}
    for template in (HERMES_TEMPLATE, MISTRAL_TEMPLATE):
        other = caller(template=template)
        await asked(other, messages=[*HI, call, result], tools=openai.NOT_GIVEN)
        assert '"weather"' in prompt_of(other)


async def test_calls_are_held_to_a_form_where_that_is_asked_for(caller: Caller) -> None:
    async def grammar_of(**fields: Any) -> str | None:
        model = caller()
        await asked(model, **fields)
        schema: Any = model.started[-1].sampling.schema
        return None if schema is None else schema.definition["grammar"]

    assert await grammar_of() is None
    assert await grammar_of(tool_choice="auto") is None
    assert await grammar_of(tool_choice="none") is None
    required = await grammar_of(tool_choice="required")
    assert required is not None
    assert "weather" in required
    assert "time" in required
    named = {"type": "function", "function": {"name": "time"}}
    only = await grammar_of(tool_choice=named)
    assert only is not None
    assert "weather" not in only
    strict = {"type": "function", "function": {**WEATHER["function"], "strict": True}}
    held = await grammar_of(tools=[strict, TIME])
    assert held is not None
    assert "Bern" in held
    assert await grammar_of(parallel_tool_calls=False) is not None


async def test_with_no_choice_the_model_isnt_told_of_the_tools(caller: Caller) -> None:
    model = caller(CALL)
    answer = await asked(model, tool_choice="none")
    assert "weather" not in prompt_of(model)
    assert answer.choices[0].message.content == CALL


async def test_a_special_token_that_marks_calls_is_shown_to_whoever_reads_them(
    caller: Caller,
) -> None:
    model = caller('[TOOL_CALLS] [{"name": "time", "arguments": {}}]', template=MISTRAL_TEMPLATE)
    answer = await asked(model)
    (shown,) = model.started[0].sampling.shown
    assert model.tokenizer.token_text(shown) == "[TOOL_CALLS]"
    assert answer.choices[0].message.tool_calls[0].function.name == "time"
    stream = model.tokenizer.stream(shown=[shown])
    assert stream.push(shown) == "[TOOL_CALLS]"
    assert model.tokenizer.stream().push(shown) == ""


async def test_a_call_that_the_limit_cut_off_is_text(caller: Caller) -> None:
    model = caller(CALL[:50])
    model.reason = FinishReason.LENGTH
    answer = await asked(model)
    assert answer.choices[0].finish_reason == "length"
    assert answer.choices[0].message.content == CALL[:50]


async def test_a_call_that_has_to_come_is_streamed_as_it_comes(caller: Caller) -> None:
    pieces = [CALL[at : at + 8] for at in range(0, len(CALL), 8)]
    stream = await asked(caller(*pieces), stream=True, tool_choice="required")
    deltas = [chunk.choices[0].delta async for chunk in stream]
    parts = [part for delta in deltas for part in delta.tool_calls or ()]
    assert [part.function.name for part in parts if part.function.name] == ["weather"]
    assert len(parts) > 3
    assert json.loads("".join(part.function.arguments for part in parts)) == ARGUMENTS


async def test_one_that_the_limit_cut_off_has_what_there_is_of_its_arguments(
    caller: Caller,
) -> None:
    model = caller(CALL[:60])
    model.reason = FinishReason.LENGTH
    answer = await asked(model, tool_choice="required")
    (call,) = answer.choices[0].message.tool_calls
    assert json.dumps(ARGUMENTS).startswith(call.function.arguments)
    assert answer.choices[0].finish_reason == "length"


def history(place: int, **change: Any) -> dict[str, Any]:
    return {"messages": [m | change if i == place else m for i, m in enumerate(HISTORY)]}


def calling(**function: Any) -> dict[str, Any]:
    call: dict[str, Any] = {"id": "a", "type": "function", "function": function}
    return history(1, tool_calls=[call])


@pytest.mark.parametrize(("fields", "param", "said"), [
    ({"tool_choice": {"type": "function", "function": {"name": "rm"}}},
     "tool_choice.function.name", "weather, time"),
    ({"tools": [TIME, TIME]}, "tools[1].function.name", "two tools"),
    ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "array"}}}]},
     "tools[0].function.parameters", "an object"),
    ({"tool_choice": "required", "min_tokens": 5}, "min_tokens", "not supported"),
    ({"response_format": {"type": "json_object"}}, "response_format", "send one of them"),
    (history(0, content=None), "messages[0].content", "is missing"),
    (history(2, tool_call_id=None), "messages[2].tool_call_id", "is missing"),
    (history(0, tool_call_id="a"), "messages[0].tool_call_id", "role tool"),
    (history(0, tool_calls=[]), "messages[0].tool_calls", "role assistant"),
    (calling(name="f", arguments="{"), "messages[1].tool_calls[0].function.arguments", "JSON"),
    (calling(name="f", arguments="[]"), "messages[1].tool_calls[0].function.arguments", "object"),
    (calling(name="f", arguments="[" * 10**5), "messages[1].tool_calls[0].function.arguments",
     "JSON"),
    (calling(name="f"), "messages[1].tool_calls[0].function.arguments", "missing"),
])  # fmt: skip
async def test_what_is_wrong_is_told_by_its_name(
    caller: Caller, fields: dict[str, Any], param: str, said: str
) -> None:
    extra = {name: fields.pop(name) for name in ("min_tokens",) if name in fields}
    with pytest.raises(openai.BadRequestError, match=said) as caught:
        await asked(caller(), extra_body=extra, **fields)
    fields.update(extra)
    assert caught.value.param == param


@pytest.mark.parametrize(("template", "said"), [
    (PLAIN_TEMPLATE, "'generator' takes no tools"),
    (PLAIN_TEMPLATE + "{{ tools }}", "'generator' takes tools, but"),
])  # fmt: skip
async def test_a_model_that_calls_nothing_is_named(
    caller: Caller, template: str, said: str
) -> None:
    model = caller(template=template)
    with pytest.raises(openai.BadRequestError, match=said) as caught:
        await asked(model)
    assert caught.value.param == "tools"
    if template == PLAIN_TEMPLATE:
        with pytest.raises(openai.BadRequestError, match="no place for them") as caught:
            await asked(model, messages=HISTORY, tools=openai.NOT_GIVEN)
        assert caught.value.param == "messages[1]"


# --- a real model, that knows no language --------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlottedGeneration]:
    folder = tmp_path_factory.mktemp("caller")
    config = tiny_llama_config(vocab_size=VOCAB_SIZE, max_position_embeddings=1024)
    draw_widely(LlamaForCausalLM(config)).save_pretrained(folder)
    write_vocabulary(folder, HERMES_TEMPLATE)
    made = export(recipe(str(folder), Precision.FP32, name="tiny"), folder / "cache", silent)
    settings = ServiceSettings(models=(str(made),), slots=4, threads=1, max_context=1024)
    group = ModelGroup(settings, Registry(), Metrics())
    group.load()
    try:
        found = group.registry.generation("tiny")
        assert isinstance(found, SlottedGeneration)
        yield found
    finally:
        group.close()


@pytest.fixture(params=[HERMES_TEMPLATE, MISTRAL_TEMPLATE], ids=["hermes", "mistral"])
async def client(
    request: pytest.FixtureRequest, model: SlottedGeneration, tmp_path: Path
) -> AsyncIterator[AsyncOpenAI]:
    # Of its vocabulary a model has one; the template is all that differs here.
    write_vocabulary(tmp_path, request.param)
    registry = Registry()
    registry.add_generation(replace(model, tokenizer=read_tokenizer(tmp_path)))
    registry.ready = True
    async with openai_of(create_app(registry, ServiceSettings(), Metrics())) as made:
        yield made


@pytest.mark.parametrize("stream", [False, True])
async def test_a_model_that_has_to_call_calls_as_the_schema_says(
    client: AsyncOpenAI, stream: bool
) -> None:
    for seed in range(3):
        common: dict[str, Any] = {
            "model": "tiny", "messages": HI, "tools": [WEATHER], "seed": seed,
            "tool_choice": {"type": "function", "function": {"name": "weather"}},
        }  # fmt: skip
        if stream:
            async with client.chat.completions.stream(**common) as arriving:
                answer = await arriving.get_final_completion()
        else:
            answer = await client.chat.completions.create(**common)
        assert answer.choices[0].finish_reason == "tool_calls"
        calls = answer.choices[0].message.tool_calls
        assert calls is not None
        (call,) = calls
        assert call.type == "function"
        assert call.function.name == "weather"
        jsonschema.validate(json.loads(call.function.arguments), WEATHER["function"]["parameters"])


async def test_a_model_that_may_call_says_what_it_likes(client: AsyncOpenAI) -> None:
    options: list[dict[str, Any]] = [{}, {"parallel_tool_calls": False}]
    for fields in options:
        answer = await client.chat.completions.create(
            model="tiny", messages=HI, tools=cast(Any, [WEATHER]), seed=1, max_tokens=40, **fields
        )
        assert answer.choices[0].finish_reason in ("length", "stop", "tool_calls")


async def test_the_function_whose_schema_is_none_is_named(client: AsyncOpenAI) -> None:
    wrong = {"type": "function", "function": {"name": "f", "parameters": {"required": 7}}}
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(
            model="tiny",
            messages=HI,
            tools=cast(Any, [WEATHER, wrong]),
            tool_choice="required",
        )
    assert caught.value.param == "tools[1].function.parameters"
