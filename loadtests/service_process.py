"""An `anatomy serve` of one's own: started on a free port, waited for, and ended with its group."""

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from loadtests.target import OWN_VARIABLES

HOST = "127.0.0.1"
# Between the ports of Ray's workers (10002 to 19999) and those of its replicas (30000 on).
QUIET_PORTS = range(20000, 30000)
STOP_TIMEOUT_S = 45.0  # Serve drains a replica for at least 35 s when it still has requests


class ServiceDidNotStart(Exception):
    """The service ended, or wasn't ready in time; the message has the end of its log."""


@dataclass(frozen=True, slots=True)
class Running:
    """A service that answered `/ready` with 200. `process_id` is that of `anatomy serve`."""

    port: int
    process_id: int | None = None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"


@contextmanager
def serve(
    arguments: Sequence[str],
    *,
    log: Path,
    start_timeout_s: float = 600.0,
    program: str | None = None,
    settings: Mapping[str, str] | None = None,
    port: int | None = None,
) -> Iterator[Running]:
    """Run `anatomy serve` with `arguments` on the loopback until the block ends.

    Its port is a free one, unless `port` names it. `program` is another installation's `anatomy`,
    `settings` are variables of its environment beside those that are there.
    """
    port = port or free_port()
    command = [program or anatomy_program(), "serve", *arguments, "--port", str(port)]
    # The service refuses ANATOMY_ variables that it doesn't know; these are the load tests' own.
    environment = {name: value for name, value in os.environ.items() if name not in OWN_VARIABLES}
    environment |= settings or {}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,
        )
    try:
        with told_to_end():
            wait_until_ready(process, f"http://{HOST}:{port}/ready", log, start_timeout_s)
            yield Running(port, process.pid)
    finally:
        stop(process)


@contextmanager
def told_to_end() -> Iterator[None]:
    """SIGTERM as `SystemExit`, as Ctrl-C is an exception: what was started is stopped then too."""

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def anatomy_program() -> str:
    """The `anatomy` that was installed beside the running interpreter."""
    return str(Path(sys.executable).with_name("anatomy"))


def free_port() -> int:
    """A port that nothing on loopback listens on, nor goes out from before the service has it.

    The operating system's own choice is one that outgoing connections use as well: behind Ray
    several hundred are made before the service listens, and one of them may take it.
    """
    for port in random.sample(QUIET_PORTS, len(QUIET_PORTS)):
        with socket.socket() as probe, suppress(OSError):
            probe.bind((HOST, port))
            return port
    raise OSError(f"no port of {QUIET_PORTS} is free on {HOST}")


def wait_until_ready(
    process: subprocess.Popen[bytes], url: str, log: Path, timeout_s: float
) -> None:
    """Poll `url` until it answers 200: a connection alone proves nothing (a front may answer)."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServiceDidNotStart(f"it ended with status {process.returncode}:\n{tail(log)}")
        with suppress(httpx.TransportError):
            if httpx.get(url, timeout=2.0).status_code == 200:
                return
        time.sleep(0.2)
    raise ServiceDidNotStart(f"not ready after {timeout_s:.0f} s:\n{tail(log)}")


def tail(log: Path, lines: int = 30) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ask as Ctrl-C does; what is left of the group after that is killed."""
    for request, wait_s in ((signal.SIGINT, STOP_TIMEOUT_S), (signal.SIGKILL, 10.0)):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, request)
        with suppress(subprocess.TimeoutExpired):
            process.wait(wait_s)
    # Both signals are sent even if the leader left at the first: children of it may not have.
