"""The capacity report: knees, growth, replicas, and docs/capacity.md from them.

    .venv/bin/python -m loadtests.capacity                 # all of it, a quarter of an hour
    .venv/bin/python -m loadtests.capacity knee chat       # the knee of one task
    .venv/bin/python -m loadtests.capacity growth length batch
    .venv/bin/python -m loadtests.capacity replicas        # needs wrk: make setup-tools
    .venv/bin/python -m loadtests.capacity report          # the page, from what runs have left

Services are started on loopback under plain uvicorn with the default models (`replicas`: behind Ray
Serve). Figures go to docs/benchmarks/capacity. Nothing else should run on the machine meanwhile.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from loadtests.capacity import growth as growing
from loadtests.capacity import knee as bending
from loadtests.capacity import replicas as replicating
from loadtests.capacity.report import write_report
from loadtests.peers.worker_process import WorkerFailed
from loadtests.service_process import Running, serve
from loadtests.slos import DEFAULT_FILE, SlosError, read_slos
from loadtests.tasks import CHAT, CLASSIFICATION, EMBEDDINGS, RERANK, TASKS
from service.settings import ServiceSettings

ROOT = Path(__file__).parents[2]
FIGURES = ROOT / "docs" / "benchmarks" / "capacity"
MODELS: Mapping[str, str] = {
    EMBEDDINGS.name: "minilm",
    CLASSIFICATION.name: "supersense",
    RERANK.name: "minilm",
    CHAT.name: "smollm2",
}
SECONDS: Mapping[str, float] = {CHAT.name: 15.0}
STEP_S = 6.0
"""Of an offered load; chats are few a second and take longer."""
SUBJECTS = ("length", "batch", "context", "models")

app = typer.Typer(add_completion=False, invoke_without_command=True, rich_markup_mode=None)
console = Console(stderr=True)


def say(line: str) -> None:
    console.print(line, soft_wrap=True, highlight=False)


@contextmanager
def served(*models: str) -> Iterator[Running]:
    """The models under plain uvicorn, as they are served by default."""
    with tempfile.TemporaryDirectory() as folder:
        say(f"starting anatomy serve {' '.join(models)} --plain …")
        with serve((*models, "--plain"), log=Path(folder) / "log") as running:
            yield running


def command_of(model: str) -> str:
    """How a model was served; the environment may have chosen its precision."""
    precision = ServiceSettings().precision
    chosen = f" --precision {precision}" if precision else ""
    return f"anatomy serve {model} --plain{chosen}"


@app.callback()
def everything(context: typer.Context) -> None:
    """Knees, growth and replicas, and the page from them, unless a part is named."""
    if context.invoked_subcommand is None:
        knee()
        growth()
        replicas()
        report()


@app.command()
def knee(
    tasks: Annotated[list[str] | None, typer.Argument(help="Tasks; all without.")] = None,
    slos: Annotated[Path, typer.Option(help="SLOs that good requests meet.")] = DEFAULT_FILE,
    seconds: Annotated[float | None, typer.Option(min=1, help="Of each offered load.")] = None,
    output: Annotated[Path, typer.Option(help="Folder of the figures.")] = FIGURES,
) -> None:
    """Offered load against goodput and latency, up to where SLOs break."""
    chosen = chosen_of(tasks, tuple(TASKS))
    try:
        objectives = read_slos(slos, tuple(TASKS))
    except SlosError as refused:
        raise typer.BadParameter(str(refused)) from refused
    for name in chosen:
        with served(MODELS[name]) as service:
            found = bending.measure(
                service, TASKS[name], MODELS[name], objectives,
                seconds=seconds or SECONDS.get(name, STEP_S),
                settings=command_of(MODELS[name]),
            )  # fmt: skip
        bending.write(found, output)
        for line in bending.lines_of(found):
            say(line)


@app.command()
def growth(
    subjects: Annotated[list[str] | None, typer.Argument(help=", ".join(SUBJECTS))] = None,
    seconds: Annotated[float, typer.Option(min=1, help="Of each place of an axis.")] = 3.0,
    output: Annotated[Path, typer.Option(help="Folder of the figures.")] = FIGURES,
) -> None:
    """How cost grows with length, batch, context, and models in a process."""
    chosen = chosen_of(subjects, SUBJECTS)
    encoders: dict[str, Callable[[Running, float], growing.Growth]] = {
        "length": growing.by_length,
        "batch": growing.by_batch,
    }
    found: list[growing.Growth] = []
    if wanted := [name for name in chosen if name in encoders]:
        with served("minilm") as service:
            found += [encoders[name](service, seconds) for name in wanted]
    if "context" in chosen:
        with served("smollm2") as service:
            found.append(growing.by_context(service))
    if "models" in chosen:
        found.append(growing.by_models(seconds, say))
    for each in found:
        growing.write(each, output)
        for point in each.points:
            values = ", ".join(f"{value:.1f} {unit}" for unit, value in point.figures.items())
            say(f"{point.at} {each.axis}: {values}")


@app.command()
def replicas(
    seconds: Annotated[int, typer.Option(min=1, help="Length of a round.")] = 6,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of each, in turns.")] = 3,
    output: Annotated[Path, typer.Option(help="Folder of the figures.")] = FIGURES,
) -> None:
    """One replica of one thread against two."""
    try:
        found = replicating.measure(seconds=seconds, rounds=rounds, report=say)
    except WorkerFailed as failed:
        raise SystemExit(str(failed)) from failed
    replicating.write(found, output)
    say(f"two against one: {found.ratio:.2f} ×")


@app.command()
def report() -> None:
    """Write docs/capacity.md from the figures that runs have left."""
    say(f"wrote {write_report(FIGURES, ROOT / 'docs')}")


def chosen_of(given: list[str] | None, accepted: tuple[str, ...]) -> list[str]:
    unknown = [name for name in given or () if name not in accepted]
    if unknown:
        raise typer.BadParameter(f"{unknown[0]!r}; accepted: {', '.join(accepted)}")
    return list(given or accepted)


if __name__ == "__main__":
    app()
