import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Callable

import httpx
import openai
import pytest
from openai import AsyncOpenAI

from service.errors import EngineFailure
from service.metrics import Metrics
from tests.support.fakes import FakeGenerationModel
from tests.support.servers import running
from tests.support.service import client_of, openai_of, served

CHAT: dict[str, object] = {
    "model": "generator",
    "messages": [{"role": "user", "content": "Hi"}],
    "stream": True,
}


async def events_of(answer: httpx.Response) -> AsyncIterator[str]:
    assert answer.headers["content-type"].partition(";")[0] == "text/event-stream"
    async for line in answer.aiter_lines():
        if line:
            assert line.startswith("data: ")
            yield line.removeprefix("data: ")


async def collected(app_body: dict[str, object], model: FakeGenerationModel) -> list[str]:
    path = "/v1/chat/completions" if "messages" in app_body else "/v1/completions"
    async with client_of(served(generator=model)) as client:
        answer = await client.post(path, json=app_body)
        assert answer.status_code == 200, answer.text
        return [event async for event in events_of(answer)]


async def until(holds: Callable[[], bool], *, timeout_s: float = 5.0) -> None:
    for _ in range(round(timeout_s / 0.01)):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"it did not happen within {timeout_s} s")


async def test_a_chat_stream_begins_with_the_role_and_ends_with_the_reason() -> None:
    *events, done = await collected(CHAT, FakeGenerationModel())
    assert done == "[DONE]"
    chunks = [json.loads(event) for event in events]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas == [
        {"role": "assistant", "content": ""},
        {"content": "Hello"},
        {"content": ", "},
        {"content": "world"},
        {},
    ]
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert reasons == [None, None, None, None, "stop"]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert all("usage" not in chunk for chunk in chunks)


async def test_usage_is_null_until_a_chunk_of_its_own_at_the_end() -> None:
    body = CHAT | {"stream_options": {"include_usage": True}}
    *events, last, done = await collected(body, FakeGenerationModel())
    assert done == "[DONE]"
    assert all(json.loads(event)["usage"] is None for event in events)
    usage = json.loads(last)
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 12
    assert usage["usage"]["total_tokens"] == usage["usage"]["prompt_tokens"] + 12


async def test_a_chunk_without_text_is_no_event_unless_it_has_log_probabilities() -> None:
    model = FakeGenerationModel(script=["", "", "a"])
    body = {"model": "generator", "prompt": "x", "stream": True}
    *events, _ = await collected(body, model)
    assert [json.loads(event)["choices"][0]["text"] for event in events] == ["a"]


async def test_several_choices_are_streamed_together_and_each_is_whole() -> None:
    model = FakeGenerationModel(pause_s=0.001)
    body = {"model": "generator", "prompt": ["a", "b"], "n": 2, "stream": True, "echo": True}
    *events, _ = await collected(body, model)
    texts = dict.fromkeys(range(4), "")
    for event in events:
        (choice,) = json.loads(event)["choices"]
        texts[choice["index"]] += choice["text"]
    assert [text[0] for text in texts.values()] == ["a", "a", "b", "b"]
    assert all(text[1:] == "Hello, world" for text in texts.values())
    assert all(generation.is_closed for generation in model.started)


async def test_the_openai_client_streams_with_usage() -> None:
    async with openai_of(served()) as client:
        stream = await client.chat.completions.create(
            model="generator",
            messages=[{"role": "user", "content": "Hi"}],
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "Hello, world"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 12


async def test_a_failure_before_the_first_event_has_a_status_of_its_own() -> None:
    model = FakeGenerationModel(script=[], failure=EngineFailure("broken"))
    async with client_of(served(generator=model)) as client:
        answer = await client.post("/v1/chat/completions", json=CHAT)
    assert answer.status_code == 500
    assert answer.json()["error"]["message"] == "broken"
    assert model.started[0].is_closed


@pytest.mark.parametrize(
    ("failure", "said"), [(EngineFailure("broken"), "broken"), (ValueError("secret"), "internal")]
)
async def test_a_failure_after_the_start_is_an_event_and_then_the_end(
    failure: Exception, said: str
) -> None:
    model = FakeGenerationModel(script=["Hello"], failure=failure)
    metrics = Metrics()
    async with client_of(served(generator=model, metrics=metrics)) as client:
        # The fake's only chunk has a reason; the failure comes after it.
        answer = await client.post("/v1/chat/completions", json=CHAT)
        *_, error, done = [event async for event in events_of(answer)]
    assert done == "[DONE]"
    assert said in json.loads(error)["error"]["message"]
    assert "secret" not in error
    assert model.started[0].is_closed
    assert b'anatomy_refusals_total{reason="' in metrics.exposition()


async def test_the_openai_client_raises_an_error_that_comes_in_a_stream() -> None:
    model = FakeGenerationModel(script=["Hello"], failure=EngineFailure("broken"))
    async with openai_of(served(generator=model)) as client:
        stream = await client.completions.create(model="generator", prompt="a", stream=True)
        with pytest.raises(openai.APIError, match="broken"):
            async for _ in stream:
                pass


async def test_events_arrive_as_they_are_made_and_not_at_the_end() -> None:
    model = FakeGenerationModel(script=["a", "b", "c", "d"], pause_s=0.1)
    with running(served(generator=model)) as base_url:
        async with (
            httpx.AsyncClient(base_url=base_url) as client,
            client.stream("POST", "/v1/chat/completions", json=CHAT) as answer,
        ):
            arrivals = [time.perf_counter() async for _ in events_of(answer)]
    # Four chunks, 0.1 s apart; half of it is left for a busy machine.
    assert arrivals[-1] - arrivals[0] > 0.15


async def test_the_openai_client_streams_from_a_real_server() -> None:
    with running(served()) as base_url:
        async with AsyncOpenAI(api_key="unused", base_url=f"{base_url}/v1") as client:
            stream = await client.completions.create(model="generator", prompt="a", stream=True)
            assert "".join([chunk.choices[0].text async for chunk in stream]) == "Hello, world"


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_cancels_its_generations(stream: bool, n: int) -> None:
    model = FakeGenerationModel(script=["word "] * 1000, pause_s=0.01)
    metrics = Metrics()
    body = CHAT | {"stream": stream, "n": n}
    with running(served(generator=model, metrics=metrics)) as base_url:
        async with httpx.AsyncClient(base_url=base_url) as client, asyncio.TaskGroup() as group:
            asking = group.create_task(client.post("/v1/chat/completions", json=body))
            await until(lambda: len(model.started) == n and model.started[0].given > 3)
            asking.cancel()
        await until(lambda: all(generation.is_closed for generation in model.started))
        given = [generation.given for generation in model.started]
        await asyncio.sleep(0.1)
        assert [generation.given for generation in model.started] == given
        await until(lambda: b'status="499"' in metrics.exposition())


async def test_a_cancelled_handler_cancels_its_generations() -> None:
    model = FakeGenerationModel(script=["word "] * 1000, pause_s=0.01)
    async with client_of(served(generator=model)) as client:
        asking = asyncio.create_task(client.post("/v1/chat/completions", json=CHAT | {"n": 2}))
        await until(lambda: len(model.started) == 2 and model.started[0].given > 3)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    assert all(generation.is_closed for generation in model.started)


async def test_a_reader_that_takes_nothing_is_waited_for_and_then_cut_off() -> None:
    model = FakeGenerationModel(script=["x" * 100_000] * 1000, max_tokens=10**9)
    content = json.dumps(CHAT).encode()
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n" % len(content)
    )
    with running(served(generator=model, send_timeout_s=0.3)) as base_url:
        url = httpx.URL(base_url)
        with socket.create_connection((url.host, url.port or 80)) as connection:
            connection.sendall(head + content)
            await until(lambda: bool(model.started) and model.started[0].is_closed)
    # 100 MB were there to send: only what the sockets' buffers hold was made.
    assert 0 < model.started[0].given < 200
