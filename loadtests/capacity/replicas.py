"""How throughput grows from one replica of one thread to two, by a generator that takes little."""

import json
import statistics
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from loadtests.capacity.growth import text_of
from loadtests.machine import Machine, this_machine
from loadtests.peers.http_peers import drive
from loadtests.service_process import Running, serve

FILE = "replicas.json"
COUNTS = (1, 2)
CONNECTIONS = 16
TOKENS = 64
WARM_UP_S = 2


@dataclass(frozen=True, slots=True)
class Replicas:
    """Requests/s of each round, by the number of replicas; rounds are neighbours in time."""

    machine: Machine
    settings: str
    requests_per_s: dict[int, tuple[float, ...]]

    def median(self, count: int) -> float:
        return statistics.median(self.requests_per_s[count])

    @property
    def ratio(self) -> float:
        """What two do against one: the median of the rounds' ratios."""
        one, two = (self.requests_per_s[count] for count in COUNTS)
        return statistics.median(b / a for a, b in zip(one, two, strict=True))


def measure(*, seconds: int, rounds: int, report: Callable[[str], None]) -> Replicas:
    """Both services run all the time and are driven in turns; the other idles.

    Raises `WorkerFailed` where wrk isn't installed or requests failed.
    """
    found: dict[int, list[float]] = {count: [] for count in COUNTS}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        bodies = folder / "bodies.jsonl"
        bodies.write_text(json.dumps({"model": "minilm", "input": text_of(TOKENS)}) + "\n")
        services: dict[int, Running] = {}
        for count in COUNTS:
            report(f"starting {count} of one thread behind Ray Serve …")
            settings = {"ANATOMY_REPLICAS": str(count), "ANATOMY_THREADS": "1"}
            log = folder / f"{count}.log"
            services[count] = stack.enter_context(serve(("minilm",), log=log, settings=settings))
            drive(services[count], bodies, CONNECTIONS, WARM_UP_S)
        for turn in range(rounds):
            for count, service in services.items():
                rate = drive(service, bodies, CONNECTIONS, seconds)["requests/s"]
                found[count].append(rate)
                report(f"round {turn + 1}: {count} × 1 thread, {rate:.0f} requests/s")
        report("stopping both …")
    return Replicas(
        this_machine(),
        f"minilm, a text of {TOKENS} tokens a request, wrk with {CONNECTIONS} connections",
        {count: tuple(rates) for count, rates in found.items()},
    )


def read(folder: Path) -> Replicas | None:
    """What a run has left, if one has."""
    path = folder / FILE
    return TypeAdapter(Replicas).validate_json(path.read_bytes()) if path.is_file() else None


def write(found: Replicas, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE
    path.write_bytes(TypeAdapter(Replicas).dump_json(found, indent=1) + b"\n")
    return path
