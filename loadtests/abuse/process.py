"""What a process holds, as the system counts it (`/proc`, Linux)."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Holding:
    """Resident memory in bytes, open file descriptors, threads.

    `own_bytes` of it are the process' own; the rest are pages of files, such as weights, which
    count when they are first read and which the system may drop at any time. None: not looked at.
    """

    resident_bytes: int
    descriptors: int
    threads: int
    own_bytes: int | None = None


def holding_of(process_id: int) -> Holding:
    """What a living process holds. Raises `ProcessLookupError` for one that has ended."""
    folder = Path("/proc") / str(process_id)
    try:
        lines = (folder / "status").read_text().splitlines()
        descriptors = len(list((folder / "fd").iterdir()))
    except FileNotFoundError as error:
        raise ProcessLookupError(f"process {process_id} has ended") from error
    said = dict(line.split(":", 1) for line in lines)
    resident, own = (int(said[name].split()[0]) * 1024 for name in ("VmRSS", "RssAnon"))
    return Holding(resident, descriptors, int(said["Threads"]), own)
