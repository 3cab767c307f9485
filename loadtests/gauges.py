"""What the service says it has at hand, read from `/metrics`."""

import asyncio
import re
from collections.abc import Mapping

import httpx

WAITING_TEXTS = "te_queue_size"
RUNNING = "vllm:num_requests_running"
WAITING = "vllm:num_requests_waiting"
HELD: tuple[str, ...] = (RUNNING, WAITING, WAITING_TEXTS)

EVERY_S = 0.25


def gauges_of(exposition: str) -> dict[str, float]:
    """What is queued or running, of every model together."""
    found: dict[str, float] = dict.fromkeys(HELD, 0.0)
    for line in exposition.splitlines():
        name, _, value = re.sub(r"\{.*\}", "", line).partition(" ")
        if name in found:
            found[name] += float(value)
    return found


async def watch(url: str, over: asyncio.Event) -> Mapping[str, float]:
    """The mean of each gauge, looked at four times a second until `over` is set."""
    sums, looks = dict.fromkeys(HELD, 0.0), 0
    async with httpx.AsyncClient(base_url=url, timeout=30.0) as client:
        while not over.is_set():
            for name, value in gauges_of((await client.get("/metrics")).text).items():
                sums[name] += value
            looks += 1
            try:
                await asyncio.wait_for(over.wait(), EVERY_S)
            except TimeoutError:
                continue
    return {name: total / max(looks, 1) for name, total in sums.items()}
