"""A contender in a process of its own: a JSON object a line there, one back.

Both sides stay loaded and idle while the other runs, so rounds can alternate on the same machine.
"""

import json
import subprocess
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STOP_TIMEOUT_S = 20.0

Report = Callable[[str], None]
"""Told what happens meanwhile, a line each."""


class WorkerFailed(Exception):
    """A contender reported an error or ended; its log has the rest."""


@dataclass(frozen=True, slots=True)
class Worker:
    """A running contender. `ask("embed", texts=…)` waits for its answer."""

    process: subprocess.Popen[str]
    log: Path

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        if self.process.stdin is None or self.process.stdout is None:
            raise WorkerFailed("started without pipes")
        with suppress(BrokenPipeError):  # the missing answer says it, with the log
            self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise WorkerFailed(f"it ended at {do!r}; see {self.log}:\n{tail(self.log)}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerFailed(f"{do!r}: {answer['error']}; see {self.log}")
        return answer


@contextmanager
def worker(
    command: Sequence[str], *, log: Path, environment: Mapping[str, str] | None = None
) -> Generator[Worker]:
    """Start a contender; it ends when its input does, or is killed if it won't."""
    with log.open("w") as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
            text=True,
        )
    try:
        yield Worker(process, log)
    finally:
        stop(process)


def stop(process: subprocess.Popen[str]) -> None:
    if process.stdin is not None:
        with suppress(BrokenPipeError):
            process.stdin.close()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def tail(log: Path, lines: int = 15) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
