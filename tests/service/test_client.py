"""The client against the application in place: values, batches, retries, streams, errors."""

import asyncio
import io
import json
from collections.abc import Callable

import httpx
import numpy as np
import pytest
from rich.console import Console

from service.client import AsyncClient, Called, Client, Ranked, Retries, ServiceError, StreamCut
from service.client.bar import bar
from service.errors import EngineFailure
from tests.support.fakes import FakeEmbeddingModel, FakeGenerationModel, FakeRanker
from tests.support.service import BASE_URL, served

Handler = Callable[[httpx.Request], httpx.Response]
AT_ONCE = Retries(attempts=3, first_wait_s=0.0)


def over(app: object, **options: object) -> AsyncClient:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)  # pyright: ignore[reportArgumentType]
    return AsyncClient(BASE_URL, transport=transport, **options)  # pyright: ignore[reportArgumentType]


async def test_vectors_are_the_models_own_in_order_whatever_the_batch() -> None:
    model, texts = FakeEmbeddingModel(), [f"text {number}" for number in range(10)]
    expected = [model.vector(model.tokenizer.encode(text)) for text in texts]
    for batch in (1, 3, 10, 64):
        done: list[int] = []
        async with over(served()) as client:
            found = await client.embed(texts, model="embedder", batch=batch, progress=done.append)
        np.testing.assert_array_equal(found, np.stack(expected))
        assert sum(done) == 10
        assert max(done) <= batch


async def test_no_texts_are_no_request() -> None:
    async with over(served(ready=False)) as client:
        assert (await client.embed([], model="embedder")).shape == (0, 0)
        assert await client.classify([]) == []


async def test_a_batch_below_one_is_refused() -> None:
    async with over(served()) as client:
        with pytest.raises(ValueError, match="batch is 0"):
            await client.embed(["a"], model="embedder", batch=0)


async def test_labels_ranks_and_names() -> None:
    async with over(served(ranker=FakeRanker())) as client:
        assert [found.label for found in await client.classify(["a", "b"], batch=1)] == [
            "verb",
            "adverb",
        ]
        assert await client.rerank("ab", ["x", "ab"]) == [Ranked(1, 1.0), Ranked(0, 0.0)]
        assert set(await client.models()) == {"embedder", "classifier", "ranker", "generator"}


async def test_texts_come_whole_or_as_they_are_generated() -> None:
    messages = [{"role": "user", "content": "hi"}]
    async with over(served()) as client:
        whole = await client.complete("a", model="generator", max_tokens=20)
        pieces = [piece async for piece in client.stream_complete("a", model="generator")]
        answer = await client.chat(messages, model="generator")
        parts = [part async for part in client.stream_chat(messages, model="generator")]
    assert (whole.text, whole.finish_reason) == ("Hello, world", "stop")
    assert answer.text == "Hello, world"
    assert pieces == parts == ["Hello", ", ", "world"]
    assert whole.completion_tokens == len("Hello, world")


async def test_leaving_a_stream_ends_its_generation() -> None:
    model = FakeGenerationModel(script=["a"] * 50, pause_s=0.01)
    async with over(served(generator=model)) as client:
        stream = client.stream_complete("a", model="generator")
        assert await anext(stream) == "a"
        await stream.aclose()  # pyright: ignore[reportAttributeAccessIssue]
        await asyncio.wait_for(model.started[0].closed.wait(), 10)


async def test_a_refusal_has_its_status_code_and_field_and_is_not_sent_again() -> None:
    sent: list[str] = []

    async def count(request: httpx.Request) -> None:
        sent.append(request.url.path)

    async with over(served(), retries=AT_ONCE) as client:
        client.http.event_hooks = {"request": [count]}
        with pytest.raises(ServiceError, match="dimensions") as caught:
            await client.embed(["a"], model="embedder", dimensions=99)
    error = caught.value
    assert (error.status, error.code, error.field) == (400, "invalid_value", "dimensions")
    assert len(sent) == 1


async def test_a_stream_that_fails_says_so_after_the_text_before() -> None:
    model = FakeGenerationModel(script=["Hello"], failure=EngineFailure("broken"))
    async with over(served(generator=model)) as client:
        stream = client.stream_complete("a", model="generator")
        assert await anext(stream) == "Hello"
        with pytest.raises(ServiceError, match="broken"):
            await anext(stream)


def answering(*answers: httpx.Response | Exception) -> tuple[Handler, list[httpx.Request]]:
    """A service that gives these answers in turn, and what it was asked."""
    left, asked = list(answers), list[httpx.Request]()

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return handle, asked


def models() -> httpx.Response:
    return httpx.Response(200, json={"data": [{"id": "one"}]})


def busy(after: str = "0") -> httpx.Response:
    body = {"error": {"message": "full", "code": "rate_limit_exceeded", "param": None}}
    return httpx.Response(429, json=body, headers={"retry-after": after})


@pytest.mark.parametrize(
    "failure",
    [busy(), httpx.Response(503, text="starting"), httpx.ConnectError("no")],
    ids=["429", "503", "unreachable"],
)
def test_what_may_succeed_later_is_sent_again(failure: httpx.Response | Exception) -> None:
    handle, asked = answering(failure, failure, models())
    with Client(BASE_URL, retries=AT_ONCE, transport=httpx.MockTransport(handle)) as client:
        assert client.models() == ["one"]
    assert len(asked) == 3


def test_it_gives_up_with_the_last_error() -> None:
    handle, asked = answering(*[busy("0") for _ in range(3)])
    with (
        Client(BASE_URL, retries=AT_ONCE, transport=httpx.MockTransport(handle)) as client,
        pytest.raises(ServiceError, match="429 rate_limit_exceeded: full"),
    ):
        client.models()
    assert len(asked) == 3


def test_the_time_that_the_service_names_is_waited() -> None:
    retries = Retries(first_wait_s=100.0, longest_s=60.0)
    named = ServiceError(429, "full", retry_after_s=7.0)
    assert retries.wait_s(named, 1) == 7.0
    assert retries.wait_s(ServiceError(429, "full", retry_after_s=900.0), 1) == 60.0
    assert retries.wait_s(ServiceError(503, "starting"), 1) == pytest.approx(55, abs=5.1)
    assert retries.wait_s(ServiceError(400, "no"), 1) is None
    assert retries.wait_s(named, 4) is None


def test_the_key_goes_with_every_request() -> None:
    handle, asked = answering(models())
    with Client(BASE_URL, api_key="k", transport=httpx.MockTransport(handle)) as client:
        client.models()
    assert asked[0].headers["authorization"] == "Bearer k"


def test_a_stream_is_sent_again_until_it_begins() -> None:
    events = 'data: {"choices": [{"text": "x"}]}\n\ndata: {"choices": []}\n\ndata: [DONE]\n\n'
    handle, asked = answering(busy(), httpx.Response(200, text=events))
    with Client(BASE_URL, retries=AT_ONCE, transport=httpx.MockTransport(handle)) as client:
        assert list(client.stream_complete("a", model="m")) == ["x"]
    assert len(asked) == 2


def test_a_key_is_not_shown() -> None:
    with Client(BASE_URL, api_key="secret") as client:
        assert "secret" not in repr(client)


async def test_raw_scores_are_read_as_they_come() -> None:
    async with over(served()) as client:
        (found,) = await client.classify(["a"], raw_scores=True)
    assert found.scores == (1.0, 6.0, 1.0)


def test_calls_of_functions_are_read_beside_the_text() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    answer = {
        "choices": [{"message": message, "finish_reason": "tool_calls"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2},
    }
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json=answer))
    with Client(BASE_URL, transport=transport) as client:
        found = client.chat([{"role": "user", "content": "hi"}], model="m", tools=[])
    assert (found.text, found.calls) == ("", (Called("1", "f", "{}"),))


async def test_fewer_than_one_request_at_a_time_is_refused() -> None:
    async with over(served()) as client:
        with pytest.raises(ValueError, match="concurrent is 0"):
            await client.embed(["a"], model="embedder", concurrent=0)


async def test_labels_of_any_number_come_in_order_and_are_told_batch_by_batch() -> None:
    texts = [chr(ord("a") + number % 20) for number in range(10)]
    async with over(served()) as client:
        alone = [(await client.classify([text]))[0] for text in texts]
        done: list[int] = []
        found = await client.classify(texts, batch=3, concurrent=2, progress=done.append)
    assert found == alone
    assert sorted(done) == [1, 3, 3, 3]


def test_the_client_that_waits_tells_its_batches_too() -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        inputs = json.loads(request.content)["input"]
        rows = [{"label": text, "probs": [1.0]} for text in inputs]
        return httpx.Response(200, json={"data": rows})

    done: list[int] = []
    with Client(BASE_URL, transport=httpx.MockTransport(handle)) as client:
        found = client.classify(["a", "b", "c"], batch=2, progress=done.append)
    assert [row.label for row in found] == ["a", "b", "c"]
    assert done == [2, 1]


@pytest.mark.parametrize("ending", ["", ": a comment\n\n", 'data: {"choices": []}\n\n'])
def test_a_stream_that_is_cut_is_no_whole_text(ending: str) -> None:
    events = 'data: {"choices": [{"text": "x"}]}\n\n' + ending
    handle, _ = answering(httpx.Response(200, text=events))
    with Client(BASE_URL, transport=httpx.MockTransport(handle)) as client:
        stream = client.stream_complete("a", model="m")
        assert next(stream) == "x"
        with pytest.raises(StreamCut):
            next(stream)


async def test_the_same_on_an_event_loop() -> None:
    handle, _ = answering(httpx.Response(200, text='data: {"choices": [{"text": "x"}]}\n\n'))
    async with AsyncClient(BASE_URL, transport=httpx.MockTransport(handle)) as client:
        stream = client.stream_complete("a", model="m")
        assert await anext(stream) == "x"
        with pytest.raises(StreamCut):
            await anext(stream)


async def test_a_bar_shows_how_many_are_done() -> None:
    shown = io.StringIO()
    console = Console(file=shown, width=80, force_terminal=True)
    async with over(served()) as client:
        with bar(5, console=console) as progress:
            await client.embed(["a"] * 5, model="embedder", batch=2, progress=progress)
    assert "5/5" in shown.getvalue()
