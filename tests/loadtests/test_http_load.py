"""The closed loop and its reading of HTTP, against real, tiny servers."""

import asyncio

import pytest

from loadtests.http_load import LoadResult, Request, ResponseNotUnderstood, drive, encode_post
from loadtests.open_loop import ask_once
from loadtests.rows import Outcome
from tests.support.servers import answering

ANY = Request("any", b"{}")
STREAM = Request("chat", b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", streams=True)
HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
WORD = b'data: {"choices":[{"text":"word ","finish_reason":null}]}\n\n'
DONE = b"data: [DONE]\n\n"


async def start_server(head: bytes) -> tuple[asyncio.Server, int, list[bytes]]:
    seen: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while request := await reader.readuntil(b"}"):
                seen.append(request)
                writer.write(head + b"\r\n\r\nok")
        except asyncio.IncompleteReadError:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()[1], seen


async def test_answers_are_counted_and_timed() -> None:
    server, port, seen = await start_server(b"HTTP/1.1 200 OK\r\nContent-Length: 2")
    wires = [encode_post("/v1/embeddings", "127.0.0.1", {"input": text}) for text in "ab"]
    requests = [Request("embeddings", wire) for wire in wires]
    async with server:
        result = await drive("127.0.0.1", port, requests, connections=2, seconds=0.2)
    assert len(result.latencies_s) == len(seen) > 2
    assert set(seen) == set(wires)
    assert result.refused == {}
    assert 0 < result.percentile_ms(50) <= result.percentile_ms(99)


async def test_a_refusal_is_no_success() -> None:
    server, port, _ = await start_server(b"HTTP/1.1 429 No\r\ncontent-length: 2\r\nretry-after: 1")
    async with server:
        result = await drive("127.0.0.1", port, [ANY], connections=1, seconds=0.1)
    assert result.latencies_s == ()
    assert result.refused[429] > 0
    assert {row.retry_after_s for row in result.rows} == {1}


async def test_an_answer_without_a_length_is_not_guessed_at() -> None:
    server, port, _ = await start_server(b"HTTP/1.1 200 OK")
    async with server:
        with pytest.raises(ExceptionGroup) as raised:
            await drive("127.0.0.1", port, [ANY], connections=1, seconds=0.1)
    assert raised.group_contains(ResponseNotUnderstood)


def test_too_few_answers_have_no_percentile() -> None:
    with pytest.raises(ValueError, match="0 latencies"):
        LoadResult(1.0, []).percentile_ms(50)


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


async def test_the_tokens_of_a_stream_are_timed_as_they_come() -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD)
        for data in (WORD, WORD[:10], WORD[10:], DONE):
            writer.write(chunk(data))
            await writer.drain()
            await asyncio.sleep(0.05)
        writer.write(b"0\r\n\r\n")

    async with answering(answer) as port:
        row = await ask_once("127.0.0.1", port, STREAM)
    assert row.outcome is Outcome.ANSWERED
    assert row.first_token_s is not None
    # Two words 0.1 s apart, and 0.05 s to the end: at least, for a sleep may take longer.
    assert [gap >= 0.09 for gap in row.gaps_s] == [True]
    assert row.time_per_output_token_s is not None
    assert row.time_per_output_token_s >= row.gaps_s[0] + 0.04
    assert row.latency_s >= row.first_token_s + row.time_per_output_token_s - 1e-6


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (WORD, "cut after 1 chunks"),
        (b'data: {"error":{"message":"no slot"}}\n\n', "no slot"),
        (DONE, "without any text"),
    ],
)
async def test_a_stream_that_goes_wrong_is_a_row_that_failed(body: bytes, error: str) -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + chunk(body) + b"0\r\n\r\n")

    async with answering(answer) as port:
        row = await ask_once("127.0.0.1", port, STREAM)
    assert row.outcome is Outcome.FAILED
    assert error in row.error
