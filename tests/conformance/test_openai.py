"""OpenAI's own client."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conformance.rows import covers
from tests.conformance.service import LONG, TEXTS, Service

openai = pytest.importorskip("openai")

CLIENT = "openai"


@pytest.fixture
def client(service: Service) -> Iterator[Any]:
    with openai.OpenAI(base_url=service.openai_url, api_key=service.key, max_retries=0) as made:
        yield made


@covers(CLIENT, "models.list, models.retrieve")
def test_models_are_listed(client: Any) -> None:
    names = {model.id for model in client.models.list()}
    assert {"minilm", "smollm2", "supersense"} <= names
    assert client.models.retrieve("minilm").id == "minilm"


@covers(CLIENT, "embeddings.create, base64 (its default) and float")
def test_embeddings_are_the_services(client: Any, service: Service) -> None:
    for more in ({}, {"encoding_format": "float"}):
        found = client.embeddings.create(model="minilm", input=TEXTS, **more).data
        for item, vector in zip(found, service.vectors(TEXTS), strict=True):
            assert item.embedding == pytest.approx(vector, abs=1e-6)


@covers(CLIENT, "embeddings.create(dimensions=…), and of token ids")
def test_embeddings_are_cut_and_of_token_ids(client: Any, service: Service) -> None:
    cut = client.embeddings.create(model="minilm", input="a", dimensions=8).data[0].embedding
    assert (len(cut), sum(x * x for x in cut)) == (8, pytest.approx(1, abs=1e-5))
    (tokens,) = service.post("/tokenize", {"inputs": TEXTS[0]})
    ids = [token["id"] for token in tokens]
    found = client.embeddings.create(model="minilm", input=ids).data[0].embedding
    assert found == pytest.approx(service.vectors(TEXTS[:1])[0], abs=1e-6)


@covers(CLIENT, "completions.create, whole and stream=True")
def test_a_streamed_completion_is_the_whole_one(client: Any, service: Service) -> None:
    asked = {"model": "smollm2", "prompt": "Once upon", "max_tokens": 12, "temperature": 0}
    whole = client.completions.create(**asked).choices[0].text
    pieces = client.completions.create(**asked, stream=True)
    assert "".join(piece.choices[0].text for piece in pieces) == whole
    assert whole == service.completion("Once upon", 12)


@covers(CLIENT, "completions.create(prompt=token ids, echo=True, logprobs=…)")
def test_log_probabilities_of_a_prompt_of_token_ids(client: Any) -> None:
    asked = {"model": "smollm2", "prompt": [97, 98, 99], "max_tokens": 1}
    found = client.completions.create(**asked, echo=True, logprobs=1).choices[0].logprobs
    first, *others = found.token_logprobs
    assert first is None
    assert len(others) == 3
    assert all(value <= 0 for value in others)


@covers(CLIENT, "chat.completions.create, whole, stream=True, include_usage, logprobs")
def test_a_streamed_answer_is_the_whole_one(client: Any) -> None:
    messages = [{"role": "user", "content": "What does time do?"}]
    asked = {"model": "smollm2", "messages": messages, "max_tokens": 12, "temperature": 0}
    whole = client.chat.completions.create(**asked, logprobs=True, top_logprobs=2)
    assert len(whole.choices[0].logprobs.content) == whole.usage.completion_tokens
    chunks = list(
        client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    # The same prompt once more needn't be read again.
    used, before = chunks[-1].usage, whole.usage
    assert (used.prompt_tokens, used.total_tokens) == (before.prompt_tokens, before.total_tokens)
    assert used.prompt_tokens_details.cached_tokens >= max(
        16, before.prompt_tokens_details.cached_tokens
    )


@covers(CLIENT, "chat.completions.stream, chat.completions.parse(response_format=a pydantic model)")
def test_the_helpers_of_the_client_work(client: Any, service: Service) -> None:
    import pydantic

    class Animal(pydantic.BaseModel):
        legs: int

    messages = [{"role": "user", "content": "How many legs has a dog? Answer in JSON."}]
    asked = {"model": "smollm2", "messages": messages, "temperature": 0}
    parsed = client.chat.completions.parse(**asked, response_format=Animal, max_tokens=40)
    assert isinstance(parsed.choices[0].message.parsed, Animal)
    with client.chat.completions.stream(**asked, max_tokens=8) as stream:
        text = "".join(event.delta for event in stream if event.type == "content.delta")
    assert text == service.answer(messages[0]["content"], 8)


@covers(CLIENT, "its exceptions: 400, 401, 404, 429")
def test_errors_are_the_clients_own(client: Any, service: Service) -> None:
    with pytest.raises(openai.BadRequestError, match="tokens") as bad:
        client.embeddings.create(model="minilm", input=LONG)
    assert (bad.value.param, bad.value.code) == ("input", "context_length_exceeded")
    with pytest.raises(openai.NotFoundError, match="nobody") as unknown:
        client.embeddings.create(model="nobody", input="a")
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="sk-wrong").models.list()
    with service.without_room(), pytest.raises(openai.RateLimitError) as full:
        client.completions.create(model="smollm2", prompt="a", max_tokens=1)
    assert int(full.value.response.headers["retry-after"]) >= 1


@covers(CLIENT, "max_retries on 429 with Retry-After")
def test_it_tries_again_until_there_is_room(client: Any, service: Service) -> None:
    before, found = service.refusals(), []
    patient = client.with_options(max_retries=10)

    def ask() -> None:
        asked = {"model": "smollm2", "prompt": "Once upon", "max_tokens": 4, "temperature": 0}
        found.append(patient.completions.create(**asked).choices[0].text)

    asking = threading.Thread(target=ask)
    with service.without_room():
        asking.start()
        while service.refusals() == before and asking.is_alive():
            pass
    asking.join()
    assert found == [service.completion("Once upon", 4)]
    assert service.refusals() > before
