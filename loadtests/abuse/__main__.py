"""Overload and misbehaving clients, against a service of one's own:

    .venv/bin/python -m loadtests.abuse overload      # twice the capacity for a minute
    .venv/bin/python -m loadtests.abuse churn         # 10,000 requests, many of them broken
    .venv/bin/python -m loadtests.abuse report        # docs/load.md from what both have left

Both start `anatomy serve --plain` with the default models on loopback, write their figures, and
end with status 1 where something that is promised doesn't hold.
"""

import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from loadtests import agreement
from loadtests.abuse import churn as churning
from loadtests.abuse import overload as overloading
from loadtests.abuse.report import write_report
from loadtests.service_process import Running, serve

ROOT = Path(__file__).parents[2]
FIGURES = ROOT / "docs" / "benchmarks" / "abuse"
ARGUMENTS = ("minilm", "smollm2", "--plain")

app = typer.Typer(add_completion=False, no_args_is_help=True)
console = Console(stderr=True)


@contextmanager
def service(settings: Mapping[str, str] | None = None) -> Iterator[Running]:
    """The default models under plain uvicorn."""
    with tempfile.TemporaryDirectory() as folder:
        console.print(f"starting anatomy serve {' '.join(ARGUMENTS)} …")
        with serve(ARGUMENTS, log=Path(folder) / "log", settings=settings) as running:
            yield running


@app.command()
def overload(
    factor: Annotated[float, typer.Option(min=1.0, help="Times the capacity.")] = 2.0,
    seconds: Annotated[float, typer.Option(min=2.0, help="Of the open loop.")] = 60.0,
    closed_s: Annotated[float, typer.Option(min=2.0, help="Of each closed loop.")] = 20.0,
    output: Annotated[Path, typer.Option(help="Where the figures go.")] = FIGURES / "overload.json",
) -> None:
    """Goodput, refusals and latencies at `factor` times the capacity."""
    with service() as running:
        found = overloading.measure(running, factor=factor, seconds=seconds, closed_s=closed_s)
    overloading.write(found, output)
    console.print(
        f"plateau {found.plateau:.1f}/s ({found.capacity_before:.1f}, {found.capacity_after:.1f}), "
        f"offered {found.rate:.1f}/s, goodput {found.goodput:.1f}/s; "
        f"{found.answered} answered, {found.refused} refused, {found.lost} lost"
    )
    console.print(f"answers {found.answer_ms}, refusals {found.refusal_ms}, lag {found.lag_ms} ms")
    end(found.faults)


@app.command()
def churn(
    requests: Annotated[int, typer.Option(min=2, help="How many in all.")] = 10_000,
    every: Annotated[
        int, typer.Option(min=1, help="The process is looked at after so many.")
    ] = 1_000,
    seconds: Annotated[float, typer.Option(help="No part begins after so long.")] = 1800.0,
    output: Annotated[Path, typer.Option(help="Where the figures go.")] = FIGURES / "churn.json",
) -> None:
    """What the service still holds after clients that leave, stall and send nonsense."""
    with service(churning.SETTINGS) as running:
        end_s = time.monotonic() + seconds
        found = churning.measure(
            running, requests=requests, every=every, is_over=lambda: time.monotonic() > end_s
        )
    churning.write(found, output)
    for at in found.snapshots:
        held = at.holding
        console.print(
            f"{at.requests:>6} requests: {held.resident_bytes / 2**20:.0f} MiB, "
            f"{held.descriptors} descriptors, {held.threads} threads, {at.gauges}"
        )
    console.print(f"memory {found.growth:+.2%}")
    end(found.faults)


@app.command()
def report() -> None:
    """Write docs/load.md from the figures that both have left."""
    overload = overloading.read(FIGURES / "overload.json")
    churn = churning.read(FIGURES / "churn.json")
    said = {name: (FIGURES / f"{name}.md").read_text("utf-8") for name in ("usage", "remarks")}
    agreements = agreement.read_all(agreement.FIGURES)
    page = write_report(overload, churn, ROOT / "docs", agreements=agreements, **said)
    console.print(f"wrote {page}")


def end(faults: list[str]) -> None:
    for fault in faults:
        console.print(f"[red]not met:[/] {fault}")
    raise typer.Exit(1 if faults else 0)


if __name__ == "__main__":
    app()
