"""What long prompts do to streams that run, and what their beginnings save those that come later.

    .venv/bin/python -m loadtests.long_prompts --chunk 32 --chunk 64 --chunk 256

For each chunk of prefill a service of `smollm2` under plain uvicorn is started and asked, over
HTTP: the gaps between the tokens of some streams, alone for a while and beside a long prompt, by
turns; the time to the first token of a long prompt; and of two that begin alike.
"""

import asyncio
import json
import random
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.table import Table

from loadtests.service_process import serve
from loadtests.sse import DONE, EventParser, StreamBroken
from service.settings import ServiceSettings

PATH = "/v1/completions"
VOCABULARY = range(100, 40_000)
SHORT_TOKENS, TAIL_TOKENS = 60, 20
SETTLED = 10
"""Tokens of each stream before its gaps count."""
IDLE_S = 3.0
"""Between two long prompts: a step takes longer as streams grow, so that they are compared with
themselves, no longer and no shorter."""
ENDLESS_TOKENS = 1_900


@dataclass
class Stream:
    """When the tokens of a stream came; `settled` once there are some."""

    times: list[float] = field(default_factory=list)
    settled: asyncio.Event = field(default_factory=asyncio.Event)

    def gaps(self, began: float, ended: float) -> list[float]:
        """Between neighbours that both lie between two moments."""
        pairs = pairwise(self.times[SETTLED:])
        return [later - sooner for sooner, later in pairs if began <= sooner and later <= ended]


def measure(
    chunk: Annotated[
        list[int] | None,
        typer.Option(help="Prompt tokens between two steps; the service's own default without it."),
    ] = None,
    streams: Annotated[int, typer.Option(min=1, help="Streams that run.")] = 8,
    tokens: Annotated[int, typer.Option(min=100, max=2000, help="Of a long prompt.")] = 1500,
    prompts: Annotated[int, typer.Option(min=2, help="Long prompts, one after another.")] = 6,
    as_json: Annotated[bool, typer.Option("--json", help="Print figures as JSON.")] = False,
) -> None:
    """Gaps between tokens, alone and beside long prompts, and times to first tokens."""
    found: dict[int, dict[str, float]] = {}
    errors = Console(stderr=True)
    for size in chunk or [ServiceSettings().prefill_chunk]:
        errors.print(f"a service with chunks of {size} tokens …")
        with tempfile.TemporaryDirectory() as folder:
            settings = {"ANATOMY_PREFILL_CHUNK": str(size)}
            log = Path(folder) / "service.log"
            with serve(("smollm2", "--plain"), log=log, settings=settings) as service:
                found[size] = asyncio.run(figures(service.url, streams, tokens, prompts))
        errors.print(json.dumps(found[size]), soft_wrap=True)
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        print_table(found)


async def figures(url: str, streams: int, tokens: int, prompts: int) -> dict[str, float]:
    """All that is measured of one service; seconds."""
    draw = random.Random(0)
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=120.0, limits=limits) as client:

        def text(length: int) -> list[int]:
            return draw.choices(VOCABULARY, k=length)

        await first_token(client, text(tokens))
        short = [text(SHORT_TOKENS) for _ in range(streams)]
        running = [Stream() for _ in short]
        tasks = [
            asyncio.create_task(collect(client, prompt, ENDLESS_TOKENS, stream))
            for prompt, stream in zip(short, running, strict=True)
        ]
        await asyncio.gather(*(stream.settled.wait() for stream in running))
        idle: list[float] = []
        busy: list[float] = []
        beside: list[float] = []
        for _ in range(prompts):
            began = time.perf_counter()
            await asyncio.sleep(IDLE_S)
            admitted = time.perf_counter()
            beside.append((await first_token(client, text(tokens)))[0])
            ended = time.perf_counter()
            for stream in running:
                idle += stream.gaps(began, admitted)
                busy += stream.gaps(admitted, ended)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

        firsts, seconds, cached = [], [], []
        for _ in range(prompts):
            beginning = text(tokens)
            for seen in (firsts, seconds):
                took, count = await first_token(client, [*beginning, *text(TAIL_TOKENS)])
                seen.append(took)
            cached.append(count)
    return {
        "idle_p50_s": statistics.median(idle),
        "busy_p50_s": statistics.median(busy),
        "busy_p99_s": statistics.quantiles(busy, n=100)[98],
        "ratio": statistics.quantiles(busy, n=100)[98] / statistics.median(idle),
        "first_token_beside_streams_s": statistics.median(beside),
        "first_token_s": statistics.median(firsts),
        "first_token_after_the_same_beginning_s": statistics.median(seconds),
        "cached_tokens": statistics.median(cached),
    }


async def collect(client: httpx.AsyncClient, prompt: list[int], count: int, stream: Stream) -> None:
    """Note when each of `count` tokens came."""
    async for body in events(client, prompt, count):
        if body["choices"]:
            stream.times.append(time.perf_counter())
        if len(stream.times) == SETTLED:
            stream.settled.set()


async def first_token(client: httpx.AsyncClient, prompt: list[int]) -> tuple[float, int]:
    """Seconds to the first token, and how many of the prompt's were there already."""
    began, took, cached = time.perf_counter(), 0.0, 0
    async for body in events(client, prompt, 1):
        took = took or time.perf_counter() - began
        if body["usage"]:
            cached = body["usage"]["prompt_tokens_details"]["cached_tokens"]
    return took, cached


async def events(
    client: httpx.AsyncClient, prompt: list[int], count: int
) -> AsyncIterator[dict[str, Any]]:
    """The events of a streamed completion. Raises `StreamBroken`."""
    body = {"model": "smollm2", "prompt": prompt, "max_tokens": count, "temperature": 0,
            "ignore_eos": True, "logprobs": 0, "stream": True,
            "stream_options": {"include_usage": True}}  # fmt: skip
    parser = EventParser()
    async with client.stream("POST", PATH, json=body) as response:
        if response.status_code != 200:
            raise StreamBroken((await response.aread()).decode())
        async for chunk in response.aiter_bytes():
            for data in parser.feed(chunk):
                if data == DONE:
                    return
                found = json.loads(data)
                if "error" in found:
                    raise StreamBroken(found["error"]["message"])
                yield found
    raise StreamBroken(f"the stream was cut before {DONE}")


def print_table(found: dict[int, dict[str, float]]) -> None:
    table = Table("", *(f"chunk {size}" for size in found))
    for name in next(iter(found.values())):
        values = (row[name] for row in found.values())
        in_ms = name.endswith("_s")
        said = name.removesuffix("_s").replace("_", " ") + (" ms" if in_ms else "")
        table.add_row(said, *(f"{v * 1000:.1f}" if in_ms else f"{v:.1f}" for v in values))
    Console().print(table)


if __name__ == "__main__":
    typer.run(measure)
