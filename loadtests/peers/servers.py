"""The job of the servers: one corpus text a request, in closed loops; one server at a time."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from loadtests.machine import this_machine
from loadtests.peers import http_peers
from loadtests.peers.comparison import (
    MILLISECONDS,
    Comparison,
    Figures,
    Missing,
    Turns,
    take_turns,
)
from loadtests.peers.contenders import SERVERS, Contender
from loadtests.peers.jobs import row_of
from loadtests.peers.stage import Run, summary
from loadtests.peers.worker_process import WorkerFailed
from loadtests.workloads import load_texts

CONNECTIONS = (1, 16, 64)
UNITS = ("requests/s", "p50" + MILLISECONDS, "p99" + MILLISECONDS)


def http(run: Run) -> Iterator[Comparison]:
    """MiniLM behind HTTP, by the number of connections.

    A server takes longer to start than to measure: it is measured with each number in its turn.
    """
    texts = load_texts()
    wanted = [number for number in CONNECTIONS if run.wants(str(number))]
    chosen = {one.name: one for one in SERVERS if run.takes(one)}
    described: dict[str, Mapping[str, Any]] = {}

    def turn(contender: Contender) -> Figures:
        described[contender.name], found = http_peers.measure(contender, run, texts, wanted)
        return {
            at(number, unit): figures[unit] for number, figures in found.items() for unit in UNITS
        }

    runs = {name: lambda one=one: turn(one) for name, one in chosen.items()}
    turns = take_turns(runs, run.rounds, run.report, WorkerFailed)
    for number in wanted:
        yield comparison(number, run, chosen, described, turns)


def at(connections: int, unit: str) -> str:
    """What a unit is called among those of one turn, which has several numbers of connections."""
    return f"{unit} at {connections}"


def comparison(
    connections: int,
    run: Run,
    chosen: Mapping[str, Contender],
    described: Mapping[str, Mapping[str, Any]],
    turns: Turns,
) -> Comparison:
    def figures_of(found: Mapping[str, Sequence[float]]) -> dict[str, tuple[float, ...]]:
        return {unit: tuple(found[at(connections, unit)]) for unit in UNITS}

    noun = "connection" if connections == 1 else "connections"
    return Comparison(
        job="http",
        variant=str(connections),
        title=f"MiniLM over HTTP, one text a request, {connections} {noun}",
        units=UNITS,
        agreement="",
        rounds=run.rounds,
        machine=this_machine(),
        limits=None,
        rows=tuple(
            row_of(chosen[name], described[name], figures_of(found))
            for name, found in turns.figures.items()
        ),
        missing=tuple(Missing(name, summary(why)) for name, why in turns.failures.items()),
    )
