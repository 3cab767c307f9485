"""HTTP/1.1 by hand, at a cost that is small next to what it measures, and a closed loop over it.

Raw streams, bodies encoded beforehand: a client library's own work would otherwise be part of
every figure on a machine that runs client and service.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import cycle

import orjson

from loadtests.rows import BROKEN, OK, Outcome, Row, of_outcome, percentile_ms, row_of_stream
from loadtests.sse import StreamBroken, StreamReader


class ResponseNotUnderstood(Exception):
    """An answer outside the small part of HTTP/1.1 that is read here."""


@dataclass(frozen=True, slots=True)
class Request:
    """A whole request as it is sent, and whether its answer is a stream of events."""

    task: str
    wire: bytes
    streams: bool = False


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of a response; the names of its headers are in small letters."""

    status: int
    headers: Mapping[bytes, bytes]

    @property
    def retry_after_s(self) -> int | None:
        after = self.headers.get(b"retry-after")
        return None if after is None else int(after)


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What a closed loop saw: a row a request."""

    elapsed_s: float
    rows: Sequence[Row] = field(repr=False)

    @property
    def answered(self) -> list[Row]:
        return of_outcome(self.rows, Outcome.ANSWERED)

    @property
    def latencies_s(self) -> tuple[float, ...]:
        return tuple(row.latency_s for row in self.answered)

    @property
    def refused(self) -> dict[int, int]:
        """How often each status came that is no answer; 0 is a broken one."""
        return dict(
            Counter(
                BROKEN if row.error else row.status
                for row in self.rows
                if row.outcome is not Outcome.ANSWERED
            )
        )

    @property
    def requests_per_s(self) -> float:
        return len(self.answered) / self.elapsed_s

    def percentile_ms(self, percent: int) -> float:
        """The `percent`-th percentile of the latencies, interpolated; 1 to 99."""
        found = percentile_ms(self.latencies_s, percent)
        if found is None:
            raise ValueError(f"{len(self.latencies_s)} latencies give no percentile")
        return found


def encode_post(path: str, host: str, body: object) -> bytes:
    """A whole POST request with a JSON body."""
    payload = orjson.dumps(body)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(payload)}\r\n\r\n"
    )
    return head.encode() + payload


async def drive(
    host: str, port: int, requests: Sequence[Request], *, connections: int, seconds: float
) -> LoadResult:
    """Send `requests` round and round over `connections` connections for about `seconds`.

    Each connection sends its next request when the last was answered; what is under way at the
    end is waited for and counted.
    """
    upcoming = cycle(requests)
    rows: list[Row] = []
    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(_one_connection(host, port, upcoming, started, seconds, rows))
    return LoadResult(time.perf_counter() - started, rows)


async def _one_connection(
    host: str,
    port: int,
    upcoming: Iterator[Request],
    started: float,
    seconds: float,
    rows: list[Row],
) -> None:
    def clock() -> float:
        return time.perf_counter() - started

    reader, writer = await asyncio.open_connection(host, port)
    try:
        while (due := clock()) < seconds:
            request = next(upcoming)
            try:
                row = await ask(reader, writer, request, clock, due)
            except (asyncio.IncompleteReadError, ConnectionResetError) as error:
                # A front that reloads closes connections that wait for a request (RFC 9112, 9.3.1):
                # as any client, connect and ask again. Its time counts.
                if getattr(error, "partial", b""):
                    raise
                writer.close()
                reader, writer = await asyncio.open_connection(host, port)
                row = await ask(reader, writer, request, clock, due)
            rows.append(row)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def ask(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    request: Request,
    clock: Callable[[], float],
    due_s: float,
    lag_s: float = 0.0,
) -> Row:
    """Send one request, which was due at `due_s`, and read its answer; times are on `clock`.

    A stream that goes wrong is a row with its error; what HTTP itself doesn't bear is raised.
    """
    writer.write(request.wire)
    head = await read_head(reader)
    if request.streams and head.status == OK:
        try:
            return await _ask_stream(reader, head, request.task, clock, due_s, lag_s)
        except StreamBroken as error:
            return Row(request.task, due_s, lag_s, clock() - due_s, OK, error=str(error))
    async for _ in read_body(reader, head):
        pass
    return Row(
        request.task, due_s, lag_s, clock() - due_s, head.status, retry_after_s=head.retry_after_s
    )


async def _ask_stream(
    reader: asyncio.StreamReader,
    head: Head,
    task: str,
    clock: Callable[[], float],
    due_s: float,
    lag_s: float,
) -> Row:
    stream = StreamReader(due_s, clock)
    found: Row | None = None
    async for piece in read_body(reader, head):
        streamed = stream.feed(piece)
        if streamed is not None:
            found = row_of_stream(task, due_s, lag_s, streamed)
    if found is None:
        raise stream.cut()
    return found


async def read_status(reader: asyncio.StreamReader) -> int:
    """Read one response to its end, and give its status."""
    head = await read_head(reader)
    async for _ in read_body(reader, head):
        pass
    return head.status


async def read_head(reader: asyncio.StreamReader) -> Head:
    """The status line and the headers of a response."""
    status_line, *lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
    parts = (line.partition(b":") for line in lines if line)
    headers = {name.lower(): value.strip() for name, _, value in parts}
    return Head(int(status_line.split(b" ", 2)[1]), headers)


async def read_body(reader: asyncio.StreamReader, head: Head) -> AsyncIterator[bytes]:
    """The body as it comes: in chunks (RFC 9112, 7.1), or in one piece of `Content-Length`."""
    if head.headers.get(b"transfer-encoding", b"").lower() == b"chunked":
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            yield (await reader.readexactly(size + 2))[:-2]
        while await reader.readuntil(b"\r\n") != b"\r\n":
            pass  # trailers
    elif b"content-length" in head.headers:
        yield await reader.readexactly(int(head.headers[b"content-length"]))
    else:
        raise ResponseNotUnderstood(f"no Content-Length after status {head.status}")
