"""What Ray Serve costs: the same app and requests behind Ray Serve and under plain uvicorn.

    .venv/bin/python -m loadtests.ray_cost --connections 16 --seconds 10 --rounds 5

Both services run all the time and are driven in turns, so that both see the same machine; the one
that isn't driven idles. One corpus text a request goes to POST /v1/embeddings (`minilm`, fp32).
"""

import json
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer
import uvloop
from rich.console import Console
from rich.table import Table

from export.artifact import Artifact
from export.session import find_hardware
from loadtests.http_load import LoadResult, Request, drive, encode_post
from loadtests.service_process import HOST, Running, serve
from loadtests.workloads import cut_to_fit, load_texts
from model_core.tokenization import Tokenizer
from service.exporting import artifact_of
from service.settings import ServiceSettings

WARM_UP_S = 2.0
PATH = "/v1/embeddings"
CONTENDERS: Mapping[str, Sequence[str]] = {
    "plain uvicorn": ("minilm", "--plain"),
    "Ray Serve": ("minilm",),
}


def measure(
    connections: Annotated[int, typer.Option(min=1, help="Connections, a request each.")] = 16,
    seconds: Annotated[float, typer.Option(min=0.5, help="Length of a round.")] = 10.0,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of each, in turns.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print figures as JSON.")] = False,
    at_least: Annotated[
        float | None, typer.Option(help="Exit with status 1 if the ratio is smaller.")
    ] = None,
) -> None:
    """Requests/s, p50 and p99 behind Ray Serve and under plain uvicorn, and their ratio."""
    errors = Console(stderr=True)
    bodies = ({"model": "minilm", "input": text} for text in minilm_texts())
    requests = [Request("embeddings", encode_post(PATH, HOST, body)) for body in bodies]
    results: dict[str, list[LoadResult]] = {name: [] for name in CONTENDERS}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        running: dict[str, Running] = {}
        for name, arguments in CONTENDERS.items():
            errors.print(f"starting {name} …")
            log = folder / f"{name.replace(' ', '-')}.log"
            running[name] = stack.enter_context(serve(arguments, log=log))
            run_once(running[name], requests, connections, WARM_UP_S)
        for turn in range(rounds):
            for name, service in running.items():
                result = run_once(service, requests, connections, seconds)
                results[name].append(result)
                errors.print(f"round {turn + 1}: {name} {result.requests_per_s:.0f} requests/s")
        errors.print("stopping both …")
    figures = summarise(results)
    if as_json:
        print(json.dumps(figures, indent=2))
    else:
        print_table(figures)
    if at_least is not None and figures["ratio"] < at_least:
        errors.print(f"the ratio {figures['ratio']:.2f} is below {at_least}")
        raise typer.Exit(1)


def minilm_texts() -> tuple[str, ...]:
    """The corpus, cut to what `minilm` takes (a longer text is refused)."""
    settings = ServiceSettings()
    artifact = Artifact.open(artifact_of("minilm", settings, find_hardware()))
    tokenizer = Tokenizer.load(artifact.folder)
    return cut_to_fit(load_texts(), tokenizer, artifact.manifest.max_tokens)


def run_once(
    service: Running, requests: Sequence[Request], connections: int, seconds: float
) -> LoadResult:
    result = uvloop.run(
        drive(HOST, service.port, requests, connections=connections, seconds=seconds)
    )
    if result.refused or len(result.latencies_s) < 2:
        raise SystemExit(f"{service.url} answered {result.refused or 'hardly anything'}")
    return result


def summarise(results: Mapping[str, Sequence[LoadResult]]) -> dict:
    """Medians over the rounds, and the median of the rounds' ratios (neighbours in time)."""
    services = {
        name: {
            "requests_per_s": statistics.median(r.requests_per_s for r in rounds),
            "requests_per_s_range": [
                min(r.requests_per_s for r in rounds),
                max(r.requests_per_s for r in rounds),
            ],
            "p50_ms": statistics.median(r.percentile_ms(50) for r in rounds),
            "p99_ms": statistics.median(r.percentile_ms(99) for r in rounds),
        }
        for name, rounds in results.items()
    }
    plain, ray = results.values()
    ratios = [b.requests_per_s / a.requests_per_s for a, b in zip(plain, ray, strict=True)]
    return {"services": services, "ratio": statistics.median(ratios), "ratios": ratios}


def print_table(figures: dict) -> None:
    table = Table("", "requests/s", "range", "p50 ms", "p99 ms")
    for name, row in figures["services"].items():
        low, high = row["requests_per_s_range"]
        table.add_row(
            name,
            f"{row['requests_per_s']:.0f}",
            f"{low:.0f}–{high:.0f}",
            f"{row['p50_ms']:.1f}",
            f"{row['p99_ms']:.1f}",
        )
    console = Console()
    console.print(table)
    console.print(f"Ray Serve / plain uvicorn: {figures['ratio']:.2f}")


if __name__ == "__main__":
    typer.run(measure)
