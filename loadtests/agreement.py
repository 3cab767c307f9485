"""Do our generators and somebody else's see the same? NVIDIA's aiperf beside ours, on one service.

    .venv/bin/python -m loadtests.agreement chat --connections 4 --seconds 20 --rounds 3
    .venv/bin/python -m loadtests.agreement embeddings

In each round our own closed loop (`http_load`), locust's users and aiperf ask the same prompts over
as many connections, one after another. aiperf is installed into an environment of its own first.
It ends with 1 where a figure of aiperf's is further than `--within` from ours; figures go to
docs/benchmarks/agreement.
"""

import csv
import json
import random
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
import uvloop
from pydantic import TypeAdapter
from rich.console import Console

from export.session import find_hardware
from loadtests.http_load import LoadResult, Request, drive
from loadtests.locust_command import command_of
from loadtests.machine import Machine, this_machine
from loadtests.peers.contenders import Environment
from loadtests.peers.environments import interpreter_of
from loadtests.report.figures import TaskFigures, read_json
from loadtests.rows import percentile_ms
from loadtests.service_process import HOST, Running, serve
from loadtests.slos import DEFAULT_FILE
from loadtests.tasks import CHAT, EMBEDDINGS, Material, Task
from loadtests.workloads import load_texts
from service.client.calls import Call
from service.exporting import artifact_of
from service.settings import ServiceSettings

ROOT = Path(__file__).parents[1]
FIGURES = ROOT / "docs" / "benchmarks" / "agreement"
AIPERF = Environment("aiperf", ("aiperf==0.13.0",), torch=False)
TASKS = {CHAT.name: (CHAT, "smollm2"), EMBEDDINGS.name: (EMBEDDINGS, "minilm")}
OURS, LOCUST, THEIRS = "our closed loop", "locust", "aiperf"
WARM_UP_S = 3.0
PROMPTS = 2000
"""More than a round asks."""

RATE, WHOLE, FIRST, EACH = "requests/s", "whole answer, ms", "first token, ms", "per token, ms"
NAMES = {
    RATE: ("request_throughput", "avg"),
    WHOLE: ("request_latency", "p50"),
    FIRST: ("time_to_first_token", "p50"),
    EACH: ("inter_token_latency", "p50"),
}
"""aiperf's names; what it calls the inter-token latency is a mean over each stream, as EACH is."""

Figures = dict[str, float]
console = Console(stderr=True)


@dataclass(frozen=True, slots=True)
class Agreement:
    """Figures of each generator in each round: a rate, and medians in milliseconds."""

    machine: Machine
    task: str
    settings: str
    rounds: tuple[dict[str, Figures], ...]

    def median(self, generator: str, unit: str) -> float:
        return statistics.median(found[generator][unit] for found in self.rounds)

    def ratio(self, generator: str, unit: str) -> float:
        """Against our closed loop: the median of the rounds' ratios."""
        return statistics.median(
            found[generator][unit] / found[OURS][unit] for found in self.rounds
        )

    def units(self) -> list[str]:
        return list(self.rounds[0][OURS])

    def apart(self, within: float) -> list[str]:
        """Figures of aiperf's that are further from ours."""
        return [
            f"{unit}: {self.ratio(THEIRS, unit):.3f} of ours"
            for unit in self.units()
            if abs(self.ratio(THEIRS, unit) - 1) > within
        ]


def measure(
    task: Annotated[str, typer.Argument(help=" or ".join(TASKS))] = CHAT.name,
    connections: Annotated[int, typer.Option(min=1, help="Requests under way.")] = 4,
    seconds: Annotated[float, typer.Option(min=2, help="Of our part of a round.")] = 20.0,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds, each generator once.")] = 3,
    threads: Annotated[
        int, typer.Option(min=1, help="Of the service: generators want cores of their own.")
    ] = 1,
    within: Annotated[float, typer.Option(min=0, help="How far figures may be apart.")] = 0.1,
    python: Annotated[Path | None, typer.Option(help="An interpreter that has aiperf.")] = None,
    output: Annotated[Path, typer.Option(help="Folder of the figures.")] = FIGURES,
) -> None:
    """Ask the same of one service by three generators, in turns."""
    if task not in TASKS:
        raise typer.BadParameter(f"{task!r}; accepted: {', '.join(TASKS)}")
    settings = ServiceSettings()
    program = python or interpreter_of(AIPERF, settings.cache_folder / "peers")
    what, model = TASKS[task]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer = tokenizer_folder(artifact_of(model, settings, find_hardware()), folder)
        chosen = f" --precision {settings.precision}" if settings.precision else ""
        command = f"ANATOMY_THREADS={threads} anatomy serve {model} --plain{chosen}"
        console.print(f"starting {command} …")
        with serve(
            (model, "--plain"),
            log=folder / "service.log",
            settings={"ANATOMY_THREADS": str(threads)},
        ) as service:
            found: list[dict[str, Figures]] = []
            agreement: Agreement | None = None
            for turn in range(rounds):
                warm, mine, yours = (calls_of(what, f"{turn}{who}") for who in "abc")
                requests = [what.request_of(call) for call in mine]
                prompts = [prompt_of(call.body) for call in yours]
                drive_for(service, [what.request_of(c) for c in warm], connections, WARM_UP_S)
                ours = drive_for(service, requests, connections, seconds)
                figures = {
                    OURS: figures_of_ours(ours),
                    LOCUST: by_locust(service, task, connections, seconds, folder),
                    THEIRS: by_aiperf(
                        program, service, task, model, prompts[: len(ours.rows)], connections,
                        tokenizer, folder,
                    ),
                }  # fmt: skip
                console.print(f"round {turn + 1}: {json.dumps(figures)}", soft_wrap=True)
                found.append(figures)
                agreement = Agreement(
                    this_machine(), task, f"`{command}`, {connections} connections", tuple(found)
                )
                # After each: a run that is ended leaves what it has.
                write(agreement, output)
    if agreement is None:
        raise typer.Exit(1)
    for unit in agreement.units():
        console.print(
            f"{unit}: ours {agreement.median(OURS, unit):.2f}, locust "
            f"{agreement.ratio(LOCUST, unit):.3f} ×, aiperf {agreement.ratio(THEIRS, unit):.3f} ×"
        )
    for apart in agreement.apart(within):
        console.print(f"[red]apart:[/] {apart}")
    raise typer.Exit(1 if agreement.apart(within) else 0)


def calls_of(task: Task, mark: str) -> list[Call[Any]]:
    """The same texts for every mark, which they begin with: the service keeps the beginnings of
    prompts, and whoever comes second would be answered sooner.
    """
    material = Material(random.Random(2), [f"{mark} {text}" for text in load_texts()])
    return [task.call(material) for _ in range(PROMPTS)]


def prompt_of(body: Mapping[str, Any] | None) -> str:
    """The text of a request of one text or one message."""
    given = body or {}
    return given["input"][0] if "input" in given else given["messages"][0]["content"]


def drive_for(
    service: Running, requests: Sequence[Request], connections: int, seconds: float
) -> LoadResult:
    result = uvloop.run(
        drive(HOST, service.port, requests, connections=connections, seconds=seconds)
    )
    if result.refused or len(result.rows) < 2:
        raise SystemExit(f"{service.url} answered {result.refused or 'hardly anything'}")
    return result


def figures_of_ours(result: LoadResult) -> Figures:
    rows = result.answered
    each = [s for row in rows if (s := row.time_per_output_token_s) is not None]
    firsts = [row.first_token_s for row in rows if row.first_token_s is not None]
    times = {WHOLE: [row.latency_s for row in rows], FIRST: firsts, EACH: each}
    medians = {unit: percentile_ms(seconds, 50) for unit, seconds in times.items()}
    found = {unit: value for unit, value in medians.items() if value is not None}
    return {RATE: result.requests_per_s, **found}


def by_locust(service: Running, task: str, users: int, seconds: float, folder: Path) -> Figures:
    user = {CHAT.name: "ChatUser", EMBEDDINGS.name: "EmbeddingsUser"}[task]
    report = folder / "locust"
    command = command_of(
        user, service.url, seconds=seconds, users=users, slos=DEFAULT_FILE, report=report
    )
    # Whether SLOs are kept isn't the question here.
    subprocess.run(command, check=False, capture_output=True)
    total: TaskFigures = read_json(report / "figures.json").total
    medians = {
        WHOLE: total.end_to_end_ms["p50"],
        FIRST: total.first_token_ms["p50"],
        EACH: total.time_per_output_token_ms["p50"],
    }
    found = {unit: value for unit, value in medians.items() if value is not None}
    # Until the last answer, as the other two count: what was under way at the end is in it.
    with (report / "rows.csv").open(newline="", encoding="utf-8") as file:
        ends = [float(row["due_s"]) + float(row["latency_s"]) for row in csv.DictReader(file)]
    return {RATE: total.answered / max(ends), **found}


def by_aiperf(
    python: Path, service: Running, task: str, model: str, prompts: Sequence[str],
    connections: int, tokenizer: Path, folder: Path,
) -> Figures:  # fmt: skip
    """As many requests as there are prompts. Raises `SystemExit` where it fails."""
    file, reports = folder / "prompts.jsonl", folder / "aiperf"
    file.write_text("".join(json.dumps({"text": prompt}) + "\n" for prompt in prompts))
    command = [
        str(python.with_name("aiperf")), "profile", "--model-names", model, "--url", service.url,
        "--endpoint-type", "embeddings" if task == EMBEDDINGS.name else "chat",
        "--input-file", str(file), "--custom-dataset-type", "single_turn",
        "--dataset-sampling-strategy", "sequential", "--concurrency", str(connections),
        "--request-count", str(len(prompts)), "--tokenizer", str(tokenizer), "--ui", "none",
        "--no-auto-plot", "--no-server-metrics", "--no-gpu-telemetry",
        # A process of each kind: more would take the cores that they measure.
        "--workers-max", "1", "--record-processors", "1",
        "--output-artifact-dir", str(reports),
    ]  # fmt: skip
    if task == CHAT.name:
        extra = {"max_tokens": 64, "temperature": 0}
        command += ["--streaming", "--extra-inputs", json.dumps(extra)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    export = reports / "profile_export_aiperf.json"
    if done.returncode != 0 or not export.is_file():
        raise SystemExit(f"aiperf ended with {done.returncode}:\n{done.stdout[-2000:]}")
    said = json.loads(export.read_text())
    shutil.rmtree(reports)
    if said["request_count"]["avg"] != len(prompts):
        raise SystemExit(f"aiperf got {said['request_count']['avg']} of {len(prompts)} answers")
    return {
        unit: said[name][which] for unit, (name, which) in NAMES.items() if name in said
    }  # fmt: skip


def tokenizer_folder(artifact: Path, folder: Path) -> Path:
    """The model's tokenizer as transformers reads one: aiperf counts tokens by it."""
    made = folder / "tokenizer"
    made.mkdir()
    shutil.copy(artifact / "tokenizer.json", made)
    described = {"tokenizer_class": "PreTrainedTokenizerFast"}
    (made / "tokenizer_config.json").write_text(json.dumps(described))
    return made


def write(found: Agreement, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{found.task}.json"
    file.write_bytes(TypeAdapter(Agreement).dump_json(found, indent=1) + b"\n")


def read_all(folder: Path) -> list[Agreement]:
    """What runs have left."""
    files = sorted(folder.glob("*.json"))
    return [TypeAdapter(Agreement).validate_json(path.read_bytes()) for path in files]


if __name__ == "__main__":
    typer.run(measure)
