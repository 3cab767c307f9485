"""What looking inside costs those who don't: embeddings beside inspections, and without.

    .venv/bin/python -m loadtests.inspection_cost --seconds 15 --rounds 5

One service of `minilm` (fp32, plain uvicorn). Short texts arrive at random (a Poisson process) at
half the rate that a closed loop gets, in turns alone and with an inspection of a text of 32 tokens
each second: every layer's patterns, queries and keys. Latencies count from when a request was due.
"""

import asyncio
import json
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import httpx
import typer
import uvloop
from rich.console import Console
from rich.table import Table

from export.artifact import Artifact
from export.session import find_hardware
from loadtests.http_load import Request, drive, encode_post
from loadtests.open_loop import offer
from loadtests.rows import OK, Row, percentile_ms
from loadtests.service_process import HOST, Running, serve
from loadtests.workloads import cut_text, load_texts
from model_core.tokenization import Tokenizer
from service.exporting import artifact_of
from service.settings import ServiceSettings

PATH = "/v1/embeddings"
TEXT_TOKENS = INSPECTED_TOKENS = 32
CONNECTIONS = 16
WARM_UP_S = 3.0
GOAL = 1.5
PERIOD_S = 1.0


def measure(
    seconds: Annotated[float, typer.Option(min=2.0, help="Length of each side of a round.")] = 15.0,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds: alone, then beside.")] = 5,
    closed_s: Annotated[float, typer.Option(min=1.0, help="Of the closed loop.")] = 8.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print figures as JSON.")] = False,
) -> None:
    """p50 and p99 of embeddings under half load, alone and beside an inspection a second."""
    errors = Console(stderr=True)
    texts = short_texts()
    bodies = [{"model": "minilm", "input": text} for text in texts]
    requests = [Request("embeddings", encode_post(PATH, HOST, body)) for body in bodies]
    with tempfile.TemporaryDirectory() as folder:
        errors.print("starting anatomy serve minilm --plain --inspect …")
        arguments = ("minilm", "--plain", "--inspect")
        with serve(arguments, log=Path(folder) / "log") as running:
            asyncio.run(look(running, texts[0], WARM_UP_S))
            closed_rate(running, requests, WARM_UP_S)
            capacity = closed_rate(running, requests, closed_s)
            alone: list[Row] = []
            beside: list[Row] = []
            looks: list[float] = []
            for turn in range(rounds):
                errors.print(f"round {turn + 1} of {rounds} at {capacity / 2:.0f} requests/s …")
                alone += offered(running, requests, capacity / 2, seconds, seed=2 * turn)
                found, took = uvloop.run(
                    both(running, requests, capacity / 2, seconds, 2 * turn + 1, texts[turn])
                )
                beside += found
                looks += took
    figures = {
        "capacity": capacity,
        "requests": len(alone) + len(beside),
        "inspections": len(looks),
        "inspection_p50_ms": statistics.median(looks) * 1000,
        **{f"alone_p{p}_ms": latency_ms(alone, p) for p in (50, 99)},
        **{f"beside_p{p}_ms": latency_ms(beside, p) for p in (50, 99)},
    }
    figures["ratio"] = figures["beside_p99_ms"] / figures["alone_p99_ms"]
    if as_json:
        print(json.dumps(figures, indent=2))
        return
    table = Table("", "figure")
    for name, value in figures.items():
        table.add_row(name.replace("_", " "), f"{value:.2f}")
    Console().print(table, f"goal: a ratio of at most {GOAL}")


def short_texts() -> list[str]:
    """Texts of at most 32 tokens."""
    settings = ServiceSettings(models=("minilm",))
    artifact = Artifact.open(artifact_of("minilm", settings, find_hardware()))
    tokenizer = Tokenizer.load(artifact.folder)
    cut = (cut_text(text, tokenizer, TEXT_TOKENS) for text in load_texts())
    return [text for text in cut if text]  # a single long word leaves nothing


def closed_rate(service: Running, requests: Sequence[Request], seconds: float) -> float:
    """Requests/s that a closed loop gets."""
    result = uvloop.run(
        drive(HOST, service.port, requests, connections=CONNECTIONS, seconds=seconds)
    )
    if result.refused:
        raise SystemExit(f"a closed loop was refused: {result.refused}")
    return result.requests_per_s


def offered(
    service: Running, requests: Sequence[Request], rate: float, seconds: float, seed: int
) -> list[Row]:
    """What becomes of requests that arrive at `rate`."""
    return uvloop.run(offer(HOST, service.port, requests, rate=rate, seconds=seconds, seed=seed))


async def both(
    service: Running,
    requests: Sequence[Request],
    rate: float,
    seconds: float,
    seed: int,
    text: str,
) -> tuple[list[Row], list[float]]:
    """The same beside inspections, and what each of those took, in seconds."""
    looking = asyncio.create_task(look(service, text, seconds))
    outcomes = await offer(HOST, service.port, requests, rate=rate, seconds=seconds, seed=seed)
    return outcomes, await looking


async def look(service: Running, text: str, seconds: float) -> list[float]:
    """One inspection each second. Raises `httpx.HTTPStatusError` for one that is refused."""
    body = {"model": "minilm", "text": text, "include": ["pattern", "q", "k"]}
    headers = {"accept": "application/octet-stream"}
    took: list[float] = []
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    async with httpx.AsyncClient(base_url=service.url, timeout=60.0) as client:
        while (began := loop.time()) < until:
            answer = await client.post("/v1/inspect", json=body, headers=headers)
            answer.raise_for_status()
            took.append(loop.time() - began)
            await asyncio.sleep(max(0.0, min(until, began + PERIOD_S) - loop.time()))
    return took


def latency_ms(outcomes: Sequence[Row], percent: int) -> float:
    """Of requests that were answered; all have to be."""
    others = [outcome.status for outcome in outcomes if outcome.status != OK]
    found = percentile_ms([outcome.latency_s for outcome in outcomes], percent)
    if others or found is None:
        raise SystemExit(f"{len(others)} of {len(outcomes)} requests were not answered: {others}")
    return found


if __name__ == "__main__":
    typer.run(measure)
