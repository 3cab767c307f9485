"""What a process holds, as the system counts it (`/proc`, Linux)."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Holding:
    """Resident memory in bytes, open file descriptors, threads."""

    resident_bytes: int
    descriptors: int
    threads: int


def holding_of(process_id: int) -> Holding:
    """What a living process holds. Raises `ProcessLookupError` for one that has ended."""
    folder = Path("/proc") / str(process_id)
    try:
        lines = (folder / "status").read_text().splitlines()
        descriptors = len(list((folder / "fd").iterdir()))
    except FileNotFoundError as error:
        raise ProcessLookupError(f"process {process_id} has ended") from error
    said = dict(line.split(":", 1) for line in lines)
    kilobytes = int(said["VmRSS"].split()[0])
    return Holding(kilobytes * 1024, descriptors, int(said["Threads"]))
