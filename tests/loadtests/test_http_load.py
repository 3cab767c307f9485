"""The load generator against a real, tiny server."""

import asyncio

import pytest

from loadtests.http_load import LoadResult, ResponseNotUnderstood, drive, encode_post


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
    requests = [encode_post("/v1/embeddings", "127.0.0.1", {"input": text}) for text in "ab"]
    async with server:
        result = await drive("127.0.0.1", port, requests, connections=2, seconds=0.2)
    assert len(result.latencies_s) == len(seen) > 2
    assert set(seen) == set(requests)
    assert result.refused == {}
    assert 0 < result.percentile_ms(50) <= result.percentile_ms(99)


async def test_a_refusal_is_no_success() -> None:
    server, port, _ = await start_server(b"HTTP/1.1 429 No\r\ncontent-length: 2\r\nretry-after: 1")
    async with server:
        result = await drive("127.0.0.1", port, [b"{}"], connections=1, seconds=0.1)
    assert result.latencies_s == ()
    assert result.refused[429] > 0


async def test_an_answer_without_a_length_is_not_guessed_at() -> None:
    server, port, _ = await start_server(b"HTTP/1.1 200 OK")
    async with server:
        with pytest.raises(ExceptionGroup) as raised:
            await drive("127.0.0.1", port, [b"{}"], connections=1, seconds=0.1)
    assert raised.group_contains(ResponseNotUnderstood)


def test_too_few_answers_have_no_percentile() -> None:
    with pytest.raises(ValueError, match="1 latencies"):
        LoadResult(1.0, (0.1,), {}).percentile_ms(50)
