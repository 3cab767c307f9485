"""The contenders of one job, running side by side: started, asked all together, dropped by name."""

import os
import subprocess
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from export.catalogue import EMBEDDED
from loadtests.machine import core_count
from loadtests.peers.comparison import Missing
from loadtests.peers.contenders import Contender
from loadtests.peers.environments import interpreter_of
from loadtests.peers.limits import Limits, limits_from
from loadtests.peers.worker_process import Report, Worker, WorkerFailed, worker
from model_core.checkpoints.sources import Located, locate

WORKERS = Path(__file__).with_name("workers")
SERVICE_CACHE = "ANATOMY_CACHE_FOLDER"


@dataclass(frozen=True, slots=True)
class Run:
    """What one call of the command was asked for.

    `against` names peers or environments, shell patterns allowed; none: all. `only` does the same
    for a job's variants. What happens meanwhile goes to `report`.
    """

    cache: Path
    rounds: int
    against: tuple[str, ...]
    only: tuple[str, ...]
    report: Report

    @property
    def folder(self) -> Path:
        """Where environments, conversions and logs are kept."""
        return self.cache / "peers"

    def takes(self, contender: Contender) -> bool:
        names = contender.name, contender.environment.name if contender.environment else ""
        wanted = not self.against or any(
            fnmatch(name, pattern) for name in names for pattern in self.against
        )
        return contender.is_ours or wanted

    def wants(self, variant: str) -> bool:
        return not self.only or any(fnmatch(variant, pattern) for pattern in self.only)


@dataclass(slots=True)
class Stage:
    """The workers that still take part, and those that don't any more."""

    contenders: Mapping[str, Contender]
    report: Report
    workers: dict[str, Worker] = field(default_factory=dict[str, Worker])
    missing: list[Missing] = field(default_factory=list[Missing])

    def drop(self, name: str, reason: str) -> None:
        """Leave a contender out from now on, and say so."""
        self.report(f"{name} is left out: {reason}")
        self.workers.pop(name, None)
        self.missing.append(Missing(name, summary(reason)))

    def ask_all(self, do: str, **arguments: Any) -> dict[str, dict[str, Any]]:
        """The answers of all that take part, by name; who fails is dropped."""
        answers: dict[str, dict[str, Any]] = {}
        for name, one in list(self.workers.items()):
            self.report(f"{do}: {name} …")
            try:
                answers[name] = one.ask(do, **arguments)
            except WorkerFailed as error:
                self.drop(name, str(error))
        return answers

    def ours(self) -> Worker:
        """One of ours, for questions about the work itself."""
        for name, one in self.workers.items():
            if self.contenders[name].is_ours:
                return one
        raise WorkerFailed("none of ours is running; their logs say why")


@contextmanager
def stage(contenders: Sequence[Contender], run: Run) -> Generator[Stage]:
    """Those of `contenders` that the run takes, installed and started; logs are in its folder."""
    run.folder.mkdir(parents=True, exist_ok=True)
    chosen = {one.name: one for one in contenders if run.takes(one)}
    with ExitStack() as stack:
        found = Stage(chosen, run.report)
        for name, contender in chosen.items():
            try:
                command = command_of(contender, run)
            except (OSError, subprocess.CalledProcessError) as error:
                found.drop(name, f"its installation failed: {error}")
                continue
            started = worker(
                command, log=run.folder / f"{name}.log", environment=environment_of(run)
            )
            found.workers[name] = stack.enter_context(started)
        yield found


def command_of(contender: Contender, run: Run) -> list[str]:
    """What starts a contender; its environment is installed where it isn't there.

    Raises `subprocess.CalledProcessError` when that fails.
    """
    arguments = arguments_of(contender, run)
    if contender.environment is None:
        return [sys.executable, "-m", f"loadtests.peers.{contender.script}", *arguments]
    run.report(f"installing {contender.environment.name} unless it is there …")
    python = interpreter_of(contender.environment, run.folder)
    return [str(python), str(WORKERS / contender.script), *arguments]


def arguments_of(contender: Contender, run: Run) -> list[str]:
    """The contender's arguments with places filled in; weights are fetched where they are named."""
    text = " ".join(contender.arguments)
    builds = run.folder / "builds"
    builds.mkdir(parents=True, exist_ok=True)
    places = {"builds": str(builds), "threads": str(core_count())}
    if "{minilm}" in text:
        places["minilm"] = str(fetch("minilm", run.cache).files["config.json"].parent)
    if "{gguf}" in text:
        places["gguf"] = str(fetch("smollm2", run.cache).gguf)
    return [argument.format_map(places) for argument in contender.arguments]


def environment_of(run: Run) -> dict[str, str]:
    """The variables of every contender: ours export into the run's cache; no hub is asked."""
    return dict(os.environ) | {SERVICE_CACHE: str(run.cache), "HF_HUB_OFFLINE": "1"}


def fetch(model: str, cache: Path) -> Located:
    return locate(EMBEDDED[model].source, cache=cache)


def measure_limits(run: Run) -> Limits:
    """The machine's limits, by a process that ends before anything else is measured."""
    run.report("measuring the machine's limits …")
    run.folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(WORKERS / "limits.py")]
    with worker(command, log=run.folder / "limits.log") as one:
        return limits_from(one.ask("measure", threads=core_count()))


def summary(reason: str, length: int = 300) -> str:
    """One line without folders: what a table of figures can hold, and any reader may see."""
    line = " ".join(word.rsplit("/", 1)[-1] for word in reason.split())
    return line if len(line) <= length else line[: length - 2] + " …"
