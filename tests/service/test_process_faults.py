"""`anatomy serve --plain` as a process whose surroundings fail: its log, its disk, its files."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from export.artifact import GRAPH
from loadtests.service_process import HOST, free_port
from service.api.keys import digest_of, new_key
from tests.service.test_loading import write_artifact

BODY = {"model": "tiny", "prompt": "hello", "max_tokens": 4, "temperature": 0}
START_S = 60.0


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder-decoder over graphs that are written by hand."""
    return write_artifact(tmp_path_factory.mktemp("artifacts") / "tiny")


@contextmanager
def process(
    folder: Path, *, before: str = "", python: Sequence[str] = (), **environment: str
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The service in a shell that has done `before` with its descriptors; yields its URL."""
    port = free_port()
    program = "from service.cli import main; main()"
    command = [sys.executable, *python, "-c", program, "serve", str(folder), "--plain"]
    command += ["--port", str(port)]
    started = subprocess.Popen(
        ["/bin/sh", "-c", f'{before} exec "$@"', "sh", *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE if not before else subprocess.DEVNULL,
        env=os.environ | {"ANATOMY_THREADS": "1", "ANATOMY_SLOTS": "4"} | environment,
    )
    url = f"http://{HOST}:{port}"
    try:
        deadline = time.monotonic() + START_S
        while started.poll() is None and time.monotonic() < deadline:
            with suppress(httpx.TransportError):
                if httpx.get(f"{url}/ready").status_code == 200:
                    break
            time.sleep(0.05)
        yield url, started
    finally:
        started.send_signal(signal.SIGINT)
        with started:
            pass


@pytest.mark.parametrize(
    "before", ["exec 2>/dev/full;", "exec 2>&-;", "exec >&- 2>&-;", "exec >/dev/full 2>&1;"]
)
def test_a_log_that_cant_be_written_stops_nothing(tiny: Path, before: str) -> None:
    with process(tiny, before=before) as (url, started):
        assert started.poll() is None
        for _ in range(3):
            answer = httpx.post(f"{url}/v1/completions", json=BODY)
            assert answer.status_code == 200, answer.text
            # What uvicorn warns of goes to the same log.
            with suppress(httpx.TransportError):
                httpx.request("\x01", url)
        assert httpx.post(f"{url}/v1/completions", json={}).status_code == 400
        assert started.poll() is None


def test_each_request_has_a_line_in_the_log(tiny: Path) -> None:
    with process(tiny) as (url, started):
        assert httpx.post(f"{url}/v1/completions", json=BODY).status_code == 200
        started.send_signal(signal.SIGINT)
        _, log = started.communicate(timeout=30)
    assert "route=/v1/completions status=200" in log.decode()


def test_more_connections_than_descriptors_stop_nothing(tiny: Path) -> None:
    with process(tiny, before="ulimit -n 64;") as (url, started), ExitStack() as held:
        port = int(url.rpartition(":")[2])
        for _ in range(200):
            held.enter_context(socket.create_connection((HOST, port), timeout=10))
        time.sleep(0.2)
        assert started.poll() is None
        held.close()
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with suppress(httpx.TransportError):
                if httpx.post(f"{url}/v1/completions", json=BODY).status_code == 200:
                    break
            time.sleep(0.1)
        assert httpx.post(f"{url}/v1/completions", json=BODY).status_code == 200


def test_without_asserts_nothing_is_weaker(tiny: Path, tmp_path: Path) -> None:
    key, keys = new_key(), tmp_path / "keys"
    keys.write_text(f"alice {digest_of(key)}\n")
    settings = {"ANATOMY_API_KEYS_FILE": str(keys), "ANATOMY_MAX_BODY_BYTES": "2000"}
    with (
        process(tiny, python=["-O"], **settings) as (url, _),
        httpx.Client(base_url=url, headers={"authorization": f"Bearer {key}"}) as client,
    ):
        assert httpx.get(f"{url}/metrics").status_code == 401
        assert httpx.post(f"{url}/v1/completions", json=BODY).status_code == 401
        assert client.post("/v1/completions", json=BODY).status_code == 200
        for fault, status in [
            ({"prompt": "a" * 25}, 400),
            ({"prompt": [10**6]}, 400),
            ({"max_tokens": 10**6}, 400),
            ({"temperature": -1}, 400),
            ({"best_of": 7, "use_beam_search": True}, 400),
            ({"model": "other"}, 404),
            ({"prompt": "a" * 3000}, 413),
        ]:
            assert client.post("/v1/completions", json=BODY | fault).status_code == status, fault


def test_one_wrong_bit_of_an_artifact_is_refused_with_the_file_s_name(tmp_path: Path) -> None:
    folder = write_artifact(tmp_path / "tiny")
    content = bytearray((folder / GRAPH).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / GRAPH).write_bytes(content)
    with process(folder) as (url, started):
        assert started.stderr is not None
        said = started.stderr.read().decode()
        assert started.wait(30) == 1
        assert GRAPH in said
        assert "Traceback" not in said
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{url}/health")


@pytest.mark.parametrize("name", [GRAPH, "manifest.json", "tokenizer.json"])
def test_a_truncated_file_of_an_artifact_is_refused(tmp_path: Path, name: str) -> None:
    folder = write_artifact(tmp_path / "tiny")
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    with process(folder) as (_, started):
        assert started.stderr is not None
        said = started.stderr.read().decode()
        assert started.wait(30) == 1
        assert "error:" in said
        assert "Traceback" not in said
