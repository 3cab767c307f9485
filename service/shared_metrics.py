"""Metrics of several processes on one machine: a folder in which each keeps what it has counted.

prometheus_client's multiprocess mode. It is chosen when that is imported, by the variable
`PROMETHEUS_MULTIPROC_DIR` that names the folder: `service.ray_serve` sets it in each replica.

A process holds a lock on a file of its own for as long as it lives. Who reads the metrics finds
out by these which have died, and takes their gauges away; what they counted stays. A lock is
let go of by the kernel, whatever a process dies of, and doesn't mistake another with its number.
"""

# prometheus_client leaves some of its annotations out; what they leave open stays inside this file.
# pyright: reportUnknownVariableType=false

import fcntl
import os
from pathlib import Path

from prometheus_client import CollectorRegistry, values
from prometheus_client.exposition import generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
ALIVE = ".alive"


def shared_folder() -> Path | None:
    """The folder that the environment names, if it names one."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else None


class SharedFolder:
    """This process's share in a folder of metrics, which is made if need be.

    Raises `RuntimeError` where prometheus_client was imported before the variable was set.
    """

    def __init__(self, folder: Path) -> None:
        if os.environ.get(VARIABLE) != str(folder) or values.ValueClass is values.MutexValue:
            raise RuntimeError(
                f"{VARIABLE} must name {folder} before prometheus_client is imported: it counts "
                "in this process alone"
            )
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        # Held to the end of the process. Waits for who clears away after one of the same number.
        self._alive = locked(folder / f"{os.getpid()}{ALIVE}", wait=True)
        self._registry = CollectorRegistry()
        MultiProcessCollector(self._registry, path=str(folder))

    def read(self) -> bytes:
        """What all processes have counted, and the gauges of those that live."""
        for path in self._folder.glob(f"*{ALIVE}"):
            if int(path.stem) != os.getpid():
                self._forget_if_dead(path)
        return generate_latest(self._registry)

    def _forget_if_dead(self, path: Path) -> None:
        lock = locked(path, wait=False)
        if lock is not None:
            mark_process_dead(int(path.stem), str(self._folder))
            os.close(lock)


def locked(path: Path, *, wait: bool) -> int | None:
    """A descriptor that holds the lock on `path` until it is closed; None if another has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
