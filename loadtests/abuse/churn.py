"""Thousands of requests, many of them broken or left: what does the service still hold after them?

A share of clients behaves well, and has to be served as if it were alone; the others leave, stall
or send what can't be meant. Afterwards slots, queues, memory and file descriptors have to be where
they were.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import uvloop
from pydantic import TypeAdapter

from loadtests.abuse.clients import KINDS, Behaviour, Kind, Material
from loadtests.abuse.process import Holding, holding_of
from loadtests.gauges import gauges_of
from loadtests.http_load import Request, encode_post, read_status
from loadtests.machine import Machine, this_machine
from loadtests.open_loop import ask_once
from loadtests.service_process import HOST, Running
from loadtests.workloads import load_texts

CLIENTS = 16
ANSWER_TIMEOUT_S = 60.0
SETTLED_S = 6.0
"""Longer than a server keeps an idle connection."""
SEED = 1
SLOTS, CONTEXT = 8, 256
SETTINGS = {"ANATOMY_SLOTS": str(SLOTS), "ANATOMY_MAX_CONTEXT": str(CONTEXT)}
"""A small key-value cache, which is in use from end to end before anything is counted: it has its
size from the start, but the system counts a page of it when it is first written."""
FILLING = {"model": "smollm2", "prompt": [1], "max_tokens": CONTEXT - 1, "ignore_eos": True}
MOST_GROWTH = 0.03


class Unanswered(Exception):
    """A client that behaved got no answer, or one that is wrong for what it sent."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """After `requests`, when nothing was under way: what the process held, and its gauges."""

    requests: int
    holding: Holding
    gauges: dict[str, float]


@dataclass(frozen=True, slots=True)
class Churn:
    """What a run saw. `sent` counts requests by kind, `wrong` names the answers that were."""

    machine: Machine
    requests: int
    clients: int
    sent: dict[str, int]
    wrong: tuple[str, ...]
    snapshots: tuple[Snapshot, ...]

    @property
    def growth(self) -> float:
        """Of the process' own memory from the second snapshot, when all was warm, to the last.

        Of all its resident memory where its own was not looked at.
        """
        first, last = self.snapshots[1].holding, self.snapshots[-1].holding
        if first.own_bytes is None or last.own_bytes is None:
            return last.resident_bytes / first.resident_bytes - 1
        return last.own_bytes / first.own_bytes - 1

    @property
    def faults(self) -> list[str]:
        """What was promised and isn't so."""
        found = list(self.wrong)
        if self.growth > MOST_GROWTH:
            found.append(f"memory grew by {self.growth:.1%}; at most {MOST_GROWTH:.0%}")
        first, last = self.snapshots[1].holding, self.snapshots[-1].holding
        if last.descriptors != first.descriptors:
            found.append(f"{last.descriptors} descriptors are open, {first.descriptors} were")
        held = {name: value for name, value in self.snapshots[-1].gauges.items() if value}
        if held:
            found.append(f"something is still held: {held}")
        return found


def measure(service: Running, *, requests: int, every: int, is_over: Callable[[], bool]) -> Churn:
    """Send `requests`, and look at the process after each `every` of them.

    Less where `is_over` says so before one of the parts: at least two are sent.
    """
    if service.process_id is None:
        raise ValueError("only a process of one's own can be looked into")
    chance = random.Random(SEED)
    material = Material(chance, load_texts())
    weights = [kind.weight for kind in KINDS]
    sent: Counter[str] = Counter()
    wrong: list[str] = []
    uvloop.run(fill_every_slot(service.port))
    snapshots = [look(service, service.process_id, 0)]
    for done in range(0, requests, every):
        if len(snapshots) > 2 and is_over():
            break
        kinds = chance.choices(KINDS, weights, k=min(every, requests - done))
        sent.update(kind.name for kind in kinds)
        made = [(kind, kind.make(material)) for kind in kinds]
        wrong += uvloop.run(send_all(service.port, made, chance))
        time.sleep(SETTLED_S)
        snapshots.append(look(service, service.process_id, done + len(kinds)))
    return Churn(
        machine=this_machine(),
        requests=sent.total(),
        clients=CLIENTS,
        sent=dict(sent),
        wrong=tuple(wrong),
        snapshots=tuple(snapshots),
    )


def look(service: Running, process_id: int, requests: int) -> Snapshot:
    with httpx.Client() as client:
        exposition = client.get(f"{service.url}/metrics").text
    # Its own connection is closed when the process is looked at.
    time.sleep(0.2)
    return Snapshot(requests, holding_of(process_id), gauges_of(exposition))


async def fill_every_slot(port: int) -> None:
    """Generate to the end of the context in all slots at once."""
    request = Request("filling", encode_post("/v1/completions", HOST, FILLING))
    async with asyncio.TaskGroup() as group:
        filling = [group.create_task(ask_once(HOST, port, request)) for _ in range(SLOTS)]
    for answer in filling:
        if answer.result().status != 200:
            raise Unanswered(f"status {answer.result().status}")


async def send_all(
    port: int, requests: Sequence[tuple[Kind, bytes]], chance: random.Random
) -> list[str]:
    """Send them by `CLIENTS` clients, in turn; gives what was wrong with the answers."""
    left, wrong = iter(requests), list[str]()

    async def client() -> None:
        for kind, request in left:
            try:
                async with asyncio.timeout(ANSWER_TIMEOUT_S):
                    await send(port, kind, request, chance.random())
            except (Unanswered, OSError, asyncio.IncompleteReadError, TimeoutError) as error:
                wrong.append(f"{kind.name}: {error!r}")

    async with asyncio.TaskGroup() as group:
        for _ in range(CLIENTS):
            group.create_task(client())
    return wrong


async def send(port: int, kind: Kind, request: bytes, when: float) -> None:
    """One request as its client behaves; `when`, 0 to 1, says how soon it leaves."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        if kind.behaviour is Behaviour.SENDS_HALF:
            writer.write(request[: int(len(request) * when)])
            await writer.drain()
            return
        writer.write(request)
        if kind.behaviour is Behaviour.LEAVES:
            await asyncio.sleep(when * 0.02)
            return
        if kind.behaviour is Behaviour.READS_SOME:
            status = int((await reader.readline()).split(b" ", 2)[1])
            for _ in range(int(4 + when * 12)):
                await reader.readline()
        else:
            status = await read_status(reader)
        if status not in kind.statuses:
            raise Unanswered(f"status {status}")
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


def read(path: Path) -> Churn:
    """What a run has left."""
    return TypeAdapter(Churn).validate_json(path.read_bytes())


def write(found: Churn, path: Path) -> None:
    """For the page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(TypeAdapter(Churn).dump_json(found, indent=1) + b"\n")
