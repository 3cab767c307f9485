"""Real servers for tests: uvicorn in a thread, on a free port of the loopback interface."""

import asyncio
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from service.connections import BoundedHttp

START_TIMEOUT_S = 10.0


@contextmanager
def running(
    app: ASGIApp, *, http: type[asyncio.Protocol] = BoundedHttp
) -> Generator[str, None, None]:
    """Serve `app`; yields its base URL. Leaving stops the server and waits for its thread."""
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, log_level="warning", timeout_graceful_shutdown=2, http=http
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="test-server")
    thread.start()
    try:
        yield _base_url(server, thread)
    finally:
        server.should_exit = True
        thread.join()


def _base_url(server: uvicorn.Server, thread: threading.Thread) -> str:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not server.started:
        if not thread.is_alive() or time.monotonic() > deadline:
            raise RuntimeError(f"the server did not start within {START_TIMEOUT_S} s")
        time.sleep(0.01)
    return f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
