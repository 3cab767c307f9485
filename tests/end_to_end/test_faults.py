"""Faults of processes and of the network in front of them: docs/faults.md has each by its name."""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from export.artifact import Artifact
from loadtests.service_process import Running, serve
from tests.support.processes import descendants

STREAM = {
    "model": "smollm2",
    "prompt": "Once upon a time",
    "max_tokens": 2000,
    "stream": True,
    "ignore_eos": True,
}
HEAD_TIMEOUT_S = 3
RECOVERY_S = 120.0
"""Far beyond what was seen (docs/faults.md): a test is no benchmark."""


@pytest.fixture(scope="module")
def behind_ray(
    minilm_artifact: Artifact, smollm2_artifact: Artifact, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    """A service behind HAProxy and Ray Serve whose clients have 3 s for their headers, not 30."""
    models = [str(artifact.folder) for artifact in (minilm_artifact, smollm2_artifact)]
    log = tmp_path_factory.mktemp("ray") / "log"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HAPROXY_HEAD_TIMEOUT", f"{HEAD_TIMEOUT_S}s")
        with serve(models, log=log, start_timeout_s=180) as running:
            yield running


def process_of(service: Running, named: str) -> int:
    """The one process of the service whose command has `named`."""
    assert service.process_id is not None
    (found,) = descendants(service.process_id, named)
    return found


HELD = ("vllm:num_requests_running{", "vllm:num_requests_waiting{")
ENDED = ("vllm:request_success_total{",)


def held(service: Running, names: tuple[str, ...] = HELD) -> float:
    """Generations that run or wait."""
    text = httpx.get(f"{service.url}/metrics", timeout=60).text
    return sum(float(s.rpartition(" ")[2]) for s in text.splitlines() if s.startswith(names))


def wait_for(service: Running, *, gone_first: bool) -> float:
    """Seconds until the service answers an embedding, after it has stopped to if `gone_first`."""
    began = time.monotonic()
    body = {"model": "minilm", "input": "a"}
    while time.monotonic() - began < RECOVERY_S:
        try:
            answer = httpx.post(f"{service.url}/v1/embeddings", json=body, timeout=10)
            if answer.status_code == 200 and not gone_first:
                return time.monotonic() - began
            gone_first = gone_first and answer.status_code == 200
        except httpx.TransportError:
            gone_first = False
        time.sleep(0.05)
    raise AssertionError(f"the service did not answer within {RECOVERY_S} s")


@pytest.mark.ray
@pytest.mark.parametrize(
    "headers",
    [
        {"x-request-timeout-seconds": "0"},
        {"x-request-timeout-seconds": "0.000001"},
        {"x-request-timeout-seconds": "\xff"},
        {"x-request-disconnect-disabled": "\xff"},
        {"serve_multiplexed_model_id": "\xff"},
        {"x-session-id": "\xff"},
        {"x-request-id": "\xff"},
    ],
)
def test_headers_that_speak_to_ray_serve_change_nothing(
    behind_ray: Running, headers: dict[str, str]
) -> None:
    sent = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    body = {"model": "minilm", "input": "a"}
    answer = httpx.post(f"{behind_ray.url}/v1/embeddings", json=body, headers=sent)
    assert answer.status_code == 200, answer.text


@pytest.mark.ray
def test_a_client_cant_hide_from_ray_serve_that_it_leaves(behind_ray: Running) -> None:
    headers = {"x-request-disconnect-disabled": "?1"}
    with httpx.stream(
        "POST", f"{behind_ray.url}/v1/completions", json=STREAM, headers=headers
    ) as stream:
        lines = stream.iter_lines()
        next(lines)
        assert held(behind_ray) == 1
    deadline = time.monotonic() + 20
    while held(behind_ray) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert held(behind_ray) == 0


@pytest.mark.ray
@pytest.mark.parametrize("sent", [b"", b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\nx-slow: "])
def test_slow_headers_are_cut_off_by_the_proxy(behind_ray: Running, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", behind_ray.port)) as connection:
        connection.settimeout(HEAD_TIMEOUT_S * 10)
        connection.sendall(sent)
        assert connection.recv(1000).startswith(b"HTTP/1.1 408")
        assert connection.recv(1000) == b""


@pytest.mark.ray
@pytest.mark.parametrize(
    "head", [b"x-a: " + b"a" * 2**20, b"x-a: a\r\n" * 1000], ids=["a long one", "many"]
)
def test_floods_of_headers_are_cut_off_by_the_proxy(behind_ray: Running, head: bytes) -> None:
    request = b"GET /health HTTP/1.1\r\nhost: x\r\n" + head + b"\r\n\r\n"
    with socket.create_connection(("127.0.0.1", behind_ray.port)) as connection:
        connection.settimeout(10)
        answer = b""
        try:
            connection.sendall(request)
            answer = connection.recv(1000)
        except (BrokenPipeError, ConnectionResetError):
            pass
    assert answer.partition(b"\r\n")[0] in (b"", b"HTTP/1.1 400 Bad request"), answer[:100]
    assert httpx.get(f"{behind_ray.url}/health").status_code == 200


@pytest.mark.ray
def test_streams_of_a_killed_replica_end_detectably_and_a_new_one_serves(
    behind_ray: Running, record_property: Callable[[str, object], None]
) -> None:
    replica = process_of(behind_ray, "ray::ServeReplica")

    def read() -> str:
        """How a stream ended."""
        try:
            with httpx.stream(
                "POST", f"{behind_ray.url}/v1/completions", json=STREAM, timeout=60
            ) as stream:
                lines = [line for line in stream.iter_lines() if line]
        except httpx.TransportError as error:
            return type(error).__name__
        return lines[-1]

    with ThreadPoolExecutor(4) as readers:
        reading = [readers.submit(read) for _ in range(4)]
        deadline = time.monotonic() + 30
        while held(behind_ray) < 4 and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(1.0)
        os.kill(replica, signal.SIGKILL)
        recovery_s = wait_for(behind_ray, gone_first=True)
        ends = [future.result() for future in reading]
    # None looks like a text that ended by itself.
    assert all("Error" in end or "error" in end or end.endswith("[DONE]") for end in ends), ends
    assert not any(end.endswith("[DONE]") for end in ends), ends
    assert process_of(behind_ray, "ray::ServeReplica") != replica
    assert held(behind_ray) == 0
    record_property("recovery_s", round(recovery_s, 1))
    print(f"a new replica served after {recovery_s:.1f} s")


@pytest.mark.ray
def test_a_killed_proxy_is_replaced_and_leaves_no_orphan(
    behind_ray: Running, record_property: Callable[[str, object], None]
) -> None:
    proxy = process_of(behind_ray, "/bin/haproxy")
    os.kill(proxy, signal.SIGKILL)
    outage_s = wait_for(behind_ray, gone_first=True)
    assert process_of(behind_ray, "/bin/haproxy") != proxy
    record_property("outage_s", round(outage_s, 1))
    print(f"a new proxy served after {outage_s:.1f} s")


@pytest.mark.ray
def test_sigterm_lets_what_runs_end(smollm2_artifact: Artifact, tmp_path: Path) -> None:
    # Longer than the three seconds after which Ray's own handler of the signal would abort.
    body = {"model": "smollm2", "prompt": "Once", "max_tokens": 120, "ignore_eos": True}
    # On a busy machine they take a while.
    settings = {"ANATOMY_DRAIN_TIMEOUT_S": "120"}
    artifact = str(smollm2_artifact.folder)
    with serve([artifact], log=tmp_path / "log", settings=settings) as service:
        assert service.process_id is not None

        def ask(stream: bool) -> tuple[int, str]:
            with httpx.Client(timeout=180) as client:
                answer = client.post(
                    f"{service.url}/v1/completions", json={**body, "stream": stream}
                )
                return answer.status_code, answer.text

        with ThreadPoolExecutor(8) as clients:
            asked = [clients.submit(ask, bool(number % 2)) for number in range(8)]
            deadline = time.monotonic() + RECOVERY_S
            while held(service, HELD + ENDED) < 8 and time.monotonic() < deadline:
                time.sleep(0.1)
            os.kill(service.process_id, signal.SIGTERM)
            answers = [future.result() for future in asked]
    assert [status for status, _ in answers] == [200] * 8
    assert all(text.rstrip().endswith("[DONE]") for _, text in answers[1::2])
    assert "Aborted" not in (log := (tmp_path / "log").read_text())
    assert "SIGTERM received" not in log


@pytest.mark.ray
def test_requests_are_answered_without_rays_control_service(
    minilm_artifact: Artifact, tmp_path: Path
) -> None:
    """For as long as Ray waits for it: without Redis a new one knows nothing of the old."""
    with serve([str(minilm_artifact.folder)], log=tmp_path / "log") as service:
        assert service.process_id is not None
        family = descendants(service.process_id)
        try:
            os.kill(process_of(service, "gcs_server"), signal.SIGKILL)
            body = {"model": "minilm", "input": "a"}
            for _ in range(20):
                answer = httpx.post(f"{service.url}/v1/embeddings", json=body)
                assert answer.status_code == 200
                time.sleep(0.25)
        finally:
            # Nobody is left who would end them; HAProxy may have been started anew meanwhile.
            for process in {service.process_id, *family, *descendants(service.process_id)}:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
