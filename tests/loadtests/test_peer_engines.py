"""The pure parts of the decoders' and servers' comparison; the peers run in `loadtests.peers`."""

import json
import shutil
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from loadtests.peers.contenders import DECODERS, ENCODERS, SERVERS, TRANSLATORS
from loadtests.peers.http_peers import drive, read_figures
from loadtests.peers.stage import WORKERS
from loadtests.peers.worker_process import WorkerFailed
from loadtests.peers.workers.decoder_phases import Contender, Decoded, Phases, Prompts
from loadtests.service_process import HOST, Running

PROMPTS = [[row] * 300 for row in range(16)]


class Pretender:
    """A decoder that says how long it took: `slow` seconds a row beyond the fourth."""

    def __init__(self, base: float, slow: float) -> None:
        self.base = base
        self.slow = slow
        self.seen: list[tuple[int, int, int]] = []

    def prefill(self, prompts: Prompts) -> None:
        self.seen.append((len(prompts), len(prompts[0]), 0))

    def decode(self, prompts: Prompts, steps: int) -> Decoded:
        self.seen.append((len(prompts), len(prompts[0]), steps))
        seconds = self.base + self.slow * max(0, len(prompts) - 4)
        return Decoded(seconds, [[7] * (steps + 1)] * len(prompts))


def contender(few: Pretender, many: Pretender) -> Contender:
    phases = Phases(
        prefill={"few": few.prefill},
        decode={"few": few.decode, "many": many.decode},
    )
    return Contender("pretender", "1", lambda: phases)


def test_each_number_of_rows_keeps_its_fastest_setting() -> None:
    found = contender(Pretender(1.0, 1.0), Pretender(2.0, 0.0))
    described = found.prepare(PROMPTS)
    assert described["settings"] == (
        "prompts: few; steps: few (1 rows), few (4 rows), many (8 rows), many (16 rows)"
    )
    assert found.decode(PROMPTS[:1], 5) == {"seconds": 1.0}
    assert found.decode(PROMPTS[:16], 5) == {"seconds": 2.0}
    assert found.decode(PROMPTS[:7], 5) == {"seconds": 2.0}  # as 8, the nearest that was tried
    assert found.tokens(PROMPTS[:2], 3) == {"tokens": [[7] * 4] * 2}


def test_a_sweep_runs_short_contexts_and_whole_prompts() -> None:
    few = Pretender(1.0, 0.0)
    contender(few, Pretender(2.0, 0.0)).prepare(PROMPTS)
    assert {length for _, length, steps in few.seen if steps} == {128}
    assert not [length for _, length, steps in few.seen if not steps]  # one setting: none to choose


def test_one_setting_for_all_rows_is_said_once() -> None:
    found = contender(Pretender(1.0, 0.0), Pretender(2.0, 0.0))
    assert found.prepare(PROMPTS[:4])["settings"] == "prompts: few; steps: few"


def test_what_wrk_says_is_read() -> None:
    line = {"requests": 50, "seconds": 2.0, "p50_ms": 3.5, "p99_ms": 9.0, "errors": 0}
    output = f"Running 2s test\n  1 threads and 1 connections\n{json.dumps(line)}\n"
    assert read_figures(output) == {"requests/s": 25.0, "p50 ms": 3.5, "p99 ms": 9.0}
    with pytest.raises(WorkerFailed, match="3 of 50"):
        read_figures(json.dumps(line | {"errors": 3}))


@contextmanager
def answering(status: int, bodies: list[bytes]) -> Generator[Running]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(status)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002 - the base's

    server = ThreadingHTTPServer((HOST, 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield Running(server.server_address[1])
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
def test_wrk_posts_every_body_in_turn(tmp_path: Path) -> None:
    file = tmp_path / "bodies.jsonl"
    texts = [json.dumps({"input": word}) for word in ("one", "two", "drei", "ü")]
    file.write_text("\n".join(texts) + "\n")
    bodies: list[bytes] = []
    with answering(200, bodies) as server:
        figures = drive(server, file, 2, 1)
    assert figures["requests/s"] > 10
    assert 0 < figures["p50 ms"] <= figures["p99 ms"]
    assert {body.decode() for body in bodies} == set(texts)
    with answering(500, bodies) as server, pytest.raises(WorkerFailed, match="requests failed"):
        drive(server, file, 1, 1)


def test_every_contender_has_its_script() -> None:
    for one in (*ENCODERS, *DECODERS, *TRANSLATORS, *SERVERS):
        assert one.is_ours or (WORKERS / one.script).is_file()


def test_every_name_is_given_once() -> None:
    for job in (ENCODERS, DECODERS, TRANSLATORS, SERVERS):
        assert len({one.name for one in job}) == len(job)
