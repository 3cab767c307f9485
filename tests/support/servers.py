"""Real servers for tests, on free ports of the loopback interface."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from starlette.types import ASGIApp

from service.connections import BoundedHttp

START_TIMEOUT_S = 10.0


@contextmanager
def running(
    app: ASGIApp,
    *,
    http: type[asyncio.Protocol] = BoundedHttp,
    start_timeout_s: float = START_TIMEOUT_S,
) -> Generator[str, None, None]:
    """Serve `app` by uvicorn in a thread; yields its base URL. Leaving waits for the thread."""
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, log_level="warning", timeout_graceful_shutdown=2, http=http
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="test-server")
    thread.start()
    try:
        yield _base_url(server, thread, start_timeout_s)
    finally:
        server.should_exit = True
        thread.join()


def _base_url(server: uvicorn.Server, thread: threading.Thread, timeout_s: float) -> str:
    deadline = time.monotonic() + timeout_s
    while not server.started:
        if not thread.is_alive() or time.monotonic() > deadline:
            raise RuntimeError(f"the server did not start within {timeout_s} s")
        time.sleep(0.01)
    return f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"


Answering = Callable[[asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def answering(answer: Answering) -> AsyncIterator[int]:
    """A server that reads a head, writes what `answer` does, and hangs up; yields its port."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            await answer(writer)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()

    listening = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with listening:
        yield listening.sockets[0].getsockname()[1]
