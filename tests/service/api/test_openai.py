import base64

import numpy as np
import openai
import pytest

from service.messages import Sampling
from tests.support.fakes import BEGIN_ID, FakeEmbeddingModel, FakeGenerationModel, FakeSchema
from tests.support.service import NOW_S, client_of, openai_of, served


async def test_the_openai_client_gets_the_models_vectors_through_its_default_base64() -> None:
    model = FakeEmbeddingModel()
    async with openai_of(served(embedder=model)) as client:
        answer = await client.embeddings.create(model="embedder", input=["one", "two"])
    for item, text in zip(answer.data, ("one", "two"), strict=True):
        expected = model.vector(model.tokenizer.encode(text))
        assert np.array_equal(np.asarray(item.embedding, np.float32), expected)
    assert [item.index for item in answer.data] == [0, 1]
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == 8


async def test_floats_and_base64_are_the_same_vector() -> None:
    async with client_of(served()) as client:
        body = {"model": "embedder", "input": "one"}
        floats = (await client.post("/v1/embeddings", json=body)).json()
        packed = await client.post("/v1/embeddings", json=body | {"encoding_format": "base64"})
    raw = base64.b64decode(packed.json()["data"][0]["embedding"])
    vector = floats["data"][0]["embedding"]
    assert np.array_equal(np.array(vector, np.float32), np.frombuffer(raw, "<f4"))
    assert floats["data"][0]["object"] == "embedding"
    assert floats["object"] == "list"


async def test_every_kind_of_input_gives_one_vector_for_each_text() -> None:
    ids = [BEGIN_ID, *b"one"]
    kinds = {"text": "one", "texts": ["one"], "token ids": ids, "token id lists": [ids]}
    async with openai_of(served()) as client:
        vectors = {
            kind: (await client.embeddings.create(model="embedder", input=value)).data
            for kind, value in kinds.items()
        }
    for found in vectors.values():
        assert len(found) == 1
        assert found[0].embedding == vectors["text"][0].embedding


async def test_fewer_dimensions_are_the_first_ones_normalised_again() -> None:
    model = FakeEmbeddingModel()
    async with openai_of(served(embedder=model)) as client:
        answer = await client.embeddings.create(
            model="embedder", input="one", dimensions=3, user="someone"
        )
    expected = model.vector(model.tokenizer.encode("one"))[:3]
    # One rounding of the norm and one of the quotient.
    np.testing.assert_allclose(
        answer.data[0].embedding, expected / np.linalg.norm(expected), rtol=1e-6
    )


async def test_a_large_answer_is_the_small_ones_put_together() -> None:
    texts = [f"text {number}" for number in range(300)]
    async with openai_of(served()) as client:
        together = await client.embeddings.create(model="embedder", input=texts)
        alone = await client.embeddings.create(model="embedder", input=texts[123])
    assert len(together.data) == 300
    assert together.data[123].embedding == alone.data[0].embedding


@pytest.mark.parametrize("fill", [float("nan"), float("inf")])
@pytest.mark.parametrize("dimensions", [None, 4])
async def test_a_vector_that_is_not_finite_never_leaves(
    fill: float, dimensions: int | None
) -> None:
    async with client_of(served(embedder=FakeEmbeddingModel(fill=fill))) as client:
        body = {"model": "embedder", "input": "one", "dimensions": dimensions}
        answer = await client.post("/v1/embeddings", json=body)
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "output_not_finite"


async def test_a_cut_vector_of_zeros_is_a_failure_not_a_division_by_zero() -> None:
    async with client_of(served(embedder=FakeEmbeddingModel(fill=0.0))) as client:
        body = {"model": "embedder", "input": "one", "dimensions": 4}
        answer = await client.post("/v1/embeddings", json=body)
    assert answer.status_code == 500


async def test_a_completion_has_text_reason_and_usage() -> None:
    async with openai_of(served()) as client:
        answer = await client.completions.create(model="generator", prompt="Say it")
    assert answer.object == "text_completion"
    assert answer.created == NOW_S
    assert answer.choices[0].text == "Hello, world"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.model_dump(exclude_none=True) == {
        "prompt_tokens": 7,
        "completion_tokens": 12,
        "total_tokens": 19,
        "prompt_tokens_details": {"cached_tokens": 0},
    }


async def test_each_prompt_has_n_choices_in_order_and_counts_once() -> None:
    model = FakeGenerationModel()
    async with openai_of(served(generator=model)) as client:
        answer = await client.completions.create(
            model="generator", prompt=["a", "bc"], n=2, seed=5, echo=True
        )
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert [choice.text[:2] for choice in answer.choices] == ["aH", "aH", "bc", "bc"]
    assert [generation.sampling.seed for generation in model.started] == [5, 6, 5, 6]
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 5
    assert all(generation.is_closed for generation in model.started)


async def test_token_ids_are_taken_as_they_are_and_echoed_as_text() -> None:
    model = FakeGenerationModel()
    async with openai_of(served(generator=model)) as client:
        answer = await client.completions.create(
            model="generator", prompt=[[*b"ab"], [*b"cd"]], echo=True
        )
    assert [generation.prompt for generation in model.started] == [[*b"ab"], [*b"cd"]]
    assert [choice.text for choice in answer.choices] == ["abHello, world", "cdHello, world"]


async def test_sampling_parameters_reach_the_engine() -> None:
    model = FakeGenerationModel()
    async with openai_of(served(generator=model)) as client:
        await client.completions.create(
            model="generator",
            prompt="a",
            max_tokens=20,
            temperature=0.5,
            top_p=0.25,
            stop=["x", "yz"],
            seed=-1,
            presence_penalty=1,
            frequency_penalty=-1,
            logit_bias={"7": -100},
            logprobs=2,
            extra_body={
                "top_k": 3,
                "min_p": 0.125,
                "ignore_eos": True,
                "min_tokens": 4,
                "repetition_penalty": 1.5,
            },
        )
    assert model.started[0].sampling == Sampling(
        max_tokens=20,
        temperature=0.5,
        top_p=0.25,
        top_k=3,
        min_p=0.125,
        seed=2**63 - 1,
        stop=("x", "yz"),
        ignore_eos=True,
        min_tokens=4,
        presence_penalty=1.0,
        frequency_penalty=-1.0,
        repetition_penalty=1.5,
        logit_bias=((7, -100.0),),
        top_logprobs=2,
    )


@pytest.mark.parametrize(("prompt", "expected"), [("a", 16), ("a" * 117, 10)])
async def test_a_completion_is_of_16_tokens_or_what_is_left(prompt: str, expected: int) -> None:
    model = FakeGenerationModel(max_tokens=128)
    async with openai_of(served(generator=model)) as client:
        await client.completions.create(model="generator", prompt=prompt)
    assert model.started[0].sampling.max_tokens == expected


async def test_an_answer_of_chat_may_fill_the_context() -> None:
    model = FakeGenerationModel(max_tokens=128)
    async with openai_of(served(generator=model)) as client:
        await client.chat.completions.create(
            model="generator", messages=[{"role": "user", "content": "Hi"}]
        )
    prompt = model.started[0].prompt
    assert len(prompt) + model.started[0].sampling.max_tokens == 128


async def test_completion_log_probabilities_have_tokens_tops_and_offsets() -> None:
    async with openai_of(served(generator=FakeGenerationModel(script=["a€", "b"]))) as client:
        answer = await client.completions.create(model="generator", prompt="a", logprobs=2)
    block = answer.choices[0].logprobs
    assert block is not None
    assert block.tokens == ["a", "bytes:\\xe2", "bytes:\\x82", "bytes:\\xac", "b"]
    assert block.text_offset == [0, 1, 1, 1, 2]
    assert block.token_logprobs == [-0.5] * 5
    assert block.top_logprobs is not None
    assert block.top_logprobs[0] == {"a": -0.5, "?": -1.5}


async def test_a_conversation_is_rendered_by_the_models_template() -> None:
    model = FakeGenerationModel()
    async with openai_of(served(generator=model)) as client:
        answer = await client.chat.completions.create(
            model="generator",
            messages=[
                {"role": "developer", "content": "Be brief"},
                {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
            ],
            max_completion_tokens=9,
            response_format={"type": "text"},
        )
    assert bytes(model.started[0].prompt) == b"system:Be brief\nuser:Hi\nassistant:"
    assert model.started[0].sampling.max_tokens == 9
    assert answer.object == "chat.completion"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content == "Hello, world"
    assert answer.choices[0].finish_reason == "stop"


async def test_chat_log_probabilities_have_bytes() -> None:
    async with openai_of(served(generator=FakeGenerationModel(script=["a"]))) as client:
        answer = await client.chat.completions.create(
            model="generator",
            messages=[{"role": "user", "content": "Hi"}],
            logprobs=True,
            top_logprobs=2,
        )
    block = answer.choices[0].logprobs
    assert block is not None
    assert block.content is not None
    (token,) = block.content
    assert (token.token, token.logprob, token.bytes) == ("a", -0.5, [97])
    assert [(top.token, top.logprob) for top in token.top_logprobs] == [("a", -0.5), ("?", -1.5)]


async def test_a_model_without_a_template_says_what_to_use() -> None:
    model = FakeGenerationModel(chat_template=None)
    async with openai_of(served(generator=model)) as client:
        with pytest.raises(openai.BadRequestError, match="/v1/completions") as caught:
            await client.chat.completions.create(
                model="generator", messages=[{"role": "user", "content": "Hi"}]
            )
    assert caught.value.param == "model"


async def test_errors_are_the_clients_exceptions() -> None:
    full = FakeGenerationModel(room=1)
    async with openai_of(served(generator=full)) as client:
        with pytest.raises(openai.BadRequestError) as bad:
            await client.completions.create(model="generator", prompt="a", temperature=3)
        assert bad.value.param == "temperature"
        with pytest.raises(openai.NotFoundError) as unknown:
            await client.embeddings.create(model="nobody", input="a")
        assert unknown.value.code == "model_not_found"
        assert "embedder" in unknown.value.message
        with pytest.raises(openai.RateLimitError) as refused:
            await client.completions.create(model="generator", prompt="a", n=3)
        assert refused.value.response.headers["retry-after"] == "7"
        assert refused.value.type == "rate_limit_exceeded"
    assert [generation.is_closed for generation in full.started] == [True]
    async with openai_of(served(ready=False)) as client:
        with pytest.raises(openai.InternalServerError) as not_ready:
            await client.embeddings.create(model="embedder", input="a")
        assert not_ready.value.status_code == 503


async def test_models_are_listed_and_found() -> None:
    async with openai_of(served()) as client:
        names = [model.id async for model in client.models.list()]
        assert names == ["embedder", "classifier", "generator"]
        assert (await client.models.retrieve("generator")).object == "model"
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve("nobody")


async def test_a_name_with_a_slash_is_found() -> None:
    app = served(embedder=FakeEmbeddingModel("hf:org/name"))
    async with client_of(app) as client:
        for path in ("/v1/models/hf:org/name", "/v1/models/hf%3Aorg%2Fname"):
            assert (await client.get(path)).json()["id"] == "hf:org/name"


@pytest.mark.parametrize(("side", "kept"), [("right", "a" * 63), ("left", "b" * 63)])
async def test_a_text_that_is_too_long_is_cut_when_asked_and_its_item_says_so(
    side: str, kept: str
) -> None:
    body = {"model": "embedder", "input": ["one", "a" * 100 + "b" * 100]}
    async with client_of(served()) as client:
        refused = await client.post("/v1/embeddings", json=body)
        cut = (await client.post("/v1/embeddings", json=body | {"truncation": side})).json()
        same = (await client.post("/v1/embeddings", json=body | {"input": kept})).json()
    assert refused.json()["error"]["param"] == "input[1]"
    assert "truncated" not in cut["data"][0]
    assert (cut["data"][1]["truncated"], cut["data"][1]["dropped_tokens"]) == (True, 137)
    assert cut["data"][1]["embedding"] == same["data"][0]["embedding"]
    assert cut["usage"]["prompt_tokens"] == 4 + 64


async def test_an_answer_tells_what_took_how_long() -> None:
    async with client_of(served()) as client:
        body = {"model": "embedder", "input": "one"}
        answer = await client.post("/v1/embeddings", json=body)
    parts = dict(part.split(";dur=") for part in answer.headers["server-timing"].split(", "))
    assert parts.keys() == {"tokenize", "queue", "run", "total"}
    assert (float(parts["queue"]), float(parts["run"])) == (2.0, 3.0)


async def test_an_echoed_prompt_has_log_probabilities_too_but_for_its_first_token() -> None:
    async with openai_of(served(generator=FakeGenerationModel(script=("x",)))) as client:
        answer = await client.completions.create(
            model="generator", prompt=[*b"abc"], echo=True, logprobs=1, max_tokens=1
        )
    (choice,) = answer.choices
    assert choice.text == "abcx"
    found = choice.logprobs
    assert found is not None
    assert found.tokens == ["a", "b", "c", "x"]
    assert found.token_logprobs == [None, -2.0, -2.0, -0.5]
    assert found.top_logprobs is not None
    assert found.top_logprobs[0] is None
    assert found.top_logprobs[1] == {"b": -2.0}
    assert found.text_offset == [0, 1, 2, 3]


async def test_a_special_token_takes_no_room_in_the_text() -> None:
    async with openai_of(served(generator=FakeGenerationModel(script=("x",)))) as client:
        answer = await client.completions.create(
            model="generator", prompt="ab", echo=True, logprobs=0, max_tokens=1
        )
    found = answer.choices[0].logprobs
    assert found is not None
    assert answer.choices[0].text == "abx"
    assert found.text_offset == [0, 0, 1, 2]


async def test_a_streamed_echo_has_them_in_its_first_event() -> None:
    async with openai_of(served()) as client:
        stream = await client.completions.create(
            model="generator", prompt=[*b"ab"], echo=True, logprobs=0, stream=True
        )
        chunks = [chunk async for chunk in stream]
    first = chunks[0].choices[0]
    assert first.text == "abHello"
    assert first.logprobs is not None
    assert first.logprobs.token_logprobs == [None, -2.0, *[-0.5] * 5]
    blocks = [chunk.choices[0].logprobs for chunk in chunks]
    tokens = [token for block in blocks if block for token in block.tokens or ()]
    assert tokens == [*"abHello, world"]


SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("wanted", "definition"),
    [
        ({"type": "json_object"}, {"type": "object"}),
        ({"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}, SCHEMA),
    ],
)
@pytest.mark.parametrize("route", ["completions", "chat/completions"])
async def test_a_schema_reaches_the_engine(
    route: str, wanted: dict[str, object], definition: dict[str, object]
) -> None:
    model = FakeGenerationModel()
    body: dict[str, object] = {"model": "generator", "response_format": wanted}
    body |= (
        {"prompt": "a"}
        if route == "completions"
        else {"messages": [{"role": "user", "content": "a"}]}
    )
    async with client_of(served(generator=model)) as client:
        answer = await client.post(f"/v1/{route}", json=body)
    assert answer.status_code == 200, answer.text
    assert model.started[0].sampling.schema == FakeSchema(definition)


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"ignore_eos": True}, "ignore_eos"),
        ({"min_tokens": 2}, "min_tokens"),
        ({"use_beam_search": True, "best_of": 2}, "use_beam_search"),
        ({"response_format": {"type": "yaml"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
            "response_format.json_schema.schema",
        ),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"schema": {"impossible": 1}},
                }
            },
            "response_format.json_schema.schema",
        ),
    ],
    ids=str,
)
async def test_what_doesnt_go_with_a_schema_is_refused_by_name(
    change: dict[str, object], param: str
) -> None:
    body = {"model": "generator", "prompt": "a", "response_format": {"type": "json_object"}}
    async with client_of(served()) as client:
        answer = await client.post("/v1/completions", json=body | change)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize("wanted", [None, {"type": "text"}, {"type": "json_object"}])
async def test_stop_strings_dont_cut_what_is_held_to_a_form(wanted: object) -> None:
    model = FakeGenerationModel()
    body = {"model": "generator", "prompt": "a", "stop": ["{"], "response_format": wanted}
    async with client_of(served(generator=model)) as client:
        answer = await client.post("/v1/completions", json=body)
    assert answer.status_code == 200
    is_held = model.started[0].sampling.schema is not None
    assert model.started[0].sampling.stop == (() if is_held else ("{",))
    assert is_held is (wanted == {"type": "json_object"})


async def test_a_prompt_can_be_scored_alone() -> None:
    model = FakeGenerationModel(script=("",), max_tokens=2)
    async with openai_of(served(generator=model)) as client:
        answer = await client.completions.create(
            model="generator", prompt=[*b"ab"], echo=True, logprobs=0, max_tokens=0
        )
    assert model.started[0].sampling.max_tokens == 0
    assert answer.choices[0].text == "ab"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 0
    assert answer.choices[0].logprobs is not None
    assert answer.choices[0].logprobs.token_logprobs == [None, -2.0]


async def test_log_probabilities_of_prompts_have_a_bound() -> None:
    async with client_of(served(generator=FakeGenerationModel(max_tokens=2048))) as client:
        body = {"model": "generator", "prompt": [97] * 2000, "echo": True, "max_tokens": 1}
        fine = await client.post("/v1/completions", json=body | {"logprobs": 1, "n": 16})
        refused = await client.post("/v1/completions", json=body | {"logprobs": 2, "n": 16})
    assert fine.status_code == 200
    assert refused.json()["error"]["param"] == "logprobs"
    assert "96000 log probabilities" in refused.json()["error"]["message"]
