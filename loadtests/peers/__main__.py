"""`python -m loadtests.peers JOB`: ours and others on the same work, in turns, in one run.

Peers are installed on first use, each into an environment of its own under the cache folder, and
run as processes beside ours. A run's raw figures go to `docs/benchmarks/`, a file for each
comparison; `report` makes the page and the plots of them. The weights are the embedded models' own.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from export.catalogue import default_cache_folder
from loadtests.peers import growth as growing
from loadtests.peers import jobs, servers
from loadtests.peers.comparison import Comparison, save
from loadtests.peers.report import write_report
from loadtests.peers.stage import Run
from loadtests.peers.table import absences, as_table, limits_table, settings_lines
from loadtests.peers.worker_process import WorkerFailed

DOCUMENTS = Path(__file__).parents[2] / "docs"
FIGURES = DOCUMENTS / "benchmarks"
NOBODY = "-"
"""A name that no peer has."""

app = typer.Typer(no_args_is_help=True, add_completion=False)
console = Console()
errors = Console(stderr=True)

Against = Annotated[
    list[str] | None,
    typer.Option(help="A peer or its environment, shell patterns allowed; else all."),
]
Only = Annotated[
    list[str] | None,
    typer.Option(help="A part of the job, such as 8x256, shell patterns allowed; else all."),
]
Rounds = Annotated[int, typer.Option(min=1, help="Rounds, each contender once a round.")]
Folder = Annotated[
    Path,
    typer.Option(
        help="Where peers are installed and weights fetched.", default_factory=default_cache_folder
    ),
]


@app.command()
def encoder(cache: Folder, against: Against = None, only: Only = None, rounds: Rounds = 5) -> None:
    """MiniLM over the corpus."""
    play(jobs.encoder, cache, against, only, rounds)


@app.command()
def decoder(cache: Folder, against: Against = None, only: Only = None, rounds: Rounds = 5) -> None:
    """SmolLM2-135M: prefill-256, and decoding ROWSxCONTEXT."""
    play(jobs.decoder, cache, against, only, rounds)


@app.command()
def translation(
    cache: Folder, against: Against = None, only: Only = None, rounds: Rounds = 5
) -> None:
    """An encoder-decoder of random weights."""
    play(jobs.translation, cache, against, only, rounds)


@app.command()
def http(cache: Folder, against: Against = None, only: Only = None, rounds: Rounds = 5) -> None:
    """Embeddings over HTTP, by connections: 1, 16, 64."""
    play(servers.http, cache, against, only, rounds)


@app.command()
def limits(cache: Folder) -> None:
    """The machine's own: products of matrices, and reading memory."""
    play(jobs.machine_limits, cache, None, None, rounds=1)


@app.command()
def growth(cache: Folder, against: Against = None, only: Only = None, rounds: Rounds = 3) -> None:
    """How figures grow with length, rows, context and queue: ours, and peers that are named."""
    peers = tuple(against) if against else (NOBODY,)
    for curve in growing.curves(Run(cache, rounds, peers, tuple(only or ()), errors.print)):
        errors.print(f"wrote {growing.save(curve, FIGURES)}")


@app.command()
def gpu(
    cache: Folder,
    rounds: Rounds = 5,
    device: Annotated[str, typer.Option(help="cuda, or cpu with --small.")] = "cuda",
    small: Annotated[
        bool, typer.Option("--small", help="Tiny shapes: shows that it runs, and nothing else.")
    ] = False,
) -> None:
    """Ours and PyTorch on a GPU: BERT's shape, Llama's of 1B, and MiniLM over HTTP."""
    # Here, because nothing else of this command needs torch and transformers.
    from loadtests.peers.gpu.device import GPU, PROCESSOR
    from loadtests.peers.gpu.jobs import gpu as job
    from loadtests.peers.gpu.models import FULL, SMALL

    chosen = GPU if device == "cuda" else PROCESSOR
    sizes = SMALL if small else FULL
    play(lambda run: job(run, chosen, sizes), cache, None, None, rounds, keep=not small)


@app.command()
def report() -> None:
    """The page and the plots, from the figures that are there."""
    errors.print(f"wrote {write_report(FIGURES, DOCUMENTS)}")


def play(
    job: Callable[[Run], Iterator[Comparison]],
    cache: Path,
    against: list[str] | None,
    only: list[str] | None,
    rounds: int,
    *,
    keep: bool = True,
) -> None:
    """Run a job; its comparisons are shown, and with `keep` saved, as soon as they are there."""
    run = Run(cache, rounds, tuple(against or ()), tuple(only or ()), errors.print)
    try:
        for found in job(run):
            show(found)
            if keep:
                errors.print(f"wrote {save(found, FIGURES)}")
    except WorkerFailed as error:  # one of ours, or the limits: there is nothing to compare
        errors.print(str(error))
        raise typer.Exit(1) from error


def show(found: Comparison) -> None:
    console.print(as_table(found) if found.rows else limits_table(found))
    for line in settings_lines(found):
        console.print(line, highlight=False)
    for name, reason in absences(found):
        console.print(f"{name}: no figures. {reason}")


if __name__ == "__main__":
    app()
