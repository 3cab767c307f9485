"""Metrics of several processes on one machine: a folder in which each keeps what it has counted.

prometheus_client's multiprocess mode. It is chosen when that is imported, by the variable
`PROMETHEUS_MULTIPROC_DIR` that names the folder: `service.ray_serve` sets it in each replica.

A process holds a lock on a file of its own for as long as it lives. Who reads the metrics finds
out by these which have died, and takes their gauges away; what they counted stays. A lock is
let go of by the kernel, whatever a process dies of, and doesn't mistake another with its number.
One that was asked to end says so in its file, so that the others can be counted.
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
ASKED = b"asked to end"


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

    def end(self) -> None:
        """This process was asked to end."""
        (self._folder / f"{os.getpid()}{ALIVE}").write_bytes(ASKED)

    def forget_dead(self) -> int:
        """Take away the gauges of those that have died; how many of them were not asked to end.

        Each is found by one reader, once.
        """
        unasked = 0
        for path in self._folder.glob(f"*{ALIVE}"):
            if int(path.stem) != os.getpid():
                unasked += self._forget_if_dead(path)
        return unasked

    def read(self) -> bytes:
        """What all processes have counted, and the gauges of those that are not forgotten."""
        return generate_latest(self._registry)

    def _forget_if_dead(self, path: Path) -> bool:
        """Whether it died, and was not asked to."""
        lock = locked(path, wait=False)
        if lock is None:
            return False
        try:
            mark_process_dead(int(path.stem), str(self._folder))
            path.unlink()
            return os.pread(lock, len(ASKED), 0) != ASKED
        finally:
            os.close(lock)


def locked(path: Path, *, wait: bool) -> int | None:
    """A descriptor that holds the lock on the file at `path` until it is closed.

    To wait is for its owner, who makes the file if need be; another gets None where somebody has
    the lock, or where the file is gone.
    """
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | (os.O_CREAT if wait else 0), 0o600)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(descriptor)
            return None
        if os.fstat(descriptor).st_nlink:
            return descriptor
        # Who had it before has removed it, and a lock on it means nothing.
        os.close(descriptor)
