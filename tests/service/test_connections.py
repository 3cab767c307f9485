"""Real sockets against uvicorn with our bounds: slow and large heads, bodies that nobody reads."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from service.connections import BoundedHttp
from tests.support.fakes import FakeGenerationModel
from tests.support.servers import running
from tests.support.service import served

HOST = b"host: x\r\n"
GET = b"GET /health HTTP/1.1\r\n" + HOST


class Impatient(BoundedHttp):
    """The same bounds, so soon that a test can wait for them."""

    head_timeout_s = 0.3
    linger_s = 0.3


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with running(served(max_body_bytes=10_000), http=Impatient) as base_url:
        yield base_url


@pytest.fixture
def url(server: str) -> Iterator[str]:
    """A server that keeps nothing of a test's connections."""
    assert httpx.get(f"{server}/health").status_code == 200
    before = open_descriptors()
    yield server
    deadline = time.monotonic() + 10
    while open_descriptors() > before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert open_descriptors() <= before
    assert httpx.get(f"{server}/health").status_code == 200


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@contextmanager
def connected(url: str) -> Iterator[socket.socket]:
    at = httpx.URL(url)
    with socket.create_connection((at.host, at.port or 80), timeout=10) as connection:
        yield connection


def everything(connection: socket.socket) -> bytes:
    """What comes until the server ends the connection."""
    found = b""
    with suppress(ConnectionResetError):
        while part := connection.recv(65536):
            found += part
    return found


def is_cut_off(connection: socket.socket, sent: bytes, *, pause_s: float) -> bool:
    """Whether the server ends a connection that sends on and on."""
    try:
        for _ in range(round(10 / pause_s)):
            connection.sendall(sent)
            time.sleep(pause_s)
    except (BrokenPipeError, ConnectionResetError):
        return True
    return False


@pytest.mark.parametrize("sent", [b"", b"\r\n", b"GET /health HT", GET + b"x-slow: "])
def test_a_head_that_doesnt_come_ends_its_connection(url: str, sent: bytes) -> None:
    with connected(url) as connection:
        connection.sendall(sent)
        assert everything(connection) == b""


def test_a_head_that_comes_letter_by_letter_has_no_more_time(url: str) -> None:
    with connected(url) as connection:
        connection.sendall(GET + b"x-slow: ")
        assert is_cut_off(connection, b"a", pause_s=0.05)


def test_a_second_head_has_its_own_time(url: str) -> None:
    with connected(url) as connection:
        for _ in range(3):
            time.sleep(0.2)
            connection.sendall(GET + b"\r\n")
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        connection.sendall(GET)
        assert everything(connection) == b""


@pytest.mark.parametrize(
    "flood",
    [b"x-a: a\r\n" * 101, b"x-a: " + b"a" * 65536 + b"\r\n", b"x-a: " + b"a" * 1000 + b"\r\n"],
    ids=["too many", "one too large", "endless"],
)
def test_a_head_that_is_too_large_is_a_431(url: str, flood: bytes) -> None:
    with connected(url) as connection:
        connection.sendall(GET)
        with suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(1000):
                connection.sendall(flood)
        # What was sent on after the answer resets the connection: the answer may be lost to that.
        assert everything(connection)[:12] in (b"HTTP/1.1 431", b"")


def test_a_431_arrives_where_the_client_stops(url: str) -> None:
    with connected(url) as connection:
        connection.sendall(GET + b"x-a: a\r\n" * 101)
        assert everything(connection).startswith(b"HTTP/1.1 431 Request Header Fields Too Large")


def test_one_header_that_never_ends_is_not_kept(url: str) -> None:
    with connected(url) as connection:
        connection.sendall(GET + b"x-a: ")
        for _ in range(3):
            connection.sendall(b"a" * 30_000)
            time.sleep(0.02)
        assert everything(connection).startswith(b"HTTP/1.1 431")


def test_a_large_head_within_the_bounds_is_heard(url: str) -> None:
    with connected(url) as connection:
        connection.sendall(GET + b"x-a: " + b"a" * 60_000 + b"\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")


def test_a_body_that_goes_on_after_its_refusal_ends_the_connection(url: str) -> None:
    head = b"POST /v1/embeddings HTTP/1.1\r\ncontent-type: application/json\r\n" + HOST
    with connected(url) as connection:
        connection.sendall(head + b"content-length: 1000000000\r\n\r\n" + b" " * 100)
        assert connection.recv(65536).startswith(b"HTTP/1.1 413")
        assert is_cut_off(connection, b" " * 1000, pause_s=0.01)


def test_a_refused_body_is_dropped_and_has_one_answer(url: str) -> None:
    head = b"POST /v1/embeddings HTTP/1.1\r\ncontent-type: application/json\r\n" + HOST
    with connected(url) as connection:
        connection.sendall(head + b"content-length: 300000\r\n\r\n")
        for _ in range(3):
            connection.sendall(b" " * 100_000)
            time.sleep(0.01)
        # Within the time that it has, the client may send its next request.
        connection.sendall(GET + b"connection: close\r\n\r\n")
        answers = everything(connection)
    assert answers.count(b"HTTP/1.1 ") == 2
    assert answers.startswith(b"HTTP/1.1 413")
    assert b"HTTP/1.1 200" in answers


def test_the_same_for_a_chunked_body(url: str) -> None:
    head = b"POST /v1/embeddings HTTP/1.1\r\ncontent-type: application/json\r\n" + HOST
    chunk = b"400\r\n" + b" " * 1024 + b"\r\n"
    with connected(url) as connection:
        connection.sendall(head + b"transfer-encoding: chunked\r\n\r\n" + chunk * 20)
        assert connection.recv(65536).startswith(b"HTTP/1.1 413")
        assert everything(connection) == b""


def test_an_answer_that_takes_longer_than_a_head_is_not_cut() -> None:
    model = FakeGenerationModel(script=["a"] * 10, pause_s=0.1)
    body = {"model": "generator", "prompt": "a", "stream": True}
    with (
        running(served(generator=model), http=Impatient) as base_url,
        httpx.stream("POST", f"{base_url}/v1/completions", json=body) as answer,
    ):
        assert [line for line in answer.iter_lines() if line][-1] == "data: [DONE]"


def test_a_late_head_behind_a_running_answer_waits_for_its_end() -> None:
    model = FakeGenerationModel(script=["a"] * 10, pause_s=0.1)
    content = b'{"model": "generator", "prompt": "a", "stream": true}'
    head = b"POST /v1/completions HTTP/1.1\r\ncontent-type: application/json\r\n" + HOST
    with (
        running(served(generator=model), http=Impatient) as base_url,
        connected(base_url) as connection,
    ):
        connection.sendall(head + b"content-length: %d\r\n\r\n" % len(content) + content)
        time.sleep(0.1)
        connection.sendall(b"GET /hea")
        assert everything(connection).endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")


def test_what_is_no_http_is_a_400(url: str) -> None:
    with connected(url) as connection:
        connection.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        assert everything(connection).startswith(b"HTTP/1.1 400")
