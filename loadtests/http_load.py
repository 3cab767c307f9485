"""A closed-loop HTTP/1.1 generator that costs little next to what it measures.

Raw streams, bodies encoded beforehand, connections kept alive: a client library's own work would
otherwise be part of every figure on a machine that runs client and service.
"""

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import cycle

import orjson


class ResponseNotUnderstood(Exception):
    """An answer outside the small part of HTTP/1.1 that is read here."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A response; the names of its headers are in small letters."""

    status: int
    headers: Mapping[bytes, bytes]
    body: bytes


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What a run saw: a latency for each answer of status 200, and how often each other status."""

    elapsed_s: float
    latencies_s: tuple[float, ...]
    refused: dict[int, int]

    @property
    def requests_per_s(self) -> float:
        return len(self.latencies_s) / self.elapsed_s

    def percentile_ms(self, percent: int) -> float:
        """The `percent`-th percentile of the latencies, interpolated; 1 to 99."""
        if len(self.latencies_s) < 2:
            raise ValueError(f"{len(self.latencies_s)} latencies give no percentile")
        return statistics.quantiles(self.latencies_s, n=100, method="inclusive")[percent - 1] * 1000


def encode_post(path: str, host: str, body: object) -> bytes:
    """A whole POST request with a JSON body."""
    payload = orjson.dumps(body)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(payload)}\r\n\r\n"
    )
    return head.encode() + payload


async def drive(
    host: str, port: int, requests: Sequence[bytes], *, connections: int, seconds: float
) -> LoadResult:
    """Send `requests` round and round over `connections` connections for about `seconds`.

    Each connection sends its next request when the last was answered; what is under way at the
    end is waited for and counted.
    """
    upcoming = cycle(requests)
    latencies: list[float] = []
    refused: Counter[int] = Counter()
    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(
                _one_connection(host, port, upcoming, started + seconds, latencies, refused)
            )
    return LoadResult(time.perf_counter() - started, tuple(latencies), dict(refused))


async def _one_connection(
    host: str,
    port: int,
    upcoming: Iterator[bytes],
    deadline: float,
    latencies: list[float],
    refused: Counter[int],
) -> None:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        while (sent := time.perf_counter()) < deadline:
            body = next(upcoming)
            writer.write(body)
            try:
                status = await read_response(reader)
            except (asyncio.IncompleteReadError, ConnectionResetError) as error:
                # A front that reloads closes connections that wait for a request (RFC 9112, 9.3.1):
                # as any client, connect and ask again. Its time counts.
                if getattr(error, "partial", b""):
                    raise
                writer.close()
                reader, writer = await asyncio.open_connection(host, port)
                writer.write(body)
                status = await read_response(reader)
            if status == 200:
                latencies.append(time.perf_counter() - sent)
            else:
                refused[status] += 1
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def read_response(reader: asyncio.StreamReader) -> int:
    """Read one response with a Content-Length to its end, and give its status."""
    return (await read_answer(reader)).status


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    """Read one response with a Content-Length to its end."""
    head = await reader.readuntil(b"\r\n\r\n")
    status_line, *lines = head.split(b"\r\n")
    parts = (line.partition(b":") for line in lines if line)
    headers = {name.lower(): value.strip() for name, _, value in parts}
    if b"content-length" not in headers:
        raise ResponseNotUnderstood(f"no Content-Length after {status_line!r}")
    body = await reader.readexactly(int(headers[b"content-length"]))
    return Answer(int(status_line.split(b" ", 2)[1]), headers, body)
