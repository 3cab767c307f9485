"""Encoder-decoders and beam search in OpenAI's dialect."""

from dataclasses import replace
from typing import Any

import openai
import pytest

from export.artifact import GenerationDefaults
from service.messages import Sampling
from tests.support.fakes import FakeGenerationModel
from tests.support.service import client_of, openai_of, served

OWN = GenerationDefaults(
    decoder_start=(1, 2), beams=4, length_penalty=0.5, early_stopping=True, max_source_tokens=200
)
SEARCHED = Sampling(
    max_tokens=20, temperature=0.0, beams=4, length_penalty=0.5, early_stopping=True
)
SAMPLED = replace(SEARCHED, temperature=1.0, beams=1)


def translator(**options: Any) -> FakeGenerationModel:
    return FakeGenerationModel(generation=OWN, chat_template=None, **options)


async def sampling_of(model: FakeGenerationModel, **fields: Any) -> Sampling:
    body = {"model": "generator", "prompt": "a", "max_tokens": 20} | fields
    async with client_of(served(generator=model)) as client:
        answer = await client.post("/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    return model.started[-1].sampling


@pytest.mark.parametrize(("fields", "expected"), [
    ({}, SEARCHED),
    ({"seed": 3}, replace(SEARCHED, seed=3)),
    ({"best_of": 2}, replace(SEARCHED, beams=2)),
    ({"use_beam_search": True, "temperature": 0}, SEARCHED),
    ({"length_penalty": 2.0, "early_stopping": False},
     replace(SEARCHED, length_penalty=2.0, early_stopping=False)),
    ({"use_beam_search": False}, replace(SEARCHED, beams=1)),
    ({"temperature": 0}, replace(SEARCHED, beams=1)),
    ({"temperature": 1.0}, SAMPLED),
    ({"top_p": 0.5}, replace(SAMPLED, top_p=0.5)),
    ({"use_beam_search": True, "best_of": 1}, replace(SEARCHED, beams=1)),
])  # fmt: skip
async def test_a_model_is_searched_as_its_authors_do_unless_the_request_says_otherwise(
    fields: dict[str, Any], expected: Sampling
) -> None:
    assert await sampling_of(translator(), **fields) == expected


async def test_a_decoder_is_searched_when_asked_to_be() -> None:
    found = await sampling_of(
        FakeGenerationModel(),
        use_beam_search=True,
        best_of=3,
        length_penalty=-1,
        early_stopping=True,
    )
    assert found == Sampling(20, temperature=0.0, beams=3, length_penalty=-1.0, early_stopping=True)
    assert await sampling_of(FakeGenerationModel()) == Sampling(20)


async def test_a_source_takes_none_of_the_targets_room() -> None:
    model = translator(max_tokens=64)
    async with openai_of(served(generator=model)) as client:
        answer = await client.completions.create(model="generator", prompt="s" * 199)
        assert answer.usage is not None
        assert answer.usage.prompt_tokens == 200
        assert model.started[0].sampling.max_tokens == 62, "all but the start"
        await client.completions.create(model="generator", prompt="s", max_tokens=62)
        with pytest.raises(openai.BadRequestError, match="room for 62 more, of 64"):
            await client.completions.create(model="generator", prompt="s", max_tokens=63)
        with pytest.raises(openai.BadRequestError, match=r"201 tokens; .* at most 200"):
            await client.completions.create(model="generator", prompt="s" * 200)


async def test_chat_with_a_model_that_answers_sources_says_what_to_use() -> None:
    async with openai_of(served(generator=translator())) as client:
        with pytest.raises(openai.BadRequestError, match="/v1/completions"):
            await client.chat.completions.create(
                model="generator", messages=[{"role": "user", "content": "Hi"}]
            )


async def test_a_source_is_not_echoed_before_what_answers_it() -> None:
    async with openai_of(served(generator=translator())) as client:
        for logprobs in (None, 1):
            with pytest.raises(openai.BadRequestError, match="doesn't go on from there") as caught:
                await client.completions.create(
                    model="generator", prompt="a", echo=True, logprobs=logprobs
                )
            assert caught.value.param == "echo"


async def test_more_texts_than_a_search_gives_are_refused_with_the_way_out() -> None:
    async with openai_of(served(generator=translator())) as client:
        with pytest.raises(openai.BadRequestError, match="Send a temperature") as caught:
            await client.completions.create(model="generator", prompt="a", n=2)
        assert caught.value.param == "n"
        answer = await client.completions.create(
            model="generator", prompt="a", n=2, temperature=1.0
        )
    assert len(answer.choices) == 2


async def test_info_tells_how_a_model_generates() -> None:
    async with client_of(served(generator=translator())) as client:
        *others, found = (await client.get("/info")).json()["models"]
    assert found["generation"] == {
        "decoder_start": [1, 2],
        "beams": 4,
        "length_penalty": 0.5,
        "early_stopping": True,
        "max_source_tokens": 200,
    }
    assert all("generation" not in other for other in others)
