"""The process of `anatomy serve --plain`: how it ends."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import httpx
import pytest

from loadtests.service_process import HOST, free_port

# The real runner over a model that takes its time; the models alone are not the real ones.
PROGRAM = """
import sys
from service import plain
from service.metrics import Metrics
from service.settings import ServiceSettings
from tests.support.fakes import FakeGenerationModel
from tests.support.service import served
port, pause_s, drain_s = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
model = FakeGenerationModel(script=["word "] * 20, pause_s=pause_s)
metrics = Metrics()
metrics.watch_generation("generator", lambda: len(model.started), lambda: 0.0, lambda: 0.0)
app = served(generator=model, metrics=metrics)
plain.build_groups = lambda settings, groups: plain.Served(app, [])
plain.ANSWERING_S = 1.0
plain.run(ServiceSettings(port=port, drain_timeout_s=drain_s), [], lambda: None)
"""
BODY = {"model": "generator", "prompt": "a", "max_tokens": 100}


@contextmanager
def process(*, pause_s: float, stop_s: int) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    port = free_port()
    command = [sys.executable, "-c", PROGRAM, str(port), str(pause_s), str(stop_s)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as started:
        url = f"http://{HOST}:{port}"
        try:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                with suppress(httpx.TransportError):
                    if httpx.get(f"{url}/ready").status_code == 200:
                        break
                time.sleep(0.05)
            yield url, started
        finally:
            started.kill()


def ends_listening(url: str) -> bool:
    for _ in range(100):
        try:
            httpx.get(f"{url}/health")
        except httpx.TransportError:
            return True
        time.sleep(0.02)
    return False


def ask(url: str, stream: bool) -> tuple[int, str]:
    answer = httpx.post(f"{url}/v1/completions", json=BODY | {"stream": stream}, timeout=60)
    return answer.status_code, answer.text


def wait_for(url: str, running: int) -> None:
    """Until so many generations run."""
    wanted = f'vllm:num_requests_running{{model_name="generator"}} {float(running)}'
    deadline = time.monotonic() + 30
    while wanted not in httpx.get(f"{url}/metrics").text:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("name", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_lets_what_runs_end_and_refuses_what_comes(name: signal.Signals) -> None:
    with process(pause_s=0.1, stop_s=10) as (url, started), ThreadPoolExecutor(8) as clients:
        asked = [clients.submit(ask, url, bool(number % 2)) for number in range(8)]
        wait_for(url, running=8)
        os.kill(started.pid, name)
        assert ends_listening(url)
        answers = [future.result() for future in asked]
        started.wait(30)
    assert [status for status, _ in answers] == [200] * 8
    assert all("word word" in text for _, text in answers[::2])
    assert all(text.endswith("data: [DONE]\n\n") for _, text in answers[1::2])


def test_what_takes_longer_than_the_stop_may_is_cut_so_that_its_client_sees_it() -> None:
    with process(pause_s=2.0, stop_s=1) as (url, started), ThreadPoolExecutor(1) as clients:
        asked = clients.submit(ask, url, True)
        wait_for(url, running=1)
        os.kill(started.pid, signal.SIGTERM)
        started.wait(30)
        try:
            status, text = asked.result()
        except httpx.TransportError:
            return
    assert status >= 500 or not text.endswith("data: [DONE]\n\n") or '"error"' in text
